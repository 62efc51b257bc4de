"""The full diversity metrics: monoids in every order, equal to their plain definitions, and within their errors."""

from __future__ import annotations

import math
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from transforms.kernels.diversity import Accumulator, DiversityParams, Metric, most_bytes
from transforms.kernels.diversity.encoding import Columns, encode_columns, unzigzag, zigzag
from transforms.kernels.diversity.lexical import MTLD_METHOD
from transforms.kernels.diversity.metric import Documents, Monoid
from transforms.kernels.diversity.sample import Sample
from transforms.kernels.diversity.similarity import FEATURES, Similarity, _eigenvalues, features_of
from transforms.kernels.diversity.texts import BLOCK_BYTES, MOST_TEXT_BYTES, MOST_TEXTS, Texts
from transforms.kernels.text import Words, split_words

FULL = DiversityParams(full=True)
TINY = DiversityParams(words=8, ngrams=4, bins=4, sample=16, texts=64, full=True)
"""So small that a handful of words cuts every table and the sample of texts."""

unhurried = settings(deadline=None)

texts_of = st.lists(st.lists(st.integers(0, 30).map(lambda word: f"w{word}"), max_size=25).map(" ".join), max_size=10)
vocabularies = st.sampled_from([FULL, TINY])


def measured(texts: Sequence[str], params: DiversityParams = FULL) -> Accumulator:
    accumulator = Accumulator.zero(params)
    column = pa.array(texts, pa.string())
    accumulator.add(split_words(column), None, column)
    return accumulator


def by_name(accumulator: Accumulator) -> dict[str, Metric]:
    metrics = accumulator.values()
    assert len({metric.name for metric in metrics}) == len(metrics)
    return {metric.name: metric for metric in metrics}


def added(monoid: Monoid, texts: Sequence[str]) -> dict[str, Metric]:
    column = pa.array(texts, pa.string())
    monoid.add(Documents(split_words(column), np.arange(len(texts)), column))
    return {metric.name: metric for metric in monoid.values()}


def zipf_texts(documents: int, length: int, vocabulary: int, seed: int) -> list[str]:
    weights = 1 / np.arange(1, vocabulary + 1)
    drawn = np.random.default_rng(seed).choice(vocabulary, (documents, length), p=weights / weights.sum())
    return [" ".join(f"w{word}" for word in row) for row in drawn.tolist()]


# The definitions, word by word


def ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


def plain_entropy(documents: Sequence[Sequence[str]], size: int) -> float:
    counts = Counter(gram for document in documents for gram in ngrams(document, size))
    return -math.fsum(count / counts.total() * math.log2(count / counts.total()) for count in counts.values())


def plain_factors(words: Sequence[str]) -> float:
    factors, since = 0.0, 0
    for at in range(len(words)):
        if len(set(words[since : at + 1])) / (at + 1 - since) <= 0.72:
            factors, since = factors + 1, at + 1
    rest = words[since:]
    return factors + ((1 - len(set(rest)) / len(rest)) / (1 - 0.72) if rest else 0)


def plain_self_repetition(documents: Sequence[Sequence[str]]) -> float:
    held = [set(ngrams(document, 4)) for document in documents]
    holding = Counter(gram for grams in held for gram in grams)
    return math.fsum(math.log(1 + sum(holding[gram] - 1 for gram in grams)) for grams in held) / len(documents)


def plain_template_rate(documents: Sequence[Sequence[str]]) -> float:
    held = [set(ngrams(document, 8)) for document in documents]
    holding = Counter(gram for grams in held for gram in grams)
    enough = max(3, math.ceil(len(documents) / 100))
    return sum(any(holding[gram] >= enough for gram in grams) for grams in held) / len(documents)


