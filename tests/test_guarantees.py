"""What anchormix promises of a mix, read from the Parquet files that it published and from nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
from corpus import attest_press, minimal_config, write_corpus
from runs import PublishedMix, Told, anchormix, assert_floor, in_a_shell, measured

from pipeline.attest import write_keypair
from pipeline.samples import write_rows

ARTEFACTS = "As an AI language model, I wrote this. :contentReference[oaicite:0]{index=0}"


@dataclass(frozen=True)
class Project:
    """A corpus with its config and its index; mixes of it cost a plan and a mix each."""

    folder: Path
    config: Path

    def run(self, name: str, *overrides: str, command: Callable[..., Told] = anchormix) -> Told:
        settings = [word for override in overrides for word in ("--set", override)]
        return command("run", self.config, "--set", f"output=out/{name}", *settings)

    def mix(self, name: str, *overrides: str, command: Callable[..., Told] = anchormix) -> PublishedMix:
        told = self.run(name, *overrides, command=command)
        assert told.exit == 0, told.stderr
        return PublishedMix(self.folder / "out" / name)

    def assert_nothing_published(self, name: str) -> None:
        assert not (self.folder / "out" / name).exists()
        assert not list((self.folder / "out").glob(".*")), "a staging folder was left behind"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """200 documents of very different lengths in three languages, 100 of them verified."""
    folder = tmp_path_factory.mktemp("guarantees")
    write_corpus(folder, seed=5, verified=60, believed=30, unknown=50, synthetic=40, exact=8, near=9)
    long = {"id": "press-long", "text": " ".join(f"lang{n:04d}" for n in range(900)), "language": "en"}
    short = [{"id": f"press-short-{n}", "text": f"kurz {n}", "language": "de"} for n in range(20)]
    write_rows(folder / "shards" / "press" / "press-2.parquet", [long, *short])
    attest_press(folder)
    return Project(folder, minimal_config(folder, mix={"shards": 3, "row_group": 10}))


@pytest.fixture(scope="module")
def half(project: Project) -> PublishedMix:
    """The mix of a floor of one half, made by a process of its own as a user would."""
    return project.mix("half", command=in_a_shell)


# 1. Floor


def test_the_floor_holds_in_every_prefix(half: PublishedMix) -> None:
    assert len(half.shards) > 1, "one shard proves little"
    assert max(len(shard) for shard in half.shards) > 1
    assert_floor(half, Fraction(1, 2))


@pytest.mark.parametrize(
    ("floor", "measure"), [("0", "tokens"), ("1", "tokens"), ("1/3", "bytes"), ("2/3", "documents")]
)
def test_floors_hold_exactly(project: Project, floor: str, measure: str) -> None:
    mix = project.mix(
        f"floor-{floor.replace('/', '-')}", f'mix.floors.human_verified="{floor}"', f"mix.measure={measure}"
    )
    assert_floor(mix, Fraction(floor), measure)
    claimed = mix.manifest["floors"][0]
    assert claimed["share"] == [Fraction(floor).numerator, Fraction(floor).denominator]
    achieved = mix.manifest["achieved"]["human_verified"]["overall"]
    verified = sum(measured(row, measure) for row in mix.rows if row["provenance"] == "human_verified")
    assert achieved["numerator"] == verified
    assert achieved["denominator"] == sum(measured(row, measure) for row in mix.rows)
    kept = {place for place, document in oracle.expect(project.config).items() if document.fate == "kept"}
    if floor == "0":
        assert set(mix.documents) == kept, "nothing binds, so nothing is left out"
    if floor == "1":
        verified_places = {p for p in kept if p[0] == "press"}
        assert set(mix.documents) == verified_places, "all verified text, and nothing else"
    mix.assert_conserved()


def test_a_floor_is_not_paid_for_by_leaving_out_more_than_it_asks(half: PublishedMix) -> None:
    """Whole buckets and .1 % of slack are the price, and here a bucket is a document or two."""
    verified = sum(row["n_tokens"] for row in half.rows if row["provenance"] == "human_verified")
    assert verified / sum(row["n_tokens"] for row in half.rows) < 0.53


def test_no_verified_text_is_infeasible_not_an_empty_success(project: Project) -> None:
    told = project.run("none", "trust.revoked=[desk]", command=in_a_shell)
    assert (told.exit, told.code) == (3, "infeasible")
    assert "no verified human text" in told.message
    assert "1/2" in told.message
    assert "revoked" in told.message, "the reason why nothing is verified belongs to the diagnosis"
    project.assert_nothing_published("none")


def test_a_floor_too_high_for_the_size_is_infeasible_and_says_what_fits(project: Project) -> None:
    told = project.run("large", "mix.size=15000", "mix.floors.human_verified=0.9")
    assert (told.exit, told.code) == (3, "infeasible")
    numbers = json.dumps(told.details)
    assert "15000" in numbers or "15,000" in told.message
    assert any(isinstance(value, int) and 0 < value < 15000 for value in _numbers(told.details)), told.details
    project.assert_nothing_published("large")
    shrunk = project.mix("shrunk", "mix.size=15000", "mix.floors.human_verified=0.9", "mix.if_short=shrink")
    assert_floor(shrunk, Fraction(9, 10))
    assert sum(row["n_tokens"] for row in shrunk.rows) <= 15000


def test_size_is_never_exceeded(project: Project) -> None:
    mix = project.mix("sized", "mix.size=4000")
    total = sum(row["n_tokens"] for row in mix.rows)
    assert 3600 <= total <= 4000
    assert_floor(mix, Fraction(1, 2))
    mix.assert_conserved()


def _numbers(value: Any) -> list[int]:
    if isinstance(value, dict | list | tuple):
        return [number for item in (value.values() if isinstance(value, dict) else value) for number in _numbers(item)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


# 3, 4 and 9. Accounting, witnesses, text


def test_nothing_vanishes(half: PublishedMix) -> None:
    half.assert_conserved()
    assert sum(account["dropped"].get("not_selected", 0) for account in half.manifest["sources"].values()) > 0


def test_every_near_duplicate_has_a_kept_witness_above_the_threshold(project: Project, half: PublishedMix) -> None:
    texts = {}
    for shard in half.inputs:
        path = project.folder / "shards" / shard["source"] / shard["shard"]
        for number, row in enumerate(oracle.read_rows(path)):
            texts[shard["source"], shard["shard"], number, 0] = row["text"]
    by_id = {hashlib.sha256(text.encode()).hexdigest()[:32]: text for text in texts.values()}
    dropped_ids = {row["id"] for row in half.dropped.values() if row["fate"] == "near_duplicate"}
    near = [(place, row) for place, row in half.dropped.items() if row["fate"] == "near_duplicate"]
    assert near
    for place, row in near:
        mine, its = (oracle.shingles(tuple(oracle.split_words(text))) for text in (texts[place], by_id[row["partner"]]))
        similarity = Fraction(len(mine & its), len(mine | its))
        assert similarity >= Fraction(4, 5)
        assert row["similarity"] == round(float(similarity), 6)
        assert row["partner"] not in dropped_ids, "a removed document justifies nothing"


def test_text_is_never_edited(project: Project, half: PublishedMix) -> None:
    for place, row in half.documents.items():
        source, shard, number, _ = place
        read = oracle.read_rows(project.folder / "shards" / source / shard)[number]
        assert row["text"].encode() == read["text"].encode()
        assert row["doc_id"] == read["id"]


# 8. Caps and epochs


def test_epochs_number_the_copies_and_never_exceed_them(project: Project) -> None:
    mix = project.mix(
        "epochs", "mix.epochs.human_verified=3", "mix.epochs.synthetic=2", "mix.floors.human_verified=0.7"
    )
    copies: dict[runs.Place, list[int]] = defaultdict(list)
    most = {"human_verified": 3, "synthetic": 2}
    for row in mix.rows:
        copies[runs.place_of(row)].append(row["copy"])
    for place, numbers in copies.items():
        assert sorted(numbers) == list(range(len(numbers))), place
        assert len(numbers) <= most.get(mix.documents[place]["provenance"], 1)
    assert any(len(numbers) == 3 for numbers in copies.values()), "nothing was repeated"
    assert_floor(mix, Fraction(7, 10))
    mix.assert_conserved()


def test_caps_hold_exactly(project: Project) -> None:
    caps = '[{of: synthetic, share: "1/20"}, {of: "source:web", share: 0.2}]'
    mix = project.mix("caps", f"mix.caps={caps}", "mix.sources.letters.max_share=0.1", "mix.floors.human_verified=0.4")
    tokens = Counter(row["source"] for row in mix.rows for _ in range(row["n_tokens"]))
    total = tokens.total()
    assert 20 * tokens["bot"] <= total
    assert 10 * tokens["web"] <= 2 * total
    assert 10 * tokens["letters"] <= total
    assert tokens["bot"], "a cap is no ban"
    dropped = mix.manifest["sources"]["bot"]["dropped"]
    assert dropped.get("over_cap", 0) > 0
    assert not any("promises none" in note for note in mix.manifest["notes"])
    assert mix.manifest["contested"] == {"documents": 0, "tokens": 0}
    for rule in ("synthetic", "source:web", "source:letters"):
        assert {"overall", "worst_shard", "worst_row_group"} <= mix.manifest["achieved"][rule].keys()
    mix.assert_conserved()


@pytest.mark.parametrize(
    ("cap", "source"),
    [
        ("{of: human_any, share: 0.3}", {"press", "letters"}),
        ("{of: generated, share: 0.05}", {"bot"}),
        ("{of: 'generator:parrot-1b', share: 0.05}", {"bot"}),
        ("{of: synthetic, share: 0.05, by: generator}", {"bot"}),
        ("{of: unknown, share: 0.2}", {"web"}),
    ],
)
def test_what_a_cap_left_out_is_counted_as_over_it_and_nothing_else_is(
    project: Project, cap: str, source: set[str]
) -> None:
    mix = project.mix(f"cap-{abs(hash(cap))}", f"mix.caps=[{cap}]", "mix.floors.human_verified=0")
    dropped = {name: account["dropped"] for name, account in mix.manifest["sources"].items()}
    assert {name for name, reasons in dropped.items() if "over_cap" in reasons} == source
    assert "no floor of verified human text was asked: the mix promises none" in mix.manifest["notes"]


# 2. Only custody verifies


@pytest.fixture
def small(tmp_path: Path) -> Project:
    write_corpus(tmp_path, verified=12, believed=4, unknown=6, synthetic=4, exact=2, near=3, empty=1)
    return Project(tmp_path, minimal_config(tmp_path, mix={"shards": 1, "floors": {"human_verified": 0.3}}))


def _alter(project: Project, number: int) -> None:
    """Change one document of a signed shard; name and number of rows stay."""
    path = project.folder / "shards" / "press" / f"press-{number}.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["text"] += " And one more word."
    write_rows(path, rows)


def test_labels_dates_and_licences_verify_nothing(small: Project) -> None:
    rows = [
        {
            "id": f"l-{n}",
            "text": f"Letter {n} of a correspondence about the weather and the sea, never answered, line {n * 7}.",
            "label": "human_verified" if n % 2 else "human",
            "provenance": "human_verified",
            "license": "CC-BY-4.0",
            "date": "1890-01-01",
            "generator": "human",
        }
        for n in range(8)
    ]
    write_rows(small.folder / "shards" / "letters" / "letters-0.jsonl.gz", rows)
    source = "sources.letters"
    mix = small.mix(
        "labels",
        f"{source}.columns={{label: label}}",
        f"{source}.labels={{human: human, human_verified: human}}",
        "mix.floors.human_verified=0",
    )
    letters = [row for row in mix.rows if row["source"] == "letters"]
    assert len(letters) == 8
    assert {row["provenance"] for row in letters} == {"human"}
    told = small.run("refused", f"{source}.columns={{label: label}}", f"{source}.labels={{human: human_verified}}")
    assert told.exit == 2
    assert "custody" in told.message


def test_an_altered_shard_fails_or_is_demoted(small: Project) -> None:
    _alter(small, 1)
    told = small.run("altered", command=in_a_shell)
    assert (told.exit, told.code) == (7, "altered_shard")
    assert "press-1.parquet" in told.message
    small.assert_nothing_published("altered")

    mix = small.mix("demoted", "sources.press.custody.on_mismatch=demote", "mix.floors.human_verified=0.1")
    by_shard = defaultdict(set)
    for row in mix.rows:
        if row["source"] == "press":
            by_shard[row["shard"]].add(row["provenance"])
    assert by_shard == {"press-0.parquet": {"human_verified"}, "press-1.parquet": {"unknown"}}
    verdicts = {shard["shard"]: shard["custody_verdict"] for shard in mix.inputs if shard["source"] == "press"}
    assert verdicts == {"press-0.parquet": "verified", "press-1.parquet": "altered"}
    assert any("1 altered of 2" in note and "press-1.parquet" in note for note in mix.manifest["notes"])


def test_an_unlisted_shard_is_counted_and_not_verified(small: Project) -> None:
    rows = [{"id": f"new-{n}", "text": f"Unsigned text number {n}.", "language": "en"} for n in range(3)]
    # A new file that shares its base name with a signed one, as numbered parts do, is no altered file.
    write_rows(small.folder / "shards" / "press" / "more" / "press-0.parquet", rows)
    mix = small.mix("unlisted", "sources.press.files=[shards/press/**/*.parquet]", "mix.floors.human_verified=0")
    found = {row["provenance"] for row in mix.rows if row["shard"] == "more/press-0.parquet"}
    assert found == {"unknown"}
    verdicts = Counter(shard["custody_verdict"] for shard in mix.inputs if shard["source"] == "press")
    assert verdicts == {"verified": 2, "unlisted": 1}
    assert any("1 unlisted of 3" in note and "more/press-0.parquet" in note for note in mix.manifest["notes"])
    mix.assert_conserved()


def test_a_manifest_over_another_column_says_so(small: Project) -> None:
    for number in range(2):
        path = small.folder / "shards" / "press" / f"press-{number}.parquet"
        write_rows(path, [{**row, "summary": f"In short: {row['id']}"} for row in pq.read_table(path).to_pylist()])
    attest_press(small.folder)
    read = ("sources.press.columns={text: summary}", "sources.press.declare=human")
    note = "12 of 12 documents of covered shards are no leaf of the manifest"
    columns = "it signed column 'text'; the source reads 'summary'"
    told = small.run("summaries", *read)
    assert (told.exit, told.code) == (3, "infeasible")
    assert note in told.message
    assert columns in told.message
    mix = small.mix("unproven", *read, "mix.floors.human_verified=0")
    assert any(note in said and columns in said for said in mix.manifest["notes"])


def test_a_verified_text_verifies_only_where_it_was_signed(small: Project) -> None:
    """The same bytes in a source without custody are a copy, and without the signed shard they are nobody's."""
    shutil.copy(small.folder / "shards" / "press" / "press-0.parquet", small.folder / "shards" / "web" / "copy.parquet")
    mix = small.mix("copied")
    assert {row["source"] for row in mix.rows if row["provenance"] == "human_verified"} == {"press"}
    copies = [row for row in mix.dropped.values() if row["shard"] == "copy.parquet"]
    assert len(copies) == 6
    assert {row["fate"] for row in copies} == {"exact_duplicate"}


