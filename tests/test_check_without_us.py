"""The script of docs/check-without-us.md: it passes what holds the floor, and fails each way of breaking it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import mixes
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mixes import FLOOR, Mix, Row

from transforms.kernels.text import split_words

PAGE = (Path(__file__).parents[1] / "docs" / "check-without-us.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
NAMES: dict[str, Any] = {"__name__": "check"}
exec(SCRIPT, NAMES)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Mix:
    return mixes.write_mix(tmp_path_factory.mktemp("honest"))


def problems(mix: Mix, floor: Fraction = FLOOR) -> list[str]:
    *_, found = NAMES["check"](mix.out, floor)
    return list(found)


def test_it_knows_nothing_of_us_and_passes_an_honest_mix(honest: Mix, tmp_path: Path) -> None:
    """Run as a reader would: a file of its own, in a process that cannot import this project."""
    (tmp_path / "check.py").write_text(SCRIPT, encoding="utf-8")
    shutil.copytree(honest.out / "data", tmp_path / "mix" / "data")
    call = [sys.executable, "check.py", "mix"]
    for floor, code in (("1/2", 0), ("0.5", 0), ("0.99", 1)):
        done = subprocess.run([*call, floor], cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
    rows = [row for shard in honest.shards for row in shard]
    verified = sum(row["n_tokens"] for row in rows if row["provenance"] == "human_verified")
    total = sum(row["n_tokens"] for row in rows)
    assert f"{verified} of {total} tokens are verified" in done.stdout


def _untagged(rows: list[Row]) -> None:
    rows[0]["provenance"] = "human"


def _reversed(rows: list[Row]) -> None:
    rows.reverse()


def _shortened(rows: list[Row]) -> None:
    for row in rows[::2]:
        row["text"] = row["text"].split()[0] + row["doc_id"].replace(":", "")


def _padded(rows: list[Row]) -> None:
    rows[1]["text"] += " and so on" * 40


def _repeated(rows: list[Row]) -> None:
    rows += [{**rows[0], "copy": 1}]


def _emptied(rows: list[Row]) -> None:
    rows[:] = [row for row in rows if row["provenance"] != "human_verified"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_untagged, "row group 0 up to row 0: 0 of"),
        (_reversed, "up to row 0: 0 of"),
        (_shortened, "below 1/2"),
        (_padded, "below 1/2"),
        (_repeated, "2 times"),
        (_emptied, "train-00001-of-00002.parquet: 0 of"),
    ],
)
def test_a_mix_that_was_sealed_again_after_a_change_fails(
    tmp_path: Path, change: Callable[[list[Row]], None], told: str
) -> None:
    mix = mixes.write_mix(tmp_path)
    mix.rewrite(1, change, reseal=True)
    found = problems(mix)
    assert any(told in problem for problem in found), found


def test_columns_that_lie_are_not_believed(tmp_path: Path) -> None:
    """Neither the column of counts, nor an id, nor the certificate decides anything."""
    mix = mixes.write_mix(tmp_path)

    def inflate(rows: list[Row]) -> None:
        rows[0]["text"] = "short"
        rows[0]["n_tokens"] = 10**9

    mix.rewrite(0, inflate, reseal=False)
    found = problems(mix)
    assert any("the id is not that of the text" in problem for problem in found)
    assert any("up to row 1: 1 of" in problem for problem in found), found


def test_nothing_is_not_a_mix(tmp_path: Path) -> None:
    mix = mixes.write_mix(tmp_path)
    pq.write_table(mixes.SCHEMA.empty_table(), mix.path(0))
    assert any("0 of 0" in problem for problem in problems(mix))


# Scripts that every Python knows alike: it may have a newer Unicode than the counter.
RANGES = [(0x20, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0xE01, 0xE3A), (0x3041, 0x3096), (0x4E00, 0x9FA5)]


@given(
    st.text(st.one_of(*(st.characters(min_codepoint=a, max_codepoint=b) for a, b in RANGES)), min_size=1, max_size=40)
)
@example("a" * 17 + " b" * 3)
@example("x_y don't 漢字かな ﬁnd ไทย")
@example("...")
def test_its_tokens_are_those_of_the_counter(text: str) -> None:
    if text.strip():
        assert NAMES["n_tokens"](text) == split_words(pa.array([text])).counted[0]


def test_its_scripts_are_those_of_the_definition() -> None:
    assert NAMES["UNSPACED"] == oracle.UNSPACED_SCRIPTS
