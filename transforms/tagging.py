"""What each document of a split is: its facts, its tags and the exclusions that apply. The first half of FATES."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms import files
from transforms.batches import Split, place_of
from transforms.exchange import packet
from transforms.kernels.detection import DetectorRule, judge
from transforms.kernels.provenance import KnownMarks, SourceRules, Tags, covered, leaf_array, tag
from transforms.kernels.schemas import ID_BYTES, Likeness, Status, p_column, score_column
from transforms.sidecars import digests_of, fixed_binary, read_facts, read_table

_SPLIT = b"S"

REFERENCE_MARKS = pa.schema(
    [
        pa.field("place", pa.int64()),  # ascending
        pa.field("likeness", pa.uint8()),
        pa.field("partner", pa.binary(ID_BYTES)),
        pa.field("shared", pa.int64()),  # of shingles: exact Jaccard, or how much of the held-out text a document holds
        pa.field("whole", pa.int64()),
        pa.field("detail", pa.string()),  # which held-out text, and how like it
    ]
)
"""What EDGES writes of documents that are like held-out text."""


@dataclass(frozen=True)
class ShardCustody:
    """What custody says of one shard: the leaves its documents are checked against, and what their proof reads."""

    leaves: str
    digest: str  # sha256 of the leaf list
    detail: str


@dataclass(frozen=True)
class Exclusion:
    """Documents that stay out of every mix, for a stated reason; one of the other fields says which."""

    reason: str
    source: str | None = None
    generator: str | None = None
    ids: tuple[str, ...] = ()
    doc_ids: tuple[str, ...] = ()


class ExclusionHit(NamedTuple):
    """What one exclusion found in a split."""

    exclusion: int  # its place in the rules
    documents: int
    listed: tuple[int, ...]  # places of the ids that it names and that are there


@dataclass(frozen=True)
class FateRules:
    """Everything of the config that FATES depends on, apart from custody."""

    sources: Mapping[str, SourceRules]
    priorities: Mapping[str, int]
    exclusions: tuple[Exclusion, ...] = ()
    detectors: tuple[DetectorRule, ...] = ()


@dataclass(frozen=True)
class FateTask:
    split: Split
    custody: ShardCustody | None
    known: str | None = None  # path of what is known of its documents' likeness to synthetic text
    descendants: str | None = None  # path of those that were made from synthetic text
    held_out: str | None = None  # path of those that are like held-out text

    def to_bytes(self) -> bytes:
        custody = asdict(self.custody) if self.custody else None
        fields = {"split": self.split.to_bytes().decode(), "custody": custody, "known": self.known}
        fields |= {"descendants": self.descendants, "held_out": self.held_out}
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> FateTask:
        fields = json.loads(bytes(data))
        custody = ShardCustody(**fields["custody"]) if fields["custody"] else None
        split = Split.from_bytes(fields["split"].encode())
        return cls(split, custody, fields["known"], fields["descendants"], fields["held_out"])


class SplitTask(beam.DoFn):
    """A task as a packet to the partition of its split, before all others there."""

    def process(self, element: bytes) -> Iterator[tuple[int, bytes]]:
        yield FateTask.from_bytes(element).split.index, packet(_SPLIT + element, 0)


@dataclass
class TaggedSplit:
    """A split with everything its documents' fates depend on, apart from other documents."""

    task: FateTask
    facts: pa.Table
    tags: Tags
    status: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    reasons: pa.Array  # null where a document is not excluded
    exclusions: list[ExclusionHit]
    reference: pa.Table  # which documents are like held-out text, by place
    lost_leaves: bool  # the leaf list is no longer the one that was judged, so it covers nothing
    detectors: dict[str, dict[str, int]]  # documents that each detector judged, spoke against, abstained on

    @property
    def eligible(self) -> npt.NDArray[np.bool_]:
        return (self.status == Status.OK) & ~self.excluded & ~self.held_out

    @property
    def excluded(self) -> npt.NDArray[np.bool_]:
        stated: npt.NDArray[np.bool_] = self.reasons.is_valid().to_numpy(zero_copy_only=False)
        return (self.status == Status.OK) & stated

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """What has the text of held-out text, or is near it; what only holds it within more is another document."""
        return self._like_reference(pc.not_equal(self.reference["likeness"], Likeness.HOLDS)) & ~self.excluded

    @property
    def holds_held_out(self) -> npt.NDArray[np.bool_]:
        return self._like_reference(pc.equal(self.reference["likeness"], Likeness.HOLDS))

    def _like_reference(self, chosen: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(self.status), np.bool_)
        found[self.reference["place"].filter(chosen).to_numpy()] = True
        return found


