"""A published mix in the hands of others: validators of its cards, and the libraries that read it, unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mixes
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cards import dataset_card, write_cards
from pipeline.cli import main
from pipeline.croissant import croissant
from pipeline.eu_summary import eu_summary
from pipeline.licenses import declared, hub_ids
from pipeline.markdown import cell, table

EVIL = "gpt | `x` <b>\n---\n[a](b)"


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> mixes.Mix:
    """Licenses of several kinds, odd languages, a generator whose name is an attack on Markdown."""
    shards = mixes.default_shards()
    odd = {
        "license": ["CC-BY-4.0", "MIT", "LicenseRef-Press", None],
        "language": ["en-US", "no", "Klingon (old)", None],
    }
    for place, row in enumerate(row for rows in shards for row in rows):
        row |= {name: values[place % 4] for name, values in odd.items()}
        row["generator"] = row["generator"] and EVIL
    made = mixes.write_mix(tmp_path_factory.mktemp("consumers"), shards)
    write_cards(made.out, manifest_of(made))
    return made


def manifest_of(mix: mixes.Mix) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((mix.out / "manifest.json").read_bytes())
    return manifest


def rows_of(mix: mixes.Mix) -> list[dict[str, Any]]:
    paths = sorted((mix.out / "data").iterdir())
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


# Libraries


def _datasets(mix: mixes.Mix, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset(str(mix.out), split="train", cache_dir=str(cache)).to_list()


def _datasets_streaming(mix: mixes.Mix, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return list(datasets.load_dataset(str(mix.out), split="train", streaming=True))


def _duckdb(mix: mixes.Mix, cache: Path) -> Any:
    duckdb = pytest.importorskip("duckdb")
    return duckdb.sql(f"SELECT * FROM '{mix.out}/data/*.parquet'").to_arrow_table().to_pylist()


def _polars(mix: mixes.Mix, cache: Path) -> Any:
    polars = pytest.importorskip("polars")
    return polars.scan_parquet(f"{mix.out}/data/*.parquet").collect().to_dicts()


def _pyarrow(mix: mixes.Mix, cache: Path) -> Any:
    return pyarrow.dataset.dataset(mix.out / "data").to_table().to_pylist()


@pytest.mark.parametrize("load", [_datasets, _datasets_streaming, _duckdb, _polars, _pyarrow])
def test_a_mix_loads_unchanged_and_in_order(
    mix: mixes.Mix, tmp_path: Path, load: Callable[[mixes.Mix, Path], list[Any]]
) -> None:
    assert load(mix, tmp_path) == rows_of(mix)


# The hub


def test_the_hub_takes_the_front_matter(mix: mixes.Mix) -> None:
    hub = pytest.importorskip("huggingface_hub")
    metadata = pytest.importorskip("datasets.utils.metadata")
    resources = Path(metadata.__file__).parent / "resources"
    data = hub.DatasetCard.load(mix.out / "README.md").data
    assert isinstance(data, hub.DatasetCardData)
    assert metadata.MetadataConfigs.from_dataset_card_data(data)["default"]["data_files"]
    known = json.loads((resources / "languages.json").read_text(encoding="utf-8"))
    assert set(data.language) <= set(known)
    assert sorted(data.language) == ["en", "no"]
    assert set(data.size_categories) <= set(json.loads((resources / "size_categories.json").read_text()))
    assert sorted(data.license) == ["cc-by-4.0", "mit", "other", "unknown"]
    assert data.to_dict()["license_name"] == "as-declared"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CC-BY-SA-4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc/4.0/", "cc-by-nc-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0", "cc0-1.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("ODC-By-1.0", "odc-by"),
        ("GFDL-1.3-only", "gfdl"),
        ("All rights reserved", "other"),
        ("CC-BY-9.9", "other"),
        ("unknown", "unknown"),
    ],
)
def test_licenses_are_spelled_as_the_hub_does(name: str, expected: str) -> None:
    assert hub_ids({name: 1}) == [expected]


def test_who_declares_nothing_is_counted_as_unknown() -> None:
    manifest = {"licenses": {"MIT": 3, "Apache-2.0": 4}, "totals": {"documents": 12}}
    assert list(declared(manifest).items()) == [("unknown", 5), ("Apache-2.0", 4), ("MIT", 3)]
    assert declared({"licenses": {}, "totals": {"documents": 0}}) == {}
    assert hub_ids({}) == ["unknown"]


# Croissant


def test_mlcroissant_finds_nothing_wrong_and_reads_every_record(mix: mixes.Mix) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(mix.out / "croissant.json"))
    issues = dataset.metadata.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    read = [
        tuple(record[f"documents/{name}"] for name in ("id", "n_tokens", "row"))
        for record in dataset.records("documents")
    ]
    assert read == [(row["id"].encode(), row["n_tokens"], row["row"]) for row in rows_of(mix)]


def test_croissant_tells_of_provenance_at_every_level(mix: mixes.Mix) -> None:
    told = json.loads((mix.out / "croissant.json").read_bytes())
    sources = [entity["@id"].rpartition(":")[2] for entity in told["prov:wasDerivedFrom"]]
    assert sources == sorted(manifest_of(mix)["sources"])
    succeeding = croissant({**manifest_of(mix), "parent": {"logical_digest": "a" * 64, "plan": "b"}}, [])
    assert succeeding["prov:wasDerivedFrom"][-1]["@id"] == f"urn:x-anchormix:mix:{'a' * 64}"
    assert told["prov:wasGeneratedBy"]["prov:wasAssociatedWith"]["prov:label"].startswith("anchormix ")
    fields = {field["name"]: field for field in told["recordSet"][0]["field"]}
    relations = {a["equivalentProperty"]: a["source"]["extract"]["column"] for a in fields["text"]["annotation"]}
    assert relations == {"prov:wasAttributedTo": "generator", "prov:wasDerivedFrom": "source"}
    achieved = manifest_of(mix)["achieved"]["human_verified"]["overall"]
    assert told["anchormix:share_human_verified"].startswith(f"{achieved['numerator']}/{achieved['denominator']} ")
    assert {"CC-BY-4.0", "LicenseRef-Press", "unknown"} <= set(told["license"])
    filled = {name.removeprefix("rai:") for name in told if name.startswith("rai:")}
    assert {"dataCollection", "dataLimitations", "dataBiases", "dataReleaseMaintenancePlan"} <= filled


# The summary that the EU asks for


def cells(text: str, section: str) -> list[list[str]]:
    """Rows of the first table behind a line."""
    lines = text[text.index(section) :].splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    found = [line for line in lines[first + 2 :]]
    last = next(place for place, line in enumerate(found) if not line.startswith("|"))
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in found[:last]]


def test_the_summary_adds_up_to_the_mix(mix: mixes.Mix) -> None:
    result = CliRunner().invoke(main, ["report", str(mix.out), "--eu-summary"])
    assert result.exit_code == 0, result.output
    manifest = manifest_of(mix)
    sources = cells(result.output, "2. List of data sources")
    for place, name in ((2, "documents"), (3, "tokens")):
        assert sum(int(row[place].replace(",", "")) for row in sources) == manifest["totals"][name]
    assert {(row[0], row[1]) for row in sources} >= {("2.2.1", "press"), ("2.5", "rephrased")}
    (generator,) = cells(result.output, "Synthetic data (2.5)")
    synthetic = manifest["provenance"]["by_provenance"]["synthetic"]
    assert generator[0] == cell(EVIL)
    assert int(generator[3].replace(",", "")) == synthetic["tokens"]
    assert "mit" in result.output.lower()
    parts = re.findall(r"^#+ (\d.*)$", result.output, re.M)
    assert parts == ["1. General information", "2. List of data sources", "3. Data processing aspects"]
    assert "select is less than 1 billion tokens" in result.output
    assert eu_summary(manifest) in (mix.out / "README.md").read_text(encoding="utf-8")
    assert not (mix.out / "report.html").exists(), "the summary is asked for instead of the page"


def test_a_folder_that_is_no_mix_has_no_summary(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--eu-summary", "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "no_mix"


# Markdown


@settings(max_examples=50)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_nothing_breaks_out_of_its_cell(texts: list[str]) -> None:
    head, rule, line, end = table(["x"] * len(texts), [[cell(text) for text in texts]])
    assert (head.count("|"), rule.count("|")) == (len(texts) + 1, len(texts) + 1)
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(texts) + 1
    assert end == ""
    assert "\n" not in line
    assert "<" not in line


def test_a_card_of_a_mix_without_anything_optional(mix: mixes.Mix) -> None:
    manifest: Mapping[str, Any] = {**manifest_of(mix), "licenses": {}, "languages": {}, "summary": []}
    card = dataset_card(manifest)
    assert "license: unknown" in card
    assert "None." in card
