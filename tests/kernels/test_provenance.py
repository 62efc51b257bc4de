"""What a document is: the rule over assertions, tags against a per-document reading, coverage against a Python set."""

import hashlib
import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from transforms.kernels import provenance
from transforms.kernels.artefacts import RECOGNISERS
from transforms.kernels.provenance import (
    Assertion,
    SourceRules,
    Strength,
    Tags,
    combine,
    covered,
    is_contested,
    leaf_array,
    tag,
)
from transforms.kernels.schemas import EVIDENCE, Provenance

BIT = {recogniser.name: 1 << recogniser.bit for recogniser in RECOGNISERS}
TWO_KINDS = BIT["oaicite"] | BIT["self_reference"]

HUMAN, SYNTHETIC, ASSISTED, UNKNOWN, DISPUTED, VERIFIED = (
    Provenance.HUMAN,
    Provenance.SYNTHETIC,
    Provenance.AI_ASSISTED,
    Provenance.UNKNOWN,
    Provenance.DISPUTED,
    Provenance.HUMAN_VERIFIED,
)

CUSTODY = Assertion(VERIFIED, Strength.PROOF, of_row=True)


CARD_SYNTHETIC = Assertion(SYNTHETIC, Strength.DECLARED, of_card=True)


def said(provenance: Provenance, of_row: bool = True) -> Assertion:
    return Assertion(provenance, Strength.DECLARED, of_row)


assertions = st.builds(
    Assertion,
    st.sampled_from([HUMAN, ASSISTED, UNKNOWN, SYNTHETIC]),
    st.sampled_from(list(Strength)),
    st.booleans(),
    st.booleans(),
) | st.just(CUSTODY)
sets = st.frozensets(assertions, max_size=6)


@given(st.lists(assertions, max_size=6), st.data())
def test_order_grouping_and_repetition_do_not_matter(items: list[Assertion], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(items)) + data.draw(st.lists(st.sampled_from(items or [CUSTODY]), max_size=3))
    assume(frozenset(shuffled) == frozenset(items))
    cut = data.draw(st.integers(0, len(items)))
    grouped = frozenset(items[cut:]) | frozenset(items[:cut])
    assert combine(frozenset(items)) == combine(frozenset(shuffled)) == combine(grouped)


@given(sets, sets, sets)
def test_evidence_joins_as_a_lattice(a: frozenset[Assertion], b: frozenset[Assertion], c: frozenset[Assertion]) -> None:
    """What is known of a document may arrive in any grouping: the verdict is a function of the join."""
    assert combine(a | b) == combine(b | a)
    assert combine((a | b) | c) == combine(a | (b | c))
    assert combine(a | a) == combine(a)
    assert is_contested(a | b) == is_contested(b | a)


@given(sets)
def test_proof_of_model_output_yields_to_custody_alone(items: frozenset[Assertion]) -> None:
    proof = Assertion(SYNTHETIC, Strength.PROOF, of_row=True)
    assert combine(items - {CUSTODY} | {proof}) == SYNTHETIC
    assert combine(items | {CUSTODY, proof}) == VERIFIED
    assert is_contested(items | {CUSTODY, proof})


@given(sets)
def test_only_custody_verifies_and_nothing_takes_it_back(items: frozenset[Assertion]) -> None:
    assert combine(items | {CUSTODY}) == VERIFIED
    assert combine(items - {CUSTODY}) != VERIFIED


