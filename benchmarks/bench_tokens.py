"""How fast tokens are counted: by words, and by a tokenizer, on one core and with all of them.

python benchmarks/bench_tokens.py FILE.parquet ...                            a tokenizer is trained on the text itself
python benchmarks/bench_tokens.py FILE.parquet ... --tokenizer tokenizer.json
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transforms.kernels.text import count_words
from transforms.kernels.tokens import TokenizerFile, token_counter

BATCH_ROWS = 4096
REPEATS = 3
_ONE_CORE = "RAYON_NUM_THREADS"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--vocabulary", type=int, default=32_000, help="of the tokenizer that is trained")
    given = parser.parse_args()
    table = pa.concat_tables(pq.read_table(path, columns=[given.column]) for path in given.files)
    text = table[given.column].drop_null().cast(pa.large_string()).combine_chunks()
    content = given.tokenizer.read_bytes() if given.tokenizer else train(text, given.vocabulary)
    size = text.nbytes / 1e6
    if _ONE_CORE not in os.environ:
        print(f"{len(text):,} documents, {size:.1f} MB; best of {REPEATS}")
        report("words", count_words, text, size)
        report(f"tokenizer, {os.cpu_count()} cores", token_counter(TokenizerFile.of("bench", content)), text, size)
        # The library reads the number of its threads once, so one core needs a process of its own.
        subprocess.run([sys.executable, *sys.argv], env={**os.environ, _ONE_CORE: "1"}, check=True)
    else:
        report("tokenizer, 1 core", token_counter(TokenizerFile.of("bench", content)), text, size)


def train(text: pa.Array, vocabulary: int) -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # type: ignore[import-not-found,unused-ignore]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(text.slice(0, 3000).to_pylist(), trainer)
    return str(tokenizer.to_str()).encode()


def report(name: str, count: object, text: pa.Array, size: float) -> None:
    assert callable(count)
    times, tokens = [], 0
    for _ in range(REPEATS):
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        tokens = sum(int(count(text.slice(at, BATCH_ROWS)).sum()) for at in range(0, len(text), BATCH_ROWS))
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((time.perf_counter() - started, cpu))
    wall, cpu = (min(column) for column in zip(*times, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:22} {tokens:12,} tokens {size / wall:8.1f} MB/s {size / cpu:8.1f} MB per CPU s, peak {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
