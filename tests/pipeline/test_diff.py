"""`diff`: two mixes compared by plain sets of ids, what counts as lost, and folders that cannot be compared."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import minimal_config, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import write_mix
from runs import PublishedMix, Told, anchormix

from pipeline import diff_report
from pipeline.diff import diff
from pipeline.diff_documents import Amount, Change, DocumentDiff, compare_documents
from pipeline.errors import UsageError
from pipeline.human_text import HumanText, human_text
from pipeline.mix_folder import MixFolder
from pipeline.report import Screen

# Plain sets of ids, against the comparison by ranges

SHARDS = {("press", "a"), ("press", "b"), ("web", "a")}
PROVENANCES = ("human_verified", "human", "synthetic")
FATES = ("excluded", "held_out", "near_duplicate", "exact_duplicate", "seen_before")


def name_of(text: int) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Plain:
    """A mix as a few small tables."""

    rows: dict[int, tuple[tuple[str, str], str, int, int]]  # by text: shard, provenance, tokens, copies
    fates: list[tuple[int, str, str | None, int | None]]  # text, fate, reason, witness
    inputs: dict[tuple[str, str], str]  # shard and its content

    def write(self, folder: Path) -> MixFolder:
        """The files that a comparison reads, in two shards."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        (folder / "fates").mkdir()
        rows = [
            {
                **{"id": name_of(text), "source": shard[0], "shard": shard[1], "provenance": provenance},
                **{"generator": "m" if provenance == "synthetic" else None, "language": "en"},
                **{"n_tokens": tokens, "n_bytes": 3 * tokens, "copy": copy},
            }
            for text, (shard, provenance, tokens, copies) in sorted(self.rows.items())
            for copy in range(copies)
        ]
        texts = ("id", "source", "shard", "provenance", "generator", "language")
        numbers = [("n_tokens", pa.int64()), ("n_bytes", pa.int64()), ("copy", pa.int32())]
        schema = pa.schema([*((name, pa.string()) for name in texts), *numbers])
        half = len(rows) // 2
        for number, part in enumerate((rows[:half], rows[half:])):
            pq.write_table(pa.Table.from_pylist(part, schema), folder / f"data/{number}.parquet", row_group_size=3)
        gone = [
            {"id": name_of(t), "fate": fate, "reason": reason, "partner": None if w is None else name_of(w)}
            for t, fate, reason, w in self.fates
        ]
        gone.append({"id": None, "fate": "empty", "reason": None, "partner": None})
        schema = pa.schema([(n, pa.string()) for n in ("id", "fate", "reason", "partner")])
        pq.write_table(pa.Table.from_pylist(gone, schema), folder / "fates/part-00000.parquet")
        read = [{"source": s, "shard": n, "sha256": content} for (s, n), content in sorted(self.inputs.items())]
        schema = pa.schema([(n, pa.string()) for n in ("source", "shard", "sha256")])
        pq.write_table(pa.Table.from_pylist(read, schema), folder / "inputs.parquet")
        totals = {
            "rows": len(rows),
            "documents": len(self.rows),
            "tokens": sum(r["n_tokens"] for r in rows),
            "bytes": sum(r["n_bytes"] for r in rows),
        }
        claimed = SimpleNamespace(shards={"data/0.parquet": {}, "data/1.parquet": {}}, fields={"totals": totals})
        return MixFolder(folder, cast(Any, claimed))


@st.composite
def plain_mixes(draw: st.DrawFn) -> Plain:
    texts = st.integers(0, 25)
    shards = draw(st.sets(st.sampled_from(sorted(SHARDS)), min_size=1))
    row = st.tuples(
        st.sampled_from(sorted(shards)), st.sampled_from(PROVENANCES), st.integers(1, 50), st.integers(1, 2)
    )
    reasons = st.sampled_from(["excluded", "taken down"])
    fate = st.tuples(texts, st.sampled_from(FATES), reasons, texts)
    fates = [(t, f, r if f == "excluded" else None, w) for t, f, r, w in draw(st.lists(fate, max_size=20))]
    contents = st.sampled_from(["x", "y", "z"])
    return Plain(draw(st.dictionaries(texts, row)), fates, {shard: draw(contents) for shard in sorted(shards)})


def plainly_why(text: int, mine: Plain, other: Plain, unread: str, changed: str) -> tuple[str, str | None]:
    """Why a text of one mix is not in the other, told from small dictionaries."""
    told = [(fate, reason) for t, fate, reason, _ in other.fates if t == text and fate != "exact_duplicate"]
    for wanted in ("excluded", "held_out", "near_duplicate", "seen_before"):
        found = sorted((reason for fate, reason in told if fate == wanted), key=lambda r: (r == "excluded", str(r)))
        if found:
            return wanted, found[0]
    shard = mine.rows[text][0]
    if mine.inputs[shard] in other.inputs.values():
        return "not_selected", None
    return (changed if shard in other.inputs else unread), None