@given(sets, assertions)
def test_detection_never_makes_a_document_more_human(items: frozenset[Assertion], extra: Assertion) -> None:
    """Unknown becomes ai_assisted: a statement that it is not human, though it precedes unknown in keep order."""
    assume(extra.strength in (Strength.DETECTED, Strength.HEURISTIC))
    before, after = combine(items), combine(items | {extra})
    assert after == before or (before in (HUMAN, UNKNOWN, ASSISTED) and after in (ASSISTED, SYNTHETIC))
    assert before != ASSISTED or after != HUMAN
    if extra.strength == Strength.HEURISTIC:
        assert after == before


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], UNKNOWN),
        ([said(HUMAN, of_row=False)], HUMAN),
        ([said(HUMAN, of_row=False), said(SYNTHETIC)], SYNTHETIC),
        ([said(ASSISTED, of_row=False), said(HUMAN)], HUMAN),
        ([said(HUMAN, of_row=False), said(UNKNOWN)], UNKNOWN),
        ([said(HUMAN), said(UNKNOWN)], HUMAN),
        ([said(HUMAN), said(ASSISTED)], ASSISTED),
        ([said(SYNTHETIC), said(ASSISTED)], SYNTHETIC),
        ([said(HUMAN), said(SYNTHETIC)], DISPUTED),
        ([said(HUMAN), said(SYNTHETIC), said(ASSISTED)], DISPUTED),
        ([said(HUMAN), said(SYNTHETIC, of_row=False)], SYNTHETIC),
        ([said(HUMAN), said(SYNTHETIC), CUSTODY], VERIFIED),
        ([said(HUMAN), Assertion(ASSISTED, Strength.DETECTED, True)], ASSISTED),
        ([Assertion(ASSISTED, Strength.DETECTED, True)], ASSISTED),
        ([said(HUMAN), Assertion(SYNTHETIC, Strength.DETECTED, True)], SYNTHETIC),
        ([said(HUMAN), said(SYNTHETIC), Assertion(ASSISTED, Strength.DETECTED, True)], DISPUTED),
        ([said(SYNTHETIC), Assertion(ASSISTED, Strength.DETECTED, True)], SYNTHETIC),
        ([said(HUMAN), Assertion(ASSISTED, Strength.HEURISTIC, True)], HUMAN),
        ([said(ASSISTED), Assertion(SYNTHETIC, Strength.DETECTED, True)], SYNTHETIC),
        ([said(HUMAN), Assertion(HUMAN, Strength.PROOF, True)], HUMAN),
        ([Assertion(HUMAN, Strength.PROOF, True)], UNKNOWN),
        ([said(HUMAN), Assertion(ASSISTED, Strength.PROOF, True)], ASSISTED),
        ([CARD_SYNTHETIC], SYNTHETIC),
        ([CARD_SYNTHETIC, said(HUMAN, of_row=False)], DISPUTED),
        ([CARD_SYNTHETIC, said(HUMAN)], HUMAN),
        ([CARD_SYNTHETIC, said(SYNTHETIC)], SYNTHETIC),
        ([CARD_SYNTHETIC, CUSTODY], VERIFIED),
    ],
)
def test_the_rule(items: list[Assertion], expected: Provenance) -> None:
    for order in itertools.permutations(items):
        assert combine(frozenset(order)) == expected


@given(sets)
def test_only_what_is_more_than_a_hint_contests(items: frozenset[Assertion]) -> None:
    against = [a for a in items if a.provenance in (ASSISTED, SYNTHETIC) and a.strength != Strength.HEURISTIC]
    assert is_contested(items | {CUSTODY}) is bool(against)
    assert not is_contested(items - {CUSTODY})


def facts(
    label: list[str | None],
    generator: list[str | None],
    artefacts: list[int],
    origin: list[str | None] | None = None,
) -> pa.RecordBatch:
    return pa.record_batch(
        [
            pa.array(label, pa.string()),
            pa.array(generator, pa.string()),
            pa.array(origin or [None] * len(label), pa.string()),
            pa.array(artefacts, pa.uint64()),
        ],
        ["label", "generator", "origin", "artefacts"],
    )


LABELS = (("0", "synthetic"), ("1", "human"), ("2", "ai_assisted"), ("?", "unknown"))


def one(
    rules: SourceRules, label: str | None = None, generator: str | None = None, bits: int = 0, proof: bool = False
) -> dict[str, object]:
    tags = tag(facts([label], [generator], [bits]), np.array([proof]), "by a key" if proof else None, rules)
    return row(tags, 0)