_TAG_COLUMNS = ["status", "digest", "n_words", "n_tokens", "artefacts", "doc_id", "generator", "label", "origin"]


def tag_split(first: bytes | memoryview, rules: FateRules) -> TaggedSplit:
    """Everything about a split, from the packet that `SplitTask` sent."""
    return tag_task(FateTask.from_bytes(first[len(_SPLIT) :]), rules)


def tag_task(task: FateTask, rules: FateRules) -> TaggedSplit:
    scores = [column(rule.name) for rule in rules.detectors for column in (score_column, p_column)]
    facts = read_facts(task.split, [*_TAG_COLUMNS, *(["language", *scores] if scores else [])])
    digests = digests_of(facts)
    status = facts["status"].to_numpy()
    findings = judge(facts, status == Status.OK, rules.detectors)
    custody = task.custody
    leaves = _leaves(custody.leaves, custody.digest) if custody else None
    tags = tag(
        facts,
        covered(digests, leaves) if leaves is not None else None,
        custody.detail if custody else None,
        rules.sources[task.split.source],
        _known_marks(task.known, facts.num_rows) if task.known else None,
        findings,
        _named_ancestors(task.descendants, facts.num_rows) if task.descendants else None,
    )
    reasons, hits = _exclusions(task.split.source, facts, tags, digests, rules)
    reference = read_table(task.held_out) if task.held_out else REFERENCE_MARKS.empty_table()
    lost = custody is not None and leaves is None
    return TaggedSplit(task, facts, tags, status, digests, reasons, hits, reference, lost, findings.counts)


def _known_marks(path: str, size: int) -> KnownMarks:
    marks = read_table(path)
    rows = np.full(size, -1, np.int64)
    rows[marks["place"].to_numpy()] = np.arange(marks.num_rows)
    at = pa.array(rows, mask=rows < 0)
    return KnownMarks(*(marks[name].combine_chunks().take(at) for name in ("likeness", "generator", "detail")))


def _named_ancestors(path: str, size: int) -> pa.StringArray:
    """The ancestor that each document names, where it descends from synthetic text."""
    found = read_table(path)
    rows = np.full(size, -1, np.int64)
    rows[place_of(found["document"].to_numpy())] = np.arange(found.num_rows)
    return found["ancestor"].combine_chunks().take(pa.array(rows, mask=rows < 0))


def _leaves(path: str, digest: str) -> npt.NDArray[np.uint8] | None:
    """The leaf list, or None if these are not the bytes that the driver judged: time has passed since."""
    try:
        return _checked_leaves(path, digest)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=4)
def _checked_leaves(path: str, digest: str) -> npt.NDArray[np.uint8]:
    content = files.read_bytes(path)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path} has another sha256 than {digest}")
    return leaf_array(content)


def _exclusions(
    source: str, facts: pa.Table, tags: Tags, digests: npt.NDArray[np.uint8], rules: FateRules
) -> tuple[pa.Array, list[ExclusionHit]]:
    """The reason of the first exclusion that applies to each document, and what each exclusion found."""
    reasons = pa.nulls(facts.num_rows, pa.string())
    found = []
    for number, rule in enumerate(rules.exclusions):
        if rule.source is not None and rule.source != source:
            continue
        hit: Any = np.ones(facts.num_rows, bool)
        listed: set[int] = set()
        if rule.generator is not None:
            hit = pc.equal(tags.generator, rule.generator).fill_null(False).to_numpy(zero_copy_only=False)
        elif rule.ids or rule.doc_ids:
            if rule.ids:
                wanted = pa.array([bytes.fromhex(name) for name in rule.ids], pa.binary(ID_BYTES))
                values = fixed_binary(np.ascontiguousarray(digests[:, :ID_BYTES]))
            else:
                wanted, values = pa.array(rule.doc_ids), facts["doc_id"].combine_chunks()
            places = pc.index_in(values, wanted)
            hit = places.is_valid().to_numpy(zero_copy_only=False)
            listed = set(places.unique().drop_null().to_pylist())
        if hit.any():
            found.append(ExclusionHit(number, int(hit.sum()), tuple(sorted(listed))))
        fresh = pa.array(hit & reasons.is_null().to_numpy(zero_copy_only=False))
        reasons = pc.if_else(fresh, pa.scalar(rule.reason), reasons)
    return reasons, found
