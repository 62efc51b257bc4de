"""The pool inside a worker: same outputs as one thread, failures that surface, no element lost in between."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from pipeline.submit import LOCAL_RUNNER
from transforms import pool
from transforms.pool import PooledDoFn


@pytest.fixture
def four_threads() -> Iterator[None]:
    pool.use_threads(4)
    yield
    pool.use_threads(1)


class Multiples(PooledDoFn):
    """Every element several times, and one tagged output."""

    def work(self, element: int) -> Iterator[Any]:
        for times in range(element % 7):
            yield element * times
        yield beam.pvalue.TaggedOutput("seen", element)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_all_outputs_arrive_plain_and_tagged(threads: int) -> None:
    pool.use_threads(threads)
    try:
        with beam.Pipeline(options=PipelineOptions([f"--runner={LOCAL_RUNNER}"])) as pipeline:
            out = (
                pipeline
                | beam.Create(range(200), reshuffle=False)
                | beam.ParDo(Multiples()).with_outputs("seen", main="out")
            )
            wanted = [element * times for element in range(200) for times in range(element % 7)]
            assert_that(out.out, equal_to(wanted), label="out")
            assert_that(out.seen, equal_to(list(range(200))), label="seen")
    finally:
        pool.use_threads(1)


class Together(PooledDoFn):
    """Ends only if another element is worked on at the same time."""

    meeting = threading.Barrier(2)

    def work(self, element: int) -> Iterator[int]:
        self.meeting.wait(timeout=20)
        yield element


@pytest.mark.usefixtures("four_threads")
def test_elements_are_worked_on_side_by_side() -> None:
    dofn = Together()
    assert sorted([*dofn.process(1), *dofn.process(2), *(out.value for out in dofn.finish_bundle())]) == [1, 2]


class Broken(PooledDoFn):
    def work(self, element: int) -> Iterator[int]:
        yield from range(1000)  # far more than the pool holds ready
        if element == 3:
            raise ValueError("element 3")


def run_bundle(dofn: PooledDoFn, elements: Iterable[int]) -> None:
    for element in elements:
        list(dofn.process(element))
    list(dofn.finish_bundle())


@pytest.mark.usefixtures("four_threads")
def test_a_failure_is_raised_in_the_bundle_and_leaves_no_thread() -> None:
    dofn = Broken()
    with pytest.raises(ValueError, match="element 3"):
        run_bundle(dofn, range(10))
    assert_no_workers_left()


@pytest.mark.usefixtures("four_threads")
def test_an_abandoned_bundle_leaves_no_thread() -> None:
    dofn = Broken()
    for element in range(4, 8):
        list(dofn.process(element))
    outputs = dofn.process(8)
    assert next(outputs) >= 0
    outputs.close()  # as when whoever takes the outputs fails
    assert_no_workers_left()


def assert_no_workers_left() -> None:
    give_up = time.monotonic() + 20
    while any(thread.name.startswith("anchormix-work") for thread in threading.enumerate()):
        assert time.monotonic() < give_up, "threads of the pool are still there"
        time.sleep(0.05)


@pytest.mark.parametrize("folder", [True, False])
def test_long_lists_of_tasks_stay_out_of_the_graph(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_MOST_IN_GRAPH", 2000)
    rng = random.Random(4)
    tasks = [rng.randbytes(number % 197) for number in range(1500)]
    size = sum(map(len, tasks))
    pool.use_threads(1)
    pool.keep_tasks(str(tmp_path) if folder else None)
    try:
        pipeline = beam.Pipeline(options=PipelineOptions([f"--runner={LOCAL_RUNNER}"]))
        out = pipeline | pool.Tasks(tasks)
        graph = len(pipeline.to_runner_api().SerializeToString())
        assert graph < size / 2 if folder else graph > size
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) == (size + 4 * len(tasks) if folder else 0)
        assert_that(out, equal_to(tasks))
        pipeline.run().wait_until_finish()
        before = list(tmp_path.iterdir())
        _ = beam.Pipeline() | pool.Tasks(tasks[:20])
        assert list(tmp_path.iterdir()) == before, "a short list is a part of the graph"
    finally:
        pool.keep_tasks(None)