def plain_values(texts: Sequence[str]) -> dict[str, float]:
    documents = [text.split() for text in texts]
    values = {}
    for size in (2, 3, 4):
        if any(len(document) >= size for document in documents):
            values[f"entropy_{size}"] = plain_entropy(documents, size)
    words = Counter(word for document in documents for word in document)
    if words.total() >= 42:
        missing = [hypergeom(words.total(), count, 42).pmf(0) for count in words.values()]
        values["hdd_42"] = sum(1 - chance for chance in missing) / 42
    windows = [document[at : at + 50] for document in documents for at in range(len(document) - 49)]
    if windows:
        values["mattr_50"] = sum(len(set(window)) / 50 for window in windows) / len(windows)
    directions = [sum(map(plain_factors, d)) for d in (documents, [document[::-1] for document in documents])]
    if all(directions):
        values["mtld"] = sum(words.total() / factors for factors in directions) / 2
    with_words = [document for document in documents if document]
    if with_words:
        values["self_repetition_4"] = plain_self_repetition(with_words)
        values["template_rate"] = plain_template_rate(with_words)
    return values


@unhurried
@given(texts_of)
def test_small_sets_equal_their_definitions(texts: list[str]) -> None:
    metrics = by_name(measured(texts))
    core = by_name(Accumulator.zero())
    for name, value in plain_values(texts).items():
        assert metrics[name].value == pytest.approx(value, rel=1e-9, abs=1e-12), name
        assert metrics[name].method == (MTLD_METHOD if name == "mtld" else "exact")
    others = {name for name in metrics if name.startswith(("vendi_", "compression"))}
    assert bool(others) == any(texts)
    assert core.keys() <= metrics.keys()


def test_longer_texts_equal_their_definitions() -> None:
    texts = zipf_texts(documents=12, length=700, vocabulary=900, seed=3)
    texts += [texts[0], texts[1][:1500] + " " + texts[2], "alone", ""]
    metrics = by_name(measured(texts, DiversityParams(ngrams=1 << 14, full=True)))
    expected = plain_values(texts)
    assert expected.keys() >= {"entropy_4", "hdd_42", "mattr_50", "mtld", "self_repetition_4", "template_rate"}
    for name, value in expected.items():
        assert metrics[name].value == pytest.approx(value, rel=1e-9), name


SONNET = """
From fairest creatures we desire increase that thereby beauty might never die but as the riper should by time decease
his tender heir might bear his memory but thou contracted to thine own bright eyes feeds thy light with flame of self
substantial fuel making a famine where abundance lies thyself thy foe to thy sweet self too cruel thou that art now the
fresh ornament of the world and only herald to the gaudy spring within thine own bud buries thy content and tender churl
makes waste in niggarding pity the world or else this glutton be to eat the due of the world by the grave and thee
"""


SONNET_VALUES = {
    "types": 81,  # nltk 3.10.4
    "hapaxes": 65,
    "distinct_2": 0.963302752293578,
    "distinct_3": 0.9907407407407407,
    "entropy_1": 6.106226418011109,  # SciPy 1.17.1
    "entropy_2": 6.687864255949738,
    "entropy_3": 6.736368983644948,
    "entropy_4": 6.74146698640115,
    "yule_k": 97.52066115702479,  # lexicalrichness 0.5.1
    "simpson": 0.009841534612176813,
    "mattr_50": 0.8403278688524594,
    "mtld": 116.82758620689654,
    "hdd_42": 0.8576557982886208,  # lexical_diversity 0.1.1
}


def test_values_of_a_sonnet_are_those_of_other_libraries() -> None:
    """As they gave them once; `scripts/check_metrics.py` asks them again, and for more."""
    metrics = by_name(measured([" ".join(SONNET.split())]))
    for name, value in SONNET_VALUES.items():
        assert metrics[name].value == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(
    ("text", "forward", "backward"),
    [
        ("a a", 1, 1),  # a factor ends with the word that brings 1/2 <= 0.72
        ("a b c d", 0, 0),
        ("a b c a", (1 / 4) / 0.28, (1 / 4) / 0.28),  # 3/4 is above, and ends with the text
        ("a a b c d e", 1, (1 / 6) / 0.28),
    ],
)
def test_factors_are_counted_from_both_ends(text: str, forward: float, backward: float) -> None:
    assert plain_factors(text.split()) == pytest.approx(forward)
    assert plain_factors(text.split()[::-1]) == pytest.approx(backward)
    metrics = by_name(measured([text]))
    n = len(text.split())
    if forward:
        assert metrics["mtld"].value == pytest.approx((n / forward + n / backward) / 2, rel=1e-9)
    else:
        assert "mtld" not in metrics


