"""Write a large seeded corpus for throughput runs: `python benchmarks/make_corpus.py OUT --megabytes 2000`.

The text is drawn word by word from Zipf vocabularies, with phrases that recur, so that word lengths, repetition and
compressibility are near those of prose. Each document is a pure function of its seed, which is how copies are made:
an exact duplicate has the seed of another document, a near-duplicate also has an edit rate.

OUT then holds shards/ (a human source of Parquet, signed; a web source of Parquet; a synthetic one of JSONL.zst) and
bench.yaml, a config that mixes them with a floor of one half.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard
from numba import njit
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.samples import LANGUAGES, Draws, Language  # noqa: E402

SHARES = {"human": 0.5, "web": 0.35, "synthetic": 0.15}
LANGUAGE_SHARES = {"en": 0.85, "de": 0.05, "ru": 0.04, "zh": 0.03, "ar": 0.03}
EXACT, NEAR = 0.05, 0.10
EDIT_RATES = (0.002, 0.03)  # of all words: half of the copies reach a Jaccard of .86
SPREAD = 1.0  # of log document length: the mean is 1.65 times the median
LARGEST_DOCUMENT = 1 << 20
SHARD_BYTES = 48 << 20
ROW_GROUP_BYTES = 8 << 20

VOCABULARY = 50_000  # of English; the others have a third
TABLE_BITS = 18  # entries from which words are drawn; the rarest words share one
LENGTH_BITS = 6  # of a word in bytes
BLOCK = 16  # bytes that are copied at a time
SUCCESSORS = 4  # words that may follow a word within a phrase
PHRASES = 0.3  # share of words that continue a phrase

CONFIG = """\
# Written by benchmarks/make_corpus.py.
version: 1
seed: {seed}
output: out/mix
index: out/index

sources:
  - name: human
    files: ["shards/human/*.parquet"]
    custody: {{method: controlled_collection, manifest: custody/human.dsse.json}}
  - name: web
    files: ["shards/web/*.parquet"]
  - name: synthetic
    files: ["shards/synthetic/*.jsonl.zst"]
    synthetic: {{generator: zipf-machine, kind: generated}}

trust:
  keys:
    - {{name: bench, public_key: keys/bench.pub, sources: [human]}}

mix:
  floors: {{human_verified: 0.5}}
"""


class Plan(NamedTuple):
    """One entry a document, in the order in which sources are written."""

    seeds: NDArray[np.uint64]
    sizes: NDArray[np.int64]  # bytes
    languages: NDArray[np.int64]
    edits: NDArray[np.float64]  # share of words replaced; 0 in originals and exact duplicates
    sources: NDArray[np.int64]

    def rows(self, which: slice | NDArray[np.int64]) -> Plan:
        return Plan._make(column[which] for column in self)


@dataclass(frozen=True)
class Lexicon:
    """The vocabularies of all languages behind each other, as the compiled writer reads them."""

    codes: tuple[str, ...]
    letters: NDArray[np.uint8]
    tables: NDArray[np.int32]  # (language, uniform draw) -> word, as its start in `letters` << LENGTH_BITS | length
    marks: NDArray[np.uint8]  # (language, full stop | comma | space, bytes), zero behind the end


def plan_documents(megabytes: float, mean_kb: float, seed: int) -> Plan:
    rng = np.random.default_rng(seed)
    count = max(100, round(megabytes * 1000 / mean_kb))
    median = mean_kb * 1000 / np.exp(SPREAD**2 / 2)
    sizes = np.clip(rng.lognormal(np.log(median), SPREAD, count), 40, LARGEST_DOCUMENT).astype(np.int64)
    plan = Plan(
        seeds=rng.integers(1, 2**63, count, dtype=np.uint64),
        sizes=sizes,
        languages=rng.choice(len(LANGUAGE_SHARES), count, p=list(LANGUAGE_SHARES.values())),
        edits=np.zeros(count),
        sources=rng.choice(len(SHARES), count, p=list(SHARES.values())),
    )
    kind = rng.random(count)
    copies = np.flatnonzero(kind < EXACT + NEAR)
    originals = rng.choice(np.flatnonzero(kind >= EXACT + NEAR), len(copies))
    for column in (plan.seeds, plan.sizes, plan.languages):
        column[copies] = column[originals]
    near = np.flatnonzero((kind >= EXACT) & (kind < EXACT + NEAR))
    plan.edits[near] = rng.uniform(*EDIT_RATES, len(near))
    return plan.rows(np.argsort(plan.sources, kind="stable"))


def make_lexicon(seed: int) -> Lexicon:
    vocabularies = [
        list(islice(ranked_words(LANGUAGES[code], seed), VOCABULARY if code == "en" else VOCABULARY // 3))
        for code in LANGUAGE_SHARES
    ]
    encoded = [word.encode() for words in vocabularies for word in words]
    lengths = np.array([len(word) for word in encoded])
    packed = (np.cumsum(lengths) - lengths << LENGTH_BITS | lengths).astype(np.int32)
    uniform = (np.arange(1 << TABLE_BITS) + 0.5) / (1 << TABLE_BITS)
    tables = []
    first = 0
    for words in vocabularies:
        weights = np.cumsum(1 / (np.arange(len(words)) + 2.7))
        tables.append(packed[first + np.searchsorted(weights / weights[-1], uniform)])
        first += len(words)
    marks = np.zeros((len(vocabularies), 3, 4), np.uint8)
    for row, code in enumerate(LANGUAGE_SHARES):
        space = LANGUAGES[code].space
        comma = {"zh": "，", "ar": "،"}.get(code, ",")  # noqa: RUF001
        for column, mark in enumerate((LANGUAGES[code].stop + space, comma + space, space)):
            marks[row, column, : len(mark.encode())] = list(mark.encode())
    return Lexicon(
        codes=tuple(LANGUAGE_SHARES),
        letters=np.frombuffer(b"".join(encoded) + bytes(BLOCK), np.uint8),
        tables=np.stack(tables),
        marks=marks,
    )


def ranked_words(language: Language, seed: int) -> Iterator[str]:
    """Distinct words, the most frequent first: grammar, the samples' word lists, then coined ones."""
    seen: set[str] = set()

    def new(word: str) -> bool:
        known = word in seen
        seen.add(word)
        return not known

    grammar = " ".join(re.sub(r"\{\w+\}", " ", template) for template in language.templates)
    yield from filter(new, re.findall(r"[^\W_]+", grammar))
    listed = sorted(
        (rank, word) for words in language.slots.values() for rank, word in enumerate(words) if " " not in word
    )
    yield from filter(new, (word for _, word in listed))
    draws = Draws(f"{seed} {language.code}")
    tables = (*language.syllables, *language.compounds)
    pieces = {part[:letters] for table in tables for part in table for letters in (2, 3)}
    short_first = sorted(pieces, key=lambda piece: (len(piece), piece))
    while True:
        # Frequent words are short ones.
        shortest = 1 + (len(seen) > 300)
        word = "".join(draws.zipf(short_first) for _ in range(draws.between(shortest, shortest + 1))).lower()
        if new(word):
            yield word


