"""EDGES: which documents have the same text, and which pairs are verified near-duplicates.

Facts go through one exchange by digest (exact copies leave there), one by band hash (candidates), one by pair (each
candidate once); then the candidates' text is read again, once per split, and their shingle sets meet in the partition
of the pair, where Jaccard is exact. Every step is linear in documents or candidates and none holds more than a
partition.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms import counters
from transforms.batches import (
    DedupTask,
    Origin,
    addresses,
    chunks_of_bytes,
    groups,
    pack,
    place_of,
    split_of,
    spread,
    unpack,
    unpack_all,
)
from transforms.exchange import Exchange, Gather, Packets, packet, received, send
from transforms.kernels import dedup, minhash
from transforms.kernels.origins import said_to_be_human
from transforms.kernels.records import MissingColumn, UnreadableFile
from transforms.kernels.schemas import Fate, Status
from transforms.kernels.text import split_words
from transforms.known import (
    COPIES,
    SAME,
    SAME_AS_REFERENCE,
    Compared,
    FindHeld,
    FindNear,
    KnownTexts,
    WriteKnown,
    WriteReference,
    mark,
)
from transforms.pool import PooledDoFn
from transforms.sidecars import (
    SourceSettings,
    digest_words,
    digests_of,
    fixed_rows,
    read_facts,
    read_table,
    unreachable,
    unreachable_report,
    write_part,
)
from transforms.texts import texts_at

EXACT_SCHEMA = pa.schema([pa.field("document", pa.uint64()), pa.field("first", pa.uint64())])
"""Same text: of two new documents, the first by address stands for both; of a new one and an earlier index's, in `seen`
files, the earlier one is `first`."""

PAIRS_SCHEMA = pa.schema(
    [
        pa.field("left", pa.uint64()),
        pa.field("right", pa.uint64()),
        pa.field("shared", pa.int64()),
        pa.field("union", pa.int64()),
    ]
)

_SPLIT, _WANTED, _PAIRS, _SETS = b"S", b"W", b"P", b"T"


MOST_MEMBERS = 1_000_000
"""Of a bucket that one worker holds: some 100 MB. Larger ones are cut up by a second band."""


@dataclass
class FindDuplicates(beam.PTransform):
    """`DedupTask`s in; `exact-*`, `seen-*` and `pairs-*` Parquet files out, listed in the file `report`.

    Args:
        settings: per `DedupTask.settings`, how its text is read and shingled.
        bands: derived from the threshold, so that pairs .05 above it are found.
        threshold: least Jaccard of an edge, exact.
        partitions: of what facts tell of documents, and of candidates; more need less memory each, and smaller packets.
        homes: partitions in which shingle sets of candidates meet.
        folder: where the files go; their names are the attempt's own, only listed ones count.
        documents: how many there are; with more than MOST_MEMBERS a bucket may be too large for one worker.
        known: text known to be synthetic; what is like it is written to `known-*` files, one a split.
        reference: held-out text; what is like it is written to `reference-*` files.
        scratch: for run files; None on engines.
    """

    settings: Mapping[str, SourceSettings]
    bands: minhash.Bands
    threshold: Fraction
    partitions: int
    homes: int
    folder: str
    report: str
    scratch: str | None
    documents: int
    known: KnownTexts | None = None
    reference: KnownTexts | None = None

    def expand(self, splits: Any) -> Any:
        digests = (
            splits
            | "SendDigests" >> beam.ParDo(_SendDigests(self.bands, self.partitions))
            | "ByText" >> Exchange(self.scratch)
            | "GroupTexts"
            >> beam.ParDo(
                _GroupTexts(self.folder, self.partitions, self.homes, self._first, self._limit is not None)
            ).with_outputs("written", "marked", main="out")
        )
        candidates = self._paired(digests.out)
        for what, texts in self._marking.items():
            finder = FindHeld(texts.samples, self.threshold, self.partitions)
            candidates.append(splits | f"Find{what}Held" >> beam.ParDo(finder))
        if self.reference is not None and self.reference.signatures is not None:
            near = FindNear(self.reference.signatures, self.threshold, self.partitions)
            candidates.append(splits | "FindNearReference" >> beam.ParDo(near))
        pairs = (
            tuple(candidates)
            | "ByPair" >> Exchange(self.scratch)
            | "DistinctPairs"
            >> beam.ParDo(_DistinctPairs(self.homes, self._first)).with_outputs("wanted", main="pairs")
        )
        sets = (
            (splits | "SplitTasks" >> beam.ParDo(_SplitTask()), pairs.wanted)
            | "BySplit" >> Exchange(self.scratch)
            | "ReadCandidates" >> beam.ParDo(_ReadCandidates(self.settings)).with_outputs("problems", main="sets")
        )
        told = (pairs.pairs, sets.sets, digests.marked) if self._marking else (pairs.pairs, sets.sets)
        verified = (
            told
            | "ToVerify" >> Exchange(self.scratch)
            | "Verify"
            >> beam.ParDo(_Verify(self.threshold, self._first, self.folder)).with_outputs(
                "known", "reference", main="edges"
            )
        )
        reports = [digests.written, sets.problems, verified.edges]
        if self.known is not None:
            reports.append(
                verified.known
                | "KnownBySplit" >> Exchange(self.scratch)
                | "WriteKnown" >> beam.ParDo(WriteKnown(self.known.tasks, self.folder))
            )
        if self.reference is not None:
            reports.append(
                verified.reference
                | "ReferenceBySplit" >> Exchange(self.scratch)
                | "WriteReference" >> beam.ParDo(WriteReference(self.reference.tasks, self.folder))
            )
        return tuple(reports) | "Reports" >> beam.Flatten() | Gather(self.report)

    @property
    def _marking(self) -> dict[str, KnownTexts]:
        """Texts that documents are marked for being like."""
        texts = {"Known": self.known, "Reference": self.reference}
        return {what: found for what, found in texts.items() if found is not None}

    @property
    def _first(self) -> _FirstSplits:
        known, reference = (texts.first_split if texts else None for texts in (self.known, self.reference))
        return _FirstSplits(known, reference)

    @property
    def _limit(self) -> int | None:
        """Of a bucket's members; None where there are not as many documents."""
        return MOST_MEMBERS if self.documents > MOST_MEMBERS and self.bands.bands > 1 else None

    def _paired(self, banded: Any) -> list[Any]:
        """Collections of candidate pairs."""
        by_band = banded | "ByBand" >> Exchange(self.scratch)
        if self._limit is None:
            return [by_band | "PairUp" >> beam.ParDo(_PairUp(self.partitions))]
        paired = by_band | "PairUp" >> beam.ParDo(_PairUp(self.partitions, self._limit)).with_outputs(
            "sub_keyed", main="pairs"
        )
        within = (
            paired.sub_keyed
            | "BySubKey" >> Exchange(self.scratch)
            | "PairUpWithin" >> beam.ParDo(_PairUp(self.partitions))
        )
        return [paired.pairs, within]


