"""A shard's audit says what its bytes say, finds every broken row, and depends on no encoding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mixes import SCHEMA, Row, row, sealed, shares_and_slack

from transforms.kernels.audit import (
    CERTIFICATE_KEY,
    Finding,
    Findings,
    ShardAudit,
    _first_below,
    audit_shard,
    certified_shares,
    logical_digest,
)
from transforms.kernels.text import count_words

HALF = Fraction(1, 2)
NONE = Fraction(0)


def rows_of(pattern: str) -> list[Row]:
    """One row per letter: h for verified text, o for other text; all of equal length."""
    kinds = {"h": ("press", "human_verified"), "o": ("web", "unknown")}
    return [row(f"text number {place:03d} here", *kinds[letter], place) for place, letter in enumerate(pattern)]


def write(path: Path, rows: list[Row], row_group: int = 4, schema: pa.Schema = SCHEMA, **options: Any) -> Path:
    with pq.ParquetWriter(path, schema, **options) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=row_group)
        writer.add_key_value_metadata({CERTIFICATE_KEY: json.dumps(certificate(path, rows, row_group))})
    return path


def certificate(path: Path, rows: list[Row], row_group: int) -> dict[str, Any]:
    return {
        "shard": path.name,
        "rows": len(rows),
        "documents": sum(r["copy"] == 0 for r in rows),
        "tokens": sum(r["n_tokens"] or 0 for r in rows),
        "bytes": sum(r["n_bytes"] or 0 for r in rows),
        "measure": "tokens",
        **shares_and_slack([r["n_tokens"] or 0 for r in rows], rows, NONE),
        "row_groups": -(-len(rows) // row_group),
    }


def kinds(audit: ShardAudit) -> set[str]:
    return {finding.what for finding in audit.findings}


def test_everything_is_recounted(tmp_path: Path) -> None:
    rows = [*rows_of("hoho"), {**rows_of("hoho")[0], "copy": 1}]
    path = write(tmp_path / "shard.parquet", rows)
    audit = audit_shard(path, "tokens", HALF, count_words)
    assert audit.complete
    assert len(audit.findings) == 0
    assert audit.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert audit.file_bytes == path.stat().st_size
    assert audit.total == (5, 4, sum(r["n_tokens"] for r in rows), sum(r["n_bytes"] for r in rows))
    assert audit.human_verified == sum(r["n_tokens"] for r in rows if r["provenance"] == "human_verified")
    assert [group.rows for group in audit.row_groups] == [4, 1]
    assert audit.totals["web", "unknown", None].documents == 2
    assert audit.most_copies == {"human_verified": 2, "unknown": 1}
    assert audit.languages.total() == 4
    assert [f"{high:016x}{low:016x}" for high, low in audit.ids.tolist()] == [r["id"] for r in rows]
    assert audit.copies.tolist() == [0, 0, 0, 0, 1]
    assert audit.kept == ("title",)


@pytest.mark.parametrize(("measure", "expected"), [("tokens", 16), ("bytes", 80), ("documents", 4)])
def test_each_measure_is_recounted_by_group(tmp_path: Path, measure: Any, expected: int) -> None:
    rows = [sealed({**r, "text": "one two, three four."}) for r in rows_of("hhoo")]
    path = write(tmp_path / "shard.parquet", rows)
    audit = audit_shard(path, measure, NONE, count_words, group_by=("language",))
    assert sum(audit.row_groups[0].measures.values()) == expected
    assert set(audit.totals) == {(r["source"], r["provenance"], None, r["language"]) for r in rows}
    assert audit.human_verified == expected // 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"id": "0" * 32}, "wrong_id"),
        ({"id": ""}, "wrong_id"),
        ({"n_bytes": 0}, "wrong_n_bytes"),
        ({"n_tokens": 10**15}, "wrong_n_tokens"),
        ({"n_tokens": -1}, "wrong_n_tokens"),
        ({"provenance": "human_proven"}, "unknown_provenance"),
        ({"copy": -1}, "bad_copy"),
        ({"represents": 0}, "bad_represents"),
        ({"row": -1}, "bad_row"),
        ({"part": -1}, "bad_part"),
        *(
            ({name: None}, "null")
            for name in ("id", "text", "source", "provenance", "n_tokens", "copy", "shard", "row")
        ),
    ],
)
def test_a_broken_value_is_found_where_it_stands(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    rows = rows_of("hohoho")
    rows[5].update(change)
    audit = audit_shard(write(tmp_path / "shard.parquet", rows), "tokens", NONE, count_words)
    found = next(finding for finding in audit.findings if finding.what == what)
    assert (found.shard, found.row_group, found.row) == ("shard.parquet", 1, 5)
    assert what in str(found)


@pytest.mark.parametrize("text", ["", "  \n", "\u2003"])
def test_blank_text_is_found(tmp_path: Path, text: str) -> None:
    rows = rows_of("hh")
    rows[1] = sealed({**rows[1], "text": text})
    assert "blank_text" in kinds(audit_shard(write(tmp_path / "shard.parquet", rows), "tokens", NONE, count_words))


def test_text_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows_of("hh"), SCHEMA)
    broken = pa.array([b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, SCHEMA.field("text"), broken), tmp_path / "shard.parquet")
    audit = audit_shard(tmp_path / "shard.parquet", "tokens", NONE, count_words)
    assert audit.complete
    assert "bad_utf8" in kinds(audit)


def test_tokens_that_cannot_be_recounted_are_taken_if_possible(tmp_path: Path) -> None:
    rows = rows_of("ho")
    rows[0]["n_tokens"] = 900
    audit = audit_shard(write(tmp_path / "shard.parquet", rows), "tokens", HALF, None)
    assert len(audit.findings) == 0
    assert audit.human_verified == 900
    rows[0]["n_tokens"] = 1 << 62
    assert "impossible_n_tokens" in kinds(audit_shard(write(tmp_path / "shard.parquet", rows), "tokens", HALF, None))


@pytest.mark.parametrize(
    ("pattern", "row_group", "expected"),
    [
        ("hoho", 4, set()),
        ("hhoo", 4, set()),
        ("ohho", 4, {"prefix_below_floor"}),
        ("hooh", 4, {"prefix_below_floor"}),
        ("hhoohhoo", 2, {"prefix_below_floor"}),
        ("hoo", 4, {"prefix_below_floor", "shard_below_floor"}),
    ],
)
def test_the_floor_holds_in_every_prefix_or_is_found(
    tmp_path: Path, pattern: str, row_group: int, expected: set[str]
) -> None:
    path = write(tmp_path / "shard.parquet", rows_of(pattern), row_group)
    assert kinds(audit_shard(path, "documents", HALF, count_words)) - {"certificate_disagrees"} == expected


def test_a_prefix_is_followed_across_batches(tmp_path: Path) -> None:
    rows = rows_of("ho" * 2500) + rows_of("o")
    path = write(tmp_path / "shard.parquet", rows, len(rows))
    audit = audit_shard(path, "documents", HALF, count_words)
    below = [finding.row for finding in audit.findings if finding.what == "prefix_below_floor"]
    assert below == [5000]


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 10**9).flatmap(lambda q: st.tuples(st.integers(0, q), st.just(q))),
    st.integers(0, 10**30),
)
def test_prefixes_are_exact_however_large(items: list[tuple[int, bool]], pq_: tuple[int, int], before: int) -> None:
    floor = Fraction(*pq_)
    measures = np.array([measure for measure, _ in items], np.int64)
    human = np.array([is_human for _, is_human in items])
    held, total, expected = before, before, None
    for at, (measure, is_human) in enumerate(items):
        held, total = held + measure * is_human, total + measure
        if expected is None and held * floor.denominator < total * floor.numerator:
            expected = at, f"{held}/{total}"
    assert _first_below(floor, measures, human, before, before) == expected


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXT, st.none() | TEXT, st.none() | TEXT), max_size=12), st.data())
def test_the_rows_digest_depends_on_rows_alone(
    tmp_path: Path, values: list[tuple[str, str | None, str | None]], data: st.DataObject
) -> None:
    rows = [
        row(text, "web", "unknown", place, title=title, generator=generator, evidence=evidence)
        for place, (text, title, generator) in enumerate(values)
        for evidence in [[None, [], [{"kind": title}, None]][place % 3]]
    ]

    def digest(**options: Any) -> str:
        row_group = data.draw(st.integers(1, 5))
        return audit_shard(
            write(tmp_path / "s.parquet", rows, row_group, **options), "tokens", NONE, count_words
        ).rows_digest

    reference = digest()
    assert digest(compression="none", use_dictionary=False) == reference
    assert digest(compression="zstd", version="1.0", data_page_size=64) == reference
    if rows:
        place = data.draw(st.integers(0, len(rows) - 1))
        column = data.draw(st.sampled_from(["text", "title", "generator", "language", "copy", "row"]))
        old = rows[place][column]
        rows[place][column] = old + 1 if isinstance(old, int) else ("" if old is None else old + "x")
        assert digest() != reference


def test_values_cannot_borrow_from_their_neighbours(tmp_path: Path) -> None:
    digests = set()
    for titles in (["ab", "c"], ["a", "bc"], ["abc", None], ["abc", ""], [None, "abc"]):
        rows = [{**r, "title": title} for r, title in zip(rows_of("hh"), titles, strict=True)]
        digests.add(audit_shard(write(tmp_path / "s.parquet", rows), "tokens", NONE, count_words).rows_digest)
    assert len(digests) == 5


def test_the_logical_digest_follows_rows_and_names_in_order(tmp_path: Path) -> None:
    one = audit_shard(write(tmp_path / "a.parquet", rows_of("h")), "tokens", NONE, count_words)
    two = audit_shard(write(tmp_path / "b.parquet", rows_of("o")), "tokens", NONE, count_words)
    swapped = audit_shard(write(tmp_path / "a.parquet", rows_of("o")), "tokens", NONE, count_words)
    assert logical_digest([one, two]) == logical_digest([two, one])
    assert len({logical_digest(audits) for audits in ([one, two], [one], [swapped, two], [])}) == 4


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda schema: schema.remove(3), "wrong_schema"),
        (lambda schema: schema.set(6, pa.field("n_tokens", pa.int32())), "wrong_schema"),
        (lambda schema: schema.append(pa.field("n", pa.int64())), "wrong_schema"),
        (lambda schema: schema.set(0, pa.field("ID", pa.string())), "wrong_schema"),
    ],
)
def test_another_schema_is_found(tmp_path: Path, change: Callable[[pa.Schema], pa.Schema], what: str) -> None:
    schema = change(SCHEMA)
    rows = [{name: r.get(name) for name in schema.names} for r in rows_of("hh")]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "shard.parquet")
    audit = audit_shard(tmp_path / "shard.parquet", "tokens", NONE, count_words)
    assert what in kinds(audit)
    assert not audit.complete


def test_a_column_that_rules_group_by_must_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "shard.parquet", rows_of("h"))
    assert kinds(audit_shard(path, "tokens", NONE, count_words, group_by=("title",))) == set()
    assert kinds(audit_shard(path, "tokens", NONE, count_words, group_by=("topic",))) == {"missing_column"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_a_certificate_that_is_none_is_found(tmp_path: Path, content: bytes) -> None:
    with pq.ParquetWriter(tmp_path / "shard.parquet", SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows_of("h"), SCHEMA))
        writer.add_key_value_metadata({CERTIFICATE_KEY: content})
    assert kinds(audit_shard(tmp_path / "shard.parquet", "tokens", NONE, count_words)) == {"bad_certificate"}


@given(
    st.dictionaries(st.sampled_from(["human_verified", "human", "synthetic", "unknown"]), st.integers(0, 1 << 70)),
    st.fractions(0, 1),
)
def test_slack_is_what_could_go_and_no_more(amounts: dict[str, int], floor: Fraction) -> None:
    told = certified_shares(amounts, floor)
    human, total = amounts.get("human_verified", 0), sum(amounts.values())
    assert human - told["slack"] >= floor * total > human - told["slack"] - 1
    assert told["shares"] == {name: [amount, total] for name, amount in amounts.items()}
    assert (told["slack"] >= 0) == (human >= floor * total)


@pytest.mark.parametrize(
    ("name", "value"),
    [("slack", 10**6), ("slack", None), ("shares", {"human_verified": [1, 1]}), ("human_verified", 1)],
)
def test_a_certificate_that_claims_other_shares_is_found(tmp_path: Path, name: str, value: Any) -> None:
    rows = rows_of("hoho")
    path = write(tmp_path / "shard.parquet", rows)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=4)
        forged = {**certificate(path, rows, 4), name: value}
        writer.add_key_value_metadata({CERTIFICATE_KEY: json.dumps(forged)})
    assert kinds(audit_shard(path, "tokens", NONE, count_words)) == {"certificate_disagrees"}


def test_missing_certificates_and_empty_shards_are_found(tmp_path: Path) -> None:
    pq.write_table(SCHEMA.empty_table(), tmp_path / "shard.parquet")
    audit = audit_shard(tmp_path / "shard.parquet", "tokens", HALF, count_words)
    assert kinds(audit) == {"no_certificate", "empty_shard"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_to_a_shard_escapes_as_an_exception(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "shard.parquet", rows_of("hohoho"))
    content = bytearray(path.read_bytes())
    rows = pq.read_table(path)
    honest = audit_shard(path, "tokens", HALF, count_words)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    audit = audit_shard(path, "tokens", HALF, count_words)
    assert audit.sha256 != honest.sha256
    assert audit.complete or len(audit.findings) > 0
    if len(audit.findings) == 0 and audit.rows_digest == honest.rows_digest:
        assert pq.read_table(path).equals(rows), "a shard without findings whose digest is the same holds the same rows"


def test_a_file_that_is_not_there_is_found(tmp_path: Path) -> None:
    assert kinds(audit_shard(tmp_path / "none.parquet", "tokens", HALF, count_words)) == {"unreadable_shard"}


def test_findings_are_counted_in_full_and_kept_in_part(tmp_path: Path) -> None:
    rows = [{**r, "n_bytes": 0} for r in rows_of("h" * 100)]
    findings = audit_shard(write(tmp_path / "shard.parquet", rows), "tokens", NONE, count_words).findings
    assert findings.counts["consistent", "wrong_n_bytes"] == 100
    assert sum(finding.what == "wrong_n_bytes" for finding in findings) == 20
    merged = Findings()
    merged.merge(findings)
    merged.merge(findings)
    merged.add(Finding("consistent", "other", "a", "b"))
    assert merged.counts["consistent", "wrong_n_bytes"] == 200
    assert sum(finding.what == "wrong_n_bytes" for finding in merged) == 20
    assert merged.total("consistent") == 2 * findings.total() + 1
    assert merged.total("signed") == 0


def test_a_visitor_sees_every_row_with_the_digest_of_its_text(tmp_path: Path) -> None:
    rows = rows_of("hohoho")
    seen = []

    def visit(batch: Any) -> list[Finding]:
        seen.extend(zip(batch.rows["text"].to_pylist(), batch.digests.tolist(), strict=True))
        return [Finding("custody", "seen", "", "", batch.shard, batch.row_group, batch.first_row)]

    audit = audit_shard(write(tmp_path / "shard.parquet", rows), "tokens", HALF, count_words, visit=visit)
    assert seen == [(r["text"], list(hashlib.sha256(r["text"].encode()).digest())) for r in rows]
    assert [(finding.row_group, finding.row) for finding in audit.findings] == [(0, 0), (1, 4)]