@njit(nogil=True, cache=True)
def _next(state):  # type: ignore[no-untyped-def]
    """One step of splitmix64: the new state and 64 random bits."""
    state += np.uint64(0x9E3779B97F4A7C15)
    bits = state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, bits ^ (bits >> np.uint64(31))


@njit(nogil=True, cache=True)
def _put_mark(out, at, mark):  # type: ignore[no-untyped-def]
    for byte in mark:
        if byte == 0:
            break
        out[at] = byte
        at += 1
    return at


@njit(nogil=True, cache=True)
def _write_documents(seeds, sizes, languages, edits, letters, tables, marks, out, offsets):  # type: ignore[no-untyped-def]
    """Write documents behind each other into `out`; every draw but an edit's comes from the document's own seed."""
    mask = np.uint64((1 << TABLE_BITS) - 1)
    phrase_limit = np.uint64(PHRASES * 256)
    at = np.int64(0)
    for document in range(len(seeds)):
        state = seeds[document]
        # The rate, a draw of its own, tells two copies of one document apart.
        _, edit_state = _next(seeds[document] ^ np.uint64(edits[document] * 2.0**60))
        edit_limit = np.uint64(edits[document] * 65536)
        table = tables[languages[document]]
        mark = marks[languages[document]]
        end = at + sizes[document]
        word = np.int32(0)
        left_in_sentence = np.int64(0)
        left_in_paragraph = np.int64(4)
        while at < end:
            begins = left_in_sentence == 0
            state, bits = _next(state)
            if begins:
                left_in_sentence = 6 + np.int64(bits >> np.uint64(60))
            if (bits >> np.uint64(20)) & np.uint64(255) < phrase_limit:
                # A phrase goes on: the word's own few successors, by a fixed hash.
                choice = (bits >> np.uint64(28)) % np.uint64(SUCCESSORS)
                _, successor = _next(np.uint64(word) * np.uint64(SUCCESSORS) + choice)
                word = table[successor & mask]
            else:
                word = table[bits & mask]
            shown = word
            if edit_limit > 0:
                edit_state, edit_bits = _next(edit_state)
                if edit_bits >> np.uint64(48) < edit_limit:
                    shown = table[edit_bits & mask]
            first = at
            start = np.int64(shown >> LENGTH_BITS)
            length = np.int64(shown & ((1 << LENGTH_BITS) - 1))
            # Whole blocks, one vector move each; what is too much is overwritten by what follows.
            for block in range(0, length, BLOCK):
                for letter in range(BLOCK):
                    out[at + block + letter] = letters[start + block + letter]
            at += length
            if begins and 97 <= out[first] <= 122:
                out[first] -= 32
            left_in_sentence -= 1
            if left_in_sentence == 0 or at >= end:
                at = _put_mark(out, at, mark[0])
                left_in_paragraph -= 1
                if left_in_paragraph == 0 and at < end:
                    out[at] = 10
                    out[at + 1] = 10
                    at += 2
                    left_in_paragraph = 2 + np.int64((bits >> np.uint64(40)) & np.uint64(7))
            elif (bits >> np.uint64(32)) & np.uint64(31) == 0:
                at = _put_mark(out, at, mark[1])
            else:
                at = _put_mark(out, at, mark[2])
        offsets[document + 1] = at


