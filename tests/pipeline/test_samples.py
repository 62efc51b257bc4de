"""The samples hold what their truth says, `init` leaves a folder that runs, and tests/corpus.py keeps its promises."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path

import corpus
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline import samples
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.samples import SampleTruth, init, write_samples
from transforms.kernels.artefacts import artefact_bits, recognisers_in
from transforms.kernels.minhash import shingle_hashes, sorted_sets
from transforms.kernels.text import blank, split_words

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "pipeline" / "quickstart.yaml"

# The names under which a source writes its id and its text, where they are not `id` and `text`.
RENAMED = {"forum": ("post_id", "body")}


def read_rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.decompress(data)
    if ".csv" in path.suffixes:
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    return [json.loads(line) for line in data.decode().splitlines()]


def texts_of(directory: Path) -> dict[tuple[str, str], str]:
    """The text of every document, by (source, id)."""
    texts = {}
    for path in sorted((directory / "shards").glob("*/*")):
        id_column, text_column = RENAMED.get(path.parent.name, ("id", "text"))
        for row in read_rows(path):
            key = (path.parent.name, str(row[id_column]))
            assert key not in texts
            texts[key] = str(row[text_column])
    return texts


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleTruth]:
    directory = tmp_path_factory.mktemp("samples")
    return directory, write_samples(directory)


def similar_pairs(texts: dict[tuple[str, str], str], least: Fraction) -> dict[frozenset, tuple[int, int]]:
    """Every pair of non-blank texts at or above a similarity, as (shared, union), by brute force over shingles."""
    names = [name for name, text in texts.items() if text.strip()]
    shingles = sorted_sets(shingle_hashes(split_words(pa.array([texts[name] for name in names])), 5))
    bounds = shingles.offsets.tolist()
    hashes = shingles.hashes.tolist()
    holders: dict[int, list[int]] = {}
    for document, (start, end) in enumerate(pairwise(bounds)):
        for shingle in hashes[start:end]:
            holders.setdefault(shingle, []).append(document)
    shared = Counter(pair for documents in holders.values() for pair in combinations(documents, 2))
    size = [end - start for start, end in pairwise(bounds)]
    return {
        frozenset((names[left], names[right])): (count, size[left] + size[right] - count)
        for (left, right), count in shared.items()
        if count >= least * (size[left] + size[right] - count)
    }


def test_every_source_has_its_documents_and_shards(written: tuple[Path, SampleTruth]) -> None:
    directory, truth = written
    assert sum(truth.documents.values()) == 600
    assert Counter(source for source, _ in texts_of(directory)) == truth.documents
    shards = Counter(path.parent.name for path in (directory / "shards").glob("*/*"))
    assert shards == {"press": 3, "archive": 2, "web": 2, "forum": 1, "rephrased": 1, "stories": 1}
    for path in (directory / "shards" / "press").iterdir():
        assert pq.ParquetFile(path).num_row_groups > 1


def test_the_planted_copies_are_all_the_copies_there_are(written: tuple[Path, SampleTruth]) -> None:
    directory, truth = written
    texts = texts_of(directory)
    planted = {
        frozenset(((copy.source, copy.id), (copy.of_source, copy.of_id))): (copy.shared, copy.union)
        for copy in (*truth.exact_duplicates, *truth.near_duplicates)
    }
    # Well below the default threshold of .8, so that no pair is decided by a hair.
    found = similar_pairs(texts, Fraction(7, 10))
    assert found.keys() == planted.keys()
    for copy in truth.exact_duplicates:
        assert texts[copy.source, copy.id] == texts[copy.of_source, copy.of_id]
    for copy in truth.near_duplicates:
        pair = frozenset(((copy.source, copy.id), (copy.of_source, copy.of_id)))
        assert found[pair] == planted[pair]
        assert Fraction(85, 100) < Fraction(copy.shared, copy.union) < Fraction(97, 100)
    assert {copy.of_source for copy in truth.exact_duplicates} == {"press", "archive"}
    assert truth.near_duplicates


def test_empties_and_artefacts_are_where_the_truth_says(written: tuple[Path, SampleTruth]) -> None:
    directory, truth = written
    texts = texts_of(directory)
    names, array = list(texts), pa.array(texts.values())
    empty = {name for name, is_blank in zip(names, blank(array), strict=True) if is_blank}
    assert empty == {("web", page) for page in truth.empties["web"]}
    kinds = [{mark.kind for mark in recognisers_in(int(bits))} for bits in artefact_bits(array)]
    marked = {name for name, found in zip(names, kinds, strict=True) if found}
    assert marked == {("web", page) for page in truth.artefacts["web"]}
    assert all(len(found) in (0, 2) for found in kinds)


def test_models_write_blander_than_people(written: tuple[Path, SampleTruth]) -> None:
    """Among equally many English words, people use more different ones, and more of them once only."""
    directory, _ = written
    text = {source: "" for source in ("press", "stories")}
    for source in text:
        for path in sorted((directory / "shards" / source).iterdir()):
            text[source] += " ".join(str(row["text"]) for row in read_rows(path) if row["language"] == "en")
    counts = {source: Counter(re.findall(r"\w+", text[source].lower())[:3000]) for source in text}
    hapaxes = {source: list(count.values()).count(1) for source, count in counts.items()}
    assert len(counts["press"]) > 2 * len(counts["stories"])
    assert hapaxes["press"] > 5 * hapaxes["stories"]


def test_half_verified_is_feasible_and_binds(written: tuple[Path, SampleTruth]) -> None:
    """Even within the caps of the template, more other text survives than verified text can carry."""
    directory, truth = written
    texts = texts_of(directory)
    tokens = dict(zip(texts, split_words(pa.array(texts.values())).counted.tolist(), strict=True))
    gone = {(copy.source, copy.id) for copy in (*truth.exact_duplicates, *truth.near_duplicates)}
    verified = sum(count for (source, _), count in tokens.items() if source == "press")
    natural = sum(count for name, count in tokens.items() if name[0] in ("archive", "web") and name not in gone)
    synthetic = sum(count for (source, _), count in tokens.items() if source in ("rephrased", "stories"))
    assert 0 < verified < natural + min(synthetic, 3 * verified // 5)


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    first = write_samples(tmp_path / "a", documents=60)
    assert write_samples(tmp_path / "b", documents=60) == first
    shards = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert shards
    for shard in shards:
        assert (tmp_path / "a" / shard).read_bytes() == (tmp_path / "b" / shard).read_bytes()
    write_samples(tmp_path / "c", seed=8, documents=60)
    assert not set(texts_of(tmp_path / "a").values()) & set(texts_of(tmp_path / "c").values()) - {"", " \n\t "}


def test_too_few_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"documents = 49.*at least 50"):
        write_samples(tmp_path, documents=49)
    truth = write_samples(tmp_path, documents=50)
    assert truth.exact_duplicates
    assert truth.near_duplicates
    assert truth.empties["web"]
    assert truth.artefacts["web"]


def test_the_two_quickstarts_differ_in_the_data_folder_only() -> None:
    shipped = TEMPLATE.read_bytes()
    assert shipped.count(b"${DATA:-.}") > 5
    in_checkout = (ROOT / "configs" / "quickstart.yaml").read_bytes()
    assert in_checkout == shipped.replace(b"${DATA:-.}", b"${DATA:-../demo}")


def test_the_template_is_a_valid_config() -> None:
    config = load_config(TEMPLATE)
    assert [source.name for source in config.sources] == list(samples.SHARES)
    (floor,) = config.mix.floors
    assert (floor.of, floor.share) == ("human_verified", Fraction(1, 2))


def test_init_leaves_one_config_and_everything_it_names(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "demo"
    summary = init(directory)
    assert summary["documents"].keys() == samples.SHARES.keys()
    assert [path.name for path in directory.rglob("*.y*ml")] == ["quickstart.yaml"]
    assert Path(summary["config"]) == directory / "quickstart.yaml"
    assert Path(summary["config"]).read_bytes() == TEMPLATE.read_bytes()
    config = yaml.safe_load(TEMPLATE.read_text().replace("${DATA:-.}", str(directory)))
    press = config["sources"][0]
    (key,) = config["trust"]["keys"]
    assert Path(press["custody"]["manifest"]).is_file()
    assert Path(key["public_key"]).is_file()
    assert (press["name"] in key["sources"], press["custody"]["method"] in key["methods"]) == (True, True)
    for source in config["sources"]:
        for pattern in source["files"]:
            assert list(directory.glob(str(Path(pattern).relative_to(directory))))
    assert not (directory / "out").exists()


def test_init_takes_an_empty_folder_and_refuses_any_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    init(tmp_path / "empty")
    before = sorted((tmp_path / "empty").rglob("*"))
    with pytest.raises(UsageError, match=r"is not empty.*Name another") as refusal:
        init(tmp_path / "empty")
    assert (refusal.value.code, refusal.value.exit_code) == ("init_not_empty", 2)
    assert sorted((tmp_path / "empty").rglob("*")) == before
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="is a file"):
        init(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


# The corpus that other tests rest on.


@given(
    seed=st.integers(0, 999),
    words=st.integers(30, 200),
    changes=st.integers(1, 4),
    language=st.sampled_from(corpus.LANGUAGES),
)
def test_a_near_copy_is_as_similar_as_promised(seed: int, words: int, changes: int, language: str) -> None:
    rng = random.Random(seed)
    original = corpus.make_document(rng, words, language)
    edited = corpus.near_copy(rng, original, changes)
    promised = corpus.edited_jaccard(words, changes)
    assert corpus.jaccard(original, edited) == promised
    pair = similar_pairs({("", "original"): original.text, ("", "edited"): edited.text}, promised)
    assert [Fraction(*counts) for counts in pair.values()] == [promised]


def test_more_changes_than_a_document_has_room_for_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="4 changes need 28 words, this has 27"):
        corpus.near_copy(rng, corpus.make_document(rng, 27), 4)


def test_the_corpus_on_disk_is_what_its_truth_says(tmp_path: Path) -> None:
    truth = corpus.write_corpus(tmp_path)
    texts = texts_of(tmp_path)
    assert texts == {(source, row["id"]): row["text"] for source, rows in truth.rows.items() for row in rows}
    planted = {
        frozenset(((copy.source, copy.id), (copy.of_source, copy.of_id))): copy.similarity
        for copy in (*truth.exact, *truth.near)
    }
    found = similar_pairs(texts, Fraction(1, 100))
    assert {pair: Fraction(*counts) for pair, counts in found.items()} == planted
    assert {copy.similarity < Fraction(4, 5) for copy in truth.near} == {True, False}
    assert {name for name, text in texts.items() if not text} == truth.empty
    below = [copy for copy in truth.near if copy.similarity < Fraction(4, 5)]
    removed = len(truth.exact) + len(truth.near) - len(below) + len(truth.empty)
    assert len(truth.survivors()) == len(texts) - removed


def test_a_minimal_config_takes_changes_by_key(tmp_path: Path) -> None:
    path = corpus.minimal_config(
        tmp_path, seed=3, mix={"floors": {"human_verified": 0.6}}, sources={"bot": None}, index=None
    )
    config = load_config(path)
    assert [source.name for source in config.sources] == ["press", "letters", "web"]
    assert (config.seed, config.mix.floors[0].share, config.mix.row_group) == (3, Fraction(3, 5), 16)
    signed = (tmp_path / "custody" / "press.dsse.json").read_bytes()
    assert load_config(corpus.minimal_config(tmp_path)).mix.floors[0].share == Fraction(1, 2)
    assert (tmp_path / "custody" / "press.dsse.json").read_bytes() == signed