def row(tags: Tags, at: int) -> dict[str, object]:
    return {
        "provenance": Provenance(int(tags.provenance[at])),
        "before": Provenance(int(tags.before_demotion[at])),
        "contested": bool(tags.contested[at]),
        "generator": tags.generator[at].as_py(),
        "kind": tags.kind[at].as_py(),
        "evidence": [tuple(entry.values()) for entry in tags.evidence[at].as_py()],
    }


@pytest.mark.parametrize(
    ("generator", "provenance", "named"),
    [
        (None, UNKNOWN, None),
        ("", UNKNOWN, None),
        ("  ", UNKNOWN, None),
        ("None", UNKNOWN, None),
        ("human", HUMAN, None),
        ("Human ", HUMAN, None),
        ("gpt-4", SYNTHETIC, "gpt-4"),
        (" llama ", SYNTHETIC, "llama"),
    ],
)
def test_a_generator_column(generator: str | None, provenance: Provenance, named: str | None) -> None:
    tags = one(SourceRules("web"), generator=generator)
    assert (tags["provenance"], tags["generator"]) == (provenance, named)
    assert tags["kind"] == ("generated" if provenance == SYNTHETIC else None)
    assert bool(tags["evidence"]) is (provenance != UNKNOWN)


@pytest.mark.parametrize(("label", "provenance"), [("0", SYNTHETIC), ("1", HUMAN), ("2", ASSISTED), ("?", UNKNOWN)])
def test_a_label_overrides_the_belief(label: str, provenance: Provenance) -> None:
    for declare in ("human", "ai_assisted", "unknown"):
        assert one(SourceRules("web", declare, labels=LABELS), label)["provenance"] == provenance


def test_labels_that_nobody_explained_assert_nothing() -> None:
    assert one(SourceRules("web", "human"), label="0") == one(SourceRules("web", "human"))
    strange = one(SourceRules("web", "human", labels=LABELS), label="7")
    assert strange["provenance"] == HUMAN
    assert ("label", "sources.web.labels", "heuristic", "7 stands for nothing") in strange["evidence"]


def test_label_and_generator_that_contradict_are_disputed() -> None:
    tags = one(SourceRules("web", labels=LABELS), label="1", generator="gpt-4")
    assert (tags["provenance"], tags["generator"], tags["kind"]) == (DISPUTED, None, None)
    assert {entry[0] for entry in tags["evidence"]} == {"label", "generator"}


@pytest.mark.parametrize(
    ("generator", "kind", "row_generator", "expected"),
    [
        ("mixtral", "rephrase", None, ("mixtral", "rephrase")),
        ("mixtral", None, None, ("mixtral", "generated")),
        ("mixtral", "rephrase", "gpt-4", ("mixtral", "rephrase")),
        (None, "rephrase", "gpt-4", ("gpt-4", "rephrase")),
        (None, "generated", None, (None, "generated")),
        (None, "generated", "human", (None, "generated")),
    ],
)
def test_a_synthetic_source(
    generator: str | None, kind: str | None, row_generator: str | None, expected: tuple[str | None, str]
) -> None:
    rules = SourceRules("made", synthetic_generator=generator, synthetic_kind=kind, labels=LABELS)
    for label in (None, "1", "2"):
        tags = one(rules, label, row_generator)
        assert (tags["provenance"], tags["before"]) == (SYNTHETIC, SYNTHETIC)
        assert (tags["generator"], tags["kind"]) == expected


SHOWN = 32


