"""Recount one written shard from its bytes alone: nothing that the shard says of itself is believed.

Every row is read once, in batches, so memory stays flat however large the shard. What is wrong becomes a `Finding`;
a shard that cannot be read to its end is a finding too, never an exception.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from transforms.kernels.ahead import read_ahead
from transforms.kernels.hashing import byte_spans, hex_ids, text_digests
from transforms.kernels.schemas import ID_BYTES, MOST_TOKENS, Provenance, mix_schema
from transforms.kernels.strata import distinct_rows
from transforms.kernels.text import blank, valid_utf8
from transforms.kernels.tokens import CountTokens
from transforms.kernels.windows import Window, WorstWindow

__all__ = [
    "CERTIFICATE_KEY",
    "CONSISTENT",
    "FIXED_COLUMNS",
    "AuditedRows",
    "Finding",
    "Findings",
    "Key",
    "Manifests",
    "Measure",
    "RowGroupAudit",
    "ShardAudit",
    "Totals",
    "VerifiedBy",
    "audit_shard",
    "certified_shares",
    "logical_digest",
    "sum_totals",
]

Measure = Literal["tokens", "bytes", "documents"]
Key = tuple[str | None, ...]
"""(source, provenance, generator), then the value of each column in `group_by`."""

VerifiedBy = tuple[str, str | None]
"""A source, and the custody manifest that its verified rows are under."""

Manifests = Mapping[tuple[str, str], str | None]
"""The custody manifest of each input shard, by source and shard."""

CERTIFICATE_KEY = b"anchormix"
CONSISTENT = "consistent"
FIXED_COLUMNS = len(mix_schema(()))

_BATCH_ROWS = 4096
_BATCH_BYTES = 8 << 20  # of long documents a batch holds fewer
_INT64_LIMIT = 1 << 63
_KEPT_PER_KIND = 20
_MAY_BE_NULL = {"generator", "evidence", "language", "license", "doc_id"}
_REQUIRED = [name for name in mix_schema(()).names if name not in _MAY_BE_NULL]
_LEAST = {"represents": 1, "copy": 0, "row": 0, "part": 0}
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises on bytes that are not, or are no longer, the Parquet file they pretend to be."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. `what` is a stable word; `row` counts from the start of the shard."""

    level: str
    what: str
    expected: str
    found: str
    shard: str | None = None
    row_group: int | None = None
    row: int | None = None

    def __str__(self) -> str:
        places = (("", self.shard), ("row group ", self.row_group), ("row ", self.row))
        where = ", ".join(f"{name}{value}" for name, value in places if value is not None)
        return f"{self.what}{' in ' + where if where else ''}: expected {self.expected}, found {self.found}"


