"""Tokens by a tokenizer of one's own: counted as the library counts, keyed by the file's bytes, and counted again."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import projects
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import PublishedMix, anchormix

from transforms.kernels import tokens as tokens_kernel
from transforms.kernels.tokens import TokenizerFile, TokenizerUnusable, token_counter

tokenizers = pytest.importorskip("tokenizers", reason="pip install 'anchormix[tokenizers]'")

TEXTS = [f"The ferry of day {n} carried {n * 7} lamps, häfen und Schiffe, past the lighthouse." for n in range(40)]


def train(vocabulary: int) -> bytes:
    """A small byte-level BPE that frames sequences, cuts them at eight tokens and pads them, as many files do."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A <s>", special_tokens=[("<s>", 0)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    return str(tokenizer.to_str()).encode()


@pytest.fixture(scope="module")
def large() -> bytes:
    return train(400)


@pytest.fixture(scope="module")
def small() -> bytes:
    return train(300)


def plainly(content: bytes, text: str) -> int:
    """Tokens of one text, with nothing added and nothing cut."""
    tokenizer = tokenizers.Tokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | st.text(max_size=40), max_size=9), st.integers(1, 60), st.integers(1, 4), st.integers(0, 3))
def test_slices_decide_nothing(
    large: bytes, monkeypatch: pytest.MonkeyPatch, texts: list[str | None], size: int, rows: int, skipped: int
) -> None:
    monkeypatch.setattr(tokens_kernel, "_SLICE_BYTES", size)
    monkeypatch.setattr(tokens_kernel, "_SLICE_ROWS", rows)
    count = token_counter(TokenizerFile.of("tokenizer.json", large))
    counted = count(pa.array(texts, pa.large_string()).slice(skipped))
    assert counted.dtype == np.int64
    assert counted.tolist() == [plainly(large, text or "") for text in texts[skipped:]]


def test_frames_cuts_and_padding_are_not_counted(large: bytes) -> None:
    (counted,) = token_counter(TokenizerFile.of("tokenizer.json", large))(pa.array([TEXTS[0] * 3]))
    assert counted > 16
    assert counted == plainly(large, TEXTS[0] * 3)


def project(folder: Path, content: bytes, **changes: Any) -> Path:
    (folder / "tokenizer.json").write_bytes(content)
    sources = {"human": TEXTS[:20], "web": TEXTS[20:]}
    return projects.write_project(folder, sources, tokens={"file": "tokenizer.json"}, **changes)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, large: bytes) -> tuple[Path, PublishedMix]:
    config = project(tmp_path_factory.mktemp("tokens"), large)
    return config, projects.run(config)


def test_a_mix_is_counted_by_the_tokenizer_and_says_which(counted: tuple[Path, PublishedMix], large: bytes) -> None:
    config, mix = counted
    assert [row["n_tokens"] for row in mix.rows] == [plainly(large, row["text"]) for row in mix.rows]
    assert mix.manifest["tokens"] == {"file": "tokenizer.json", "sha256": hashlib.sha256(large).hexdigest()}
    assert mix.manifest["totals"]["tokens"] == sum(row["n_tokens"] for row in mix.rows)
    told = anchormix("check", config)
    assert told.line["tokens"] == mix.manifest["tokens"]
    assert f"counted by the tokenizer tokenizer.json with sha256 {hashlib.sha256(large).hexdigest()}" in (
        mix.folder / "README.md"
    ).read_text(encoding="utf-8")