@dataclass(frozen=True)
class _FirstSplits:
    """Where texts begin that mark documents, in the order of splits; None where there are none."""

    known: int | None = None
    reference: int | None = None

    def marks(self, documents: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which of the documents are such texts."""
        first = self.reference if self.known is None else self.known
        return np.zeros(len(documents), np.bool_) if first is None else split_of(documents) >= first

    def is_reference(self, documents: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        if self.reference is None:
            return np.zeros(len(documents), np.bool_)
        held_out: npt.NDArray[np.bool_] = split_of(documents) >= self.reference
        return held_out


class _SendDigests(PooledDoFn):
    """What exact grouping and banding need of each readable document."""

    def __init__(self, bands: minhash.Bands, partitions: int) -> None:
        self._bands = bands
        self._partitions = partitions

    def work(self, element: bytes) -> Packets:
        task = DedupTask.from_bytes(element)
        split = task.split
        facts = read_facts(split, ["status", "digest", "n_words", "n_shingles", "signature"])
        taking_part = facts["status"].to_numpy() == Status.OK
        if task.origin == Origin.KNOWN:
            # A registry may be a data set of pairs; what it calls human itself is not known to be synthetic.
            said = read_facts(split, ["origin", "generator"])
            taking_part &= ~said_to_be_human(said["origin"], said["generator"])
        if task.fates is not None:
            taking_part &= read_table(task.fates, ["fate"])["fate"].to_numpy() == Fate.KEPT
        places = np.flatnonzero(taking_part)
        counters.advance("edges", facts.num_rows, split.weight)
        if len(places) == 0:
            return
        high, low = digest_words(digests_of(facts)[places])
        width = facts.schema.field("signature").type.byte_width
        signatures = fixed_rows(facts["signature"], width)[places].view(np.uint32)
        # No shingle, no signature: such texts are equal or different, never near.
        length = dedup.log2_length(facts["n_words"].to_numpy()[places])
        length = np.where(facts["n_shingles"].to_numpy()[places] > 0, length, np.uint8(_NO_BANDS))
        origin = np.full(len(places), task.origin, np.uint8)
        bands = minhash.band_hashes(signatures, self._bands)
        yield from send(
            high % np.uint64(self._partitions),
            [high, low, addresses(split.index, places), origin, length, bands],
            split.index,
        )


_NO_BANDS = 255

_ANCHOR_OF = np.full(len(Origin), dedup.ANCHOR, np.uint8)
_ANCHOR_OF[[Origin.OWN, Origin.REFERENCE]] = dedup.NEW, dedup.REFERENCE


class _GroupTexts(PooledDoFn):
    """Equal texts become one: the first by address goes on to the bands, the others are written down.

    Documents of earlier indexes have different texts within each index, and all go on. A new text that such an index
    holds, and that is not to compete with it, is settled here, unless it may yet turn out to be held out. Where texts
    mark documents, who verifies a text is told of its copies, and of known texts that are the same.
    """

    def __init__(self, folder: str, partitions: int, homes: int, first: _FirstSplits, sub_keys: bool) -> None:
        self._folder = folder
        self._partitions = partitions
        self._homes = homes
        self._first = first
        self._sub_keys = sub_keys  # the next band goes along, because a bucket may be too large

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        partition, values = element
        high, low, documents, origin, length, bands = unpack_all(received(values))
        ours, others = np.flatnonzero(origin == Origin.OWN), np.flatnonzero(origin != Origin.OWN)
        found = dedup.exact_groups(high[ours], low[ours], documents[ours])
        first = ours[found.first]
        copies, copy_of = ours[found.copies], ours[found.copy_of]
        known, reference = others[origin[others] == Origin.KNOWN], others[origin[others] == Origin.REFERENCE]
        reference = reference[dedup.exact_groups(high[reference], low[reference], documents[reference]).first]
        others = others[origin[others] < Origin.KNOWN]
        new, seen = dedup.same_texts(high, low, first, others)
        if self._first != _FirstSplits():
            same, same_held_out = (dedup.same_texts(high, low, first, texts) for texts in (known, reference))
            for tag, left, right in ((COPIES, copy_of, copies), (SAME, *same), (SAME_AS_REFERENCE, *same_held_out)):
                home = _home_of(documents[left], self._homes)
                for packet_to in send(home, [documents[left], documents[right]], partition, tag):
                    yield beam.pvalue.TaggedOutput("marked", packet_to)
        for kind, one, other in (("exact", copies, copy_of), ("seen", new, seen)):
            if len(one):
                table = pa.table([documents[one], documents[other]], schema=EXACT_SCHEMA)
                yield beam.pvalue.TaggedOutput("written", write_part(self._folder, kind, partition, table))
        settled = new[origin[seen] == Origin.EARLIER] if self._first.reference is None else new[:0]
        open_texts = np.setdiff1d(first, settled, assume_unique=False)
        rows = np.concatenate([open_texts, others, known, reference])
        rows = rows[length[rows] != _NO_BANDS]
        n_bands = bands.shape[1]
        told = [length[rows], high[rows], documents[rows], _ANCHOR_OF[origin[rows]]]
        # Several bands at a time: where partitions are many, those of one band would be a record or two to each.
        at_once = max(1, _MOST_SENT // max(1, len(rows)))
        for band in range(0, n_bands, at_once):
            sent = np.arange(band, min(band + at_once, n_bands))
            hashes = bands[rows[:, None], sent].T.ravel()
            records = [hashes, *(np.tile(column, len(sent)) for column in told)]
            if self._sub_keys:
                records.append(bands[rows[:, None], (sent + 1) % n_bands].T.ravel())
            yield from send(hashes % np.uint64(self._partitions), records, partition * n_bands + band)


_MOST_SENT = 500_000  # records of bands that one sender sorts at a time: some 20 MB


def _home_of(documents: npt.NDArray[np.uint64], homes: int) -> npt.NDArray[np.uint64]:
    """Where the pairs of these first documents are verified."""
    return spread(documents) % np.uint64(homes)


class _PairUp(PooledDoFn):
    """Documents that share a band become candidate pairs.

    A bucket above `limit` is never held. Its members meet the pivots of the whole bucket packet by packet, and go on,
    as `sub_keyed`, to buckets of those that share the next band, too; where that is still too many, of parts of them.
    """

    def __init__(self, partitions: int, limit: int | None = None) -> None:
        self._partitions = partitions
        self._limit = limit

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        partition, values = element
        hot = self._crowded(values, lambda records, _: records.band)[0]
        held = []
        pivots = []
        reference = []
        for records, _ in _packets(values):
            if len(hot):
                is_hot = np.isin(records.band, hot)
                pivots.append(dedup.smallest_digests(records.take(is_hot)))
                reference.append(dedup.smallest_digests(records.take(is_hot & (records.anchor == dedup.REFERENCE))))
                records = records.take(~is_hot)
            held.append(records)
        number = 0
        for pairs in dedup.candidate_pairs(_joined(held)):
            yield from self._send(partition, number, *pairs)
            number += 1
        if len(hot):
            both = _joined([dedup.smallest_digests(_joined(parts)) for parts in (pivots, reference)])
            yield from self._cut_up(partition, number, values, hot, both)

    def _cut_up(
        self, partition: int, number: int, values: Iterable[bytes], hot: npt.NDArray[np.uint64], pivots: dedup.Banded
    ) -> Iterator[Any]:
        def sub_key(records: dedup.Banded, following: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
            return minhash.joined_bands(records.band, following)[np.isin(records.band, hot)]

        crowded, members = self._crowded(values, sub_key)
        for records, following in _packets(values):
            keys = sub_key(records, following)
            records = records.take(np.isin(records.band, hot))
            for some in np.array_split(np.arange(len(keys)), 1 + 2 * len(keys) * dedup.PIVOTS // dedup.MOST_PAIRS):
                yield from self._send(partition, number, *dedup.pairs_with(pivots, records.take(some)))
                number += 1
            if len(crowded):
                at = np.minimum(np.searchsorted(crowded, keys), len(crowded) - 1)
                parts = (members[at] // (self._limit or 1) + 1).astype(np.uint64)
                keys = np.where(crowded[at] == keys, minhash.joined_bands(keys, records.digest % parts), keys)
            columns = records._replace(band=keys)
            for packet_to in send(keys % np.uint64(self._partitions), columns, partition << _SEND_BITS | number):
                yield beam.pvalue.TaggedOutput("sub_keyed", packet_to)
            number += 1

    def _crowded(
        self, values: Iterable[bytes], key: Callable[..., npt.NDArray[np.uint64]]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Keys that more records have than the limit, and how many; counted roughly, then exactly, so that what is
        held does not grow with the records."""
        counts: Counter[int] = Counter()
        if self._limit is not None:
            cells = np.zeros(_CELLS, np.int64)
            for found in _packets(values):
                np.add.at(cells, (key(*found) % np.uint64(_CELLS)).astype(np.int64), 1)
            if cells.max() > self._limit:
                for found in _packets(values):
                    keys = key(*found)
                    keys = keys[cells[(keys % np.uint64(_CELLS)).astype(np.int64)] > self._limit]
                    distinct, records = np.unique(keys, return_counts=True)
                    counts.update(dict(zip(distinct.tolist(), records.tolist(), strict=True)))
        crowded = sorted(item for item in counts.items() if item[1] > (self._limit or 0))
        return np.array([item[0] for item in crowded], np.uint64), np.array([item[1] for item in crowded], np.int64)

    def _send(
        self, partition: int, number: int, left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]
    ) -> Packets:
        left, right = dedup.distinct_pairs(left, right)
        yield from send(spread(left) % np.uint64(self._partitions), [left, right], partition << _SEND_BITS | number)


