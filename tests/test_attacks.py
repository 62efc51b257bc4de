"""Attacks on provenance, played from end to end; docs/threat-model.md says what each one is after."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from corpus import attest_press, make_document, minimal_config, write_corpus
from runs import PublishedMix, Told, anchormix

from pipeline.attest import attest, write_keypair
from pipeline.samples import write_rows
from transforms.kernels.schemas import Fate, Provenance

NO_FLOOR = "mix.floors.human_verified=0"


@dataclass(frozen=True)
class Project:
    """Twelve signed documents among others, and the commands over them."""

    folder: Path
    config: Path

    @property
    def index(self) -> Path:
        return self.folder / "out" / "index"

    def run(self, name: str, *overrides: str) -> Told:
        settings = [word for override in overrides for word in ("--set", override)]
        return anchormix("run", self.config, "--set", f"output=out/{name}", *settings)

    def mix(self, name: str, *overrides: str) -> PublishedMix:
        told = self.run(name, *overrides)
        assert told.exit == 0, told.stderr
        return PublishedMix(self.folder / "out" / name)

    def shards(self, source: str) -> Path:
        return self.folder / "shards" / source

    def press(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.shards("press") / "press-0.parquet").to_pylist()
        return found

    def published(self, name: str) -> bool:
        return (self.folder / "out" / name).exists()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    write_corpus(tmp_path, verified=12, believed=4, unknown=6, synthetic=4, exact=0, near=0, empty=0)
    return Project(tmp_path, minimal_config(tmp_path, mix={"shards": 1, "floors": {"human_verified": 0.3}}))


def verified(mix: PublishedMix) -> list[dict[str, Any]]:
    return [row for row in mix.rows if row["provenance"] == "human_verified"]


# Keys and manifests that count no longer


def test_a_revocation_takes_effect_without_reading_text_again(project: Project) -> None:
    manifest = project.folder / "custody" / "press.dsse.json"
    payload = base64.b64decode(json.loads(manifest.read_bytes())["payload"])
    assert len(verified(project.mix("before"))) == 12
    sidecars = {path: path.stat().st_mtime_ns for path in (project.index / "facts").rglob("*") if path.is_file()}
    revocations = ("desk", sha256(manifest.read_bytes()), f"sha256:{sha256(payload).upper()}")
    for number, revoked in enumerate(revocations):
        told = project.run(f"revoked-{number}", f"trust.revoked=[{revoked}]", NO_FLOOR)
        assert told.exit == 0, told.stderr
        assert told.line["rebuilt"] == ["fates"]
        mix = PublishedMix(project.folder / "out" / f"revoked-{number}")
        assert verified(mix) == []
        assert any("revoked" in note and str(manifest) in note for note in mix.manifest["notes"])
        stopped = project.run("floor", f"trust.revoked=[{revoked}]")
        assert (stopped.exit, stopped.code) == (3, "infeasible")
    assert sidecars == {path: path.stat().st_mtime_ns for path in sidecars}
    # And whoever holds a mix from before can see it, without the owner's help.
    for number, revoked in enumerate(revocations):
        trust = project.folder / f"trust-{number}.yaml"
        keys = [{"name": "desk", "public_key": "keys/desk.pub"}]
        trust.write_text(yaml.safe_dump({"keys": keys, "revoked": [revoked]}))
        told = anchormix("verify", project.folder / "out" / "before", "--trust", trust)
        assert told.exit == 4
        assert told.details["levels"]["custody"]["status"] == "failed"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_day_of_signing_outside_the_window_of_the_key_stops_the_run(project: Project) -> None:
    call = ("--key", project.folder / "keys" / "desk.key", "--method", "licensed_source", "--signed-at", "2019-01-01")
    output = project.folder / "custody" / "press.dsse.json"
    told = anchormix("attest", str(project.shards("press") / "*.parquet"), *call, "--output", output)
    assert told.exit == 0, told.stderr
    day = "as_of=2026-11-20"
    backdated = project.run("backdated", "trust.keys.desk.valid_from=2020-01-01", day)
    assert (backdated.exit, backdated.code) == (7, "signed_outside_window")
    assert backdated.details["key"] == "desk"
    assert backdated.details["manifest"] == str(output)
    early = project.run("early", "trust.keys.desk.valid_from=2027-01-01", day)
    assert (early.exit, early.code) == (7, "key_not_yet_valid")
    assert len(verified(project.mix("in-time", "trust.keys.desk.valid_from=2018-01-01", day))) == 12


# Text that is not what was signed


def test_the_machine_half_of_a_signed_file_is_not_verified(project: Project) -> None:
    for path in sorted(project.shards("press").iterdir()):
        rows = pq.read_table(path).to_pylist()
        answers = [{"machine_text": f"Answer to {row['id']}: {row['text'][::-1]}"} for row in rows]
        write_rows(path, [{**row, **answer} for row, answer in zip(rows, answers, strict=True)])
    attest_press(project.folder)
    mix = project.mix("machine", "sources.press.columns={text: machine_text}", NO_FLOOR)
    assert verified(mix) == []
    assert any("12 of 12 documents of covered shards are no leaf" in note for note in mix.manifest["notes"])
    assert len(verified(project.mix("human"))) == 12


def test_rows_of_two_texts_earn_no_custody(project: Project) -> None:
    """A data set of pairs makes two documents of a row, and one of them is the machine's."""
    rows = [
        {
            "prompt": "Tell of the sea.",
            "human_text": row["text"],
            "machine_text": f"As asked: {row['text'][::-1]}",
            "model": "parrot-1b",
            "source": "letters",
            "source_ID": row["id"],
        }
        for row in project.press()
    ]
    write_rows(project.shards("press") / "pairs.jsonl", rows)
    told = project.run("pairs", "sources.press.files=[shards/press/pairs.jsonl]", "sources.press.columns={}", NO_FLOOR)
    assert (told.exit, told.code) == (2, "custody_form")
    assert "pairs.jsonl" in told.message
    assert not project.published("pairs")