def test_verify_counts_again_where_the_file_is_at_hand(counted: tuple[Path, PublishedMix], small: bytes) -> None:
    config, mix = counted
    path = config.parent / "tokenizer.json"

    def unchecked(*options: str | Path) -> list[str]:
        told = anchormix("verify", mix.folder, *options)
        assert told.exit == 0, told.stderr
        return [line for line in told.line["not_checked"] if line.startswith("tokens:")]

    (line,) = unchecked()
    assert "not recounted" in line
    assert hashlib.sha256(path.read_bytes()).hexdigest() in line
    assert "--tokenizer" in line
    assert unchecked("--tokenizer", path) == []
    assert unchecked("--inputs", config) == []

    other = config.parent / "other.json"
    other.write_bytes(small)
    told = anchormix("verify", mix.folder, "--tokenizer", other)
    assert (told.exit, told.code) == (2, "other_tokenizer")
    assert told.details["expected"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wrong_count_is_found_by_who_has_the_tokenizer(counted: tuple[Path, PublishedMix], tmp_path: Path) -> None:
    config, mix = counted
    out = tmp_path / "mix"
    shutil.copytree(mix.folder, out)
    (shard,) = (out / "data").iterdir()
    table = pq.read_table(shard)
    forged = pa.array([n + 1 for n in table["n_tokens"].to_pylist()])
    metadata = pq.read_metadata(shard).metadata
    table = table.set_column(table.schema.get_field_index("n_tokens"), table.schema.field("n_tokens"), forged)
    pq.write_table(table.replace_schema_metadata({b"anchormix": metadata[b"anchormix"]}), shard)
    told = anchormix("verify", out, "--tokenizer", config.parent / "tokenizer.json")
    assert told.exit == 4
    assert told.details["finding_counts"]["consistent.wrong_n_tokens"] == table.num_rows


def test_facts_follow_the_bytes_of_the_file_and_not_its_name(
    counted: tuple[Path, PublishedMix], tmp_path: Path, large: bytes, small: bytes
) -> None:
    config, _ = counted
    folder = tmp_path / "copy"
    shutil.copytree(config.parent / "out" / "index", folder / "index")
    other = folder / "renamed.json"
    other.write_bytes(large)

    def index() -> list[str]:
        told = anchormix("index", config, "--set", f"index={folder}/index", "--set", f"tokens.file={other}")
        assert told.exit == 0, told.stderr
        return list(told.line["rebuilt"])

    assert index() == []
    other.write_bytes(small)
    assert "facts" in index()
    told = anchormix("run", config, "--set", f"tokens.file={other}", "--set", f"index={folder}/index")
    assert (told.exit, told.code) == (2, "output_exists"), "other tokens are another mix"


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [(b"{}", "bad_tokenizer", "no tokenizer.json"), (None, "bad_tokenizer", "cannot be read")],
)
def test_what_is_no_tokenizer_is_told_before_anything_is_read(
    tmp_path: Path, content: bytes | None, code: str, named: str
) -> None:
    config = project(tmp_path, content or b"")
    if content is None:
        (tmp_path / "tokenizer.json").unlink()
    for command in ("check", "run"):
        told = anchormix(command, config)
        assert (told.exit, told.code) == (2, code)
        assert "tokens.file" in told.message
        assert named in told.message
        assert str(tmp_path / "tokenizer.json") in told.message
    assert not (tmp_path / "out" / "mix").exists()


def test_a_missing_library_is_told_with_the_way_to_get_it(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, small + b" ")  # other bytes than any that a test has loaded
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    told = anchormix("run", config)
    assert (told.exit, told.code) == (2, "missing_library")
    assert "pip install 'anchormix[tokenizers]'" in told.message


def test_known_text_needs_no_tokens_and_a_tokenizer_no_words(tmp_path: Path, large: bytes) -> None:
    """A tokenizer may count nothing where there is text; such a document weighs nothing, and is still a document."""
    tokenizer = json.loads(large)
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": "nothing.*"}, "content": ""}
    content = json.dumps(tokenizer).encode()
    (tmp_path / "tokenizer.json").write_bytes(content)
    known = tmp_path / "known" / "a.jsonl"
    known.parent.mkdir()
    known.write_text(json.dumps({"text": "Entirely different words that no source of this project ever holds."}))
    config = projects.write_project(
        tmp_path,
        {"human": [*TEXTS[:3], "nothing at all"]},
        tokens={"file": "tokenizer.json"},
        evidence={"known_synthetic": ["known/*.jsonl"]},
    )
    mix = projects.run(config)
    counts = {row["text"]: row["n_tokens"] for row in mix.rows}
    assert counts["nothing at all"] == 0
    assert all(counts[text] == plainly(content, text) > 0 for text in TEXTS[:3])


def test_an_unusable_file_says_why() -> None:
    with pytest.raises(TokenizerUnusable, match="x is no tokenizer"):
        token_counter(TokenizerFile.of("x", b"\xff"))