def test_windows_and_factors_do_not_cross_documents() -> None:
    text = " ".join(f"w{word}" for word in range(49))
    assert "mattr_50" not in by_name(measured([text, text]))
    assert "mtld" not in by_name(measured([text, text]))
    assert by_name(measured([f"{text} {text}"]))["mattr_50"].value == pytest.approx(49 / 50, rel=1e-9)


# One monoid, whatever the order


@unhurried
@given(texts_of, texts_of, texts_of, vocabularies)
def test_merging_is_associative_and_commutative(
    first: list[str], second: list[str], third: list[str], params: DiversityParams
) -> None:
    a, b, c = (measured(texts, params) for texts in (first, second, third))
    assert ((a + b) + c).to_bytes() == (a + (b + c)).to_bytes()
    assert (a + b).to_bytes() == (b + a).to_bytes()
    assert a + Accumulator.zero(params) == a


@unhurried
@given(texts_of, st.data(), vocabularies)
def test_any_split_and_order_equals_one_pass(texts: list[str], data: st.DataObject, params: DiversityParams) -> None:
    once = measured(texts, params)
    shuffled = data.draw(st.permutations(texts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=4)))
    total = Accumulator.zero(params)
    for start, stop in pairwise([0, *cuts, len(texts)]):
        part = measured(shuffled[start:stop], params)
        total.merge(Accumulator.from_bytes(part.to_bytes()) if data.draw(st.booleans()) else part)
    assert total.to_bytes() == once.to_bytes()
    assert total.values() == once.values()

    column = pa.array(texts, pa.string())
    select = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), np.bool_)
    selected = Accumulator.zero(params)
    for chosen in (select, np.flatnonzero(~select)):
        selected.add(split_words(column), chosen, column)
    assert selected.to_bytes() == once.to_bytes()


def test_large_sketches_do_not_depend_on_batches() -> None:
    """At full size, with every table, the bins and the sample of texts cut more than once."""
    texts = zipf_texts(documents=6000, length=60, vocabulary=60_000, seed=8)
    whole = measured(texts)
    assert by_name(whole)["entropy_4"].method == "bins-3x8192+sample-4096"
    assert by_name(whole)["self_repetition_4"].method == "texts-1048576"
    total = Accumulator.zero(FULL)
    for start in range(5900, -1, -100):
        total.merge(measured(texts[start : start + 100]))
    assert total.to_bytes() == whole.to_bytes()


@unhurried
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_signs_are_folded_into_small_numbers(numbers: list[int]) -> None:
    column = np.array(numbers, np.int64)
    assert unzigzag(zigzag(column)).tolist() == numbers
    assert unzigzag(Columns(encode_columns([zigzag(column)])).take()).tolist() == numbers
    assert zigzag(np.array([0, -1, 1, -2])).tolist() == [0, 1, 2, 3]


def test_the_length_of_a_column_may_need_several_bytes() -> None:
    columns = [np.arange(size) for size in (0, 1, 255, 256, 70_000)]
    taken = Columns(encode_columns(columns))
    assert all((taken.take() == column).all() for column in columns)


# Similarity of documents


def plain_vendi(texts: Sequence[str], order: int) -> float:
    """From the matrix of all pairs."""
    vectors = features_of(split_words(pa.array(texts)))
    kernel = vectors @ vectors.T
    shares = np.linalg.eigvalsh(kernel / np.trace(kernel))
    shares = shares[shares > 1e-12]
    if order == 1:
        return math.exp(-float((shares * np.log(shares)).sum()))
    return 1 / float((shares**2).sum())


