"""The tables that stages exchange and store: names, types, and the small codes inside them.

Parsed documents (what reading a shard yields, one row per document, broken rows included) become FACTS; FACTS and
the edges between them become FATES; text, facts and fates become the MIX. Facts and fates of one split are aligned
row for row with each other and with the input.
"""

from __future__ import annotations

from enum import IntEnum

import pyarrow as pa


class Provenance(IntEnum):
    """Where a document comes from, in keep order: of two near-duplicates the lower value stays."""

    HUMAN_VERIFIED = 0
    HUMAN = 1
    AI_ASSISTED = 2
    UNKNOWN = 3
    DISPUTED = 4
    SYNTHETIC = 5

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> Provenance:
        return cls[label.upper()]


class Fate(IntEnum):
    """What became of one input document. KEPT documents are what a mix can choose from."""

    KEPT = 0
    EMPTY = 1
    BAD_RECORD = 2
    BAD_FILE = 3
    EXCLUDED = 4
    EXACT_DUPLICATE = 5
    NEAR_DUPLICATE = 6
    SEEN_BEFORE = 7
    HELD_OUT = 8

    @property
    def label(self) -> str:
        return self.name.lower()


class Likeness(IntEnum):
    """How a document is like text that is known to be synthetic, closest first."""

    SAME = 0
    NEAR = 1
    HOLDS = 2

    @property
    def verb(self) -> str:
        return ("the text of", "near", "holds")[self]

    @property
    def measure(self) -> str:
        """What the two numbers are that prove it."""
        return ("", "Jaccard", "shingles")[self]


class Status(IntEnum):
    """How reading one document went."""

    OK = 0
    EMPTY = 1
    BAD_RECORD = 2
    BAD_FILE = 3


DIGEST_BYTES = 32
"""A whole sha256: what custody leaves hold. A document's `id` is the hex of its first ID_BYTES."""
MOST_TOKENS = 1 << 40
"""In one document. A count above it is impossible, and sums stay far below 2**63."""

ID_BYTES = 16

EVIDENCE = pa.list_(
    pa.struct(
        [
            pa.field("kind", pa.string()),
            pa.field("rule", pa.string()),
            pa.field("strength", pa.string()),
            pa.field("detail", pa.string()),
        ]
    )
)

KEEP_PREFIX = "keep."
"""Kept columns stand behind this prefix in parsed batches and facts, so that no name can collide."""

SCORE_PREFIX = "score."
"""Input columns that hold a detector's scores stand behind this prefix in parsed batches, as text."""

PARSED = pa.schema(
    [
        pa.field("row", pa.int64()),  # position in the shard, broken rows counted
        pa.field("part", pa.int32()),
        pa.field("text", pa.large_string()),  # null where status is BAD_RECORD, or the value was null
        pa.field("status", pa.uint8()),
        pa.field("problem", pa.string()),  # what is wrong with a bad record, else null
        pa.field("doc_id", pa.string()),
        pa.field("language", pa.string()),
        pa.field("license", pa.string()),
        pa.field("url", pa.string()),
        pa.field("date", pa.string()),
        pa.field("generator", pa.string()),
        pa.field("label", pa.string()),
        pa.field("derived_from", pa.string()),  # ids of what it was made from, a JSON list where there are several
        pa.field("origin", pa.string()),  # what the data set and disclosure fields claim, packed; see `recognisers`
        pa.field("n_tokens", pa.int64()),  # only where `tokens` names a column, else null
    ]
)
"""Followed by the kept columns, all strings (numbers as their text, nested values as JSON)."""


def parsed_schema(kept: tuple[str, ...], scores: tuple[str, ...] = ()) -> pa.Schema:
    """`scores` are the paths of score columns."""
    names = (*(KEEP_PREFIX + name for name in kept), *(SCORE_PREFIX + path for path in scores))
    return pa.schema([*PARSED, *(pa.field(name, pa.string()) for name in names)])


def score_column(detector: str) -> str:
    """Of facts: the detector's score, null where it gave no number."""
    return f"detector.{detector}.score"


def p_column(detector: str) -> str:
    """Of facts: p as the detector states it, null where it states none."""
    return f"detector.{detector}.p"


def facts_schema(kept: tuple[str, ...], permutations: int, detectors: tuple[str, ...] = ()) -> pa.Schema:
    return pa.schema(
        [
            pa.field("row", pa.int64()),
            pa.field("part", pa.int32()),
            pa.field("status", pa.uint8()),
            pa.field("problem", pa.string()),
            pa.field("digest", pa.binary(DIGEST_BYTES)),  # of the raw UTF-8 text; zeros where there is none
            pa.field("n_bytes", pa.int64()),
            pa.field("n_words", pa.int64()),
            pa.field("n_tokens", pa.int64()),
            pa.field("n_shingles", pa.int32()),
            pa.field("artefacts", pa.uint64()),  # bit set of the recognisers that fired
            pa.field("doc_id", pa.string()),
            pa.field("language", pa.string()),
            pa.field("license", pa.string()),
            pa.field("generator", pa.string()),
            pa.field("label", pa.string()),
            pa.field("derived_from", pa.string()),
            pa.field("origin", pa.string()),  # packed claims of the data set and of disclosure fields
            *(pa.field(KEEP_PREFIX + name, pa.string()) for name in kept),
            *(pa.field(column(name), pa.float64()) for name in detectors for column in (score_column, p_column)),
            pa.field("signature", pa.binary(4 * permutations)),
            pa.field("sample", pa.list_(pa.uint32())),  # of its shingles, sorted: what a longer text holds of a shorter
        ]
    )


FATES = pa.schema(
    [
        pa.field("fate", pa.uint8()),
        pa.field("provenance", pa.uint8()),
        pa.field("contested", pa.bool_()),
        pa.field("generator", pa.string()),
        pa.field("kind", pa.string()),  # rephrase | generated, for synthetic text
        pa.field("evidence", EVIDENCE),
        pa.field("partner", pa.binary(ID_BYTES)),  # id of the witness
        pa.field("partner_position", pa.uint64()),  # its address: split << 32 | place in the split,
        pa.field("partner_index", pa.string()),  # in the earlier index that holds it; null: in this one
        pa.field("shared", pa.int64()),  # exact Jaccard as two integers
        pa.field("union", pa.int64()),
        pa.field("represents", pa.int64()),
        pa.field("reason", pa.string()),  # why an excluded document was excluded
    ]
)


def mix_schema(kept: tuple[str, ...]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("text", pa.string()),
            pa.field("source", pa.string()),
            pa.field("provenance", pa.string()),
            pa.field("generator", pa.string()),
            pa.field("evidence", EVIDENCE),
            pa.field("n_tokens", pa.int64()),
            pa.field("n_bytes", pa.int64()),
            pa.field("represents", pa.int64()),
            pa.field("copy", pa.int32()),
            pa.field("language", pa.string()),
            pa.field("license", pa.string()),
            pa.field("doc_id", pa.string()),
            pa.field("shard", pa.string()),
            pa.field("row", pa.int64()),
            pa.field("part", pa.int32()),
            *(pa.field(name, pa.string()) for name in kept),
        ]
    )