def test_invisible_edits_inherit_nothing(project: Project) -> None:
    edits = ["\u200b", "\u00a0", "\u2060", "\ufeff"]
    rows = [
        {"id": f"e-{n}", "text": row["text"][:20] + edits[n % 4] + row["text"][20:]}
        for n, row in enumerate(project.press())
    ]
    write_rows(project.shards("web") / "edited.parquet", rows)
    mix = project.mix("edited", "dedup.wipe_out=1", "sources.web.priority=1000")
    assert {row["source"] for row in verified(mix)} == {"press"}
    assert len(verified(mix)) == 12
    edited = [row for row in mix.dropped.values() if row["shard"] == "edited.parquet"]
    assert Counter(row["fate"] for row in edited) == {"near_duplicate": len(rows)}
    # Without the signed text there, the edits are nobody's.
    alone = project.mix("alone", "trust.revoked=[desk]", NO_FLOOR, "dedup.wipe_out=1", "sources.web.priority=1000")
    assert verified(alone) == []


def test_edited_text_near_signed_text_does_not_inherit_and_does_not_displace(project: Project) -> None:
    """Longer, declared human, of the highest priority: custody still ranks first."""
    rows = [{"id": f"n-{n}", "text": row["text"] + " More words of mine"} for n, row in enumerate(project.press())]
    write_rows(project.shards("letters") / "near.jsonl.gz", rows)
    mix = project.mix("near", "sources.letters.priority=1000", "dedup.wipe_out=1")
    near = [row for row in mix.dropped.values() if row["shard"] == "near.jsonl.gz"]
    assert len(near) == len(rows)
    assert {row["partner"] for row in near} <= {row["id"] for row in verified(mix)}
    assert len(verified(mix)) == 12


def test_shards_of_one_name_with_other_bytes_earn_nothing(project: Project) -> None:
    """A folder of the same names, in the place of the signed one."""
    for path in sorted(project.shards("press").iterdir()):
        rows = pq.read_table(path).to_pylist()
        write_rows(path, [{**row, "text": f"Forged. {row['text']}"} for row in rows])
    told = project.run("forged")
    assert (told.exit, told.code) == (7, "altered_shard")
    assert told.details["key"] == "desk"
    assert told.details["manifest"] == str(project.folder / "custody" / "press.dsse.json")
    assert told.details["subject"] == "press-0.parquet"
    assert verified(project.mix("demoted", "sources.press.custody.on_mismatch=demote", NO_FLOOR)) == []


def test_digests_of_other_files_cover_nothing(project: Project) -> None:
    """A true signature, over files that the source does not read."""
    other = project.folder / "other.parquet"
    write_rows(other, [{"id": "o", "text": "Signed, and read by nobody."}])
    attest([other], project.folder / "keys" / "desk.key", "licensed_source", project.folder / "custody" / "other.json")
    mix = project.mix("other", "sources.press.custody.manifest=custody/other.json", NO_FLOOR)
    assert verified(mix) == []
    assert any("2 unlisted of 2 shards" in note for note in mix.manifest["notes"])