@unhurried
@given(texts_of)
def test_vendi_scores_are_those_of_all_pairs(texts: list[str]) -> None:
    metrics = by_name(measured(texts))
    with_words = [text for text in texts if text]
    assert ("vendi_1" in metrics) == bool(with_words)
    if with_words:
        for order in (1, 2):
            metric = metrics[f"vendi_{order}"]
            assert metric.value == pytest.approx(plain_vendi(with_words, order), rel=1e-7)
            assert metric.n == len(with_words)


@pytest.mark.parametrize("size", [1, 2, 3, 40])
@pytest.mark.parametrize("rank", [0, 1, 2, 40])
def test_eigenvalues_are_those_of_numpy(size: int, rank: int) -> None:
    vectors = np.random.default_rng(size).normal(size=(rank, size))
    matrix = vectors.T @ vectors
    expected = np.linalg.eigvalsh(matrix)
    assert np.abs(_eigenvalues(matrix.copy()) - expected).max() < 1e-12 * max(1.0, expected.max())


def test_documents_of_one_text_are_as_diverse_as_one_and_disjoint_ones_as_many() -> None:
    assert by_name(measured(["one two three"] * 9))["vendi_1"].value == pytest.approx(1, abs=1e-6)
    apart = by_name(measured([f"{n} " * 3 for n in range(8)]))  # eight words of eight places
    assert apart["vendi_1"].value == pytest.approx(8, rel=1e-6)
    assert apart["vendi_2"].value == pytest.approx(8, rel=1e-6)


def test_features_have_length_one_and_nearly_the_products_of_word_counts() -> None:
    texts = zipf_texts(documents=60, length=120, vocabulary=300, seed=4)
    vectors = features_of(split_words(pa.array(texts)))
    assert np.abs((vectors**2).sum(axis=1) - 1).max() < 1e-3
    counts = [Counter(text.split()) for text in texts]
    norms = [math.sqrt(sum(count * count for count in counted.values())) for counted in counts]
    errors = []
    for i in range(60):
        for j in range(i):
            cosine = sum(counts[i][word] * counts[j][word] for word in counts[i]) / (norms[i] * norms[j])
            errors.append(float(vectors[i] @ vectors[j]) - cosine)
    assert np.abs(errors).max() < 4 / math.sqrt(FEATURES)
    assert np.std(errors) < 1.5 / math.sqrt(FEATURES)


def test_words_that_cancel_out_still_make_a_vector() -> None:
    """Two words at one place with opposite signs."""
    one, other = 5 << 48, 5 << 48 | 1 << 56
    words = Words(np.array([one, other], np.uint64), np.array([0, 2]), np.array([2]))
    (vector,) = features_of(words)
    assert (np.flatnonzero(vector).tolist(), vector[5]) == ([5], 1)


def test_sums_beyond_64_bits_are_kept_in_full() -> None:
    texts = ["one two three", "two three four four", "five", "one six"]
    small, large = Similarity(), Similarity(most_in_64_bits=2)
    assert added(small, texts) == added(large, texts)
    for _ in range(50):  # doubling 50 times is more than 64 bits hold
        large.merge(large)
    again = Similarity(most_in_64_bits=2)
    again.read(Columns(encode_columns(large.columns())))
    assert (again._sums == large._sums).all()
    assert int(large._sums[0]) == int(small._sums[0]) << 50
    values = {metric.name: metric.value for metric in again.values()}
    assert values["vendi_1"] == pytest.approx(small.values()[0].value, rel=1e-9)


# The sample of texts


def plain_sample(texts: Sequence[str], most_bytes: int) -> list[bytes]:
    keys = Texts(1 << 30)
    added(keys, texts)
    sample: list[bytes] = []
    for _, text in sorted(keys._sample):
        if sum(map(len, sample)) >= most_bytes:
            break
        sample.append(text)
    return sample


