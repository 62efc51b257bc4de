"""Text known beforehand, synthetic or held out: which documents are the same, near it, or hold it.

Part of EDGES. Candidates come from shared texts and bands like those of duplicates, and from samples of shingles, which
also find a short known text inside a long document; all are verified on exact sets. What is found marks a document and
removes nothing: FATES decides what a mark means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms import files
from transforms.batches import (
    DedupTask,
    Origin,
    Split,
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
from transforms.exchange import Packets, received, send
from transforms.kernels.bands import Bands
from transforms.kernels.dedup import distinct_pairs
from transforms.kernels.hashing import hex_ids
from transforms.kernels.origins import said_to_be_human
from transforms.kernels.schemas import Likeness, Status
from transforms.kernels.signed import SignedTexts, least_agreement, likely_near, short_bands, sign_texts
from transforms.pool import PooledDoFn
from transforms.sidecars import digest_words, digests_of, fixed_binary, fixed_rows, read_facts, write_part
from transforms.tagging import REFERENCE_MARKS

COPIES, SAME, SAME_AS_REFERENCE = b"C", b"E", b"H"
"""First byte of packets: a text's first document with its copies, and with known texts that are the same."""

LEAST_HELD = 20
"""Shingles of a known text that can be told to stand in another one: shorter ones stand in texts by chance."""

MOST_OWNERS = 32
"""Known texts that a sampled shingle leads to. Much generated text begins, or ends, in the same words: were each
document that has them compared with each known text that has them, time and memory would grow with the product."""

_HITS_AT_ONCE = 1 << 20
"""Of sampled shingles on known texts; some 50 MB for a worker."""

MOST_SIGNED = 200_000
"""Held-out texts whose signatures every worker holds: a kilobyte each."""

_SIGNED_AT_ONCE = 1 << 14

