"""Which documents left between two mixes, which came, and why, as far as the fates of either mix tell.

Ids are compared range by range: documents of both mixes and rows of their fates are first written to a temporary
folder, by the range that their id falls into, and one range is in memory at a time. So memory is bounded however large
the mixes are; the folder takes 28 bytes a document and 36 a row of fates.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import UNSTATED
from pipeline.mix_folder import MixFolder
from transforms.kernels.audit import Totals, sum_totals
from transforms.kernels.hashing import parsed_ids
from transforms.kernels.schemas import Fate, Provenance
from transforms.kernels.strata import distinct_rows

__all__ = [
    "INPUT_CHANGED",
    "NEW",
    "NOT_READ",
    "NOT_SELECTED",
    "NO_LONGER_VERIFIED",
    "REPLACED",
    "VERIFIED_NOW",
    "Amount",
    "Change",
    "DocumentDiff",
    "compare_documents",
]

NOT_SELECTED = "not_selected"  # it was read, and no fate took it out: the plan did without it
NOT_READ = "not_read"  # no input of that content was read
INPUT_CHANGED = "input_changed"  # its shard was read with other content
REPLACED = "replaced"  # it gave way to a near-duplicate that is verified text of the new mix
NO_LONGER_VERIFIED = "no_longer_verified"  # it is in the mix still, under another provenance
NEW = "new"  # no input of that content was read before
VERIFIED_NOW = "verified_now"  # it was in the old mix under another provenance
"""Why a document is on one side only, beside the fates that the other side has for it."""

_RANGE = 1 << 18
"""Documents that a range of ids is meant to hold: 7 MB of them, and some times as much while they are compared."""
_MOST_RANGES = 256  # files that are open at once; beyond 67 million documents ranges grow instead
_BATCH = 1 << 16

_DOCUMENT = np.dtype([("id", "S16"), ("tokens", "<i8"), ("group", "<u4")])
_FATE = np.dtype([("id", "S16"), ("partner", "S16"), ("word", "<u4")])

_NOTHING = Totals(0, 0, 0, 0)
_VERIFIED = Provenance.HUMAN_VERIFIED.label
_NEAR = Fate.NEAR_DUPLICATE.label
_BY_WEIGHT = [fate.label for fate in (Fate.EXCLUDED, Fate.HELD_OUT, Fate.NEAR_DUPLICATE, Fate.SEEN_BEFORE)]
"""Which fate is told of a text that has several: what somebody decided comes before what dedup found, and of several
decisions one with a stated reason."""

Stratum = tuple[str, str, str | None, str | None]
"""Source, provenance, generator and language."""

Word = tuple[str, str | None]
"""Why a document is on one side only, and of an excluded one the reason that the config gave."""

Records = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]


class Amount(NamedTuple):
    """Distinct documents and their tokens: a document that a mix repeats counts once."""

    documents: int = 0
    tokens: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(self.documents + other.documents, self.tokens + other.tokens)


class Change(NamedTuple):
    """What documents have in common: their tags on their side, and why they are not on the other."""

    provenance: str
    source: str
    why: str
    reason: str | None


@dataclass(frozen=True)
class DocumentDiff:
    """Documents of two mixes, compared by id. Tokens are those that the mix which is spoken of has for a document."""

    old: Mapping[Stratum, Totals]
    new: Mapping[Stratum, Totals]
    stayed: Amount
    was_verified: Amount  # in the old mix
    is_verified: Amount  # in the new mix
    left: Mapping[Change, Amount]  # only in the old mix
    came: Mapping[Change, Amount]  # only in the new mix
    demoted: Mapping[Change, Amount]  # in both, and verified in the old mix only
    promoted: Mapping[Change, Amount]  # in both, and verified in the new mix only
    remained: Mapping[Change, Amount]  # in both, though the new mix excludes another document of the same text


def compare_documents(old: MixFolder, new: MixFolder, *, range_documents: int = _RANGE) -> DocumentDiff:
    """Read both mixes once and tell what differs; UsageError where a file cannot be read, or its rows are not those
    that the manifest says."""
    documents = max(int(mix.claimed.fields["totals"]["documents"]) for mix in (old, new))
    count = min(_MOST_RANGES, -(-documents // range_documents) or 1)
    with tempfile.TemporaryDirectory(prefix="anchormix-diff-") as folder:
        was, is_now = _Side(old, Path(folder) / "old", count), _Side(new, Path(folder) / "new", count)
        return _Comparison(was, is_now, Path(folder), count).run()


class _Ranges:
    """Records on disk, by ranges of their ids."""

    def __init__(self, prefix: Path, dtype: np.dtype[Any], count: int) -> None:
        self._paths = [prefix.with_name(f"{prefix.name}-{number:03d}") for number in range(count)]
        self._dtype = dtype

    def write(self, batches: Iterable[Records]) -> None:
        count = len(self._paths)
        with ExitStack() as opened:
            files = [opened.enter_context(path.open("wb")) for path in self._paths]
            for records in batches:
                leading = np.ascontiguousarray(records["id"]).view(np.uint8).reshape(-1, 16)[:, 0]
                which = leading.astype(np.int64) * count >> 8
                records = records[np.argsort(which, kind="stable")]
                ends = np.cumsum(np.bincount(which, minlength=count)).tolist()
                for file, start, end in zip(files, [0, *ends], ends, strict=False):
                    file.write(records[start:end].tobytes())

    def read(self, number: int) -> Records:
        """The records of a range, sorted by id."""
        records = np.fromfile(self._paths[number], self._dtype)
        return records[np.argsort(records["id"], kind="stable")]


class _Numbers:
    """Numbers for values, in the order in which they are first seen."""

    def __init__(self) -> None:
        self._of: dict[Any, int] = {}

    def of(self, columns: Sequence[pa.Array]) -> npt.NDArray[np.uint32]:
        """A number for each row of these columns."""
        codes, values = distinct_rows(columns)
        numbers = [self._of.setdefault(value, len(self._of)) for value in values]
        return np.array(numbers, np.uint32)[codes]

    @property
    def values(self) -> list[Any]:
        return list(self._of)


class _Side:
    """One of the mixes: what it holds in all, and its documents and fates by ranges."""

    def __init__(self, mix: MixFolder, prefix: Path, count: int) -> None:
        self.mix = mix
        self.totals: dict[Stratum, Totals] = defaultdict(lambda: _NOTHING)
        groups, words = _Numbers(), _Numbers()
        self.documents = _Ranges(prefix.with_name(f"{prefix.name}-documents"), _DOCUMENT, count)
        self.documents.write(self._read_documents(groups))
        self._require_totals()
        self._fates = _Ranges(prefix.with_name(f"{prefix.name}-fates"), _FATE, count)
        self._fates.write(self._read_fates(words))
        self.groups: list[tuple[str, str, str]] = groups.values  # source, shard, provenance
        self.fates: list[Word] = words.values
        weights = [(*map(fate.__ne__, _BY_WEIGHT), reason == UNSTATED, reason or "") for fate, reason in self.fates]
        self._weights = np.array([sorted(weights).index(weight) for weight in weights], np.int64)

    def first_fates(self, number: int) -> Records:
        """The fates of a range, sorted by id: of every id the one that is told."""
        fates = self._fates.read(number)
        fates = fates[np.lexsort((self._weights[fates["word"]], fates["id"]))]
        return fates[np.r_[True, fates["id"][1:] != fates["id"][:-1]]] if len(fates) else fates

    def _read_documents(self, groups: _Numbers) -> Iterator[Records]:
        columns = ["id", "source", "shard", "provenance", "generator", "language", "n_tokens", "n_bytes", "copy"]
        for path in self.mix.shards:
            for batch in self.mix.batches(path, columns, _BATCH):
                with self.mix.reading(path):
                    first = batch["copy"].to_numpy() == 0
                    self._count(batch, first)
                    yield _records(
                        _DOCUMENT,
                        id=parsed_ids(batch["id"]),
                        tokens=batch["n_tokens"].to_numpy(),
                        group=groups.of([batch[name] for name in ("source", "shard", "provenance")]),
                    )[first]

    def _count(self, batch: pa.RecordBatch, first: npt.NDArray[np.bool_]) -> None:
        strata, values = distinct_rows([batch[name] for name in ("source", "provenance", "generator", "language")])
        columns = [np.ones(len(first), np.int64), first, *(batch[name].to_numpy() for name in ("n_tokens", "n_bytes"))]
        for value, *amounts in zip(values, *(_sums(strata, column, len(values)) for column in columns), strict=True):
            self.totals[value] = self.totals[value].plus(Totals(*amounts))

    def _require_totals(self) -> None:
        claimed = self.mix.claimed.fields["totals"]
        for name, counted in sum_totals(self.totals.values())._asdict().items():
            if counted != claimed[name]:
                raise self.mix.damaged(f"its shards hold {counted:,} {name}, and its manifest says {claimed[name]:,}")

    def _read_fates(self, words: _Numbers) -> Iterator[Records]:
        """What took texts out. A copy of a text says nothing of the text, which another document stands for."""
        for path in self.mix.fates:
            for batch in self.mix.batches(path, ["id", "fate", "reason", "partner"], _BATCH):
                with self.mix.reading(path):
                    told = pc.and_(batch["id"].is_valid(), pc.not_equal(batch["fate"], Fate.EXACT_DUPLICATE.label))
                    batch = batch.filter(told)
                    excluded = pc.equal(batch["fate"], Fate.EXCLUDED.label)
                    reasons = pc.if_else(excluded, batch["reason"], pa.scalar(None, pa.string()))
                    named = batch["partner"].is_valid().to_numpy(zero_copy_only=False)
                    partner = np.zeros(len(named), "S16")
                    partner[named] = parsed_ids(batch["partner"].drop_null())
                    word = words.of([batch["fate"], reasons])
                    yield _records(_FATE, id=parsed_ids(batch["id"]), partner=partner, word=word)


class _Words:
    """Why documents of one side are not on the other: by the other side's fates, or else by where they were read."""

    def __init__(self, mine: _Side, other: _Side, unread: str, changed: str) -> None:
        own = (_NEAR, REPLACED, NOT_SELECTED, NO_LONGER_VERIFIED, VERIFIED_NOW, unread, changed)
        self.words = list(dict.fromkeys([*other.fates, *((word, None) for word in own)]))
        self.excluded = np.array([why == Fate.EXCLUDED.label for why, _ in self.words])
        columns = ["source", "shard", "sha256"]
        here, there = (side.mix.table("inputs.parquet", columns) for side in (mine, other))
        digests = dict(
            zip(zip(*_columns(here, "source", "shard"), strict=True), *_columns(here, "sha256"), strict=True)
        )
        contents = set(there["sha256"].to_pylist())
        shards = set(zip(*_columns(there, "source", "shard"), strict=True))
        reading = [
            NOT_SELECTED if digests.get(group[:2]) in contents else changed if group[:2] in shards else unread
            for group in mine.groups
        ]
        self._by_group = np.array([self.number(word) for word in reading], np.int64)

    def number(self, why: str) -> int:
        return self.words.index((why, None))

    def of(self, documents: Records, fates: Records) -> tuple[Codes, Records]:
        """The word for each document, and its witness where it has one; `fates` are those of the range."""
        place = _places(documents["id"], fates["id"])
        told = place >= 0
        words, partners = self._by_group[documents["group"]], np.zeros(len(documents), "S16")
        words[told], partners[told] = fates["word"][place[told]], fates["partner"][place[told]]
        return words, partners