@unhurried
@given(texts_of, st.sampled_from([2, 16, 64, 256]))
def test_the_sample_is_the_shortest_beginning_that_holds_enough(texts: list[str], most: int) -> None:
    sample = Texts(most)
    metrics = added(sample, texts)
    assert [text for _, text in sample._sample] == plain_sample(texts, most)
    whole = len(sample._sample) == sum(map(bool, texts))
    assert {metric.method for metric in metrics.values()} <= {"exact" if whole else f"texts-{most}"}


def test_a_sample_holds_so_many_texts_at_most() -> None:
    sample = Texts(1 << 20)
    metrics = added(sample, [f"w{n}" for n in range(MOST_TEXTS + 500)])
    assert metrics["compression_ratio"].n == MOST_TEXTS
    assert metrics["compression_ratio"].method == "texts-1048576"


def test_long_texts_are_cut_between_characters() -> None:
    sample = Texts(1 << 20)
    added(sample, ["x" + "é" * MOST_TEXT_BYTES, "y" * MOST_TEXT_BYTES])
    (long, whole) = sorted((text for _, text in sample._sample), key=len)
    assert len(long) == MOST_TEXT_BYTES - 1
    assert long.decode().endswith("é")
    assert len(whole) == MOST_TEXT_BYTES


def test_cut_texts_are_sampled_in_any_order() -> None:
    """A cut text may be some bytes shorter than the bound, and what is enough is judged by what it has."""
    texts = ["x" * cut + "世" * 90_000 + f" {n}" for n, cut in enumerate([0, 1, 2, 0, 1, 2, 0, 1])]
    once = Texts(1 << 20)
    added(once, texts)
    for order in (texts[::-1], sorted(texts)):
        total = Texts(1 << 20)
        for text in order:
            part = Texts(1 << 20)
            added(part, [text])
            total.merge(part)
        assert encode_columns(total.columns()) == encode_columns(once.columns())


def test_compression_is_of_blocks_in_the_order_of_the_keys() -> None:
    texts = zipf_texts(documents=300, length=200, vocabulary=5000, seed=2)
    sample = Texts(1 << 20)
    metrics = added(sample, texts)
    joined = b"\n".join(text for _, text in sample._sample)
    assert len(joined) > 3 * BLOCK_BYTES
    blocks = [joined[start : start + BLOCK_BYTES] for start in range(0, len(joined), BLOCK_BYTES)]
    assert metrics["compression_ratio"].value == pytest.approx(
        len(joined) / sum(len(zlib.compress(block, 6)) for block in blocks), rel=1e-9
    )
    assert added(Texts(1 << 20), random.Random(1).sample(texts, 300)) == metrics


# Errors of the estimates


@pytest.fixture(scope="module")
def estimates() -> dict[str, list[float]]:
    """Relative errors on ten Zipf texts, with sketches an eighth of their usual size, against complete ones."""
    small = DiversityParams(words=2048, ngrams=1024, bins=1024, texts=1 << 17, full=True)
    large = DiversityParams(words=1 << 20, ngrams=1 << 20, bins=1024, texts=1 << 24, full=True)
    errors: dict[str, list[float]] = {}
    for seed in range(10):
        texts = zipf_texts(documents=1500, length=100, vocabulary=50_000, seed=seed)
        texts = [text.replace("w", f"{seed}x") for text in texts]  # other words, other hashes
        exact = by_name(measured(texts, large))
        for name, metric in by_name(measured(texts, small)).items():
            assert exact[name].method in ("exact", MTLD_METHOD, "buckets-32", f"features-{FEATURES}")
            errors.setdefault(name, []).append(metric.value / exact[name].value - 1 if exact[name].value else 0.0)
    return errors


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        ("entropy_2", 0.02),
        ("entropy_3", 0.02),
        ("entropy_4", 0.02),
        ("hdd_42", 0.01),
        ("heaps", 0.02),
        ("zipf", 0.04),
        ("compression_ratio", 0.01),
    ],
)
def test_estimates_err_as_stated(estimates: dict[str, list[float]], name: str, sigma: float) -> None:
    errors = np.array(estimates[name])
    assert errors.any()
    assert np.abs(errors).max() < 4 * sigma
    assert abs(errors.mean()) < 4 * sigma / math.sqrt(len(errors))