def plainly(old: Plain, new: Plain) -> dict[str, dict[tuple[Any, ...], Amount]]:
    found: dict[str, dict[tuple[Any, ...], Amount]] = defaultdict(lambda: defaultdict(Amount))

    def add(kind: str, row: Any, why: str, reason: str | None) -> None:
        key = row[1], row[0][0], why, reason
        found[kind][key] = found[kind][key].plus(Amount(1, row[2]))

    def verified(mix: Plain, text: int | None) -> bool:
        return text in mix.rows and mix.rows[cast(int, text)][1] == "human_verified"

    for text, row in old.rows.items():
        why, reason = plainly_why(text, old, new, "not_read", "input_changed")
        if text in new.rows:
            if why == "excluded":
                add("remained", row, why, reason)
            if verified(old, text) and not verified(new, text):
                add("demoted", row, *((why, reason) if why == "excluded" else ("no_longer_verified", None)))
        elif why == "near_duplicate" and verified(old, text):
            witnesses = {w for t, fate, _, w in new.fates if (t, fate) == (text, "near_duplicate")}
            # A text has one witness; where a case has several, either answer is right.
            stands = {verified(new, witness) for witness in witnesses}
            add("left" if len(stands) == 1 else "either", row, "replaced" if stands == {True} else why, None)
        else:
            add("left", row, why, reason)
    for text, row in new.rows.items():
        if text not in old.rows:
            add("came", row, *plainly_why(text, new, old, "new", "new"))
        elif verified(new, text) and not verified(old, text):
            add("promoted", row, "verified_now", None)
    return found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@given(old=plain_mixes(), new=plain_mixes(), size=st.sampled_from([2, 7, 1000]))
@settings(max_examples=60, deadline=None)
def test_documents_are_told_apart_as_plain_sets_would(scratch: Path, old: Plain, new: Plain, size: int) -> None:
    told = compare_documents(old.write(scratch / "old"), new.write(scratch / "new"), range_documents=size)
    expected = plainly(old, new)
    if not expected["either"]:
        assert dict(told.left) == expected["left"]
    for kind in ("came", "demoted", "promoted", "remained"):
        assert dict(getattr(told, kind)) == expected[kind], kind
    both = old.rows.keys() & new.rows.keys()
    assert told.stayed == Amount(len(both), sum(new.rows[text][2] for text in both))
    for side, totals, verified in ((old, told.old, told.was_verified), (new, told.new, told.is_verified)):
        rows = Counter[str]()
        for _, provenance, tokens, copies in side.rows.values():
            rows[provenance] += tokens * copies
        assert Counter({p: t for (_, p, _, _), total in totals.items() if (t := total.tokens)}).keys() == rows.keys()
        assert sum(total.tokens for total in totals.values()) == rows.total(), "copies count"
        mine = [row for row in side.rows.values() if row[1] == "human_verified"]
        assert verified == Amount(len(mine), sum(row[2] for row in mine)), "a repeated document counts once"


# What counts as lost


def human(left: Mapping[tuple[str, str | None], tuple[int, int]]) -> HumanText:
    gone = {Change("human_verified", "press", why, reason): Amount(*amount) for (why, reason), amount in left.items()}
    none: Mapping[Change, Amount] = {}
    return human_text(DocumentDiff({}, {}, Amount(), Amount(100, 1000), Amount(), gone, none, none, none, none))


def test_what_counts_as_lost() -> None:
    found = human({("excluded", "asked by its author"): (1, 10), ("replaced", None): (2, 20)})
    assert (found.lost, found.amount("taken_down"), found.amount("replaced")) == (
        Amount(),
        Amount(1, 10),
        Amount(2, 20),
    )
    assert human({("excluded", "excluded"): (1, 10)}).lost == Amount(1, 10), "nobody said why"
    for why in ("near_duplicate", "held_out", "seen_before", "not_selected", "not_read", "no_longer_verified"):
        assert human({(why, None): (1, 10)}).lost == Amount(1, 10)


def test_the_allowance_is_a_share_of_tokens_and_of_documents() -> None:
    found = human({("not_read", None): (1, 30)})
    assert not found.within(Fraction(0))
    assert not found.within(Fraction(299, 10_000))
    assert found.within(Fraction(3, 100))
    assert found.within(None)
    assert not human({("not_read", None): (4, 30)}).within(Fraction(3, 100))
    assert not human({("not_read", None): (1, 0)}).within(Fraction(0)), "a document without tokens is text, too"


