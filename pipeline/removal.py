"""Which way duplicates are removed, by the number of edges; and the rounds, repeated until everything is decided."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import AnchormixError
from pipeline.submit import Runner
from transforms import files
from transforms.batches import DedupTask
from transforms.exchange import gathered
from transforms.removal import EdgeFiles
from transforms.tagging import FateRules

if TYPE_CHECKING:
    from transforms.rounds import RoundsTask

_EDGES_PER_PARTITION = 2_000_000
"""Some 100 MB for a worker that turns or follows them."""


@dataclass(frozen=True)
class Duplicates:
    """What removal starts from."""

    files: EdgeFiles
    edges: int  # rows of all files
    earlier: Sequence[DedupTask]  # splits of earlier indexes


@dataclass(frozen=True)
class Removal:
    """How verdicts reach the splits, and how they came about."""

    transform: Any
    edges: int
    rounds: int  # until everything was decided
    undecided: int  # texts; 0, or the removal is not one

    def report(self) -> dict[str, int]:
        return {"edges": self.edges, "rounds": self.rounds, "undecided": self.undecided}


def by_one_worker(rules: FateRules, duplicates: Duplicates, scratch: str | None) -> Removal:
    """The walk along the rank decides every text it passes, so nothing can stay undecided."""
    from transforms.removal import RemoveDuplicates

    transform = RemoveDuplicates(rules, duplicates.files, duplicates.earlier, scratch)
    return Removal(transform, duplicates.edges, rounds=1, undecided=0)


class Rounds:
    """Removal by partitions that decide in rounds, in as many pipelines as it takes.

    Args:
        folder: for what passes from one pipeline to the next.
        partitions: of the texts; more edges make more, so that a worker's share stays the same.
        most_edges: what one worker takes. Once no more is left, it decides all of it in one round: a chain made on
            purpose could cost a round per document otherwise.
    """

    def __init__(self, runner: Runner, folder: str, partitions: int, most_edges: int) -> None:
        self._runner = runner
        self._folder = folder
        self._scratch = runner.scratch(files.join(folder, "run"))
        self._partitions = partitions
        self._most_edges = most_edges
        self._files: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._decided_by_one: list[str] = []
        self._undecided = self._live = self._rounds = 0

    def remove(self, tasks: Sequence[bytes], rules: FateRules, duplicates: Duplicates) -> Removal:
        from transforms.rounds import ROUNDS, GiveVerdicts

        self._partitions = max(self._partitions, duplicates.edges // _EDGES_PER_PARTITION)
        files.make_folder(self._folder)
        self._prepare(tasks, rules, duplicates)
        texts, first_round = self._undecided, 1
        while self._undecided:
            before = self._undecided
            self._advance(first_round)
            first_round += ROUNDS
            self._runner.progress.say(
                f"removal: undecided = {self._undecided:,} of {texts:,} texts after {self._rounds:,} rounds"
            )
            if self._undecided == before:  # the best-ranked of any texts can be decided, so this cannot be
                raise AnchormixError(
                    "removal_stands_still",
                    f"fates: {before:,} of {texts:,} texts are undecided, and {ROUNDS} rounds decided none of them. "
                    "Nothing was published. This is a defect of anchormix: please report it. With "
                    f"ANCHORMIX_REMOVAL_EDGES={duplicates.edges} one worker removes instead, if its memory suffices.",
                    undecided=before,
                    texts=texts,
                )
        transform = GiveVerdicts(self._tasks(), self._partitions, self._scratch)
        return Removal(transform, duplicates.edges, self._rounds, self._undecided)

    def _prepare(self, tasks: Sequence[bytes], rules: FateRules, duplicates: Duplicates) -> None:
        from pipeline import graphs
        from transforms.rounds import PrepareRounds

        report = files.join(self._folder, "prepared.report")
        transform = PrepareRounds(
            rules, duplicates.files, duplicates.earlier, self._partitions, self._folder, report, self._scratch
        )
        self._runner.run("rank", 0, graphs.ranks(tasks, transform))
        self._take(report)

    def _advance(self, first_round: int) -> None:
        from pipeline import graphs
        from transforms.rounds import AdvanceRounds, RoundsTask

        by_one = self._live <= self._most_edges
        if by_one:
            links, state = (tuple(self._all(kind)) for kind in ("links", "state"))
            tasks = [RoundsTask(0, links=links, state=state)]
        else:
            tasks = [task for task in self._tasks() if task.state]
        report = files.join(self._folder, f"rounds-{first_round}.report")
        partitions = 1 if by_one else self._partitions
        transform = AdvanceRounds(partitions, first_round, self._folder, report, self._scratch)
        self._runner.run("rounds", 0, graphs.rounds([task.to_bytes() for task in tasks], transform))
        decided = self._files["decided"]
        if by_one:  # its files name texts of all partitions
            self._files["decided"] = defaultdict(list)
        self._take(report)
        if by_one:
            self._decided_by_one += self._all("decided")
            self._files["decided"] = decided

    def _take(self, report: str) -> None:
        """Note what a pipeline wrote; its states stand in place of those before."""
        self._files["state"].clear()
        self._undecided = self._live = 0
        for part in sorted(map(json.loads, gathered(report)), key=lambda part: (part["kind"], part["partition"])):
            self._files[part["kind"]][part["partition"]].append(files.join(self._folder, part["file"]))
            if part["kind"] == "state":
                self._undecided += part["rows"]
                self._live += part["live"]
            self._rounds = max(self._rounds, part.get("last_round", 0))

    def _tasks(self) -> list[RoundsTask]:
        from transforms.rounds import RoundsTask

        return [
            RoundsTask(
                number,
                **{kind: tuple(self._files[kind].get(number, ())) for kind in ("texts", "links", "state")},
                decided=(*self._files["decided"].get(number, ()), *self._decided_by_one),
            )
            for number in sorted(self._files["texts"])
        ]

    def _all(self, kind: str) -> list[str]:
        return [path for _, paths in sorted(self._files[kind].items()) for path in paths]
