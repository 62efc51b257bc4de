"""What each step left of every source and provenance: counted right, told by every command, checked by verify."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import pytest
from runs import PublishedMix, anchormix

from pipeline.survival import LOST_AT, STEPS, differing_provenance, duplicates, survival
from transforms.kernels.bands import told_bands
from transforms.kernels.schemas import Fate

# Of 9 near copies, those with one and two words replaced are at or above the threshold of .8.
EXACT, NEAR, EMPTY, UNKNOWN = 6, 6, 3, 30
WEB = EXACT + 9 + EMPTY + UNKNOWN


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of known duplicates; two letters are excluded, and verified text may repeat."""
    folder = tmp_path_factory.mktemp("survival")
    corpus.minimal_config(
        folder,
        exclude=[{"doc_ids": ["letters-0", "letters-3"], "reason": "taken down"}],
        mix={"floors": {"human_verified": 0.6}, "epochs": {"human_verified": 2}},
    )
    return folder


@pytest.fixture(scope="module")
def told(project: Path) -> dict[str, dict[str, Any]]:
    """What index, plan and run say, in this order."""
    lines = {}
    for command in ("index", "plan", "run"):
        told = anchormix(command, project / "mix.yaml")
        assert told.exit == 0, told.stderr
        lines[command] = told.line
    return lines


def documents(steps: dict[str, dict[str, Any]]) -> list[int]:
    return [steps[step]["documents"] for step in STEPS if step in steps]


def test_a_document_is_lost_at_one_step() -> None:
    assert Counter(fate for lost in LOST_AT.values() for fate in lost) == Counter(set(Fate) - {Fate.KEPT})


def test_steps_of_an_account_by_hand() -> None:
    cells = [
        ["human", "kept", 4, 400],
        ["human", "empty", 1, 0],
        ["unknown", "kept", 1, 70],
        ["unknown", "exact_duplicate", 3, 90],
        ["unknown", "near_duplicate", 2, 20],
        ["unknown", "seen_before", 1, 10],
        ["unknown", "held_out", 1, 10],
    ]
    found = survival([{"source": "a", "cells": cells[:3]}, {"source": "a", "cells": cells[3:]}], ["b", "a"])
    assert list(found["by_source"]) == ["a", "b"]
    assert documents(found["by_source"]["a"]) == [13, 12, 9, 7, 6, 5]
    assert documents(found["by_provenance"]["unknown"]) == [8, 8, 5, 3, 2, 1]
    assert found["by_provenance"]["unknown"]["after_near"] == {
        "documents": 3,
        "documents_share": "0.375000",
        "tokens": 90,
        "tokens_share": "0.450000",
    }
    assert found["by_source"]["b"]["read"] == dict.fromkeys(("documents", "tokens"), 0) | dict.fromkeys(
        ("documents_share", "tokens_share")
    )
    mixed = survival([{"source": "a", "cells": cells}], ["a"], {("a", "human"): (2, 200), ("a", "unknown"): (1, 70)})
    assert documents(mixed["all"]) == [13, 12, 9, 7, 6, 5, 3]
    assert mixed["by_provenance"]["human"]["in_mix"]["tokens"] == 200


def test_index_tells_what_dedup_left(told: dict[str, dict[str, Any]]) -> None:
    found = told["index"]["survival"]
    readable = WEB - EMPTY
    after = [WEB, readable, readable - EXACT, *[readable - EXACT - NEAR] * 3]
    assert documents(found["by_source"]["web"]) == after
    assert documents(found["by_source"]["press"]) == [40] * 6
    assert documents(found["by_source"]["letters"]) == [16, 16, 16, 16, 16, 14]
    assert found["by_provenance"]["unknown"] == found["by_source"]["web"]
    sources = found["by_source"].values()
    for step, total in found["all"].items():
        for what in ("documents", "tokens"):
            assert total[what] == sum(source[step][what] for source in sources)


def test_plan_tells_how_near_duplicates_are_found(told: dict[str, dict[str, Any]]) -> None:
    assert told["plan"]["bands"] == told_bands(0.8, 128)


