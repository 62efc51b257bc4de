"""The core diversity metrics: a monoid in every order, equal to plain counting, and within its stated errors."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import zeta

from transforms.kernels.diversity import Accumulator, DiversityParams, Metric
from transforms.kernels.text import Words, split_words

TINY = DiversityParams(words=8, ngrams=4, bins=4, sample=16)
"""So small that a handful of words truncates every table."""

unhurried = settings(deadline=None)  # the first example may wait for a compiler

Document = Sequence[int]

documents = st.lists(st.lists(st.integers(0, 40), max_size=25), max_size=12)
vocabularies = st.sampled_from([DiversityParams(), TINY])


def scattered(ids: npt.NDArray[np.uint64], seed: int = 0) -> npt.NDArray[np.uint64]:
    """Distinct ids to distinct, evenly spread 64-bit hashes; other seeds, other hashes."""
    hashes = ids + (np.uint64(seed) << np.uint64(32)) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))


def as_words(batch: Sequence[Document]) -> Words:
    lengths = np.array([len(document) for document in batch], np.int64)
    ids = np.array([word for document in batch for word in document], np.uint64)
    return Words(scattered(ids), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), lengths)


def measured(batch: Sequence[Document], params: DiversityParams | None = None) -> Accumulator:
    accumulator = Accumulator.zero(params)
    accumulator.add(as_words(batch))
    return accumulator


def merged(parts: Sequence[Accumulator], params: DiversityParams) -> Accumulator:
    total = Accumulator.zero(params)
    for part in parts:
        total.merge(part)
    return total


def by_name(accumulator: Accumulator) -> dict[str, Metric]:
    metrics = accumulator.values()
    assert len({metric.name for metric in metrics}) == len(metrics)
    return {metric.name: metric for metric in metrics}


def counted_plainly(batch: Sequence[Document]) -> dict[str, float]:
    """The definitions, word by word."""
    words = Counter(word for document in batch for word in document)
    spectrum = Counter(words.values())
    n, types, once, twice = words.total(), len(words), spectrum[1], spectrum[2]
    values: dict[str, float] = {"documents": len(batch), "tokens": n, "types": types, "hapaxes": once}
    if n:
        values["good_turing"] = once / n
        values["chao1"] = types + once * (once - 1) / (2 * (twice + 1))
        values["entropy_1"] = -sum(count / n * math.log2(count / n) for count in words.values())
        squares = sum(Fraction(count * count, n * n) for count in words.values())
        values["yule_k"] = float(10_000 * (squares - Fraction(1, n)))
        values["heaps"] = -math.log2(1 - sum(2.0**-count for count in words.values()) / types)
        values["zipf"] = zipf_exponent(list(words.values()))
    if n > 1:
        values["simpson"] = sum(count * (count - 1) for count in words.values()) / (n * (n - 1))
    for size in (1, 2, 3, 4):
        grams = [tuple(document[at : at + size]) for document in batch for at in range(len(document) - size + 1)]
        if grams:
            values[f"distinct_{size}"] = len(set(grams)) / len(grams)
    lengths = sorted(len(document) for document in batch)
    for percent in (10, 50, 90):
        if lengths:
            values[f"length_p{percent}"] = lengths[math.ceil(percent * len(lengths) / 100) - 1]
    return values


def zipf_exponent(counts: list[int]) -> float:
    """1 / (a - 1) for the zeta law under which the counts are likeliest, by halving."""
    mean, step = sum(map(math.log, counts)) / len(counts), 1e-5
    low, high = 1.001, 60.0
    if mean == 0:
        return 0.0
    while high - low > 1e-13 * low:
        middle = (low + high) / 2
        slope = (math.log(zeta(middle + step)) - math.log(zeta(middle - step))) / (2 * step)
        low, high = (middle, high) if -slope > mean else (low, middle)
    return 1 / (low - 1)


# Equal to plain counting


@unhurried
@given(documents)
def test_small_sets_equal_plain_counting(batch: list[list[int]]) -> None:
    metrics = by_name(measured(batch))
    expected = counted_plainly(batch)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 1e-6 if name == "zipf" else 1e-9
        assert metrics[name].value == pytest.approx(value, rel=tolerance, abs=1e-12), name
        assert metrics[name].method == "exact"


def test_a_worked_example() -> None:
    metrics = by_name(measured([[1, 2, 1, 3], [1, 2]]))
    # Counts 3, 2, 1: six tokens of three types. The bigrams (1 2)(2 1)(1 3) and (1 2): three of four are distinct.
    assert metrics["types"] == Metric("types", 3.0, 6, "exact")
    assert metrics["hapaxes"].value == 1
    assert metrics["good_turing"].value == pytest.approx(1 / 6)
    assert metrics["chao1"].value == 3
    assert metrics["simpson"].value == pytest.approx((3 * 2 + 2 * 1) / 30)
    assert metrics["yule_k"].value == pytest.approx(1e4 * (14 / 36 - 1 / 6))
    assert metrics["distinct_2"] == Metric("distinct_2", 0.75, 4, "exact")
    assert metrics["distinct_4"] == Metric("distinct_4", 1.0, 1, "exact")
    assert metrics["length_p50"] == Metric("length_p50", 2.0, 2, "exact")


def test_the_table_holds_every_hash_below_the_least_level_that_leaves_few_enough() -> None:
    """At each size of the table, against sorting: a level too high would waste the sample, one too low overfill it."""
    words = np.sort(scattered(np.arange(1000, dtype=np.uint64)))
    for keep in (2, 16, 64, 512, 1024):
        accumulator = Accumulator.zero(DiversityParams(words=keep, ngrams=2, bins=2))
        accumulator.add(Words(words[::-1].copy(), np.array([0, 1000]), np.array([1000])))
        level = next(level for level in range(64) if (words < 1 << (64 - level)).sum() <= keep) if keep < 1000 else 0
        expected = words[words <= (1 << (64 - level)) - 1]
        table = accumulator._frequencies.tables[0]
        assert table.level == level
        assert table.entries()[:, 0].tolist() == expected.tolist()
        assert by_name(accumulator)["types"].value == min(1000, len(expected) * 2**level)
        if level:
            assert table.bins.sum(axis=1).tolist() == [1000] * 3


@unhurried
@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=300), st.sampled_from([2, 8, 64, 4096]))
def test_hashes_that_are_not_spread_evenly_are_counted_all_the_same(hashes: list[int], keep: int) -> None:
    """Neighbours and runs at either end of the range crowd a few slots, and wrap around the table."""
    crowded = np.array([hash_ | (1 << 64) - 8 if hash_ % 3 else hash_ % 7 for hash_ in hashes], np.uint64)
    accumulator = Accumulator.zero(DiversityParams(words=keep, ngrams=2, bins=2))
    accumulator.add(Words(crowded, np.array([0, len(crowded)]), np.array([len(crowded)])))
    table = accumulator._frequencies.tables[0]
    kept, counts = np.unique(crowded[crowded <= (1 << (64 - table.level)) - 1], return_counts=True)
    assert table.entries().tolist() == np.column_stack([kept, counts.astype(np.uint64)]).tolist()
    assert len(kept) <= keep
    assert Accumulator.from_bytes(accumulator.to_bytes()) == accumulator


def test_undefined_metrics_have_no_row() -> None:
    assert list(by_name(Accumulator.zero())) == ["documents", "tokens", "types", "hapaxes"]
    only_blank = by_name(measured([[], []]))
    assert only_blank["documents"].value == 2
    assert only_blank["length_p90"].value == 0
    assert "entropy_1" not in only_blank
    one_word = by_name(measured([[5]]))
    assert one_word["entropy_1"].value == 0
    assert "simpson" not in one_word
    assert "distinct_2" not in one_word


def test_ngrams_do_not_cross_documents() -> None:
    assert "distinct_2" not in by_name(measured([[1], [2], [3]]))
    assert by_name(measured([[1, 2], [2, 3]]))["distinct_2"].n == 2


def test_ngrams_are_ordered() -> None:
    assert by_name(measured([[1, 2], [2, 1], [1, 2]]))["distinct_2"].value == pytest.approx(2 / 3, rel=1e-8)


def test_real_text_is_case_folded() -> None:
    accumulator = Accumulator.zero()
    accumulator.add(split_words(pa.array(["The cat and THE dog.", None, "the end"])))
    metrics = by_name(accumulator)
    assert (metrics["documents"].value, metrics["tokens"].value, metrics["types"].value) == (3, 7, 5)


def test_values_carry_ten_significant_digits() -> None:
    assert by_name(measured([[1, 1, 2]]))["entropy_1"].value == 0.9182958341


@unhurried
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_length_quantiles_are_within_a_bucket(lengths: list[int]) -> None:
    metrics = by_name(measured([[1] * length for length in lengths]))
    for percent in (10, 50, 90):
        metric = metrics[f"length_p{percent}"]
        length = sorted(lengths)[math.ceil(percent * len(lengths) / 100) - 1]
        if length < 64:
            assert (metric.value, metric.method) == (length, "exact")
        else:
            assert abs(metric.value - length) <= length / 64
            assert metric.method == "buckets-32"


# One monoid, whatever the order


@unhurried
@given(documents, documents, documents, vocabularies)
def test_merging_is_associative_and_commutative(
    first: list[list[int]], second: list[list[int]], third: list[list[int]], params: DiversityParams
) -> None:
    a, b, c = (measured(batch, params) for batch in (first, second, third))
    assert ((a + b) + c).to_bytes() == (a + (b + c)).to_bytes()
    assert (a + b).to_bytes() == (b + a).to_bytes()
    assert a + Accumulator.zero(params) == a


@unhurried
@given(documents, st.data(), vocabularies)
def test_any_split_and_order_equals_one_pass(
    batch: list[list[int]], data: st.DataObject, params: DiversityParams
) -> None:
    once = measured(batch, params)
    shuffled = data.draw(st.permutations(batch))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(batch)), max_size=4)))
    edges = [0, *cuts, len(batch)]
    parts = [measured(shuffled[start:stop], params) for start, stop in pairwise(edges)]
    if data.draw(st.booleans()):
        parts = [Accumulator.from_bytes(part.to_bytes()) for part in parts]
    split = merged(parts, params)
    assert split.to_bytes() == once.to_bytes()
    assert split.values() == once.values()

    in_turn = Accumulator.zero(params)
    for document in shuffled:
        in_turn.add(as_words([document]))
        if data.draw(st.booleans()):
            in_turn.values()  # looking in between changes nothing
    assert in_turn.to_bytes() == once.to_bytes()


@unhurried
@given(documents, st.data(), vocabularies)
def test_selecting_equals_leaving_out(batch: list[list[int]], data: st.DataObject, params: DiversityParams) -> None:
    select = data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
    selected = Accumulator.zero(params)
    selected.add(as_words(batch), np.array(select, np.bool_))
    kept = [document for document, chosen in zip(batch, select, strict=True) if chosen]
    assert selected == measured(kept, params)
    by_number = Accumulator.zero(params)
    by_number.add(as_words(batch), np.flatnonzero(select)[::-1])
    assert by_number == selected


@unhurried
@given(documents, documents, vocabularies)
def test_adding_leaves_the_operands_alone(
    first: list[list[int]], second: list[list[int]], params: DiversityParams
) -> None:
    a, b = measured(first, params), measured(second, params)
    before = a.to_bytes(), b.to_bytes()
    total = a + b
    total.merge(total)
    assert (a.to_bytes(), b.to_bytes()) == before
    assert total == measured([*first, *second] * 2, params)


@unhurried
@given(documents, documents, vocabularies)
def test_bytes_tell_contents_apart(first: list[list[int]], second: list[list[int]], params: DiversityParams) -> None:
    if measured(first, params).values() != measured(second, params).values():
        assert measured(first, params) != measured(second, params)


@unhurried
@given(documents, vocabularies)
def test_bytes_round_trip(batch: list[list[int]], params: DiversityParams) -> None:
    accumulator = measured(batch, params)
    again = Accumulator.from_bytes(accumulator.to_bytes())
    assert again.params == params
    assert again.to_bytes() == accumulator.to_bytes()
    assert again.values() == accumulator.values()
    assert pickle.loads(pickle.dumps(accumulator)) == accumulator
    again.merge(accumulator)
    assert again == measured(batch * 2, params)


def test_truncated_tables_do_not_depend_on_batches() -> None:
    """At full size, through growth and several cuts of every table."""
    ids = zipf_ids(vocabulary=600_000, tokens=1_500_000, seed=11)
    offsets = np.unique(np.concatenate([np.arange(0, len(ids), 700), [len(ids)]])).astype(np.int64)
    whole = Accumulator.zero()
    whole.add(Words(scattered(ids), offsets, np.diff(offsets)))
    assert by_name(whole)["types"].method == "sample-16384"

    parts = []
    for start in range(0, len(offsets) - 1, 500):
        edges = offsets[start : start + 501]
        part = Accumulator.zero()
        part.add(Words(scattered(ids[edges[0] : edges[-1]]), edges - edges[0], np.diff(edges)))
        parts.append(part)
    assert merged(parts[::-1], DiversityParams()).to_bytes() == whole.to_bytes()


# Errors above the size of a table


def zipf_ids(vocabulary: int, tokens: int, seed: int) -> npt.NDArray[np.uint64]:
    weights = 1 / np.arange(1, vocabulary + 1)
    shares = np.cumsum(weights / weights.sum())
    drawn = np.searchsorted(shares, np.random.default_rng(seed).random(tokens) * shares[-1])
    return drawn.astype(np.uint64)


def relative_errors(params: DiversityParams, seeds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Of one Zipf text of 200,000 tokens under different hashes of its words, against plain counting."""
    ids = zipf_ids(vocabulary=100_000, tokens=200_000, seed=5)
    offsets = np.arange(0, len(ids) + 1, 500, dtype=np.int64)
    expected = counted_plainly([document.tolist() for document in ids.reshape(-1, 500)])
    errors: dict[str, list[float]] = {name: [] for name in expected}
    for seed in range(seeds):
        accumulator = Accumulator.zero(params)
        accumulator.add(Words(scattered(ids, seed), offsets, np.diff(offsets)))
        for metric in accumulator.values():
            errors[metric.name].append(metric.value / expected[metric.name] - 1)
    return {name: np.array(values) for name, values in errors.items()}