@pytest.mark.parametrize(
    ("bits", "detected"),
    [
        (BIT["oaicite"], {"oaicite"}),  # one, outside quotations and code
        (BIT["oaicite"] << SHOWN, set()),
        ((BIT["oaicite"] | BIT["oai_citation"]) << SHOWN, set()),  # two marks, one cause
        ((BIT["oaicite"] | BIT["turn_search"]) << SHOWN, {"oaicite", "turn_search"}),
        (BIT["tagged_link"] | BIT["courtesy"], set()),  # people leave both
        (BIT["tagged_link"] | BIT["oaicite"] << SHOWN, set()),
        (BIT["self_reference"] | BIT["courtesy"], {"self_reference"}),
        (BIT["c2pa_text"] | BIT["c2pa_block"], set()),  # signed by somebody, of whatever origin
        (BIT["disclosure_originated"] << SHOWN, set()),
    ],
)
def test_traces_demote_outside_quotations_or_in_two_kinds(bits: int, detected: set[str]) -> None:
    for declare, before in (("human", HUMAN), ("unknown", UNKNOWN), ("ai_assisted", ASSISTED)):
        tags = one(SourceRules("web", declare), bits=bits)
        assert tags["before"] == before
        assert tags["provenance"] == (ASSISTED if detected else before)
        told = [entry for entry in tags["evidence"] if entry[0] == "artefact"]
        assert len(told) == bits.bit_count()
        assert {entry[1] for entry in told if entry[2] == "detected"} == detected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("disclosure_modified", ASSISTED),
        ("composite_source_type", ASSISTED),
        ("c2pa_composite", ASSISTED),
        ("aigc_label", SYNTHETIC),
        ("disclosure_originated", SYNTHETIC),
        ("generated_source_type", SYNTHETIC),
        ("c2pa_generated", SYNTHETIC),
    ],
)
def test_a_disclosure_in_the_text_declares(name: str, says: Provenance) -> None:
    tags = one(SourceRules("web", "human"), bits=BIT[name])
    assert (tags["provenance"], tags["before"]) == (says, says)
    assert ("disclosure", name, "declared", "stands in the text") in tags["evidence"]
    assert one(SourceRules("web", labels=LABELS), "1", bits=BIT[name])["provenance"] == (
        DISPUTED if says == SYNTHETIC else ASSISTED
    )


@pytest.mark.parametrize(
    ("label", "generator", "bits", "declare", "contested"),
    [
        (None, None, 0, "unknown", False),
        ("1", "human", BIT["oaicite"] << SHOWN, "human", False),
        ("?", None, 0, "human", False),
        (None, "gpt-4", 0, "human", True),
        ("0", None, 0, "human", True),
        ("2", None, 0, "human", True),
        (None, None, TWO_KINDS, "human", True),
        (None, None, 0, "ai_assisted", True),
    ],
)
def test_custody_is_contested_never_lost(
    label: str | None, generator: str | None, bits: int, declare: str, contested: bool
) -> None:
    rules = SourceRules("press", declare, labels=LABELS)
    tags = one(rules, label, generator, bits, proof=True)
    assert (tags["provenance"], tags["before"], tags["contested"]) == (VERIFIED, VERIFIED, contested)
    assert tags["evidence"][0] == ("custody", "sources.press.custody", "proof", "by a key")
    without = one(rules, label, generator, bits)
    assert tags["evidence"][1:] == without["evidence"]
    assert without["contested"] is False


