"""Clusters of any size: time and peak memory of removal over edges of known shapes, and of a template through it all.

    python benchmarks/bench_clusters.py                     # every case, at the sizes of the README
    python benchmarks/bench_clusters.py --scale 0.1         # a tenth of them

A chain, a star and random edges are removed without text, by one worker and in rounds. The template is an
`anchormix index` over Parquet pages that differ in a few words. Every case runs in a process of its own, so that peaks
are its own; removal of edges is measured with reading and writing them.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TEMPLATE, ONE, ROUNDS = "template", "one worker", "in rounds"
SIZES = {"chain": (100_000, 0), "star": (100_000, 0), "random": (1_000_000, 3_000_000), TEMPLATE: (50_000, 0)}
"""Documents and edges of the smaller size; the larger one is twice that."""
_WORDS, _CHANGES = 200, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes (default: 1)")
    parser.add_argument("--only", choices=sorted(SIZES), help="one shape")
    parser.add_argument("--case", nargs=4, metavar=("SHAPE", "DOCUMENTS", "EDGES", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        shape, documents, edges, way = arguments.case
        print(json.dumps(measured(shape, int(documents), int(edges), way)))
        return
    heads = f"{'documents':>10} {'edges':>11} {'removed':>10}  {'way':<11} rounds {'wall s':>7} {'CPU s':>7}"
    print(f"{'shape':<9} {heads} peak MB (growth)")
    for shape, (documents, edges) in SIZES.items():
        if arguments.only not in (None, shape):
            continue
        for factor in (arguments.scale, 2 * arguments.scale):
            for way in (ONE,) if shape == TEMPLATE else (ONE, ROUNDS):
                report(shape, int(documents * factor), int(edges * factor), way)


def report(shape: str, documents: int, edges: int, way: str) -> None:
    call = [sys.executable, __file__, "--case", shape, str(documents), str(edges), way]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(call)} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{shape:<9} {documents:>10,} {found['edges']:>11,} {found['removed']:>10,}  {way:<11} {found['rounds']:>6} "
        f"{found['wall']:>7.1f} {found['cpu']:>7.1f} {found['peak_mb']:,.0f} (+{found['grown_mb']:,.0f})",
        flush=True,
    )


def measured(shape: str, documents: int, edges: int, way: str) -> dict[str, float]:
    """One case in this process: seconds, peak of resident memory, and how far it grew beyond what was there before."""
    with tempfile.TemporaryDirectory(prefix="anchormix-clusters-") as name:
        folder = Path(name)
        if shape == TEMPLATE:
            write_template(folder, documents)
            run = _index
        else:
            run = _prepared(shape, documents, edges, way)
        before, started, used = _peak_mb(), time.perf_counter(), time.process_time()
        found = run(folder)
        found |= {"wall": time.perf_counter() - started, "cpu": time.process_time() - used}
    return found | {"peak_mb": _peak_mb(), "grown_mb": _peak_mb() - before}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _prepared(shape: str, documents: int, edges: int, way: str):  # type: ignore[no-untyped-def]
    import clusters

    left, right = clusters.edges_of(shape, documents, edges)
    case = clusters.ranked(left, right, documents, seed=1)
    tiny = clusters.ranked(*clusters.edges_of("chain", 10), 10, seed=1)

    def run(folder: Path) -> dict[str, float]:
        if way == ONE:
            return {"edges": len(left), "removed": len(clusters.by_one_worker(case, folder).gone), "rounds": 1}
        verdicts, removal = clusters.in_rounds(case, folder, max(8, len(left) // 200_000))
        assert removal.undecided == 0
        return {"edges": len(left), "removed": len(verdicts.gone), "rounds": removal.rounds}

    with tempfile.TemporaryDirectory() as name:  # compiles, or loads what is compiled, before the clock runs
        clusters.by_one_worker(tiny, Path(name) / "one")
        clusters.in_rounds(tiny, Path(name) / "rounds", 2)
    return run


def write_template(folder: Path, pages: int) -> None:
    """Pages of one template, each with two words of its own: any two have a Jaccard above .8."""
    import corpus
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(1)
    words = list(corpus.make_document(rng, _WORDS).words)
    texts = []
    for page in range(pages):
        mine = words.copy()
        for change in range(_CHANGES):
            mine[rng.randrange(5, _WORDS - 5)] = f"own{page}x{change}"
        texts.append(" ".join(mine))
    (folder / "pages").mkdir()
    pq.write_table(pa.table({"text": texts}), folder / "pages" / "pages.parquet", row_group_size=5_000)
    (folder / "mix.yaml").write_text(
        "version: 1\noutput: out/mix\nindex: out/index\nsources: [{name: pages, files: ['pages/*.parquet']}]\n"
        "dedup: {wipe_out: 1}\nmix: {floors: {human_verified: 0}}\n"
    )


def _index(folder: Path) -> dict[str, float]:
    from click.testing import CliRunner

    from pipeline.cli import main as command

    result = CliRunner().invoke(command, ["index", str(folder / "mix.yaml"), "--json", "--quiet"])
    if result.exit_code:
        sys.exit(result.stderr)
    told = json.loads(result.stdout)
    assert told["removal"]["undecided"] == 0
    left = told["survival"]["by_source"]["pages"]["after_near"]["documents"]
    return {
        "edges": told["removal"]["edges"],
        "removed": told["totals"]["documents"] - left,
        "rounds": told["removal"]["rounds"],
    }


if __name__ == "__main__":
    main()