@pytest.fixture(scope="module")
def errors() -> dict[str, npt.NDArray[np.float64]]:
    return relative_errors(DiversityParams(words=1024, ngrams=1024, bins=1024), seeds=40)


@pytest.mark.parametrize("name", ["types", "distinct_1", "distinct_2", "distinct_3", "distinct_4"])
def test_distinct_counts_err_as_stated(errors: dict[str, npt.NDArray[np.float64]], name: str) -> None:
    sigma = 1.2 / math.sqrt(1024)
    assert np.abs(errors[name]).max() < 4 * sigma
    assert abs(errors[name].mean()) < 4 * sigma / math.sqrt(40)
    assert 0.1 * sigma < errors[name].std() < 1.4 * sigma


def test_distinct_counts_are_unbiased_even_in_a_tiny_table() -> None:
    ids = np.arange(500, dtype=np.uint64)
    offsets = np.array([0, len(ids)], np.int64)
    estimates = []
    for seed in range(400):
        accumulator = Accumulator.zero(TINY)
        accumulator.add(Words(scattered(np.tile(ids, 2), seed), 2 * offsets, 2 * offsets[1:]))
        estimates.append(by_name(accumulator)["types"].value)
    assert abs(np.mean(estimates) / 500 - 1) < 4 * 1.2 / math.sqrt(8 * 400)