class Findings:
    """Findings, counted in full; of each kind only the first few are kept, so that memory has a bound."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, finding: Finding, times: int = 1) -> None:
        """Count a finding, `times` when it stands for several of its kind."""
        kind = (finding.level, finding.what)
        if self.counts[kind] < _KEPT_PER_KIND:
            self.kept.append(finding)
        self.counts[kind] += times

    def merge(self, other: Findings) -> None:
        room = {kind: _KEPT_PER_KIND - count for kind, count in self.counts.items()}
        for finding in other.kept:
            kind = (finding.level, finding.what)
            if room.setdefault(kind, _KEPT_PER_KIND) > 0:
                self.kept.append(finding)
                room[kind] -= 1
        self.counts.update(other.counts)

    def total(self, level: str | None = None) -> int:
        return sum(count for (at, _), count in self.counts.items() if level in (None, at))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.kept)

    def __len__(self) -> int:
        return self.total()


class Totals(NamedTuple):
    """Copies are rows; documents are rows with copy = 0."""

    rows: int
    documents: int
    tokens: int
    bytes: int

    def plus(self, other: Totals) -> Totals:
        return Totals(*(a + b for a, b in zip(self, other, strict=True)))

    def measured(self, measure: Measure) -> int:
        """In the unit of rules, where every copy counts."""
        return {"tokens": self.tokens, "bytes": self.bytes, "documents": self.rows}[measure]


_NOTHING = Totals(0, 0, 0, 0)


def sum_totals(parts: Iterable[Totals]) -> Totals:
    total = _NOTHING
    for part in parts:
        total = total.plus(part)
    return total


class RowGroupAudit(NamedTuple):
    rows: int
    measures: dict[Key, int]


class AuditedRows(NamedTuple):
    """A batch of rows as a visitor sees it, with the digests of the text as it stands in the file."""

    shard: str
    row_group: int
    first_row: int
    rows: pa.RecordBatch
    digests: NDArray[np.uint8]


Visitor = Callable[[AuditedRows], Iterable[Finding]]


@dataclass
class ShardAudit:
    """What one shard really holds. Where `complete` is false the counts end where reading did."""

    shard: str
    measure: Measure
    group_by: tuple[str, ...]
    sha256: str = ""
    file_bytes: int = 0
    kept: tuple[str, ...] = ()
    certificate: Mapping[str, Any] | None = None
    totals: dict[Key, Totals] = field(default_factory=dict)
    verified_by: dict[VerifiedBy, Totals] = field(default_factory=dict)  # human_verified rows only
    row_groups: list[RowGroupAudit] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    worst_window: Window | None = None  # of WINDOW_ROWS rows, that with the least human_verified
    most_copies: dict[str, int] = field(default_factory=dict)
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))
    copies: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    rows_digest: str = ""
    complete: bool = False
    findings: Findings = field(default_factory=Findings)

    @property
    def total(self) -> Totals:
        return sum_totals(self.totals.values())

    @property
    def human_verified(self) -> int:
        """Verified text, in the measure."""
        return self.by_provenance.get(Provenance.HUMAN_VERIFIED.label, 0)

    @property
    def by_provenance(self) -> dict[str, int]:
        """What the shard holds of each provenance, in the measure."""
        amounts: Counter[str] = Counter()
        for (_, provenance, *_), total in self.totals.items():
            amounts[str(provenance)] += total.measured(self.measure)
        return dict(amounts)

    def find(
        self, what: str, expected: object, found: object, row_group: int | None = None, row: int | None = None
    ) -> None:
        self.findings.add(Finding(CONSISTENT, what, str(expected), str(found), self.shard, row_group, row))


def audit_shard(
    path: str | Path,
    row_measure: Measure,
    floor: Fraction,
    count_tokens: CountTokens | None,
    *,
    group_by: tuple[str, ...] = (),
    manifests: Manifests | None = None,
    visit: Visitor | None = None,
) -> ShardAudit:
    """Recount the shard at `path`; its name is its file name.

    `floor` is the least share of human_verified in `row_measure`, for the shard, each row group and every prefix of
    a row group. With `count_tokens` tokens are counted anew; without it the column's numbers are taken.
    `group_by` names further columns that rules group by. With `manifests`, verified rows are also counted by the
    custody manifest of the input shard that they name. `visit` sees every readable batch and may add findings.
    """
    path = Path(path)
    audit = ShardAudit(path.name, row_measure, group_by)
    with ThreadPoolExecutor(1) as beside:
        hashed = beside.submit(_digest_and_size, path)
        try:
            try:
                with pq.ParquetFile(path) as shard:
                    _Recount(audit, floor, count_tokens, manifests or {}, visit).run(shard)
            finally:
                audit.sha256, audit.file_bytes = hashed.result()
        except _UNREADABLE as error:
            audit.find("unreadable_shard", "a Parquet file that can be read to its end", " ".join(str(error).split()))
    return audit


def certified_shares(by_provenance: Mapping[str, int], floor: Fraction) -> dict[str, Any]:
    """What a certificate says of shares, in the measure and in whole numbers: each share as what there is of all, and
    how much verified text could go before the floor did not hold."""
    total = sum(by_provenance.values())
    human = by_provenance.get(Provenance.HUMAN_VERIFIED.label, 0)
    least = -(-floor.numerator * total // floor.denominator)
    shares = {name: [amount, total] for name, amount in sorted(by_provenance.items())}
    return {"human_verified": human, "shares": shares, "slack": human - least}


def _digest_and_size(path: Path) -> tuple[str, int]:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest(), source.tell()


def logical_digest(audits: Iterable[ShardAudit]) -> str:
    """What a mix says, whatever its bytes: equal rows in equal order in equally named shards give equal digests."""
    digest = hashlib.sha256()
    for audit in sorted(audits, key=lambda audit: audit.shard):
        digest.update(f"{audit.shard}\0{audit.rows_digest}\n".encode())
    return digest.hexdigest()


class _Hashed(NamedTuple):
    """A batch and the sha256 of its texts, both made ahead of the rest: about as much work as the rest is."""

    batch: pa.RecordBatch
    text_sha256: NDArray[np.uint8]


def _batches(shard: pq.ParquetFile) -> Iterator[tuple[int, _Hashed | None]]:
    """Each row group's batches, then None: a row group without rows is one all the same."""
    for row_group in range(shard.num_row_groups):
        told = shard.metadata.row_group(row_group)
        rows = max(1, min(_BATCH_ROWS, told.num_rows * _BATCH_BYTES // max(1, told.total_byte_size)))
        for batch in shard.iter_batches(rows, row_groups=[row_group], use_threads=False):
            yield row_group, _Hashed(batch, text_digests(batch["text"]))
        yield row_group, None


class _Recount:
    """The walk through one shard, filling its audit."""

    def __init__(
        self,
        audit: ShardAudit,
        floor: Fraction,
        count_tokens: CountTokens | None,
        manifests: Manifests,
        visit: Visitor | None,
    ) -> None:
        self.audit = audit
        self.floor = floor
        self.count_tokens = count_tokens
        self.manifests = manifests
        self.visit = visit
        self.ids: list[NDArray[np.uint64]] = []
        self.copies: list[NDArray[np.int32]] = []
        self.digests: list[_ColumnDigest] = []
        self.windows = WorstWindow()

    def run(self, shard: pq.ParquetFile) -> None:
        audit = self.audit
        self._read_certificate(shard)
        schema = shard.schema_arrow
        if not self._schema_holds(schema):
            return
        self.digests = [_ColumnDigest(column.type) for column in schema]
        row = 0
        with contextlib.closing(read_ahead(_batches(shard))) as ahead:
            for index, parts in groupby(ahead, key=itemgetter(0)):
                promised = shard.metadata.row_group(index).num_rows
                row = self._row_group(index, promised, (batch for _, batch in parts if batch is not None), row)
        if row == 0:
            audit.find("empty_shard", "at least one row", "none")
        if self.ids:
            audit.ids, audit.copies = np.concatenate(self.ids), np.concatenate(self.copies)
        audit.worst_window = self.windows.worst
        audit.rows_digest = _rows_digest(schema, row, self.digests)
        audit.complete = True
        human, total = audit.human_verified, audit.total.measured(audit.measure)
        if not _holds(self.floor, human, total):
            audit.find("shard_below_floor", f"at least {self.floor} human_verified", _share(human, total))
        self._certificate_agrees(shard.num_row_groups)

    def _read_certificate(self, shard: pq.ParquetFile) -> None:
        written = (shard.metadata.metadata or {}).get(CERTIFICATE_KEY)
        if written is None:
            self.audit.find("no_certificate", f"the footer key {CERTIFICATE_KEY.decode()!r}", "no such key")
            return
        try:
            certificate = json.loads(written)
        except (ValueError, RecursionError) as error:
            certificate = error
        if isinstance(certificate, dict):
            self.audit.certificate = certificate
        else:
            self.audit.find("bad_certificate", "a JSON object", repr(certificate))

    def _schema_holds(self, schema: pa.Schema) -> bool:
        self.audit.kept = tuple(schema.names[FIXED_COLUMNS:])
        expected = mix_schema(self.audit.kept)
        if len(set(schema.names)) == len(schema.names) and schema.equals(expected):
            return self._groups_exist(schema)
        wrong = [
            f"{found.name}: {found.type}"
            for found, wanted in zip(schema, expected, strict=False)
            if not found.equals(wanted)
        ] or [f"{len(schema)} columns: {', '.join(schema.names)}"]
        self.audit.find(
            "wrong_schema",
            f"the columns {', '.join(expected.names[:FIXED_COLUMNS])}, then kept string columns of other names",
            "; ".join(wrong),
        )
        return False

    def _groups_exist(self, schema: pa.Schema) -> bool:
        missing = [name for name in self.audit.group_by if name not in schema.names]
        for name in missing:
            self.audit.find("missing_column", f"a column {name!r}, which a rule groups by", ", ".join(schema.names))
        return not missing

    def _row_group(self, index: int, promised: int, batches: Iterable[_Hashed], row: int) -> int:
        audit = self.audit
        measures: Counter[Key] = Counter()
        start, human, total, holds = row, 0, 0, True
        for batch, text_sha256 in batches:
            for column, values, digest in zip(batch.schema.names, batch.columns, self.digests, strict=True):
                digest.update(text_sha256 if column == "text" else values)
            tokens, sizes = self._check_rows(batch, text_sha256, index, row)
            counted = {"tokens": tokens, "bytes": sizes, "documents": np.ones_like(sizes)}[audit.measure]
            verified = pc.fill_null(pc.equal(batch["provenance"], Provenance.HUMAN_VERIFIED.label), False)
            is_human = verified.to_numpy(zero_copy_only=False)
            below = _first_below(self.floor, counted, is_human, human, total) if holds else None
            if below is not None:
                holds = False
                at, share = below
                expected = f"at least {self.floor} human_verified in every prefix of a row group"
                audit.find("prefix_below_floor", expected, share, index, row + at)
            self.windows.add(counted, is_human)
            human += int(counted[is_human].sum())
            total += int(counted.sum())
            self._add_totals(batch, tokens, sizes, counted, measures)
            self._add_verified(batch, np.flatnonzero(is_human), tokens, sizes)
            self.ids.append(np.ascontiguousarray(text_sha256[:, :ID_BYTES]).view(">u8").astype(np.uint64))
            self.copies.append(pc.fill_null(batch["copy"], 0).to_numpy())
            if self.visit is not None:
                for finding in self.visit(AuditedRows(audit.shard, index, row, batch, text_sha256)):
                    audit.findings.add(finding)
            row += batch.num_rows
        if row - start != promised:  # some damaged pages end a batch reader early, without an error
            audit.find("missing_rows", f"{promised} rows, as the footer says", row - start, index)
        audit.row_groups.append(RowGroupAudit(row - start, dict(measures)))
        return row

    def _check_rows(
        self, batch: pa.RecordBatch, digests: NDArray[np.uint8], row_group: int, first_row: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Check each row by itself; the tokens and bytes of each, recounted."""

        def find(what: str, wrong: Any, expected: Any, found: Any) -> None:
            rows = np.flatnonzero(wrong)
            for at in rows[:_KEPT_PER_KIND].tolist():
                told = expected if isinstance(expected, str) else expected[at]
                self.audit.find(what, told, found if isinstance(found, str) else found[at], row_group, first_row + at)
            if len(rows) > _KEPT_PER_KIND:
                self.audit.findings.counts[(CONSISTENT, what)] += len(rows) - _KEPT_PER_KIND

        for name in _REQUIRED:
            if batch[name].null_count:
                find("null", batch[name].is_null(), f"a value in {name}", "null")
        text = batch["text"]
        valid = valid_utf8(text.view(pa.binary()))
        if not valid.all():
            find("bad_utf8", ~valid, "text in UTF-8", "other bytes")
            text = pc.if_else(pa.array(valid), text, pa.scalar(None, text.type))
        find("blank_text", blank(text) & valid, "text that is not blank", "blank")

        ids = hex_ids(digests)
        find("wrong_id", _differ(batch["id"], ids), ids, batch["id"])
        spans = byte_spans(batch["text"])
        sizes = spans.stops - spans.starts
        find("wrong_n_bytes", _differ(batch["n_bytes"], pa.array(sizes)), sizes, batch["n_bytes"])
        tokens = self._tokens(batch["n_tokens"], text, find)

        labels = pa.array([provenance.label for provenance in Provenance])
        known = pc.is_in(batch["provenance"], value_set=labels).to_numpy(zero_copy_only=False)
        find("unknown_provenance", ~known, "one of " + ", ".join(labels.to_pylist()), batch["provenance"])
        for name, least in _LEAST.items():
            low = pc.fill_null(pc.less(batch[name], least), False).to_numpy(zero_copy_only=False)
            find(f"bad_{name}", low, f"at least {least}", batch[name])
        return tokens, sizes

    def _tokens(self, claimed: pa.Array, text: pa.Array, find: Callable[..., None]) -> NDArray[np.int64]:
        if self.count_tokens is not None:
            tokens = self.count_tokens(text)
            find("wrong_n_tokens", _differ(claimed, pa.array(tokens)), tokens, claimed)
            return tokens
        tokens = pc.fill_null(claimed, 0).to_numpy()
        impossible = (tokens < 0) | (tokens > MOST_TOKENS)
        find("impossible_n_tokens", impossible, f"0 to {MOST_TOKENS}", claimed)
        return np.where(impossible, 0, tokens)

    def _add_totals(
        self,
        batch: pa.RecordBatch,
        tokens: NDArray[np.int64],
        sizes: NDArray[np.int64],
        counted: NDArray[np.int64],
        measures: Counter[Key],
    ) -> None:
        audit = self.audit
        copies = pc.fill_null(batch["copy"], 0).to_numpy()
        columns = [batch[name] for name in ("source", "provenance", "generator", *audit.group_by)]
        codes, keys = distinct_rows(columns)
        first = (copies == 0).astype(np.int64)
        summed = [_sum_by(codes, values, len(keys)) for values in (np.ones_like(first), first, tokens, sizes)]
        in_measure = _sum_by(codes, counted, len(keys))
        for code, key in enumerate(keys):
            part = Totals(*(column[code] for column in summed))
            audit.totals[key] = audit.totals.get(key, _NOTHING).plus(part)
            measures[key] += in_measure[code]
            provenance, most = str(key[1]), int(copies[codes == code].max()) + 1
            audit.most_copies[provenance] = max(most, audit.most_copies.get(provenance, 0))
        once = batch.filter(pa.array(first.astype(bool)))
        for name, counts in (("language", audit.languages), ("license", audit.licenses)):
            for entry in once[name].value_counts().to_pylist():
                if entry["values"] is not None:
                    counts[entry["values"]] += entry["counts"]

    def _add_verified(
        self, batch: pa.RecordBatch, at: NDArray[np.int64], tokens: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        if len(at) == 0:
            return
        taken = pa.array(at)
        codes, origins = distinct_rows([batch[name].take(taken) for name in ("source", "shard")])
        first = (pc.fill_null(batch["copy"], 0).to_numpy()[at] == 0).astype(np.int64)
        columns = [np.ones_like(first), first, tokens[at], sizes[at]]
        summed = [_sum_by(codes, values, len(origins)) for values in columns]
        added = self.audit.verified_by
        for code, (source, shard) in enumerate(origins):
            key = str(source), self.manifests.get((source, shard))
            added[key] = added.get(key, _NOTHING).plus(Totals(*(column[code] for column in summed)))

    def _certificate_agrees(self, row_groups: int) -> None:
        audit = self.audit
        if audit.certificate is None:
            return
        total = audit.total
        counted = {
            "shard": audit.shard,
            "rows": total.rows,
            "documents": total.documents,
            "tokens": total.tokens,
            "bytes": total.bytes,
            "measure": audit.measure,
            **self._shares(),
            "row_groups": row_groups,
        }
        for name, value in counted.items():
            claimed = audit.certificate.get(name)
            if claimed != value:
                audit.find("certificate_disagrees", f"{name} = {value!r}, as counted", f"{name} = {claimed!r}")

    def _shares(self) -> dict[str, Any]:
        """Slack follows from the floor that the certificate states; the manifest's own is compared with that one."""
        try:
            floor = Fraction(*(self.audit.certificate or {})["floor"])
        except (ArithmeticError, KeyError, TypeError, ValueError):
            floor = Fraction(0)
        return certified_shares(self.audit.by_provenance, floor)


def _holds(floor: Fraction, human: int, total: int) -> bool:
    return floor.denominator * human >= floor.numerator * total


def _share(human: int, total: int) -> str:
    return f"{human}/{total}"


def _first_below(
    floor: Fraction, measures: NDArray[np.int64], is_human: NDArray[np.bool_], human: int, total: int
) -> tuple[int, str] | None:
    """The first row after which the prefix, `human` of `total` before this batch, is below the floor."""
    p, q = floor.numerator, floor.denominator
    # Python integers where a product could leave int64: slower, as exact.
    bound = (total + int(measures.sum())) * q
    kind: Any = np.int64 if bound < _INT64_LIMIT else object
    measures = measures.astype(kind)
    humans = np.cumsum(np.where(is_human, measures, 0), dtype=kind) + human
    totals = np.cumsum(measures, dtype=kind) + total
    below = np.flatnonzero(q * humans < p * totals)
    if len(below) == 0:
        return None
    at = int(below[0])
    return at, _share(int(humans[at]), int(totals[at]))


def _sum_by(codes: NDArray[np.int64], values: NDArray[np.int64], groups: int) -> list[int]:
    sums = np.zeros(groups, np.int64)
    np.add.at(sums, codes, values)
    return sums.tolist()


def _differ(claimed: pa.Array, counted: pa.Array) -> NDArray[np.bool_]:
    """Where the two differ; a null is reported as such, not as a difference."""
    return pc.fill_null(pc.not_equal(claimed, counted), False).to_numpy(zero_copy_only=False)


class _ColumnDigest:
    """sha256 of the values of one column in row order, whatever chunks or row groups they arrive in.

    Shape (the length of each value, -1 for null) and content are two streams, so no value can borrow bytes from its
    neighbour. A list is its lengths and then its elements; a struct is its validity and then its fields.
    """

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self.shape = hashlib.sha256()
        self.content = hashlib.sha256()
        self.parts: list[_ColumnDigest] = []
        if pa.types.is_list(kind):
            self.parts = [_ColumnDigest(kind.value_type)]
        elif pa.types.is_struct(kind):
            self.parts = [_ColumnDigest(part.type) for part in kind]

    def update(self, values: pa.Array | NDArray[np.uint8]) -> None:
        if isinstance(values, np.ndarray):  # digests stand for the texts, which need not be hashed twice
            self.content.update(np.ascontiguousarray(values).data)
        elif pa.types.is_list(self.kind):
            self._add_lengths(pc.list_value_length(values))
            self.parts[0].update(values.flatten())
        elif pa.types.is_struct(self.kind):
            self.shape.update(values.is_valid().cast(pa.int8()).to_numpy())
            for part, column in zip(self.parts, values.flatten(), strict=True):
                part.update(column)
        elif pa.types.is_string(self.kind):
            self._add_lengths(pc.binary_length(values))
            spans = byte_spans(values.drop_null())
            if len(spans.starts):
                self.content.update(spans.data[spans.starts[0] : spans.stops[-1]].data)
        else:
            self.shape.update(values.is_valid().cast(pa.int8()).to_numpy())
            self.content.update(pc.fill_null(values.cast(pa.int64()), 0).to_numpy().astype("<i8"))

    def _add_lengths(self, lengths: pa.Array) -> None:
        self.shape.update(pc.fill_null(lengths, -1).to_numpy().astype("<i8"))

    def digest(self) -> bytes:
        return b"".join([self.shape.digest(), self.content.digest(), *(part.digest() for part in self.parts)])


def _rows_digest(schema: pa.Schema, rows: int, digests: Iterable[_ColumnDigest]) -> str:
    combined = hashlib.sha256(b"anchormix rows 1\n%d\n" % rows)
    for name, digest in zip(schema.names, digests, strict=True):
        combined.update(b"%d:%s" % (len(name.encode()), name.encode()) + digest.digest())
    return combined.hexdigest()