def test_links_are_followed_to_bytes(project: Project) -> None:
    """A link may point elsewhere later: what counts is what it leads to when it is read."""
    store = project.folder / "store"
    shutil.move(project.shards("press"), store)
    project.shards("press").mkdir()
    for path in store.iterdir():
        (project.shards("press") / path.name).symlink_to(path)
    assert len(verified(project.mix("linked"))) == 12
    link = project.shards("press") / "press-0.parquet"
    link.unlink()
    write_rows(store / "elsewhere.parquet", [{"id": "x", "text": "Not what was signed."}])
    link.symlink_to(store / "elsewhere.parquet")
    told = project.run("moved")
    assert (told.exit, told.code) == (7, "altered_shard")


# What stands beside the text


def test_metadata_and_dates_verify_nothing(project: Project) -> None:
    rows = [
        {
            "id": f"m-{n}",
            "text": make_document(random.Random(n), 40).text,
            "date": date,
            "created": date,
            "author": "A. Human",
            "human": True,
            "provenance": "human_verified",
            "license": "Human Authored (registered)",
            "badge": "Not By AI",
        }
        for n, date in enumerate(["1890-01-01", "2022-11-29", "2099-12-31"])
    ]
    write_rows(project.shards("web") / "claims.parquet", rows)
    (project.shards("web") / "web-0.parquet").unlink()
    (project.shards("web") / "web-1.csv").unlink()
    claimed = "sources.web.keep={author: author, badge: badge, said: provenance}"
    mix = project.mix("claims", "sources.web.files=[shards/web/*]", claimed, "sources.web.declare=human")
    claims = [row for row in mix.rows if row["shard"] == "claims.parquet"]
    assert len(claims) == 3
    assert {row["provenance"] for row in claims} == {"human"}
    assert {row["said"] for row in claims} == {"human_verified"}


def test_the_same_text_declared_human_and_synthetic_is_never_verified_and_is_told(project: Project) -> None:
    texts = [row["text"] for row in project.mix("bots", NO_FLOOR).rows if row["source"] == "bot"]
    write_rows(
        project.shards("letters") / "laundered.jsonl.gz", [{"id": f"l-{n}", "text": t} for n, t in enumerate(texts)]
    )
    mix = project.mix("laundered", "dedup.wipe_out=1", NO_FLOOR)
    laundered = [row for row in mix.rows if row["text"] in texts]
    assert {row["provenance"] for row in laundered} == {"human"}, "the source's belief, and no more"
    assert any("same text, other provenance" in note for note in mix.manifest["notes"])


def test_repeating_signed_text_does_not_inflate_the_floor(project: Project) -> None:
    honest = project.mix("honest")
    path = project.shards("press") / "press-0.parquet"
    write_rows(path, [{**row, "id": f"{row['id']}-{n}"} for n in range(30) for row in project.press()])
    attest_press(project.folder)
    inflated = project.mix("inflated", "dedup.wipe_out=1")
    assert inflated.manifest["totals"]["human_verified"] == honest.manifest["totals"]["human_verified"]
    assert inflated.drops("press") == {"exact_duplicate": 6 * 29}
    assert all(row["copy"] == 0 for row in verified(inflated))


# Who can write where


def _fates(project: Project) -> tuple[Path, Path]:
    (layer,) = (project.index / "fates").iterdir()
    tables = [path for path in layer.glob("fates-*.parquet") if _of_web(project, layer, path)]
    return layer / "_DONE.json", tables[0]


def _of_web(project: Project, layer: Path, path: Path) -> bool:
    done = json.loads((layer / "_DONE.json").read_bytes())
    return any(part["file"] == path.name and part["account"]["source"] == "web" for part in done["parts"])


def test_a_tampered_index_publishes_nothing(project: Project) -> None:
    """Whoever can write to the index can tag what they like as verified; the signatures are asked once more."""
    project.mix("clean")
    ledger, path = _fates(project)
    table = pq.read_table(path)
    place = table.schema.get_field_index("provenance")
    forged = pa.array(np.full(table.num_rows, Provenance.HUMAN_VERIFIED, np.uint8))
    pq.write_table(table.set_column(place, table.schema.field(place), forged), path, compression="zstd")
    done = json.loads(ledger.read_bytes())
    done["files"][path.name] = path.stat().st_size
    ledger.write_text(json.dumps(done))
    told = project.run("tampered")
    assert (told.exit, told.code) == (4, "verification_failed")
    assert "not_in_custody" in told.message
    assert "web" in told.message
    assert not project.published("tampered")