@pytest.mark.parametrize(
    ("name", "sigma"),
    # f1 words of V leave 1024 * f1 / V in the sample. The bins do far better than sqrt(2 / 1024), unless two frequent
    # words meet in a row: in one of these forty texts a single row would be off by 39%.
    [("hapaxes", 0.045), ("good_turing", 0.045), ("chao1", 0.09), ("simpson", 0.015), ("yule_k", 0.015)],
)
def test_sampled_metrics_are_unbiased_and_near(
    errors: dict[str, npt.NDArray[np.float64]], name: str, sigma: float
) -> None:
    assert np.abs(errors[name]).max() < 4 * sigma
    assert abs(errors[name].mean()) < 4 * sigma / math.sqrt(40)


def test_entropy_is_within_five_percent_on_a_small_sketch(errors: dict[str, npt.NDArray[np.float64]]) -> None:
    assert np.abs(errors["entropy_1"]).max() < 0.05
    assert abs(errors["entropy_1"].mean()) < 0.01


def test_exact_numbers_stay_exact_when_tables_are_cut(errors: dict[str, npt.NDArray[np.float64]]) -> None:
    assert not errors["tokens"].any()
    assert not errors["documents"].any()


@unhurried
@given(documents)
def test_estimates_stay_in_range(batch: list[list[int]]) -> None:
    metrics = by_name(measured(batch, TINY))
    tokens = metrics["tokens"].value
    assert 0 <= metrics["hapaxes"].value <= metrics["types"].value <= tokens
    for name in ("good_turing", "simpson", "distinct_1", "distinct_2", "distinct_3", "distinct_4"):
        assert name not in metrics or 0 <= metrics[name].value <= 1, name
    assert "entropy_1" not in metrics or 0 <= metrics["entropy_1"].value <= math.log2(tokens) + 1e-6
    assert "yule_k" not in metrics or metrics["yule_k"].value >= 0