def test_signatures_must_come_from_a_key_that_is_trusted_for_this(small: Project) -> None:
    write_keypair(small.folder / "keys" / "stranger")
    base = "trust.keys.desk"
    stranger = small.run("stranger", f"{base}.public_key=keys/stranger.pub", command=in_a_shell)
    assert (stranger.exit, stranger.code) == (7, "untrusted_key")
    assert "press.dsse.json" in stranger.message
    for override, code in (
        (f"{base}.sources=[letters]", "wrong_scope"),
        (f"{base}.methods=[notarised_author]", "wrong_method"),
        (f"{base}.valid_until=2020-01-01", "key_expired"),
    ):
        told = small.run("untrusted", override, "as_of=2026-11-20")
        assert (told.exit, told.code) == (7, code), told.stderr
    small.assert_nothing_published("untrusted")


def test_a_tampered_manifest_fails(small: Project) -> None:
    path = small.folder / "custody" / "press.dsse.json"
    envelope = json.loads(path.read_bytes())
    envelope["payload"] = envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]
    path.write_text(json.dumps(envelope))
    told = small.run("tampered")
    assert told.exit == 7
    assert "press.dsse.json" in told.message


# 5. Laundering and griefing


def test_copies_of_a_book_neither_remove_nor_demote_the_book(small: Project) -> None:
    press = pq.read_table(small.folder / "shards" / "press" / "press-0.parquet").to_pylist()
    planted = [{"id": f"grief-{n}", "text": row["text"], "language": "en"} for n, row in enumerate(press)]
    planted += [{**row, "id": row["id"] + "b", "text": row["text"] + f"\n\n{ARTEFACTS}"} for row in planted]
    write_rows(small.folder / "shards" / "bot" / "bot-0.jsonl.zst", planted)
    mix = small.mix("griefed", "dedup.wipe_out=1")
    verified = [row for row in mix.rows if row["provenance"] == "human_verified"]
    assert len(verified) == 12
    assert mix.drops("bot").total() == len(planted)
    assert {row["partner"] for row in mix.dropped.values() if row["source"] == "bot"} <= {row["id"] for row in verified}


