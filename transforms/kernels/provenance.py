"""What each document is, from everything that is known about where it comes from.

Facts about origin are *assertions*. They combine by a fixed rule over the set of them, so neither their order nor
their number matters. Only custody proves: no label, date or other metadata ever says more than `human`, and what is
merely detected in a text only demotes. All that was asserted stays with the document as evidence.

Documents of one split share a few combinations of label, generator, marks and custody, so each combination is decided
once and its answer taken back to the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.artefacts import recognisers_in, shown_in
from transforms.kernels.detection import DETECTED, HEURISTIC, PROOF, SILENT, Findings, with_evidence
from transforms.kernels.recognisers import Claim, unpack_claims
from transforms.kernels.schemas import DIGEST_BYTES, EVIDENCE, Likeness, Provenance

__all__ = [
    "Assertion",
    "KnownMarks",
    "SourceRules",
    "Strength",
    "Tags",
    "combine",
    "covered",
    "is_contested",
    "leaf_array",
    "tag",
]


class Strength(IntEnum):
    """How far a piece of evidence reaches, strongest first."""

    PROOF = 0
    DECLARED = 1
    DETECTED = 2
    HEURISTIC = 3

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Assertion:
    """That a document has some provenance, how strongly, and who says so: its own row, a data card, or its source."""

    provenance: Provenance
    strength: Strength
    of_row: bool = False
    of_card: bool = False


_DETECTORS = {
    strength: Assertion(Provenance.SYNTHETIC, kind, of_row=True)
    for strength, kind in ((HEURISTIC, Strength.HEURISTIC), (DETECTED, Strength.DETECTED), (PROOF, Strength.PROOF))
}
"""What detectors assert, by how strongly they speak against a document. None of them ever says human."""
_CUSTODY = Assertion(Provenance.HUMAN_VERIFIED, Strength.PROOF, of_row=True)
_FOUND = (Strength.PROOF, Strength.DETECTED)
"""Strengths of what is found in a text; custody, which is proof too, is not found there."""
_MARKS = Assertion(Provenance.AI_ASSISTED, Strength.DETECTED, of_row=True)
_KNOWN = Assertion(Provenance.SYNTHETIC, Strength.DETECTED, of_row=True)
_NOT_HUMAN = frozenset({Provenance.AI_ASSISTED, Provenance.SYNTHETIC})


def combine(assertions: frozenset[Assertion]) -> Provenance:
    """The provenance that a set of assertions amounts to.

    Evidence joins by union, which is commutative, associative and idempotent, and this reads the union alone: neither
    order nor repetition nor the place where evidence was found can matter.

    Custody wins. Then proof that text is not human. Then a source whose owner says that it is synthetic as a whole;
    then what the row declares, where human against synthetic is disputed and assistance beats human; then what the
    owner believes of the source and a data card says of it. Detection turns human, unknown and assisted text into the
    worst that it detected; heuristics change nothing.
    """
    if _CUSTODY in assertions:
        return Provenance.HUMAN_VERIFIED
    proven = {a.provenance for a in assertions if a.strength == Strength.PROOF} & _NOT_HUMAN
    if proven:
        return max(proven)
    declared = _declared(assertions)
    detected = {a.provenance for a in assertions if a.strength == Strength.DETECTED} & _NOT_HUMAN
    if detected and declared in (Provenance.HUMAN, Provenance.UNKNOWN, Provenance.AI_ASSISTED):
        return max(detected | ({declared} & _NOT_HUMAN))
    return declared


def _declared(assertions: frozenset[Assertion]) -> Provenance:
    said_so = [a for a in assertions if a.strength == Strength.DECLARED]
    by_row = {a.provenance for a in said_so if a.of_row}
    by_source = {a.provenance for a in said_so if not a.of_row}
    if Provenance.SYNTHETIC in {a.provenance for a in said_so if not (a.of_row or a.of_card)}:
        return Provenance.SYNTHETIC
    said = by_row or by_source
    if {Provenance.HUMAN, Provenance.SYNTHETIC} <= said:
        return Provenance.DISPUTED
    for provenance in (Provenance.SYNTHETIC, Provenance.AI_ASSISTED, Provenance.HUMAN):
        if provenance in said:
            return provenance
    return Provenance.UNKNOWN


def is_contested(assertions: frozenset[Assertion]) -> bool:
    """Whether something says that a document under custody is not human."""
    against = any(a.provenance in _NOT_HUMAN and a.strength != Strength.HEURISTIC for a in assertions)
    return _CUSTODY in assertions and against


_BELIEFS = ("human", "ai_assisted", "unknown")
_LABELS = (*_BELIEFS, "synthetic")
_KINDS = ("generated", "rephrase")


@dataclass(frozen=True)
class SourceRules:
    """What the config says about the origin of one source's documents."""

    source: str
    declare: str = "unknown"
    synthetic_generator: str | None = None
    synthetic_kind: str | None = None
    """Given together with `synthetic_generator`, or alone: either makes the whole source synthetic."""
    labels: tuple[tuple[str, str], ...] = ()
    """Values of the label column and the provenance that each declares."""
    license: str | None = None
    """Of rows that carry none of their own; a licence is never evidence of origin."""
    card: tuple[Claim, ...] = ()
    """What the data cards beside the files say of all of them."""

    def __post_init__(self) -> None:
        if self.declare not in _BELIEFS:
            raise ValueError(
                f"source {self.source!r} declares {self.declare!r}; a belief is one of {', '.join(_BELIEFS)}. "
                "Only custody makes text human_verified; whole synthetic sources say `synthetic`"
            )
        for value, provenance in self.labels:
            if provenance not in _LABELS:
                raise ValueError(
                    f"label {value!r} of source {self.source!r} stands for {provenance!r}; "
                    f"a label can stand for {', '.join(_LABELS)}"
                )
        if self.synthetic_kind is not None and self.synthetic_kind not in _KINDS:
            raise ValueError(
                f"source {self.source!r} is synthetic of kind {self.synthetic_kind!r}; "
                f"the kinds are {', '.join(_KINDS)}"
            )

    @property
    def is_synthetic(self) -> bool:
        return self.synthetic_generator is not None or self.synthetic_kind is not None