def test_text_drawn_from_its_own_words_loses_its_tail_first() -> None:
    """By theory a hapax survives with a chance of 1 - 1/e; what rests on the frequent words hardly moves."""
    ids = zipf_ids(vocabulary=50_000, tokens=200_000, seed=2)
    drawn = np.random.default_rng(9).choice(ids, len(ids))
    params, offsets = DiversityParams(words=1 << 17), np.array([0, len(ids)])
    before, after = ({m.name: m.value for m in of_words(hashes, offsets, params)} for hashes in (ids, drawn))
    words, counts = np.unique(ids, return_counts=True)
    assert np.isin(words[counts == 1], drawn).mean() == pytest.approx(1 - 1 / math.e, abs=0.01)
    for name, most in {"types": 0.85, "hapaxes": 0.6, "good_turing": 0.6, "chao1": 0.7, "heaps": 0.8}.items():
        assert after[name] < most * before[name], name
    assert after["zipf"] > 1.2 * before["zipf"]
    for name in ("entropy_1", "simpson"):
        assert after[name] == pytest.approx(before[name], rel=0.03), name


def of_words(ids: npt.NDArray[np.uint64], offsets: npt.NDArray[np.int64], params: DiversityParams) -> list[Metric]:
    accumulator = Accumulator.zero(params)
    accumulator.add(Words(scattered(ids), offsets, np.diff(offsets)))
    return accumulator.values()


