"""Quality of near-duplicate removal against brute force, and beside other tools on the same documents.

    python benchmarks/bench_quality.py                      generated documents only
    python benchmarks/bench_quality.py FILE.parquet ...     also each of these files, by their column `text`
    python benchmarks/bench_quality.py --peers              without other tools

The truth is the exact Jaccard similarity of all pairs of documents, and the plain greedy walk over them by rank. Two
goals are checked for every threshold, and the exit code is 1 if one is missed: no document is removed for a partner
below the threshold; and of the documents that the plain walk removes while it keeps one that is as like them as the
threshold plus .05 or more, 99% are removed.

Tools that keep another copy of a cluster than we do are not punished for it; peers/scores.py says how. Their words
differ from ours outside of plain English, and so do their similarities: the generated documents are words of a to z
with single spaces, which every tool splits alike, so there the comparison is of the algorithms alone. Rensa and
datasketch take any set and are given our shingles everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from peers.corpus import Corpus, texts_of
from peers.environments import CannotInstall
from peers.generated import Documents, Writer
from peers.measure import measure
from peers.scores import BIN, BINS, Score, adjusted_rand_index, binned, pairs_resolved, score
from peers.tools import PEERS, ROOT, Anchormix, Found, Job, Tool
from peers.truth import Truth, find_truth

sys.path.insert(0, str(ROOT))

from transforms.kernels.minhash import candidate_probability, choose_bands

MARGIN = Fraction(1, 20)
GOAL = Fraction(99, 100)
LIMIT = 900.0  # seconds for one run of one tool


@dataclass(frozen=True)
class Outcome:
    """What one tool did with one corpus at one threshold."""

    tool: Tool
    job: Job
    found: Found


# Documents


def read(path: Path, label_column: str) -> Documents:
    texts = [text for batch in texts_of(path, "text") for text in batch]
    labels = None
    if path.suffix == ".parquet" and label_column in pq.read_schema(path).names:
        rows = pq.read_table(path, columns=["text", label_column]).to_pylist()
        labels = [str(row[label_column]) for row in rows if (row["text"] or "").strip()]
    return Documents(path.stem, texts, labels)


def write_corpus(documents: Documents, truth: Truth, work: Path) -> tuple[Corpus, Path]:
    """One shard of one row group, so that results can be told by row; and beside it the same with shingles."""
    ids = pa.array(range(len(documents.texts))).cast(pa.string())
    table = pa.table({"id": ids, "text": pa.array(documents.texts, pa.string())})
    hashed = [
        [hashlib.blake2b(" ".join(shingle).encode(), digest_size=8).digest() for shingle in sorted(each)]
        for each in truth.sets
    ]
    for name, columns in (("corpus", table), ("shingles", table.append_column("shingles", pa.array(hashed)))):
        (work / name).mkdir()
        pq.write_table(columns, work / name / "00000.parquet", row_group_size=len(table), compression="zstd")
    size = sum(len(text.encode()) for text in documents.texts)
    return Corpus(work / "corpus", len(documents.texts), size), work / "shingles"


# Runs


class Failed(Exception):
    """Why a tool gave no result."""


def run(tool: Tool, job: Job) -> Outcome:
    print(f"  {tool.name} at {job.threshold} ...", file=sys.stderr, flush=True)
    command = tool.command(job)
    log = job.work / "log"
    usage = measure(
        command.words, log, folder=command.folder, limit=LIMIT, environment=command.environment
    )  # fmt: skip
    if usage.exit_code or usage.over_limit:
        why = f"took over {LIMIT:.0f} s" if usage.over_limit else f"failed with exit code {usage.exit_code}"
        told = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise Failed(f"{tool.name} {why}; the end of its output:\n{told}")
    return Outcome(tool, job, tool.found(job))


def outcomes(tools: list[Tool], corpus: Corpus, shingles: Path, threshold: Fraction, work: Path) -> Iterator[Outcome]:
    for tool in tools:
        folder = work / re.sub(r"\W+", "-", f"{tool.name} {threshold}")
        folder.mkdir()
        try:
            yield run(tool, Job(corpus, folder, float(threshold), clusters=True, shingles=shingles))
        except Failed as why:
            if isinstance(tool, Anchormix):
                raise SystemExit(str(why)) from why
            print(why, file=sys.stderr)
            row(tool.name, "failed")
        shutil.rmtree(folder)


# Our goals


def removals_below(outcome: Outcome, truth: Truth, threshold: Fraction) -> list[str]:
    """Removals whose witness is less alike than the threshold, is not kept, or is said to be as alike as it is not."""
    assert isinstance(outcome.tool, Anchormix)
    holders: dict[str, list[int]] = {}
    for place, text in enumerate(truth.texts):
        holders.setdefault(hashlib.sha256(text.encode()).hexdigest()[:32], []).append(place)
    wrong = []
    for row in outcome.tool.removals(outcome.job).to_pylist():
        document, witnesses = int(row["doc_id"]), holders[row["partner"]]
        similarity = truth.similarity(document, witnesses[0])
        is_kept = any(outcome.found.kept[witness] for witness in witnesses)
        if similarity < threshold or not is_kept or abs(float(similarity) - row["similarity"]) > 1e-6:
            wrong.append(f"document {document} for {row['partner']}: {similarity}, said to be {row['similarity']}")
    return wrong


def edges_found(outcome: Outcome, truth: Truth) -> list[tuple[int, int]]:
    """Per bin: pairs of different texts that became an edge of the index, and all such pairs."""
    assert isinstance(outcome.tool, Anchormix)
    first: dict[str, int] = {}
    for place, text in enumerate(truth.texts):
        first.setdefault(text, place)
    is_first = np.array([first[text] == place for place, text in enumerate(truth.texts)])
    left, right = outcome.tool.edges(outcome.job)
    edges = set(zip(np.minimum(left, right).tolist(), np.maximum(left, right).tolist(), strict=True))
    pairs = truth.pairs
    distinct = is_first[pairs.better] & is_first[pairs.worse]
    low, high = np.minimum(pairs.better, pairs.worse)[distinct], np.maximum(pairs.better, pairs.worse)[distinct]
    hit = np.array([pair in edges for pair in zip(low.tolist(), high.tolist(), strict=True)], np.bool_)
    return binned(pairs.similarity[distinct], hit)


@dataclass(frozen=True)
class Verdict:
    """Whether anchormix reaches its goals on one corpus at one threshold."""

    corpus: str
    threshold: Fraction
    below: int
    wanted: int  # documents that the plain walk removes for a partner MARGIN above the threshold or more
    removed: int  # of those

    @property
    def holds(self) -> bool:
        return not self.below and self.removed >= GOAL * self.wanted

    def __str__(self) -> str:
        share = f" ({self.removed / self.wanted:.2%})" if self.wanted else ""
        return (
            f"{'holds' if self.holds else 'MISSED'}: {self.below} removals below {float(self.threshold)}; of the "
            f"{self.wanted:,} documents to remove for a partner at {float(self.threshold + MARGIN):.2f} or above, "
            f"{self.removed:,} are removed{share}"
        )


def judge(corpus: str, outcome: Outcome, truth: Truth, threshold: Fraction) -> Verdict:
    kept, closest = truth.greedy(threshold)
    wanted = ~kept & (closest >= round(float(threshold + MARGIN), 12))
    below = removals_below(outcome, truth, threshold)
    for line in below[:5]:
        print(line, file=sys.stderr)
    return Verdict(corpus, threshold, len(below), int(wanted.sum()), int((wanted & ~outcome.found.kept).sum()))


# Tables


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells: object) -> None:
    row(*cells)
    row(*("---" for _ in cells))


def cell(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.4f}"


def summary_cell(score: Score | None) -> str:
    if score is None:
        return "failed"
    return " / ".join("-" if math.isnan(share) else f"{share:.3f}" for share in score[1:])


def shares(bins: list[tuple[int, int]]) -> list[str]:
    return [f"{hits / total:.3f}" if total else "" for hits, total in bins]


@dataclass(frozen=True)
class Comparison:
    """All tools on one corpus at one threshold."""

    verdict: Verdict
    scores: dict[str, Score]
    removed: list[str]
    """Per bin, the share that anchormix removes of the documents that the plain walk removes."""


def compare(documents: Documents, tools: list[Tool], thresholds: list[Fraction], ignored: str) -> list[Comparison]:
    truth = find_truth(documents.texts)
    sizes = f"{len(documents.texts):,} documents, {sum(map(len, documents.texts)) / 1e6:.1f} million characters"
    print(f"\n## {documents.name}: {sizes}, {len(truth.pairs.better):,} pairs at .3 or above\n")
    work = Path(tempfile.mkdtemp(prefix="anchormix-quality-"))
    try:
        corpus, shingles = write_corpus(documents, truth, work)
        return [
            compare_at(threshold, documents, truth, outcomes(tools, corpus, shingles, threshold, work), ignored)
            for threshold in thresholds
        ]
    finally:
        shutil.rmtree(work)


def compare_at(
    threshold: Fraction, documents: Documents, truth: Truth, found: Iterator[Outcome], ignored: str
) -> Comparison:
    judged = np.array([not re.search(ignored, label) for label in documents.labels or []], np.bool_)
    labels = np.unique(np.array(documents.labels or []), return_inverse=True)[1].astype(np.int64)

    def label_cells(cluster: npt.NDArray[np.int64]) -> list[str]:
        return [f"{adjusted_rand_index(cluster[judged], labels[judged]):.3f}"] if documents.labels else []

    kept, closest = truth.greedy(threshold)
    print(f"\n### threshold {float(threshold)}\n")
    head("tool", "removed", "precision", "recall", "ARI", *(["ARI to labels"] if documents.labels else []), "settings")
    row("plain walk over all pairs", f"{(~kept).sum():,}", "1", "1", "1", *label_cells(truth.clusters(threshold)), "")
    scores: dict[str, Score] = {}
    curves: list[tuple[str, list[str]]] = []
    for outcome in found:
        name = outcome.tool.name
        scores[name] = score(truth, outcome.found, threshold)
        row(
            name,
            f"{scores[name].removed:,}",
            *map(cell, scores[name][1:]),
            *label_cells(outcome.found.cluster),
            outcome.tool.settings(outcome.job),
        )
        if isinstance(outcome.tool, Anchormix):
            verdict = judge(documents.name, outcome, truth, threshold)
            removed = shares(binned(closest[~kept], ~outcome.found.kept[~kept]))
            bands = choose_bands(float(threshold), outcome.job.permutations)
            centres = np.minimum(BINS + BIN / 2, 1)
            curves += [
                ("pairs that share a band, expected", [f"{candidate_probability(bands, s):.3f}" for s in centres]),
                ("pairs verified, anchormix", shares(edges_found(outcome, truth))),
                ("documents removed, anchormix", removed),
            ]
        curves.append((f"pairs resolved, {name}", shares(pairs_resolved(truth, outcome.found))))
    print(f"\nanchormix {verdict}\n")
    head("share by similarity from", *(f"{low:.2f}" for low in BINS))
    totals = binned(truth.pairs.similarity, np.ones(len(truth.pairs.better), np.bool_))
    row("pairs in all", *(f"{total:,}" for _, total in totals))
    for name, cells in curves:
        row(name, *cells)
    return Comparison(verdict, scores, removed)


def summarise(comparisons: list[Comparison], tools: list[Tool]) -> None:
    """What the tables above say, on one screen."""
    print("\n## Summary: precision / recall / ARI\n")
    head("corpus", "threshold", *(tool.name for tool in tools))
    for each in comparisons:
        cells = [summary_cell(each.scores.get(tool.name)) for tool in tools]
        row(each.verdict.corpus, float(each.verdict.threshold), *cells)
    print("\n## Summary: share that anchormix removes, by similarity to the closest kept document\n")
    first = int(np.searchsorted(BINS, float(min(each.verdict.threshold for each in comparisons))))
    head("corpus", "threshold", *(f"{low:.2f}" for low in BINS[first:]))
    for each in comparisons:
        row(each.verdict.corpus, float(each.verdict.threshold), *each.removed[first:])
    print("\n## Goals of anchormix\n")
    for each in comparisons:
        print(f"- {each.verdict.corpus}: {each.verdict}")


def installed(names: list[str]) -> list[Tool]:
    tools: list[Tool] = [Anchormix()]
    for name in names:
        try:
            PEERS[name].install()
        except CannotInstall as error:
            print(f"{name} is not compared: {error}\n")
        else:
            tools.append(PEERS[name])
    return tools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="Parquet files, small enough to compare all pairs")
    parser.add_argument("--thresholds", nargs="+", type=Fraction, default=[Fraction(t, 10) for t in (5, 7, 8)])
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="default: all of them")
    parser.add_argument("--families", type=int, default=2500, help="generated originals; 0 leaves them out")
    parser.add_argument("--pages", type=int, default=1000, help="generated pages of a template, and under boilerplate")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--labels", default="cluster_id", help="column that says which documents belong together")
    parser.add_argument(
        "--ignore-labels", default="^license:", help="pattern of labels that are no truth; licence keys overlap"
    )
    arguments = parser.parse_args()
    tools = installed(arguments.peers)
    corpora = [read(path, arguments.labels) for path in arguments.files]
    writer = Writer(arguments.seed)
    corpora += [writer.families(arguments.families)] if arguments.families else []
    if arguments.pages:
        corpora += [writer.template_pages(arguments.pages), writer.boilerplate_pages(arguments.pages)]
    comparisons = [
        comparison
        for documents in corpora
        for comparison in compare(documents, tools, arguments.thresholds, arguments.ignore_labels)
    ]
    summarise(comparisons, tools)
    sys.exit(0 if all(comparison.verdict.holds for comparison in comparisons) else 1)


if __name__ == "__main__":
    main()