def test_contested_custody_keeps_its_rank_and_stops_the_run_beyond_the_limit(small: Project) -> None:
    path = small.folder / "shards" / "press" / "press-0.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["text"] += f"\n\n{ARTEFACTS}"
    write_rows(path, rows)
    attest_press(small.folder)
    told = small.run("contested", command=in_a_shell)
    assert (told.exit, told.code) == (6, "contested_custody")
    assert 0 < told.details["contested"] < told.details["verified"]
    small.assert_nothing_published("contested")

    mix = small.mix("tolerated", "evidence.max_contested=0.5")
    document = mix.documents["press", "press-0.parquet", 1, 0]
    assert document["provenance"] == "human_verified"
    assert {piece["kind"] for piece in document["evidence"]} == {"custody", "artefact"}
    assert mix.manifest["contested"] == {"documents": 1, "tokens": document["n_tokens"]}
    assert any("contested: 1 verified document" in note for note in mix.manifest["notes"])


def test_a_source_that_is_a_copy_of_another_trips_the_guard(small: Project) -> None:
    press = pq.read_table(small.folder / "shards" / "press" / "press-0.parquet").to_pylist()
    rows = [{**row, "text": "Foreword. " + row["text"]} for row in press]
    pq.write_table(pa.Table.from_pylist(rows), small.folder / "shards" / "web" / "web-0.parquet")
    (small.folder / "shards" / "web" / "web-1.csv").unlink()
    told = small.run("wiped", "sources.web.files=[shards/web/*.parquet]")
    assert (told.exit, told.code) == (6, "wipe_out")
    assert "web" in told.message
    small.assert_nothing_published("wiped")