@pytest.mark.parametrize("name", ["mattr_50", "mtld", "vendi_1", "vendi_2"])
def test_what_is_added_up_has_no_error(estimates: dict[str, list[float]], name: str) -> None:
    assert not np.array(estimates[name]).any()


@unhurried
@given(texts_of)
def test_estimates_stay_in_range(texts: list[str]) -> None:
    metrics = by_name(measured(texts, TINY))
    for name, metric in metrics.items():
        assert math.isfinite(metric.value), name
        assert metric.value >= 0, name
        if name in ("hdd_42", "mattr_50", "template_rate"):
            assert metric.value <= 1, name
        if name.startswith("entropy"):
            assert metric.value <= math.log2(metric.n) + 1e-6


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.5])
def test_the_exponent_of_a_law_is_found(exponent: float) -> None:
    """Counts from the zeta law that goes with the exponent."""
    counts = np.random.default_rng(6).zipf(1 + 1 / exponent, 40_000).clip(max=1000)
    words = np.repeat(np.arange(len(counts)), counts).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    accumulator = Accumulator.zero()
    accumulator.add(Words(words, np.array([0, len(words)]), np.array([len(words)])))
    assert by_name(accumulator)["zipf"].value == pytest.approx(exponent, rel=0.05)


def test_growth_is_that_of_a_random_half() -> None:
    (text,) = zipf_texts(documents=1, length=20_000, vocabulary=30_000, seed=5)
    words = text.split()
    halves = []
    for seed in range(20):
        draw = random.Random(seed)
        halves.append(len({word for word in words if draw.random() < 0.5}))
    growth = math.log2(len(set(words)) / (sum(halves) / len(halves)))
    assert by_name(measured([text]))["heaps"].value == pytest.approx(growth, rel=0.02)


# Bounds and diagnoses


def bytes_held(accumulator: Accumulator) -> int:
    tables = accumulator._frequencies.tables
    _, _, sample, _, similarity, texts = accumulator._parts
    assert isinstance(similarity, Similarity)
    assert isinstance(texts, Texts)
    assert isinstance(sample, Sample)
    held = sum(table.slots.nbytes + table.bins.nbytes for table in tables) + similarity._sums.nbytes
    held += sum(column.nbytes for column in sample._held)
    return held + sum(len(text) for _, text in texts._sample)


def test_memory_is_bounded() -> None:
    accumulator = measured(zipf_texts(documents=6000, length=100, vocabulary=100_000, seed=1))
    assert 0.7 * most_bytes(FULL) < bytes_held(accumulator) < most_bytes(FULL) < 3.4 * (1 << 20)
    assert most_bytes(DiversityParams()) < 1.3 * (1 << 20)
    assert len(accumulator.to_bytes()) < 2.5 * (1 << 20)


def test_small_accumulators_are_small() -> None:
    assert len(Accumulator.zero(FULL).to_bytes()) < 200
    assert bytes_held(measured(["one two"])) < 1 << 19


@pytest.mark.parametrize("texts", [None, pa.array(["one"])])
def test_words_without_their_texts_are_refused(texts: pa.Array | None) -> None:
    words: npt.NDArray[np.uint64] = np.array([1, 2], np.uint64)
    with pytest.raises(ValueError, match="the full metrics need the texts of all 2 documents"):
        Accumulator.zero(FULL).add(Words(words, np.array([0, 1, 2]), np.array([1, 1])), None, texts)


def test_core_and_full_do_not_merge() -> None:
    with pytest.raises(ValueError, match="measure both again with the same sizes"):
        Accumulator.zero(FULL).merge(Accumulator.zero())