def test_fates_that_are_not_those_that_were_settled_are_a_damaged_index(project: Project) -> None:
    """Whoever can write to the index lets documents vanish; the account of them is held against what is there."""
    honest = project.mix("counted")
    ledger, path = _fates(project)
    done = json.loads(ledger.read_bytes())
    table = pq.read_table(path)
    place = table.schema.get_field_index("fate")
    fates = np.full(table.num_rows, int(Fate.NEAR_DUPLICATE), np.uint8)
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(fates)), path, compression="zstd")
    done["files"][path.name] = path.stat().st_size
    ledger.write_text(json.dumps(done))
    told = project.run("damaged")
    assert (told.exit, told.code) == (2, "damaged_index"), told.stderr
    assert str(ledger.parent) in told.message
    assert "Remove that folder and run `anchormix index`" in told.message
    assert not project.published("damaged")
    # The advice helps.
    shutil.rmtree(ledger.parent)
    assert project.mix("mended").manifest["logical_digest"] == honest.manifest["logical_digest"]


def test_leaves_that_are_swapped_during_a_run_verify_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the driver judged a leaf list, and before workers search it, it becomes one that covers more."""
    from pipeline import layers

    rows = pq.read_table(project.shards("web") / "web-0.parquet").to_pylist()
    forged = b"".join(sorted(hashlib.sha256(row["text"].encode()).digest() for row in rows))
    judge = layers.load_custody

    def judge_then_swap(config: Any) -> Any:
        custody = judge(config)
        for leaves in custody.sources["press"].subjects.values():
            Path(leaves.path).write_bytes(forged)
        return custody

    monkeypatch.setattr(layers, "load_custody", judge_then_swap)
    told = project.run("swapped")
    assert (told.exit, told.code) == (7, "custody_changed")
    assert "press.dsse.leaves" in told.message
    assert not project.published("swapped")
    monkeypatch.undo()
    assert project.run("again").code == "leaf_list_changed"
    attest_press(project.folder)
    assert len(verified(project.mix("mended"))) == 12


def test_a_manifest_that_is_swapped_before_publishing_is_not_published(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import publish

    manifest = project.folder / "custody" / "press.dsse.json"
    write = publish.write_inputs

    def write_then_swap(*arguments: Any) -> None:
        write(*arguments)
        manifest.write_bytes(manifest.read_bytes() + b"\n")

    monkeypatch.setattr(publish, "write_inputs", write_then_swap)
    told = project.run("swapped")
    assert (told.exit, told.code) == (7, "custody_changed")
    assert not project.published("swapped")


def test_private_keys_stay_where_they_are(project: Project) -> None:
    write_keypair(project.folder / "keys" / "mix")
    project.mix("signed", "sign={key: keys/mix.key}")
    secrets = []
    for name in ("desk", "mix"):
        path = project.folder / "keys" / f"{name}.key"
        assert path.stat().st_mode & 0o777 == 0o600
        content = path.read_text()
        body = "".join(line for line in content.splitlines() if "-----" not in line)
        secrets += [body.encode(), base64.b64decode(body), base64.b64decode(body)[-32:]]
        secrets += [base64.b64decode(body)[-32:].hex().encode()]
    secrets.append(b"PRIVATE KEY")
    searched = [
        path
        for folder in (project.folder / "out", project.folder / "custody")
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert {path.suffix for path in searched} >= {".parquet", ".json", ".leaves", ".yaml", ".html"}
    for path in searched:
        content = path.read_bytes()
        assert [secret for secret in secrets if secret in content] == [], path


# Who vouches


def test_methods_and_issuers_are_counted_apart(project: Project) -> None:
    write_keypair(project.folder / "keys" / "agency")
    for number, (key, issuer) in enumerate([("desk", "Example Press"), ("agency", "An Agency")]):
        attest(
            [project.shards("press") / f"press-{number}.parquet"],
            project.folder / "keys" / f"{key}.key",
            "licensed_source",
            project.folder / "custody" / f"{key}.json",
            issuer=issuer,
        )
    config = yaml.safe_load(project.config.read_text())
    config["trust"]["keys"].append({"name": "agency", "public_key": "keys/agency.pub"})
    config["sources"][0]["custody"]["manifest"] = ["custody/desk.json", "custody/agency.json"]
    project.config.write_text(yaml.safe_dump(config))
    mix = project.mix("issuers")
    counted: dict[str, Counter[str]] = {"Example Press": Counter(), "An Agency": Counter()}
    for row in verified(mix):
        (proof,) = [piece["detail"] for piece in row["evidence"] if piece["kind"] == "custody"]
        issuer = proof.split(", key ")[0].removeprefix("licensed_source, issuer ")
        counted[issuer] += Counter(rows=1, documents=row["copy"] == 0, tokens=row["n_tokens"], bytes=row["n_bytes"])
    assert mix.manifest["provenance"]["by_issuer"] == {issuer: dict(total) for issuer, total in counted.items()}
    assert set(mix.manifest["provenance"]["by_method"]) == {"licensed_source"}
    summary = mix.manifest["summary"]
    press = {entry["issuer"]: entry for entry in summary if entry["source"] == "press"}
    assert {issuer: entry["tokens"] for issuer, entry in press.items()} == {i: t["tokens"] for i, t in counted.items()}
    assert {entry["method"] for entry in press.values()} == {"licensed_source"}
    (bot,) = [entry for entry in summary if entry["source"] == "bot"]
    assert (bot["provenance"], bot["generator"], bot["kind"]) == ("synthetic", "parrot-1b", "generated")
    for unit in ("rows", "documents", "tokens", "bytes"):
        assert sum(entry[unit] for entry in summary) == mix.manifest["totals"][unit]
    # Who trusts one of the two sees exactly the rows of the other.
    trust = project.folder / "one.yaml"
    trust.write_text(yaml.safe_dump({"keys": [{"name": "desk", "public_key": "keys/desk.pub"}]}))
    told = anchormix("verify", mix.folder, "--trust", trust)
    assert told.exit == 4
    assert told.details["finding_counts"]["custody.not_in_custody"] == counted["An Agency"]["rows"]
    assert "Example Press" in (mix.folder / "report.html").read_text()


def test_planted_copies_neither_remove_nor_demote_signed_text(project: Project) -> None:
    """A registry, a source of the highest priority, and near copies, all full of the same signed book."""
    registry = project.folder / "registry"
    registry.mkdir()
    rows = project.press()
    write_rows(registry / "known.jsonl", [{"text": row["text"], "generator": "parrot-1b"} for row in rows])
    planted = [{"id": f"p-{n}", "text": row["text"] + (" And so on." if n % 2 else "")} for n, row in enumerate(rows)]
    write_rows(project.shards("bot") / "planted.jsonl.zst", planted)
    overrides = ("evidence.known_synthetic=[registry/*.jsonl]", "sources.bot.priority=1000", "dedup.wipe_out=1")
    stopped = project.run("stopped", *overrides)
    assert (stopped.exit, stopped.code) == (6, "contested_custody")
    mix = project.mix("griefed", *overrides, "evidence.max_contested=1")
    assert len(verified(mix)) == 12
    assert mix.manifest["contested"]["documents"] == len(rows)
    assert {row["partner"] for row in mix.dropped.values() if row["shard"] == "planted.jsonl.zst"} <= {
        row["id"] for row in verified(mix)
    }


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_planted_signed_text_stays_verified(seed: int, tmp_path: Path) -> None:
    """Guarantee 5 over random corpora: copies, edits and registries around signed text, of any source and priority."""
    rng = random.Random(seed)
    write_corpus(tmp_path, seed=seed, verified=16, believed=6, unknown=8, synthetic=6, exact=3, near=6, empty=1)
    press = [
        row for path in sorted((tmp_path / "shards" / "press").iterdir()) for row in pq.read_table(path).to_pylist()
    ]
    (tmp_path / "registry").mkdir()
    chosen = rng.sample(press, 5)
    write_rows(tmp_path / "registry" / "known.jsonl", [{"text": row["text"]} for row in chosen])
    for source, name in (("web", "planted.parquet"), ("letters", "planted.jsonl.gz"), ("bot", "planted.jsonl.zst")):
        rows = [
            {"id": f"{source}-p{n}", "text": row["text"] + rng.choice(["", "\u200b", " And so on.", "\n\nAnd so on."])}
            for n, row in enumerate(rng.choices(press, k=12))
        ]
        write_rows(tmp_path / "shards" / source / name, rows)
    changes = {source: {"priority": rng.randrange(-5, 1000)} for source in ("web", "letters", "bot")}
    config = minimal_config(
        tmp_path,
        sources=changes,
        dedup={"wipe_out": 1},
        evidence={"known_synthetic": ["registry/*.jsonl"], "max_contested": 1},
        mix={"shards": 1, "floors": {"human_verified": float(Fraction(1, 10))}},
    )
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    assert {row["text"] for row in verified(mix)} == {row["text"] for row in press}
    assert {row["source"] for row in verified(mix)} == {"press"}
    contested = {row["text"] for row in verified(mix) if any(p["kind"] == "known_synthetic" for p in row["evidence"])}
    assert {row["text"] for row in chosen} <= contested