_SEND_BITS = 24  # of an order key, for how many times one partition sends
_CELLS = 1 << 20


def _packets(values: Iterable[bytes]) -> Iterator[tuple[dedup.Banded, npt.NDArray[np.uint64]]]:
    """Records one packet at a time, with the hashes of their next bands where these are sent along."""
    for body in received(values):
        columns = unpack(body)
        yield dedup.Banded(*columns[:5]), columns[-1]


def _joined(parts: Sequence[dedup.Banded]) -> dedup.Banded:
    return dedup.Banded(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _DistinctPairs(PooledDoFn):
    """Each candidate once, and per split the documents whose text is wanted, and by which partition.

    A pair is verified where its first document is at home. Pivots of hot buckets have too many others: these are
    verified where the other one is at home, except texts that mark documents: a mark depends on all pairs.
    """

    def __init__(self, homes: int, first: _FirstSplits) -> None:
        self._homes = homes
        self._first = first

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        partition, values = element
        left, right = dedup.distinct_pairs(*unpack_all(received(values)))
        home = _home_of(left, self._homes).astype(np.uint32)
        _, others = np.unique(left, return_counts=True)
        crowded = np.repeat(others > _MOST_OTHERS, others)
        crowded &= ~self._first.marks(right)
        home[crowded] = _home_of(right[crowded], self._homes)
        yield from send(home, [left, right], partition, _PAIRS)
        # Home and address of everything wanted, each once.
        homes, wanted = np.concatenate([home, home]), np.concatenate([left, right])
        order = np.lexsort((homes, wanted))
        homes, wanted = homes[order], wanted[order]
        fresh = np.r_[True, (homes[1:] != homes[:-1]) | (wanted[1:] != wanted[:-1])][: len(wanted)]
        homes, wanted = homes[fresh], wanted[fresh]
        order, runs = groups(split_of(wanted))
        for split, first, last in runs:
            rows = order[first:last]
            body = _WANTED + pack(homes[rows], place_of(wanted[rows]).astype(np.uint32))
            yield beam.pvalue.TaggedOutput("wanted", (split, packet(body, 1, partition)))


_MOST_OTHERS = 4096  # of one first document; a bucket of its own size has at most some dozens


class _SplitTask(beam.DoFn):
    """A split as a packet to its own partition, before all requests to it."""

    def process(self, element: bytes) -> Packets:
        yield DedupTask.from_bytes(element).split.index, packet(_SPLIT + element, 0)


class _ReadCandidates(PooledDoFn):
    """Reads the wanted documents of one split again and sends their shingle sets to whoever asked."""

    def __init__(self, settings: Mapping[str, SourceSettings]) -> None:
        self._settings = settings

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        _, values = element
        bodies = received(values)
        task = DedupTask.from_bytes(next(bodies)[1:])
        requests = [unpack(body[1:]) for body in bodies]
        if not requests:
            return
        asking, asked = (np.concatenate(column) for column in zip(*requests, strict=True))
        order = np.lexsort((asking, asked))
        asking, asked = asking[order], asked[order]
        fresh = np.r_[True, (asking[1:] != asking[:-1]) | (asked[1:] != asked[:-1])]  # several may ask for one home
        asking, asked = asking[fresh], asked[fresh]
        places = np.unique(asked).astype(np.int64)
        shingle = self._settings[task.settings].minhash.shingle
        read = 0
        try:
            facts = read_facts(task.split, ["row", "part", "digest"])
            for texts in texts_at(task.split, self._settings[task.settings].columns, facts, places):
                here = places[read : read + len(texts)]
                read += len(texts)
                sets = minhash.sorted_sets(minhash.shingle_hashes(split_words(texts), shingle))
                first, last = np.searchsorted(asked, [here[0], here[-1] + 1])
                rows = np.searchsorted(here, asked[first:last])
                yield from _send_sets(task.split.index, here, sets, rows, asking[first:last])
        except (UnreadableFile, MissingColumn) as error:
            if problem := unreachable(error):
                yield beam.pvalue.TaggedOutput("problems", unreachable_report(task.split, problem))
                return
            read = -1  # it could be read when it was indexed
        if read != len(places):
            yield beam.pvalue.TaggedOutput("problems", _changed(task))


def _changed(task: DedupTask) -> bytes:
    split = task.split
    kind = "changed" if task.index is None else "earlier_changed"
    told = {"kind": kind, "source": split.source, "shard": split.shard, "path": split.path, "index": task.index}
    return json.dumps(told).encode()


def _send_sets(
    split: int,
    places: npt.NDArray[np.int64],
    sets: minhash.Shingles,
    rows: npt.NDArray[np.int64],
    asking: npt.NDArray[np.int64],
) -> Packets:
    order, runs = groups(asking)
    for home, start, end in runs:
        chosen = rows[order[start:end]]
        sizes = sets.offsets[chosen + 1] - sets.offsets[chosen]
        for first, last in chunks_of_bytes(8 * sizes + 16):
            part = chosen[first:last]
            hashes, lengths = dedup.take_sets(part, sets.hashes, sets.offsets)
            body = _SETS + pack(addresses(split, places[part]), lengths, hashes)
            yield home, packet(body, 1 + split, int(places[part[0]]))


class _Verify(PooledDoFn):
    """Exact Jaccard of every candidate; those at or above the threshold are edges.

    A candidate that is known to be synthetic, or held out, is no edge: the document like it, or holding it, is marked.
    """

    def __init__(self, threshold: Fraction, first: _FirstSplits, folder: str) -> None:
        self._threshold = threshold
        self._first = first
        self._folder = folder

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        partition, values = element
        tags = (_PAIRS, _SETS, COPIES, SAME, SAME_AS_REFERENCE)
        told: dict[bytes, list[list[npt.NDArray[Any]]]] = {tag: [] for tag in tags}
        for body in received(values):
            told[bytes(body[:1])].append(unpack(body[1:]))
        pairs = self._compared(told[_PAIRS], told[_SETS])
        marks, held_out = self._first.marks(pairs.right), self._first.is_reference(pairs.right)
        for output, found, same in (("known", marks & ~held_out, SAME), ("reference", held_out, SAME_AS_REFERENCE)):
            for packet_to in mark(pairs.take(found), told[COPIES], told[same], self._threshold):
                yield beam.pvalue.TaggedOutput(output, packet_to)
        near = pairs.take(pairs.at_least(self._threshold) & ~marks)
        if len(near.left):
            table = pa.table([near.left, near.right, near.shared, near.union], schema=PAIRS_SCHEMA)
            yield write_part(self._folder, "pairs", partition, table)

    def _compared(self, pairs: list[list[npt.NDArray[Any]]], sets: list[list[npt.NDArray[Any]]]) -> Compared:
        if not sets or not pairs:  # no set: every candidate's split has reported that its input changed
            return Compared.none()
        left, right = (np.concatenate(column) for column in zip(*pairs, strict=True))
        documents, lengths, hashes = (np.concatenate(column) for column in zip(*sets, strict=True))
        order = np.argsort(documents, kind="stable")
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        a, known_a = _find(documents, order, left)
        b, known_b = _find(documents, order, right)
        known = known_a & known_b
        left, right, a, b = left[known], right[known], a[known], b[known]
        shared, union = dedup.shared_and_union(a, b, hashes, offsets)
        return Compared(left, right, shared, union, lengths[b].astype(np.int64))


def _find(
    documents: npt.NDArray[np.uint64], order: npt.NDArray[np.int64], wanted: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    in_order = documents[order]
    at = np.minimum(np.searchsorted(in_order, wanted), len(in_order) - 1)
    return order[at], in_order[at] == wanted
