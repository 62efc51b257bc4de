"""The script of docs/signatures.md: datasketch itself reads what an index holds, and finds what is alike in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasketch import MinHash
from projects import index, write_project

from transforms.kernels.minhash import MinHashParams, fold32, shingle_hashes
from transforms.kernels.text import split_words

PAGE = (Path(__file__).parents[1] / "docs" / "signatures.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
NAMES: dict[str, Any] = {"__name__": "signatures"}
exec(SCRIPT, NAMES)

LONG = " ".join(f"word{n * n % 997}" for n in range(300))
OTHER = " ".join(f"thing{n * n % 991}" for n in range(300))


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    texts = [[LONG, "", OTHER], ["of another kind", f"{LONG} and more"]]
    return [index(write_project(folder, {"human": rows})) for folder, rows in zip(folders, texts, strict=True)]


def test_datasketch_finds_in_one_index_what_is_alike_in_another(indexes: list[Path]) -> None:
    ((found, candidate),) = NAMES["alike"](*indexes, 0.8)
    assert (found[1], candidate[1]) == (1, 0)  # their places


def test_what_an_index_holds_is_what_datasketch_makes_of_the_text(indexes: list[Path]) -> None:
    held = [signature for _, signature in NAMES["signatures"](indexes[0])]
    assert len(held) == 2  # the blank text has none
    for text, signature in zip((LONG, OTHER), held, strict=True):
        made = MinHash(num_perm=128, hashfunc=int)
        shingles = shingle_hashes(split_words(pa.array([text])), MinHashParams().shingle)
        made.update_batch(fold32(shingles.hashes).tolist())
        assert signature == made
