"""Throughput of the text, hashing and MinHash kernels on one core, in MB of UTF-8 text a second.

python benchmarks/bench_kernels.py                      generated text in eight scripts, decomposed, and mixed
python benchmarks/bench_kernels.py FILE_OR_FOLDER ...   Parquet files (column `text`, or --column) and plain text
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transforms.kernels import hashing, minhash, text
from transforms.kernels.artefacts import artefact_bits

BATCH_BYTES = 8 << 20  # what a batch of the pipeline holds at most
REPEATS = 7

ALPHABETS = {
    "ascii": "etaoinshrdlucmfwypvbgkqjxz",
    "german": "enisratdhulcgmobwfkzüvpäßjöyqx",
    "cyrillic": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэф",
    "arabic": "ايلنمورتبةعدسفهكقأحجشصطخ",
    "hindi": "कारेनहसीिततमलपोयदवजगबशुचअ",
    "korean": "".join(map(chr, range(0xAC00, 0xD7A3, 29))),
    "chinese": "".join(map(chr, range(0x4E00, 0x9FA5, 17))),
    "thai": "".join(map(chr, [*range(0x0E01, 0x0E3B), *range(0x0E40, 0x0E4F)])),
}
UNSPACED = {"chinese", "thai"}


def generate(script: str, rng: random.Random) -> pa.Array:
    """Documents of 200 to 800 words from a vocabulary of which few words are frequent, as in natural text."""
    letters = ALPHABETS[script]
    weights = [1 / (rank + 3) for rank in range(len(letters))]
    lengths = [max(1, round(rng.gauss(5, 2.5))) for _ in range(20_000)]
    vocabulary = ["".join(rng.choices(letters, weights, k=length)) for length in lengths]
    frequencies = [1 / (rank + 2) for rank in range(len(vocabulary))]
    gap = "" if script in UNSPACED else " "
    documents = [
        gap.join(rng.choices(vocabulary, frequencies, k=rng.randint(200, 800))).capitalize() + "." for _ in range(400)
    ]
    return pa.array(documents, pa.large_string())


def generated() -> Iterator[tuple[str, pa.Array]]:
    rng = random.Random(7)
    scripts = {script: generate(script, rng) for script in ALPHABETS}
    yield from scripts.items()
    decomposed = [unicodedata.normalize("NFD", document.as_py()) for document in scripts["german"]]
    yield "decomposed", pa.array(decomposed, pa.large_string())
    mixed = pa.concat_arrays(scripts.values())
    order = list(range(len(mixed)))
    rng.shuffle(order)
    yield "mixed", mixed.take(pa.array(order))


def read(path: Path, column: str) -> pa.Array:
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=[column]).column(0).cast(pa.large_string()).combine_chunks()
    return pa.array([path.read_text(encoding="utf-8", errors="replace")], pa.large_string())


def given(paths: list[Path], column: str) -> Iterator[tuple[str, pa.Array]]:
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        arrays = [read(file, column) for file in files]
        chunks = [chunk for array in arrays for chunk in getattr(array, "chunks", [array])]
        if chunks:
            yield path.name, pa.concat_arrays(chunks)


def one_batch(documents: pa.Array) -> pa.Array:
    """As many documents as a batch holds, repeated where there are fewer."""
    total = pc.sum(pc.binary_length(documents)).as_py()
    if not total:
        sys.exit("no text to measure: the documents given are all empty")
    repeated = pa.concat_arrays([documents] * (BATCH_BYTES // total + 1))
    fitting = pc.less_equal(pc.cumulative_sum(pc.fill_null(pc.binary_length(repeated), 0)), BATCH_BYTES)
    return repeated.slice(0, max(1, pc.sum(fitting).as_py()))


def seconds(kernel: Callable[[], object]) -> float:
    """The best of several runs, after one that compiles."""
    kernel()
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        kernel()
        best = min(best, time.perf_counter() - started)
    return best


def measure(documents: pa.Array) -> dict[str, float]:
    params = minhash.MinHashParams()
    binary = documents.cast(pa.large_binary())
    words = text.split_words(documents)
    shingles = minhash.shingle_hashes(words, params.shingle)
    sketches, _ = minhash.signatures(words, params)
    bands = minhash.choose_bands(0.8, params.permutations)
    digests = hashing.text_digests(documents)
    kernels: dict[str, Callable[[], object]] = {
        "valid_utf8": lambda: text.valid_utf8(binary),
        "blank": lambda: text.blank(documents),
        "split_words": lambda: text.split_words(documents),
        "artefact_bits": lambda: artefact_bits(documents),
        "text_digests": lambda: hashing.text_digests(documents),
        "draws": lambda: hashing.draws(digests, 7),
        "signatures": lambda: minhash.signatures(words, params),
        "band_hashes": lambda: minhash.band_hashes(sketches, bands),
        "shingle_hashes": lambda: minhash.shingle_hashes(words, params.shingle),
        "sorted_sets": lambda: minhash.sorted_sets(shingles),
    }
    megabytes = pc.sum(pc.binary_length(documents)).as_py() / 1e6
    return {name: megabytes / seconds(kernel) for name, kernel in kernels.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--column", default="text", help="the Parquet column that holds the text")
    arguments = parser.parse_args()
    corpora = given(arguments.paths, arguments.column) if arguments.paths else generated()
    for number, (name, documents) in enumerate(corpora):
        results = measure(one_batch(documents))
        if number == 0:
            print(f"{'MB/s':20}", *(f"{kernel:>14}" for kernel in results))
        print(f"{name[:20]:20}", *(f"{speed:14,.0f}" for speed in results.values()), flush=True)


if __name__ == "__main__":
    main()