def documents(plan: Plan, lexicon: Lexicon) -> pa.Array:
    """The texts of the planned documents."""
    # A document ends behind the word and the stop that reach its size.
    overshoot = (1 << LENGTH_BITS) + BLOCK
    out = np.empty(int(plan.sizes.sum()) + overshoot * len(plan.sizes), np.uint8)
    offsets = np.zeros(len(plan.sizes) + 1, np.int64)
    _write_documents(*plan[:4], lexicon.letters, lexicon.tables, lexicon.marks, out, offsets)
    return pa.LargeStringArray.from_buffers(len(plan.sizes), pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]]))


def parts(sizes: NDArray[np.int64], target: int) -> list[slice]:
    """Runs of documents of about `target` bytes each, all about alike."""
    total = np.cumsum(sizes)
    count = max(1, round(int(total[-1]) / target))
    cuts = np.searchsorted(total, total[-1] * np.arange(1, count) // count, side="right")
    bounds = sorted({0, *cuts.tolist(), len(sizes)})
    return [slice(start, end) for start, end in pairwise(bounds)]


def write_shard(path: Path, plan: Plan, lexicon: Lexicon, first: int) -> int:
    """Write one shard, a row group at a time; returns the bytes of its text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("language", pa.string())])
    is_parquet = path.suffix == ".parquet"
    with (
        pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=["language"])
        if is_parquet
        else zstandard.open(path, "wb", zstandard.ZstdCompressor(level=1)) as writer
    ):
        for part in parts(plan.sizes, ROW_GROUP_BYTES):
            group = plan.rows(part)
            text = documents(group, lexicon)
            numbers = pa.array(range(first + part.start, first + part.stop)).cast(pa.string())
            ids = pc.binary_join_element_wise(path.parent.name, numbers, "-")
            language = pa.DictionaryArray.from_arrays(group.languages, list(lexicon.codes)).cast(pa.string())
            table = pa.table([ids, text, language], schema=schema)
            written += text.nbytes - 8 * (len(text) + 1)
            if is_parquet:
                writer.write_table(table, row_group_size=len(table))
            else:
                lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
                writer.write(("\n".join(lines) + "\n").encode())
    return written


def write_corpus(out: Path, megabytes: float, mean_kb: float, seed: int, threads: int) -> int:
    """Write all shards; returns the bytes of their text."""
    plan = plan_documents(megabytes, mean_kb, seed)
    lexicon = make_lexicon(seed)
    jobs = []
    for number, source in enumerate(SHARES):
        own = plan.rows(np.flatnonzero(plan.sources == number))
        suffix = "jsonl.zst" if source == "synthetic" else "parquet"
        for shard, part in enumerate(parts(own.sizes, SHARD_BYTES)):
            path = out / "shards" / source / f"{source}-{shard:05d}.{suffix}"
            jobs.append((path, own.rows(part), lexicon, part.start))
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda job: write_shard(*job), jobs))


def attest_human(out: Path) -> None:
    from pipeline.attest import attest, write_keypair

    for folder in ("keys", "custody"):
        (out / folder).mkdir(exist_ok=True)
    key, _ = write_keypair(out / "keys" / "bench")
    attest(
        sorted((out / "shards" / "human").glob("*.parquet")),
        key,
        "controlled_collection",
        out / "custody" / "human.dsse.json",
        source="human",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a folder that does not exist yet, or is empty")
    parser.add_argument("--megabytes", type=float, default=200, help="of text, all sources together")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--documents-kb", type=float, default=4, help="mean size of a document; the median is 0.6 of it"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        parser.error(f"{out} is not empty; name another folder, or remove it first")
    started = time.perf_counter()
    size = write_corpus(out, arguments.megabytes, arguments.documents_kb, arguments.seed, arguments.threads)
    seconds = time.perf_counter() - started
    print(f"{size / 1e6:,.0f} MB of text in {seconds:.1f} s ({size / 1e6 / seconds:.0f} MB/s)")
    attest_human(out)
    (out / "bench.yaml").write_text(CONFIG.format(seed=arguments.seed))
    print(f"signed after {time.perf_counter() - started:.1f} s; now: anchormix run {out / 'bench.yaml'}")


if __name__ == "__main__":
    main()