# Commands


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus mixed whole, and once more without one of its verified shards and with less synthetic text."""
    folder = tmp_path_factory.mktemp("diff")
    write_corpus(folder, verified=30, believed=6, unknown=10, synthetic=8)
    whole = minimal_config(folder, mix={"floors": {"human_verified": 0}, "epochs": {"human_verified": 2}})
    assert anchormix("run", whole, "--set", "output=old", "--set", "diversity.metrics=core").exit == 0
    less = [
        *("--set", "sources.press.files=[shards/press/press-1.parquet]", "--set", "sources.bot.files=[shards/none/*]"),
        *("--set", "sources.bot.optional=true", "--set", "output=new", "--set", "index=other"),
    ]
    assert anchormix("run", whole, *less).exit == 0
    return folder


def compared(project: Path, *options: str) -> tuple[Told, dict[str, Any]]:
    told = anchormix("diff", project / "old", project / "new", *options)
    return told, told.details if told.exit else told.line


def test_lost_human_text_is_exit_4_unless_told_otherwise(project: Path) -> None:
    told, details = compared(project)
    assert (told.exit, told.code) == (4, "human_text_lost")
    old, new = (PublishedMix(project / name) for name in ("old", "new"))
    was = {row["id"]: row for row in old.documents.values() if row["provenance"] == "human_verified"}
    now = {row["id"] for row in new.documents.values() if row["provenance"] == "human_verified"}
    lost = [row for name, row in was.items() if name not in now]
    tokens = sum(row["n_tokens"] for row in lost)
    assert details["human"]["lost"] == {"documents": len(lost), "tokens": tokens}
    assert details["human"]["old"] == {"documents": len(was), "tokens": sum(r["n_tokens"] for r in was.values())}
    reasons = {entry["why"] for entry in details["human"]["gone"]}
    assert "not_read" in reasons
    assert f"{tokens:,} tokens" in told.message
    share = f"{tokens}/{details['human']['old']['tokens']}"
    for allowed, exit_code in ((share, 0), ("0.000001", 4), ("all", 0), ("1", 0)):
        assert compared(project, "--allow-human-loss", allowed)[0].exit == exit_code
    for wrong in ("2", "-0.1", "some", "1/0"):
        told, _ = compared(project, "--allow-human-loss", wrong)
        assert (told.exit, told.code) == (2, "bad_call")


def test_shares_count_every_copy_and_documents_once(project: Path) -> None:
    _, details = compared(project)
    for side in ("old", "new"):
        manifest = PublishedMix(project / side).manifest
        totals = {name: manifest["totals"][name] for name in ("rows", "documents", "tokens", "bytes")}
        assert details["totals"][side] == totals
        by = {group["name"]: group[side] for group in details["provenance"] if group[side]["rows"]}
        assert by == manifest["provenance"]["by_provenance"]
        languages = {group["name"]: group[side]["documents"] for group in details["languages"]}
        assert languages == manifest["languages"]
    verified = next(group for group in details["provenance"] if group["name"] == "human_verified")
    assert verified["old"]["rows"] == 2 * verified["old"]["documents"]
    assert verified["change"]["tokens"] == verified["new"]["tokens"] - verified["old"]["tokens"]
    assert details["sources_vanished"] == ["bot"]
    assert [rule["name"] for rule in details["rules"]] == ["human_verified"]


def test_metrics_stand_side_by_side(project: Path) -> None:
    _, details = compared(project)
    rows = {(row["scope"], row["name"], row["metric"]): row for row in details["diversity"]}
    for side in ("old", "new"):
        table = pq.read_table(project / side / "diversity.parquet").to_pylist()
        expected = {(r["scope"], r["name"], r["metric"]): r["value"] for r in table if r["scope"] in ("mix", "source")}
        assert {key: row[side]["value"] for key, row in rows.items() if row[side] is not None} == expected
    assert rows["mix", "all", "tokens"]["change"] < 0


def test_people_see_what_programs_see(project: Path) -> None:
    text = diff(project / "old", project / "new", "all").text
    assert text.startswith("PASS")
    for word in ("Sources that vanished: bot", "NEW names no parent", "not read", "human_verified (floor)"):
        assert word in text
    same = diff(project / "old", project / "old", "0").text
    assert same.startswith("PASS  no verified human text was lost")


def test_text_that_is_no_longer_verified_is_lost_human_text(project: Path) -> None:
    revoked = ("--set", "trust.revoked=[desk]", "--set", "output=revoked")
    assert anchormix("run", project / "mix.yaml", *revoked).exit == 0
    told = anchormix("diff", project / "old", project / "revoked")
    assert told.exit == 4
    assert {entry["why"] for entry in told.details["human"]["gone"]} >= {"no_longer_verified"}
    assert told.details["human"]["lost"] == told.details["human"]["old"]
    back = anchormix("diff", project / "revoked", project / "old")
    assert back.exit == 0
    assert back.line["human"]["came"] == told.details["human"]["old"]


# Folders that cannot be compared


def refused(old: Path, new: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        compare_documents(MixFolder.open(old), MixFolder.open(new))
    assert caught.value.exit_code == 2
    return caught.value


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


DAMAGE: dict[str, tuple[Any, str, str]] = {
    "no folder": (lambda out: shutil.rmtree(out), "no_mix", "is no folder"),
    "another folder": (lambda out: [shutil.rmtree(out), out.mkdir()], "no_mix", "is not a mix"),
    "unfinished": (lambda out: (out / "_SUCCESS").unlink(), "unfinished_mix", "_SUCCESS"),
    "no manifest": (lambda out: (out / "manifest.json").unlink(), "damaged_mix", "manifest.json"),
    "half a manifest": (lambda out: cut(out / "manifest.json"), "damaged_mix", "damaged"),
    "half a shard": (lambda out: cut(next((out / "data").iterdir())), "damaged_mix", "bytes, and manifest.json says"),
    "a shard gone": (lambda out: next((out / "data").iterdir()).unlink(), "damaged_mix", "train-"),
    "a shard more": (
        lambda out: (out / "data/more.parquet").write_bytes(b""),
        "damaged_mix",
        "data/more.parquet is not",
    ),
    "another manifest": (lambda out: edit(out / "manifest.json", seed=99), "damaged_mix", "was signed over another"),
    "half the fates": (lambda out: cut(next((out / "fates").iterdir())), "damaged_mix", "fates/part-"),
    "no inputs": (lambda out: (out / "inputs.parquet").unlink(), "damaged_mix", "inputs.parquet"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_mix_is_told_as_such(tmp_path: Path, damage: str) -> None:
    out = write_mix(tmp_path).out
    for path in out.glob("fates/*.parquet"):
        empty = {name: pa.array([], pa.string()) for name in ("id", "fate", "reason", "partner")}
        pq.write_table(pa.table(empty), path)
    good = tmp_path / "good"
    shutil.copytree(out, good)
    break_it, code, says = DAMAGE[damage]
    break_it(out)
    for error in (refused(out, good), refused(good, out)):
        assert error.code == code
        assert says in error.message
        assert str(out) in error.message
    told = anchormix("diff", good, out)
    assert (told.exit, told.code) == (2, code)


def test_rows_that_the_manifest_does_not_count(tmp_path: Path) -> None:
    mix = write_mix(tmp_path)
    for path in mix.out.glob("fates/*.parquet"):
        empty = {name: pa.array([], pa.string()) for name in ("id", "fate", "reason", "partner")}
        pq.write_table(pa.table(empty), path)
    (mix.out / "manifest.dsse.json").unlink()
    mix.edit_manifest(lambda manifest: manifest["totals"].update(tokens=1))
    assert "and its manifest says 1" in refused(mix.out, mix.out).message


@pytest.mark.parametrize("value", [None, -1, {"x": [None]}], ids=repr)
def test_a_manifest_can_hold_anything(tmp_path: Path, value: Any) -> None:
    """Whatever stands under whatever key: an answer, or a diagnosis."""
    mix = write_mix(tmp_path)
    for path in mix.out.glob("fates/*.parquet"):
        empty = {name: pa.array([], pa.string()) for name in ("id", "fate", "reason", "partner")}
        pq.write_table(pa.table(empty), path)
    schema = {name: pa.string() for name in ("scope", "name", "metric", "method")}
    schema |= {"value": pa.float64(), "n": pa.int64()}
    pq.write_table(pa.schema(schema.items()).empty_table(), mix.out / "diversity.parquet")
    (mix.out / "manifest.dsse.json").unlink()
    whole = json.loads((mix.out / "manifest.json").read_bytes())
    for key in whole:
        (mix.out / "manifest.json").write_text(json.dumps({**whole, key: value}))
        told = anchormix("diff", mix.out, mix.out)
        assert told.exit in (0, 2), f"{key}: {told.stderr}"


def test_names_that_do_not_print_are_escaped(tmp_path: Path) -> None:
    told = {"source": "a\x1b[2Jb", "why": "excluded", "reason": "c\u202ed", "documents": 1, "tokens": 1}
    screen = Screen(color=False)
    diff_report._table(screen, ["x"] * 6, [diff_report._change_row({"provenance": "human", **told}, "")])
    assert "a\\x1b[2Jb" in screen.text()
    assert "c\\u202ed" in screen.text()


def test_a_parent_is_a_folder() -> None:
    with pytest.raises(UsageError, match=r"mix\.parent: 's3://bucket/mix' is a URL"):
        MixFolder.open("s3://bucket/mix", "mix.parent")
