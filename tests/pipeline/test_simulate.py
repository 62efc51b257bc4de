"""`anchormix simulate` through the command line: whose text is taken, what is told, and ways to call it wrongly."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import corpus
import pyarrow as pa
import pytest
from click.testing import CliRunner
from runs import Told, anchormix

from pipeline.cli import main
from pipeline.samples import write_rows
from transforms.kernels.text import split_words

FAST = ("--words", "1000", "--generations", "3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, corpus.Truth]:
    folder = tmp_path_factory.mktemp("simulate")
    truth = corpus.write_corpus(folder, verified=40, exact=8, near=12, unknown=10)
    config = corpus.minimal_config(folder)
    assert anchormix("index", config).exit == 0
    return config, truth


def simulated(*arguments: str | Path) -> dict[str, Any]:
    told = anchormix("simulate", *arguments)
    assert told.exit == 0, told.stderr
    found: dict[str, Any] = told.line["simulation"]
    return found


def refused(*arguments: str | Path) -> Told:
    told = anchormix("simulate", *arguments)
    assert told.exit != 0
    return told


def verified_counts(truth: corpus.Truth) -> Counter[int]:
    words = split_words(pa.array([row["text"] for row in truth.rows["press"]]))
    return Counter(words.hashes.tolist())


def test_all_verified_text_is_taken_and_no_other(made: tuple[Path, corpus.Truth]) -> None:
    config, truth = made
    found = simulated(config, "--generations", "2", "--order", "2")
    counts = verified_counts(truth)
    assert (found["documents"], found["words"]) == (40, counts.total())
    assert found["verified_words"] == counts.total()
    assert found["order"] == 2
    assert [chain["human"] for chain in found["chains"]] == ["0", "1/10", "3/10", "1/2", "7/10"]
    for chain in found["chains"]:
        first, *others = chain["generations"]
        assert [g["generation"] for g in chain["generations"]] == [0, 1, 2]
        assert (first["types"], first["hapaxes"]) == (len(counts), list(counts.values()).count(1))
        assert first["kept"] | {"all": 1, "1": 1, "2-3": 1} == first["kept"]
        assert all(g["kept"]["all"] == pytest.approx(g["types"] / first["types"]) for g in others)
        assert "expected" not in first


def test_single_words_come_with_theory(made: tuple[Path, corpus.Truth]) -> None:
    found = simulated(made[0], "--order", "1", "--human", "0,1/2", "--generations", "4")
    for chain in found["chains"]:
        for generation in chain["generations"]:
            expected = generation["expected"]["kept"]
            for band, share in generation["kept"].items():
                assert (share is None) == (expected[band] is None)
                # 4,000 words; five standard errors of a share of the 1,500 and more that a band here has.
                assert share is None or abs(share - expected[band]) < 5 * 0.5 / 1500**0.5
            assert ("simpson" in generation["expected"]) == (chain["human"] == "0")


def test_the_sample_is_of_the_size_asked_for_and_seeded(made: tuple[Path, corpus.Truth]) -> None:
    config, _ = made
    found = simulated(config, *FAST)
    assert found["words"] == 1000
    assert found["verified_words"] > 1000
    assert simulated(config, *FAST) == found
    assert simulated(config, *FAST, "--seed", "1")["chains"] != found["chains"]


def test_splits_make_no_difference(made: tuple[Path, corpus.Truth], monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = made
    monkeypatch.setenv("ANCHORMIX_SPLIT_BYTES", "1000")
    finer = ("--set", "index=out/finer")
    assert anchormix("index", config, *finer).exit == 0
    assert simulated(config, *finer, *FAST) == simulated(config, *FAST)


def test_the_floor_of_the_config_is_among_the_shares(made: tuple[Path, corpus.Truth]) -> None:
    found = simulated(made[0], *FAST, "--set", "mix.floors.human_verified=0.62")
    assert found["floor"] == "31/50"
    assert [Fraction(chain["human"]) for chain in found["chains"]] == sorted(
        map(Fraction, ("0", "0.1", "0.3", "0.5", "0.62", "0.7"))
    )
    asked = simulated(made[0], *FAST, "--human", "1/3, .25,1/3")
    assert [chain["human"] for chain in asked["chains"]] == ["1/4", "1/3"]


def test_people_get_a_table_a_plot_and_no_prophecy(made: tuple[Path, corpus.Truth]) -> None:
    result = CliRunner().invoke(main, ["simulate", str(made[0]), *FAST])
    assert result.exit_code == 0, result.output
    shown = result.stdout
    found = simulated(made[0], *FAST)
    for chain in found["chains"]:
        last = chain["generations"][-1]
        share = f"{float(100 * Fraction(chain['human'])):g}%"
        (row,) = re.findall(rf"^{re.escape(share)} +.*$", shown, re.M)
        assert row.split()[1:3] == [f"{100 * last['kept'][name]:.1f}%" for name in ("all", "1")]
        assert re.search(
            rf"^At a human share of {re.escape(share)}.* keeps {100 * last['kept']['1']:.1f}%", shown, re.M
        )
    assert "50% (the floor of this config)" in shown
    assert "neither a forecast nor a bound" in shown
    assert "inevitable" not in shown
    assert max(map(len, shown.splitlines())) < 140


LOADS = re.compile(r"(?:src|href)\s*=|url\(|@import|<script|<link", re.I)


def test_the_page_repeats_the_numbers_and_loads_nothing(made: tuple[Path, corpus.Truth], tmp_path: Path) -> None:
    calls = ("--order", "1", *FAST)
    html = tmp_path / "page.html"
    told = anchormix("simulate", made[0], *calls, "--output", html)
    assert told.line["output"] == str(html)
    page = html.read_text(encoding="utf-8")
    assert not LOADS.search(page)
    for chain in told.line["simulation"]["chains"]:
        for generation in chain["generations"]:
            assert f"<td class=n>{100 * generation['kept']['1']:.1f}%</td>" in page
            assert f"<td class=n>{generation['entropy_1']:.5g}</td>" in page
            assert f"<td class=n>{100 * generation['expected']['kept']['all']:.1f}%</td>" in page
    svg = tmp_path / "drawing.svg"
    assert anchormix("simulate", made[0], *calls, "--output", svg).exit == 0
    drawing = svg.read_text(encoding="utf-8")
    assert not LOADS.search(drawing)
    lines = [e for e in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}path") if e.get("d")]
    curves = [e for e in lines if len(e)]
    assert len(curves) == 6 * 5 + 3 * 5 + 1, "six panels of five shares; theory for three of them, and simpson at 0"
    assert drawing.strip() in page.replace("</figure>", "\n") or drawing.strip() in page


def test_one_language_or_source_can_be_looked_at(made: tuple[Path, corpus.Truth]) -> None:
    config, truth = made
    rows = [row for row in truth.rows["press"] if row["language"] == "ru"]
    found = simulated(config, "--language", "ru", *FAST)
    assert found["verified_words"] == sum(len(row["text"].split()) for row in rows)
    assert (found["languages"], len(found["notes"])) == (["ru"], 1)
    every = simulated(config, *FAST)
    assert every["languages"] == sorted(corpus.LANGUAGES)
    assert "in 4 languages (ar, en, ru, zh)" in every["notes"][1]
    assert simulated(config, "--source", "press", *FAST) == every
    told = refused(config, "--language", "xx")
    assert (told.exit, told.code) == (2, "unknown_language")
    assert "en (" in told.message
    told = refused(config, "--source", "pres")
    assert (told.exit, told.code) == (2, "unknown_source")
    assert "press" in told.message
    told = refused(config, "--source", "letters")
    assert (told.exit, told.code) == (2, "no_verified_text")
    assert "of source 'letters'" in told.message
    assert told.details["kept"].keys() == {"human"}


@pytest.mark.parametrize(
    ("human", "problem"),
    [
        ("0,half", "'half' is no share"),
        ("0,,1", "'' is no share"),
        ("1.5", "'1.5' is above 1"),
        ("-0.1", "'-0.1' is no share"),
        ("1/0", "'1/0' is no share"),
        ("1e-3", "'1e-3' is no share"),
        (",".join(f"0.{n}" for n in range(10, 23)), "these are 13"),
    ],
)
def test_wrong_shares_are_diagnosed(made: tuple[Path, corpus.Truth], human: str, problem: str) -> None:
    told = refused(made[0], "--human", human)
    assert (told.exit, told.code) == (2, "bad_shares")
    assert problem in told.message
    assert "such as 0,0.1" in told.message


@pytest.mark.parametrize("name", ["page.pdf", "page", "missing/page.html", "."])
def test_wrong_outputs_are_diagnosed(made: tuple[Path, corpus.Truth], tmp_path: Path, name: str) -> None:
    told = refused(made[0], "--output", tmp_path / name)
    assert (told.exit, told.code) == (2, "bad_output")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [("--generations", "0"), ("--order", "6"), ("--words", "10"), ("--generations", "101")]
)
def test_wrong_sizes_are_diagnosed(made: tuple[Path, corpus.Truth], arguments: tuple[str, str]) -> None:
    told = refused(made[0], *arguments)
    assert (told.exit, told.code) == (2, "bad_call")
    assert arguments[1] in told.message


def test_an_index_is_needed_and_never_made(made: tuple[Path, corpus.Truth], tmp_path: Path) -> None:
    told = refused(made[0], "--set", f"index={tmp_path / 'none'}")
    assert (told.exit, told.code) == (2, "stale_index")
    assert "run `anchormix index`" in told.message
    assert not (tmp_path / "none").exists()


def write_config(folder: Path, **source: Any) -> Path:
    config: dict[str, Any] = {"version": 1, "output": "out/mix", "index": "out/index"}
    config["mix"] = {"floors": {"human_verified": 0}}
    config["sources"] = [{"name": "a", "files": ["a.jsonl"], **source}]
    config["trust"] = {"keys": [{"name": "desk", "public_key": "desk.pub"}]}
    write_rows(folder / "a.jsonl", [{"id": str(n), "text": f"the text of number {n}"} for n in range(5)])
    assert anchormix("keygen", folder / "desk").exit == 0
    (folder / "mix.yaml").write_text(json.dumps(config))
    return folder / "mix.yaml"


def test_without_verified_text_there_is_nothing_to_simulate(tmp_path: Path) -> None:
    config = write_config(tmp_path, declare="human")
    assert anchormix("index", config).exit == 0
    told = refused(config, "--language", "en")
    assert (told.exit, told.code) == (2, "no_verified_text")
    told = refused(config)
    assert (told.exit, told.code) == (2, "no_verified_text")
    assert "5 human" in told.message
    assert "anchormix attest" in told.message
    assert told.details["kept"] == {"human": 5}


def test_an_input_that_changed_in_secret_is_diagnosed(tmp_path: Path) -> None:
    """Its size and time are those of the index, so that only the digests of the texts can tell."""
    config = write_config(tmp_path, custody={"method": "licensed_source", "manifest": "a.dsse.json"})
    shard, signing = tmp_path / "a.jsonl", ("--key", tmp_path / "desk.key", "--method", "licensed_source")
    assert anchormix("attest", shard, *signing, "--output", tmp_path / "a.dsse.json").exit == 0
    assert anchormix("index", config).exit == 0
    assert simulated(config, "--human", "0")["words"] == 25
    told = refused(config, "--language", "en")
    assert (told.exit, told.code) == (2, "unknown_language")
    assert "none says its language; name the column" in told.message
    before = shard.stat()
    for content, problem in ((shard.read_bytes().replace(b"number 3", b"number 9"), "another text"), (b"", "row 0")):
        shard.write_bytes(content.ljust(before.st_size, b" "))
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
        told = refused(config)
        assert (told.exit, told.code) == (5, "input_changed")
        assert str(shard) in told.message
        assert problem in told.message
        assert "run `anchormix index`" in told.message