@dataclass(frozen=True)
class KnownMarks:
    """One row per document: how it is like text known to be synthetic; null where it is not."""

    likeness: pa.UInt8Array
    generator: pa.StringArray  # of the known text, where it is known
    detail: pa.StringArray  # which text, and what proves it

    @classmethod
    def none(cls, size: int) -> KnownMarks:
        return cls(pa.nulls(size, pa.uint8()), pa.nulls(size, pa.string()), pa.nulls(size, pa.string()))


@dataclass(frozen=True)
class Tags:
    """One row per document."""

    provenance: NDArray[np.uint8]
    before_demotion: NDArray[np.uint8]  # as it would be had nothing been detected; keep order goes by it
    contested: NDArray[np.bool_]  # under custody, yet something says it is not human
    generator: pa.StringArray  # of synthetic documents where it is known, else null
    kind: pa.StringArray  # rephrase | generated for synthetic documents, else null
    evidence: pa.ListArray


def tag(
    facts: pa.RecordBatch | pa.Table,
    covered: NDArray[np.bool_] | None,
    custody_detail: str | None,
    rules: SourceRules,
    known: KnownMarks | None = None,
    findings: Findings | None = None,
    ancestors: pa.StringArray | None = None,
) -> Tags:
    """Tags for the documents of one shard, from their columns `label`, `generator`, `origin` and `artefacts`.

    `covered` says which documents custody covers (None: the shard has none) and `custody_detail` by what; `known`
    which of them are like text known to be synthetic; `ancestors` what those name that were made from synthetic text;
    `findings` what detectors say against them.
    """
    if known is None:
        known = KnownMarks.none(facts.num_rows)
    columns = [_dictionary(facts.column(name)) for name in ("label", "generator", "origin", "artefacts")]
    if ancestors is None:
        ancestors = pa.nulls(facts.num_rows, pa.string())
    columns += [_dictionary(known.likeness), _dictionary(known.generator), _dictionary(ancestors.is_valid())]
    held = np.zeros(facts.num_rows, bool) if covered is None else covered
    against = np.full(facts.num_rows, SILENT, np.int64) if findings is None else findings.strength
    codes = [column.indices.to_numpy() for column in columns] + [held.astype(np.int64), against]
    combinations, of_document = _distinct(codes, [len(column.dictionary) for column in columns] + [2, PROOF + 1])
    values = [column.dictionary.to_pylist() for column in columns]
    verdicts = [
        _decide(
            values[0][label],
            values[1][generator],
            values[2][origin],
            values[3][bits] or 0,
            values[4][likeness],
            values[5][known_from],
            values[6][descends],
            bool(proof),
            custody_detail,
            rules,
            spoken,
        )
        for label, generator, origin, bits, likeness, known_from, descends, proof, spoken in combinations.T.tolist()
    ]

    def spread(field: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(verdict, field) for verdict in verdicts], kind).take(pa.array(of_document))

    def spread_numbers(field: str, dtype: Any) -> NDArray[Any]:
        return np.array([getattr(verdict, field) for verdict in verdicts], dtype)[of_document]

    told = {_KNOWN_KIND: known.detail, _DERIVED_KIND: ancestors}
    evidence = _with_details(spread("evidence", EVIDENCE), told)
    return Tags(
        spread_numbers("provenance", np.uint8),
        spread_numbers("before_demotion", np.uint8),
        spread_numbers("contested", np.bool_),
        spread("generator", pa.string()),
        spread("kind", pa.string()),
        evidence if findings is None else with_evidence(evidence, findings),
    )