class _Tally:
    """Documents of one side, added up by their tags and a word."""

    def __init__(self, side: _Side, words: _Words) -> None:
        self._groups, self._words = side.groups, words.words
        self.amounts: dict[Change, Amount] = defaultdict(Amount)

    def add(self, documents: Records, words: Codes) -> None:
        codes, number = np.unique(documents["group"].astype(np.int64) * len(self._words) + words, return_inverse=True)
        amounts = (_sums(number, column, len(codes)) for column in (np.ones(len(number)), documents["tokens"]))
        for code, count, tokens in zip(codes.tolist(), *amounts, strict=True):
            group, word = divmod(code, len(self._words))
            source, _, provenance = self._groups[group]
            change = Change(provenance, source, *self._words[word])
            self.amounts[change] = self.amounts[change].plus(Amount(count, tokens))


class _Comparison:
    """Two sides, compared one range of ids after the other."""

    def __init__(self, old: _Side, new: _Side, folder: Path, count: int) -> None:
        self._old, self._new, self._count = old, new, count
        self._displaced = _Ranges(folder / "displaced", _DOCUMENT, count)
        self._was_verified, self._is_verified = (
            np.array([provenance == _VERIFIED for _, _, provenance in side.groups], np.bool_) for side in (old, new)
        )
        self._gone, self._fresh = _Words(old, new, NOT_READ, INPUT_CHANGED), _Words(new, old, NEW, NEW)
        self._left, self._demoted, self._remained = (_Tally(old, self._gone) for _ in range(3))
        self._came, self._promoted = _Tally(new, self._fresh), _Tally(new, self._fresh)
        self._stayed, self._verified_then, self._verified_now = Amount(), Amount(), Amount()

    def run(self) -> DocumentDiff:
        self._displaced.write(self._compare(number) for number in range(self._count))
        for number in range(self._count):
            self._settle_displaced(number)
        tallies = (self._left, self._came, self._demoted, self._promoted, self._remained)
        verified = self._verified_then, self._verified_now
        amounts = (dict(tally.amounts) for tally in tallies)
        return DocumentDiff(self._old.totals, self._new.totals, self._stayed, *verified, *amounts)

    def _compare(self, number: int) -> Records:
        """Compare one range. Returns verified documents that left for near-duplicates, under the ids of those: whether
        they are verified text of the new mix, another range knows."""
        old, new = self._old.documents.read(number), self._new.documents.read(number)
        in_new, in_old = _places(old["id"], new["id"]), _places(new["id"], old["id"])
        was, is_now = self._was_verified[old["group"]], self._is_verified[new["group"]]
        left, came = in_new < 0, in_old < 0
        self._stayed = self._stayed.plus(_amount(new[~came]))
        self._verified_then = self._verified_then.plus(_amount(old[was]))
        self._verified_now = self._verified_now.plus(_amount(new[is_now]))

        fates = self._new.first_fates(number)
        words, witnesses = self._gone.of(old, fates)
        displaced = left & was & (words == self._gone.number(_NEAR))
        self._left.add(old[left & ~displaced], words[left & ~displaced])
        remained = ~left & self._gone.excluded[words]
        self._remained.add(old[remained], words[remained])
        demoted = was & ~left & ~_at(is_now, in_new)
        words = np.where(self._gone.excluded[words], words, self._gone.number(NO_LONGER_VERIFIED))
        self._demoted.add(old[demoted], words[demoted])

        words, _ = self._fresh.of(new, self._old.first_fates(number))
        self._came.add(new[came], words[came])
        promoted = is_now & ~came & ~_at(was, in_old)
        self._promoted.add(new[promoted], np.full(promoted.sum(), self._fresh.number(VERIFIED_NOW)))
        return _records(
            _DOCUMENT, id=witnesses[displaced], tokens=old["tokens"][displaced], group=old["group"][displaced]
        )

    def _settle_displaced(self, number: int) -> None:
        displaced, new = self._displaced.read(number), self._new.documents.read(number)
        stands = _at(self._is_verified[new["group"]], _places(displaced["id"], new["id"]))
        self._left.add(displaced, np.where(stands, self._gone.number(REPLACED), self._gone.number(_NEAR)))


def _places(ids: Records, among: Records) -> Codes:
    """Where each id stands in the sorted ids `among`; -1 where it does not."""
    if len(among) == 0:
        return np.full(len(ids), -1, np.int64)
    place = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return np.where(among[place] == ids, place, -1)


def _at(marks: npt.NDArray[np.bool_], places: Codes) -> npt.NDArray[np.bool_]:
    """The mark at each place; none where there is no place."""
    return np.append(marks, False)[places]


def _amount(documents: Records) -> Amount:
    return Amount(len(documents), int(documents["tokens"].sum()))


def _sums(number: Codes, values: npt.NDArray[Any], count: int) -> list[int]:
    total = np.zeros(count, np.int64)
    np.add.at(total, number, values.astype(np.int64))
    found: list[int] = total.tolist()
    return found


def _records(dtype: np.dtype[Any], **columns: npt.NDArray[Any]) -> Records:
    records = np.empty(len(columns["id"]), dtype)
    for name, values in columns.items():
        records[name] = values
    return records


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]