VALUES = st.tuples(
    st.sampled_from([None, "0", "1", "2", "?", "strange"]),
    st.sampled_from([None, "", "none", "human", "gpt-4", "llama"]),
    st.sampled_from([0, BIT["oaicite"], TWO_KINDS << SHOWN, BIT["courtesy"], BIT["aigc_label"]]),
    st.booleans(),
)
RULES = st.sampled_from(
    [
        SourceRules("a"),
        SourceRules("a", "human", labels=LABELS),
        SourceRules("a", "ai_assisted", labels=LABELS[:2]),
        SourceRules("a", synthetic_generator="m", synthetic_kind="rephrase", labels=LABELS),
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=20), RULES, st.integers(0, 20))
def test_tags_of_a_batch_are_those_of_its_documents(
    documents: list[tuple[str | None, str | None, int, bool]], rules: SourceRules, cut: int
) -> None:
    batch = facts(*([list(column) for column in zip(*documents, strict=True)][:3] or [[], [], []]))
    proofs = np.array([document[3] for document in documents], bool)
    whole = tag(batch, proofs, "by a key", rules)
    chunked = tag(pa.Table.from_batches([batch.slice(0, cut), batch.slice(cut)]), proofs, "by a key", rules)
    alone = [one(rules, *document) for document in documents]
    assert [row(whole, at) for at in range(len(documents))] == alone
    assert [row(chunked, at) for at in range(len(documents))] == alone
    assert whole.evidence.type == EVIDENCE
    assert (whole.provenance.dtype, whole.before_demotion.dtype) == (np.uint8, np.uint8)
    # Nothing that metadata say verifies, and custody always does.
    assert ((whole.provenance == VERIFIED) == proofs).all()


def test_a_shard_without_custody_verifies_nothing() -> None:
    tags = tag(facts(["1"] * 3, ["human"] * 3, [0] * 3), None, None, SourceRules("a", "human", labels=LABELS))
    assert tags.provenance.tolist() == [HUMAN] * 3
    assert not tags.contested.any()


def test_each_combination_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = []
    decide = provenance._decide
    monkeypatch.setattr(provenance, "_decide", lambda *facts: decided.append(facts) or decide(*facts))
    size = 40_000
    batch = facts(["1", None] * (size // 2), ["gpt-4", None, "llama", None] * (size // 4), [0, TWO_KINDS] * (size // 2))
    tags = tag(batch, np.arange(size) < size // 2, "by a key", SourceRules("a", "human", labels=LABELS))
    assert len(decided) == 3 * 2
    assert len(tags.evidence) == size


@pytest.mark.parametrize(
    "arguments",
    [
        {"declare": "human_verified"},
        {"declare": "synthetic"},
        {"labels": (("1", "human_verified"),)},
        {"labels": (("1", "disputed"),)},
        {"synthetic_kind": "translated"},
    ],
)
def test_rules_that_say_too_much_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="source 'a'"):
        SourceRules("a", **arguments)  # type: ignore[arg-type]


def digests_of(keys: list[int]) -> np.ndarray:
    joined = b"".join(hashlib.sha256(b"%d" % key).digest() for key in keys)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=40), st.lists(st.integers(0, 60), max_size=40))
def test_covered_is_membership(asked: list[int], signed: list[int]) -> None:
    leaves = leaf_array(b"".join(sorted(digests_of(signed)[place].tobytes() for place in range(len(signed)))))
    assert covered(digests_of(asked), leaves).tolist() == [key in set(signed) for key in asked]


def test_covered_compares_every_byte() -> None:
    leaf = bytes(range(32))
    near = [leaf[:at] + bytes([leaf[at] ^ 1]) + leaf[at + 1 :] for at in range(32)]
    digests = np.frombuffer(leaf + b"".join(near), np.uint8).reshape(-1, 32)
    assert covered(digests, leaf_array(leaf)).tolist() == [True] + [False] * 32


def test_covered_takes_views_and_refuses_other_shapes() -> None:
    leaves = leaf_array(b"".join(sorted(digests_of([1, 2, 3])[place].tobytes() for place in range(3))))
    strided = np.repeat(digests_of([1, 9]), 2, axis=0)[::2]
    assert covered(strided, leaves).tolist() == [True, False]
    with pytest.raises(ValueError, match="digests must be"):
        covered(np.zeros((3, 16), np.uint8), leaves)


def test_leaf_lists_that_cannot_be_searched_are_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        leaf_array(b"x" * 33)
    with pytest.raises(ValueError, match="rising order"):
        leaf_array(b"b" * 32 + b"a" * 32)
    assert leaf_array(b"a" * 64).shape == (2, 32)
    assert leaf_array(b"").shape == (0, 32)