def test_methods_name_the_sketch() -> None:
    metrics = by_name(measured([list(range(100))] * 2, TINY))
    assert metrics["types"].method == "sample-8"
    assert metrics["distinct_3"].method == "sample-4"
    assert metrics["simpson"].method == "bins-3x4"
    assert metrics["entropy_1"].method == "bins-3x4+sample-8"


# Bounds and diagnoses


def test_memory_is_bounded() -> None:
    accumulator = Accumulator.zero()
    ids = np.arange(2_000_000, dtype=np.uint64)
    accumulator.add(Words(scattered(ids), np.array([0, len(ids)], np.int64), np.array([len(ids)], np.int64)))
    held = sum(table.slots.nbytes + table.bins.nbytes for table in accumulator._frequencies.tables)
    assert held <= 1.1 * (1 << 20)
    assert len(accumulator.to_bytes()) < 1 << 19


def test_small_accumulators_are_small() -> None:
    assert len(Accumulator.zero().to_bytes()) < 100
    assert len(measured([[1, 2, 3]]).to_bytes()) < 200
    held = sum(table.slots.nbytes + table.bins.nbytes for table in measured([[1, 2, 3]])._frequencies.tables)
    assert held <= 1 << 10


def test_merging_other_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="measure both again with the same sizes"):
        Accumulator.zero().merge(Accumulator.zero(TINY))


@pytest.mark.parametrize("size", [0, 1, 3, 1 << 25])
def test_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(ValueError, match=rf"DiversityParams.ngrams is {size}; it must be a power of two"):
        DiversityParams(ngrams=size)


@pytest.mark.parametrize(
    "select",
    [np.array([True]), np.array([1.0]), np.array([[True, True]]), np.array([0, 2]), np.array([-1])],
)
def test_a_selection_is_one_bool_a_document_or_numbers_of_documents(select: npt.NDArray[np.bool_]) -> None:
    with pytest.raises(ValueError, match="the batch has 2 documents"):
        Accumulator.zero().add(as_words([[1], [2]]), select)


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="starts with b'PAR1'"):
        Accumulator.from_bytes(b"PAR1 and more")


@unhurried
@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    whole = measured([[1, 2, 3], [1, 5]]).to_bytes()
    at = data.draw(st.integers(4, len(whole) - 1))
    broken = bytearray(whole)
    broken[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(broken), whole[:at]):
        with pytest.raises(ValueError, match="is damaged"):
            Accumulator.from_bytes(damaged)