def test_plan_and_run_go_on_to_the_mix(told: dict[str, dict[str, Any]], project: Path) -> None:
    mix = PublishedMix(project / "out" / "mix")
    assert len(mix.rows) > len(mix.documents), "nothing repeats, so repeats are not tested"
    found = mix.manifest["survival"]
    assert told["plan"]["survival"] == told["run"]["survival"] == found
    for key, groups in (("source", found["by_source"]), ("provenance", found["by_provenance"])):
        for name, steps in groups.items():
            mine = [row for row in mix.documents.values() if row[key] == name]
            assert steps["in_mix"]["documents"] == len(mine)
            assert steps["in_mix"]["tokens"] == sum(row["n_tokens"] for row in mine)
            before = {step: left for step, left in steps.items() if step != "in_mix"}
            assert before == told["index"]["survival"][f"by_{key}"][name]
    for name, account in mix.manifest["sources"].items():
        steps = found["by_source"][name]
        assert (steps["read"]["documents"], steps["in_mix"]["documents"]) == (
            account["documents_in"],
            account["documents_out"],
        )


def test_copies_of_another_provenance_are_reported(told: dict[str, dict[str, Any]], project: Path) -> None:
    mix = PublishedMix(project / "out" / "mix")
    gone = Counter(
        (row["fate"], row["similarity"] == 1.0) for row in mix.dropped.values() if row["partner"] is not None
    )
    assert gone == {("exact_duplicate", True): EXACT, ("near_duplicate", False): NEAR}
    found = mix.manifest["duplicates"]
    assert told["index"]["duplicates"] == told["run"]["duplicates"] == found
    assert [(pair["kept"], pair["removed"], pair["documents"]) for pair in found["exact"]] == [
        ("human_verified", "unknown", EXACT)
    ]
    assert [(pair["kept"], pair["removed"], pair["documents"]) for pair in found["near"]] == [
        ("human_verified", "unknown", NEAR)
    ]
    steps = mix.manifest["survival"]["by_provenance"]["unknown"]
    assert found["exact"][0]["tokens"] == steps["readable"]["tokens"] - steps["after_exact"]["tokens"]
    (note,) = (note for note in mix.manifest["notes"] if note.startswith("same text"))
    assert f"{EXACT} copies" in note
    assert f"{EXACT} unknown for human_verified" in note


def test_copies_of_one_provenance_are_no_news() -> None:
    account = {
        "duplicates": [["exact_duplicate", "human", "human", 5, 50], ["near_duplicate", "human", "unknown", 1, 9]]
    }
    found = duplicates([account, account])
    assert found["exact"] == [{"kept": "human", "removed": "human", "documents": 10, "tokens": 100}]
    assert list(differing_provenance(found)) == []


def test_the_terminal_shows_every_source_and_provenance(project: Path) -> None:
    from click.testing import CliRunner

    from pipeline.cli import main

    shown = CliRunner().invoke(main, ["index", str(project / "mix.yaml"), "--quiet"]).stdout
    lines = [line.split() for line in shown.splitlines()]
    heading = next(line for line in lines if line[:1] == ["documents"])
    assert " ".join(heading[3:9]) == "after exact after near after exclusions"
    assert ["letters", *["16"] * 4, "14", "87.50%"] in [line[:7] for line in lines]
    assert {"press", "web", "bot", "all", "human_verified", "human", "unknown", "synthetic"} <= {
        line[0] for line in lines if line
    }


def _set(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *above, last = path
        for name in above:
            manifest = manifest[name]
        manifest[last] += 1

    return change


@pytest.mark.parametrize(
    "path",
    [
        ("by_source", "web", "after_near"),
        ("by_source", "press", "in_mix"),
        ("by_provenance", "unknown", "in_mix"),
        ("all", "readable"),
    ],
)
def test_verify_counts_the_steps_again(path: tuple[str, ...], told: Any, project: Path, tmp_path: Path) -> None:
    out = tmp_path / "mix"
    shutil.copytree(project / "out" / "mix", out)
    assert anchormix("verify", out).exit == 0
    manifest = json.loads((out / "manifest.json").read_bytes())
    _set("survival", *path, "documents")(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))
    wrong = anchormix("verify", out)
    assert wrong.exit == 4
    assert f"survival.{'.'.join(path)}.documents" in wrong.message
    manifest["survival"]["by_source"] = "none"
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert anchormix("verify", out).exit == 4