KNOWN_SCHEMA = pa.schema(
    [
        pa.field("place", pa.int64()),
        pa.field("likeness", pa.uint8()),
        pa.field("generator", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class KnownTexts:
    """What EDGES needs of text known to be synthetic, or of text that is held out."""

    tasks: tuple[DedupTask, ...]
    samples: str  # path of `sampled`,
    signatures: str | None = None  # and of `signed`

    @property
    def first_split(self) -> int:
        return self.tasks[0].split.index


def sampled(tasks: Sequence[DedupTask]) -> bytes:
    """The samples of all known texts that are long enough, by sampled shingle, as every worker needs them.

    Of a shingle that many known texts share, MOST_OWNERS keep it, always the same ones; the sample of the others is
    what they have beside it. So what they have in common is found through some of them, and each by what is its own.
    """
    hashes, owners = [np.empty(0, np.uint32)], [np.empty(0, np.uint64)]
    texts = [np.empty((0, 2), np.uint64)]
    for task in tasks:
        facts = read_facts(task.split, ["status", "n_shingles", "sample", "digest", "origin", "generator"])
        long_enough = (facts["status"].to_numpy() == Status.OK) & (facts["n_shingles"].to_numpy() >= LEAST_HELD)
        if task.origin == Origin.KNOWN:
            long_enough &= ~said_to_be_human(facts["origin"], facts["generator"])
        values, counts = _lists(facts["sample"], long_enough)
        places = np.flatnonzero(long_enough)
        hashes.append(values)
        owners.append(np.repeat(addresses(task.split.index, places), counts))
        texts.append(np.repeat(np.stack(digest_words(digests_of(facts)[places]), axis=1), counts, axis=0))
    joined, whose, text = (np.concatenate(column) for column in (hashes, owners, texts))
    order = np.lexsort((whose, text[:, 1], text[:, 0], joined))
    joined, whose, text = joined[order], whose[order], text[order]
    other_hash, other_text = joined[1:] != joined[:-1], (text[1:] != text[:-1]).any(axis=1)
    fresh = np.r_[True, other_hash | other_text][: len(joined)]  # of copies of a known text one suffices
    joined, whose = joined[fresh], whose[fresh]
    nth = np.arange(len(joined)) - np.searchsorted(joined, joined, "left")
    joined, whose = joined[nth < MOST_OWNERS], whose[nth < MOST_OWNERS]
    _, owner, counts = np.unique(whose, return_inverse=True, return_counts=True)
    return pack(joined, whose, counts[owner.reshape(-1)].astype(np.int64))


def _lists(column: pa.ChunkedArray, chosen: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """The values of the chosen lists, one after another, and how many each has."""
    lists = column.filter(pa.array(chosen)).combine_chunks()
    return lists.flatten().to_numpy(), pc.list_value_length(lists).to_numpy().astype(np.int64)


@lru_cache(maxsize=2)
def _samples(path: str) -> list[npt.NDArray[Any]]:
    return unpack(files.read_bytes(path))


class FindHeld(PooledDoFn):
    """New documents that may hold a known text: those with a third of what its sample would have to share."""

    def __init__(self, samples: str, threshold: Fraction, partitions: int) -> None:
        self._samples = samples
        self._threshold = threshold
        self._partitions = partitions

    def work(self, element: bytes) -> Packets:
        task = DedupTask.from_bytes(element)
        if task.origin != Origin.OWN:
            return
        facts = read_facts(task.split, ["status", "sample"])
        readable = facts["status"].to_numpy() == Status.OK
        values, counts = _lists(facts["sample"], readable)
        places = np.repeat(np.flatnonzero(readable), counts)
        hashes = _samples(self._samples)[0]
        first, last = np.searchsorted(hashes, values, "left"), np.searchsorted(hashes, values, "right")
        found = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        document = np.flatnonzero(np.r_[True, places[1:] != places[:-1]][: len(places)])
        hits = np.add.reduceat(last - first, document) if len(document) else last
        for start, end in chunks_of_bytes(hits, _HITS_AT_ONCE):
            rows = slice(document[start], document[end] if end < len(document) else len(places))
            for column, more in zip(found, self._enough(places[rows], first[rows], last[rows]), strict=True):
                column.append(more)
        holders, held = (np.concatenate(column) for column in found)
        left = addresses(task.split.index, holders)
        home = spread(left) % np.uint64(self._partitions)
        yield from send(home, [left, held], 1 << 32 | task.split.index)

    def _enough(
        self, places: npt.NDArray[np.int64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Documents beside known texts of whose sample they have enough; each of theirs leads to a range of owners."""
        _, owners, sizes = _samples(self._samples)
        hits = last - first
        rows = np.repeat(first - np.cumsum(hits) + hits, hits) + np.arange(hits.sum())
        holders, held, size = np.repeat(places, hits), owners[rows], sizes[rows]
        order = np.lexsort((held, holders))
        holders, held, size = holders[order], held[order], size[order]
        if len(holders) == 0:
            return holders, held
        starts = np.flatnonzero(np.r_[True, (holders[1:] != holders[:-1]) | (held[1:] != held[:-1])])
        shared = np.diff(np.r_[starts, len(holders)])
        enough = shared * 3 * self._threshold.denominator >= size[starts] * self._threshold.numerator
        return holders[starts[enough]], held[starts[enough]]


def signed(tasks: Sequence[DedupTask]) -> bytes | None:
    """Signatures and addresses of all held-out texts, as every worker needs them; None where they are too many."""
    found, whose = [], []
    for task in tasks:
        facts = read_facts(task.split, ["status", "n_shingles", "signature"])
        places = _comparable(facts)
        found.append(_signatures(facts)[places])
        whose.append(addresses(task.split.index, places))
        if sum(map(len, found)) > MOST_SIGNED:
            return None
    return pack(np.concatenate(found), np.concatenate(whose))


def _comparable(facts: pa.Table) -> npt.NDArray[np.int64]:
    """Places of documents that have a signature: what has no shingle is equal to others, or different."""
    return np.flatnonzero((facts["status"].to_numpy() == Status.OK) & (facts["n_shingles"].to_numpy() > 0))


def _signatures(facts: pa.Table) -> npt.NDArray[np.uint32]:
    return fixed_rows(facts["signature"], facts.schema.field("signature").type.byte_width).view(np.uint32)


@lru_cache(maxsize=1)
def _signed(path: str, bands: Bands) -> tuple[SignedTexts, npt.NDArray[np.uint64]]:
    signatures, whose = unpack(files.read_bytes(path))
    return sign_texts(signatures, bands), whose


class FindNear(PooledDoFn):
    """New documents that may be near held-out text: those whose signatures say so, whatever bands they share."""

    def __init__(self, signed: str, threshold: Fraction, partitions: int) -> None:
        self._signed = signed
        self._threshold = float(threshold)
        self._partitions = partitions

    def work(self, element: bytes) -> Packets:
        task = DedupTask.from_bytes(element)
        if task.origin != Origin.OWN:
            return
        facts = read_facts(task.split, ["status", "n_shingles", "signature"])
        places = _comparable(facts)
        signatures = _signatures(facts)
        bands = short_bands(self._threshold, signatures.shape[1])
        least = least_agreement(self._threshold, signatures.shape[1])
        texts, whose = _signed(self._signed, bands)
        found = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for start in range(0, len(places), _SIGNED_AT_ONCE):
            some = places[start : start + _SIGNED_AT_ONCE]
            for rows, owners in likely_near(signatures[some], texts, bands, least):
                pairs = distinct_pairs(addresses(task.split.index, some[rows]), whose[owners])
                for column, more in zip(found, pairs, strict=True):
                    column.append(more)
        left, right = distinct_pairs(*(np.concatenate(column) for column in found))
        yield from send(spread(left) % np.uint64(self._partitions), [left, right], 2 << 32 | task.split.index)


@dataclass(frozen=True)
class Compared:
    """Pairs of documents, what their shingle sets share, and the size of the second one's set."""

    left: npt.NDArray[np.uint64]
    right: npt.NDArray[np.uint64]
    shared: npt.NDArray[np.int64]
    union: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]

    @classmethod
    def none(cls) -> Compared:
        documents, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
        return cls(documents, documents, counts, counts, counts)

    def take(self, rows: npt.NDArray[Any]) -> Compared:
        return Compared(self.left[rows], self.right[rows], self.shared[rows], self.union[rows], self.size[rows])

    def at_least(self, threshold: Fraction) -> npt.NDArray[np.bool_]:
        """Which pairs have this Jaccard."""
        near: npt.NDArray[np.bool_] = self.shared * threshold.denominator >= threshold.numerator * self.union
        return near


Arrays = list[npt.NDArray[Any]]


def mark(pairs: Compared, copies: list[Arrays], same: list[Arrays], threshold: Fraction) -> Packets:
    """Marks for the splits of documents that are like known texts, and of their copies."""
    near = pairs.at_least(threshold)
    enough = pairs.shared * threshold.denominator >= threshold.numerator * pairs.size
    holds = enough & (pairs.size >= LEAST_HELD)
    like = pairs.take(near | holds)
    likeness = np.where(near, Likeness.NEAR, Likeness.HOLDS).astype(np.uint8)[near | holds]
    equal, texts = _joined(same)
    ones = np.ones(len(equal), np.int64)
    columns = [
        np.concatenate([like.left, equal]),
        np.concatenate([like.right, texts]),
        np.concatenate([likeness, np.full(len(equal), Likeness.SAME, np.uint8)]),
        np.concatenate([like.shared, ones]),
        np.concatenate([np.where(likeness == Likeness.HOLDS, like.size, like.union), ones]),
    ]
    columns = _with_copies(columns, *_joined(copies))
    order, runs = groups(split_of(columns[0]))
    for split, start, end in runs:
        rows = order[start:end]
        mine = [column[rows] for column in columns]
        first = int(mine[0].min())  # of this partition's texts alone
        for _, body in send(np.zeros(len(rows), np.int64), mine, first):
            yield split, body


def _joined(parts: list[Arrays]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    left, right = (np.concatenate(column) for column in zip(*parts, strict=True))
    return left, right


def _with_copies(columns: Arrays, text: npt.NDArray[np.uint64], copy: npt.NDArray[np.uint64]) -> Arrays:
    """Marks of a text's first document, repeated for the documents that are copies of it."""
    order = np.argsort(text, kind="stable")
    text, copy = text[order], copy[order]
    first, last = np.searchsorted(text, columns[0], "left"), np.searchsorted(text, columns[0], "right")
    counts = last - first
    rows = np.repeat(np.arange(len(counts)), counts)
    at = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return [
        np.concatenate([columns[0], copy[at]]),
        *(np.concatenate([column, column[rows]]) for column in columns[1:]),
    ]


@dataclass(frozen=True)
class _Marks:
    """The best mark of each document of one split, and what is known of the text that it resembles."""

    documents: npt.NDArray[np.uint64]
    likeness: npt.NDArray[np.uint8]
    shared: npt.NDArray[np.int64]
    whole: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    generators: pa.Array
    wheres: pa.Array

    @property
    def ids(self) -> pa.Array:
        return hex_ids(self.digests)


class _WriteMarks(PooledDoFn):
    def __init__(self, tasks: Sequence[DedupTask], folder: str) -> None:
        self._tasks = tasks
        self._folder = folder

    def _best(self, values: Iterable[bytes]) -> _Marks:
        documents, known, likeness, shared, whole = unpack_all(received(values))
        digests, generators, wheres = self._told(known)
        words = digests.view(">u8").astype(np.uint64)
        # Best first: the kind of likeness, how like, and of equals the lowest digest, wherever it was read.
        order = np.lexsort((known, words[:, 1], words[:, 0], -(shared / whole), likeness, documents))
        in_order = documents[order]
        rows = order[np.r_[True, in_order[1:] != in_order[:-1]]]
        return _Marks(
            documents[rows],
            likeness[rows],
            shared[rows],
            whole[rows],
            np.ascontiguousarray(digests[rows]),
            generators.take(pa.array(rows)),
            wheres.take(pa.array(rows)),
        )

    def _told(self, known: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint8], pa.Array, pa.Array]:
        """Digest, generator and place of each known text, read once per split that holds some."""
        digests = np.empty((len(known), 16), np.uint8)
        order, runs = groups(split_of(known))
        generators: list[pa.Array] = []
        wheres: list[pa.Array] = []
        for number, start, end in runs:
            split = self._tasks[number - self._tasks[0].split.index].split
            facts = read_facts(split, ["digest", "generator", "row", "part"])
            rows = order[start:end]
            places = place_of(known[rows])
            digests[rows] = digests_of(facts)[places, :16]
            chosen = facts.select(["generator", "row", "part"]).take(pa.array(places)).combine_chunks()
            generators.append(chosen["generator"].combine_chunks())
            wheres.append(_where(split, chosen["row"].combine_chunks(), chosen["part"].combine_chunks()))
        back = pa.array(np.argsort(order, kind="stable"))
        return digests, pa.concat_arrays(generators).take(back), pa.concat_arrays(wheres).take(back)


class WriteKnown(_WriteMarks):
    """How the documents of one split are like text known to be synthetic, in words."""

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        split, values = element
        best = self._best(values)
        detail = _detail(best.likeness, best.shared, best.whole, best.ids, best.wheres)
        columns = [place_of(best.documents), best.likeness, best.generators, detail]
        yield write_part(self._folder, "known", split, pa.table(columns, schema=KNOWN_SCHEMA))


class WriteReference(_WriteMarks):
    """Which documents of one split are like held-out text, and like which."""

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        split, values = element
        best = self._best(values)
        verbs = pa.array([kind.verb for kind in Likeness]).take(pa.array(best.likeness.astype(np.int64)))
        columns = [
            place_of(best.documents),
            best.likeness,
            fixed_binary(best.digests),
            best.shared,
            best.whole,
            pc.binary_join_element_wise(verbs, best.wheres, " "),
        ]
        yield write_part(self._folder, "reference", split, pa.table(columns, schema=REFERENCE_MARKS))


def _where(split: Split, rows: pa.Array, parts: pa.Array) -> pa.Array:
    told = pc.binary_join_element_wise(pa.scalar(f"{split.shard} row"), rows.cast(pa.string()), " ")
    with_part = pc.binary_join_element_wise(told, parts.cast(pa.string()), " part ")
    return pc.if_else(pc.greater(parts, 0), with_part, told)


def _detail(
    likeness: npt.NDArray[np.uint8],
    shared: npt.NDArray[np.int64],
    whole: npt.NDArray[np.int64],
    ids: pa.Array,
    wheres: pa.Array,
) -> pa.Array:
    """As `near 5f3a..., part.jsonl row 7: Jaccard 57/60`, with the numbers exact."""
    verbs = pa.array([kind.verb for kind in Likeness]).take(pa.array(likeness.astype(np.int64)))
    shares = pc.binary_join_element_wise(pa.array(shared).cast(pa.string()), pa.array(whole).cast(pa.string()), "/")
    measures = pa.array([kind.measure for kind in Likeness]).take(pa.array(likeness.astype(np.int64)))
    told = pc.binary_join_element_wise(verbs, ids, " ")
    measured = pc.binary_join_element_wise(pc.binary_join_element_wise(told, wheres, ", "), measures, ": ")
    return pc.if_else(
        pa.array(likeness == Likeness.SAME),
        pc.binary_join_element_wise(told, wheres, ", "),
        pc.binary_join_element_wise(measured, shares, " "),
    )