def _with_details(evidence: pa.ListArray, details: Mapping[str, pa.StringArray]) -> pa.ListArray:
    """Evidence of some kinds, alike for many documents, with what each document's own is."""
    details = {kind: own for kind, own in details.items() if own.null_count < len(own)}
    if not details:
        return evidence
    entries = evidence.flatten()
    kinds, rules, strengths, told = (entries.field(place) for place in range(4))
    of_document = pc.list_parent_indices(evidence)
    for kind, own in details.items():
        told = pc.if_else(pc.equal(kinds, kind), own.take(of_document), told)
    filled = pa.StructArray.from_arrays([kinds, rules, strengths, told], fields=list(EVIDENCE.value_type))
    return pa.ListArray.from_arrays(_offsets(evidence), filled).cast(EVIDENCE)


def _offsets(lists: pa.ListArray) -> pa.Array:
    lengths = pc.list_value_length(lists).to_numpy()
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _dictionary(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The column with a code for each distinct value, null among them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.dictionary_encode(array, null_encoding="encode")


def _distinct(codes: list[NDArray[Any]], sizes: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The combinations of codes that occur, one a column, and which of them each document has."""
    occurring = np.zeros((0, 1 if len(codes[0]) else 0), np.int64)
    of_document = np.zeros(len(codes[0]), np.int64)
    for code, size in zip(codes, sizes, strict=True):
        # Renumbered after every step, so that the keys stay far below 2^63 whatever the sizes.
        keys, of_document = np.unique(of_document * size + code, return_inverse=True)
        occurring = np.vstack([occurring[:, keys // max(size, 1)], keys % max(size, 1)])
    return occurring, of_document


@dataclass(frozen=True)
class _Verdict:
    provenance: Provenance
    before_demotion: Provenance
    contested: bool
    generator: str | None
    kind: str | None
    evidence: list[dict[str, str]]


_NO_GENERATOR = frozenset({"", "none", "null", "nan"})
_BINARY = frozenset({"0", "1", "true", "false", "yes", "no"})
_HUMAN_GENERATOR = "human"


class _Findings:
    """Collects what is said about one combination, as assertions and as evidence."""

    def __init__(self) -> None:
        self.assertions: set[Assertion] = set()
        self._evidence: list[tuple[Strength, str, str, str]] = []

    def note(self, strength: Strength, kind: str, rule: str, detail: str) -> None:
        self._evidence.append((strength, kind, rule, detail))

    def declare(self, provenance: Provenance, of_row: bool, kind: str, rule: str, detail: str) -> None:
        self.assertions.add(Assertion(provenance, Strength.DECLARED, of_row))
        self.note(Strength.DECLARED, kind, rule, detail)

    def claim(self, claim: Claim, of_card: bool) -> None:
        strength = Strength[claim.strength.upper()]
        if claim.provenance is not None:
            said = Provenance.from_label(claim.provenance)
            if said == Provenance.HUMAN_VERIFIED:  # only custody says so, whatever was written into an index
                said, strength = Provenance.HUMAN, max(strength, Strength.DECLARED)
            self.assertions.add(Assertion(said, strength, of_row=not of_card, of_card=of_card))
        self.note(strength, "card" if of_card else "data_set", claim.rule, claim.detail)

    @property
    def evidence(self) -> list[dict[str, str]]:
        return [
            {"kind": kind, "rule": rule, "strength": strength.label, "detail": detail}
            for strength, kind, rule, detail in sorted(self._evidence)
        ]


_KNOWN_KIND = "known_synthetic"
_DERIVED_KIND = "derived_from"
_REPHRASE = "rephrase"


def _decide(
    label: str | None,
    generator: str | None,
    origin: str | None,
    artefacts: int,
    likeness: int | None,
    known_generator: str | None,
    descends: bool,
    in_custody: bool,
    custody_detail: str | None,
    rules: SourceRules,
    against: int = SILENT,
) -> _Verdict:
    found = _Findings()
    if in_custody:
        found.assertions.add(_CUSTODY)
        found.note(Strength.PROOF, "custody", f"sources.{rules.source}.custody", custody_detail or "")
    if rules.is_synthetic:
        detail = f"{rules.synthetic_kind or _KINDS[0]} by {rules.synthetic_generator or 'an unnamed generator'}"
        found.declare(Provenance.SYNTHETIC, False, "source", f"sources.{rules.source}.synthetic", detail)
    if rules.declare != "unknown":
        belief = Provenance.from_label(rules.declare)
        found.declare(belief, False, "source", f"sources.{rules.source}.declare", rules.declare)
    claims = unpack_claims(origin)
    named = [_read_generator(generator, rules, found)]
    named += sorted(claim.generator for claim in (*claims, *rules.card) if claim.generator)
    _read_label(label, rules, found)
    for claim in claims:
        found.claim(claim, of_card=False)
    for claim in rules.card:
        found.claim(claim, of_card=True)
    _read_artefacts(artefacts, found)
    if likeness is not None:
        found.assertions.add(_KNOWN)
        found.note(Strength.DETECTED, _KNOWN_KIND, "evidence.known_synthetic", Likeness(likeness).verb)
    if against != SILENT:
        found.assertions.add(_DETECTORS[against])
    if descends:
        found.declare(Provenance.SYNTHETIC, True, _DERIVED_KIND, "derived_from", "a synthetic ancestor")

    assertions = frozenset(found.assertions)
    provenance = combine(assertions)
    is_synthetic = provenance == Provenance.SYNTHETIC
    kinds = {claim.kind for claim in (*claims, *rules.card) if claim.kind}
    kinds |= {_REPHRASE} if descends else set()
    kind = rules.synthetic_kind if rules.is_synthetic else next(iter(kinds)) if len(kinds) == 1 else None
    return _Verdict(
        provenance=provenance,
        before_demotion=combine(frozenset(a for a in assertions if a == _CUSTODY or a.strength not in _FOUND)),
        contested=is_contested(assertions),
        generator=next(filter(None, [rules.synthetic_generator, *named, known_generator]), None)
        if is_synthetic
        else None,
        kind=(kind or _KINDS[0]) if is_synthetic else None,
        evidence=found.evidence,
    )


def _read_generator(generator: str | None, rules: SourceRules, found: _Findings) -> str | None:
    """The model that the row names, if it names one."""
    said = (generator or "").strip()
    if said.lower() in _NO_GENERATOR:
        return None
    if said.lower() in _BINARY:
        rule = f"sources.{rules.source}.columns.generator"
        found.note(Strength.HEURISTIC, "generator", rule, f"{said} names nobody: it is a label without a meaning")
        return None
    is_human = said.lower() == _HUMAN_GENERATOR
    provenance = Provenance.HUMAN if is_human else Provenance.SYNTHETIC
    found.declare(provenance, True, "generator", f"sources.{rules.source}.columns.generator", said)
    return None if is_human else said


def _read_label(label: str | None, rules: SourceRules, found: _Findings) -> None:
    # A label column whose values nobody explained asserts nothing: in some data sets 1 is human, in others 0.
    if label is None or not rules.labels:
        return
    rule = f"sources.{rules.source}.labels"
    meaning = dict(rules.labels).get(label)
    if meaning is None:
        found.note(Strength.HEURISTIC, "label", rule, f"{label} stands for nothing")
        return
    found.declare(Provenance.from_label(meaning), True, "label", rule, f"{label} stands for {meaning}")


def _read_artefacts(bits: int, found: _Findings) -> None:
    borne, shown = recognisers_in(bits), shown_in(bits)
    for recogniser in borne:
        if recogniser.says is not None:
            found.declare(recogniser.says, True, recogniser.kind, recogniser.name, "stands in the text")
    # A trace outside quotations and code is one that the text bears. Inside, it may be what the text is about; traces
    # of two causes are more than an example. Links and courtesies are left by people too, and support nothing.
    kinds = {recogniser.kind for recogniser in (*borne, *shown) if recogniser.is_trace}
    demotes = any(recogniser.is_trace for recogniser in borne) or len(kinds) >= 2
    if demotes:
        found.assertions.add(_MARKS)
    for recogniser in (*borne, *shown):
        if recogniser.says is not None and recogniser in borne:
            continue
        strength = Strength.DETECTED if demotes and recogniser.is_trace else Strength.HEURISTIC
        where = " (in code or quoted)" if recogniser in shown else ""
        found.note(strength, "artefact", recogniser.name, recogniser.kind + where)


def leaf_array(data: bytes) -> NDArray[np.uint8]:
    """A custody leaf list as it stands in its file: whole sha256 digests, one after another, in rising order."""
    if len(data) % DIGEST_BYTES:
        raise ValueError(
            f"a leaf list is a whole number of {DIGEST_BYTES}-byte digests; {len(data)} bytes is not: it was cut short"
        )
    leaves = np.frombuffer(data, np.uint8).reshape(-1, DIGEST_BYTES)
    if not _is_sorted(leaves):
        raise ValueError("the digests of a leaf list stand in rising order; these do not: write the list anew")
    return leaves


def covered(digests: NDArray[np.uint8], leaves: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the digests (n, 32) are among the sorted leaves (m, 32)."""
    for name, array in (("digests", digests), ("leaves", leaves)):
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != DIGEST_BYTES:
            raise ValueError(
                f"{name} must be uint8 of shape (rows, {DIGEST_BYTES}), got {array.dtype} of {array.shape}"
            )
    found = np.empty(len(digests), bool)
    _search(_read_only(digests), _read_only(leaves), found)
    return found


def _read_only(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A contiguous read-only view: numba compiles once per layout and mutability."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True, inline="always")
def _compare(left, i, right, j):  # type: ignore[no-untyped-def]
    for k in range(left.shape[1]):
        if left[i, k] != right[j, k]:
            return np.int64(left[i, k]) - np.int64(right[j, k])
    return np.int64(0)


@njit(nogil=True, cache=True)
def _is_sorted(leaves):  # type: ignore[no-untyped-def]
    for i in range(1, len(leaves)):  # noqa: SIM110  numba compiles no generator expressions
        if _compare(leaves, i - 1, leaves, i) > 0:
            return False
    return True


@njit(nogil=True, cache=True)
def _search(digests, leaves, found):  # type: ignore[no-untyped-def]
    for i in range(len(digests)):
        low, high = 0, len(leaves)
        while low < high:
            middle = (low + high) // 2
            if _compare(leaves, middle, digests, i) < 0:
                low = middle + 1
            else:
                high = middle
        found[i] = low < len(leaves) and _compare(leaves, low, digests, i) == 0
