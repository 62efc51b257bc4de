"""Several elements of a DoFn at a time, on threads of one worker.

Kernels release the GIL, so threads are all that a machine's cores need. Beam's own local threads are workers with a
gRPC connection each, which get a fixed share of the elements and pass every result through the connection; a pool
inside the worker hands the next element to whichever thread is free and passes results by reference.
"""

from __future__ import annotations

import json
import queue
import struct
import sys
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms import files
from transforms.batches import chunks_of_bytes

_SWITCH_SECONDS = 0.0005
"""For how long a thread may keep the interpreter from others. One that comes out of a kernel waits so long for one that
goes into none; a tenth of the default saves three hundredths of a small run."""

_threads = 1
_one_worker = False


def use_threads(threads: int, one_worker: bool = False) -> None:
    """How many elements each `PooledDoFn` of this process works on at a time; one until told otherwise.

    An engine runs bundles side by side by itself, so this is for the local runner alone, which may also have all of
    its work done by `one_worker`.
    """
    global _threads, _one_worker
    _threads, _one_worker = threads, one_worker
    if threads > 1:
        sys.setswitchinterval(_SWITCH_SECONDS)


_MOST_IN_GRAPH = 1 << 20  # bytes of one list of tasks; engines take graphs of some megabytes
_folder: str | None = None


def keep_tasks(folder: str | None) -> None:
    """Where long lists of tasks are written, for workers to read: a folder that driver and workers reach, if any."""
    global _folder
    _folder = folder


class Tasks(beam.PTransform):
    """Elements spread over workers, in the order given as far as there is one: callers put the largest first.

    What a pipeline begins with is a part of its graph, and engines refuse large graphs: a list of more than a few
    thousand tasks is put in a file instead.
    """

    def __init__(self, tasks: Iterable[bytes]) -> None:
        self._tasks = list(tasks)

    def expand(self, begin: Any) -> Any:
        if _one_worker:  # it gets them all anyway, in this process, and a stage less is time saved
            return begin | "Create" >> beam.Create(self._tasks, reshuffle=False)
        if _folder is None or sum(map(len, self._tasks)) <= _MOST_IN_GRAPH:
            tasks = begin | "Create" >> beam.Create(self._tasks, reshuffle=False)
        else:
            parts = begin | "Parts" >> beam.Create(_stored(self._tasks, _folder), reshuffle=False)
            tasks = parts | "Create" >> beam.ParDo(_ReadTasks()).with_output_types(bytes)
        return tasks | "Spread" >> beam.Reshuffle()


def _stored(tasks: list[bytes], folder: str) -> list[bytes]:
    """Tasks in a file, told by where parts of it begin and end: `_MOST_IN_GRAPH` bytes each, or one task."""
    path = files.join(folder, f"tasks-{uuid.uuid4().hex}")
    framed = [struct.pack("<I", len(task)) + task for task in tasks]
    ranges = chunks_of_bytes(np.array([len(task) for task in framed], np.int64), _MOST_IN_GRAPH)
    offsets = np.concatenate([[0], np.cumsum([len(task) for task in framed])]).tolist()
    files.write_bytes(path, b"".join(framed))
    return [json.dumps([path, offsets[first], offsets[last]]).encode() for first, last in ranges]


class _ReadTasks(beam.DoFn):
    def process(self, element: bytes) -> Iterator[bytes]:
        path, start, end = json.loads(element)
        with files.open_input(path) as source:
            source.seek(start)
            data = source.read(end - start)
        offset = 0
        while offset < len(data):
            (length,) = struct.unpack_from("<I", data, offset)
            yield bytes(data[offset + 4 : offset + 4 + length])
            offset += 4 + length


class PooledDoFn(beam.DoFn):
    """A DoFn whose `work` turns one element into outputs, in any thread and any order.

    Outputs leave in the order in which they are made, which differs from run to run: whoever receives them must not
    depend on it (packets carry their order, reports are sorted). State of the instance that `work` changes needs a
    lock.
    """

    _crew: _Crew | None = None

    def work(self, element: Any) -> Iterable[Any]:
        raise NotImplementedError

    def process(self, element: Any) -> Iterator[Any]:
        if _threads == 1:
            yield from self.work(element)
            return
        if self._crew is None:
            self._crew = _Crew(_threads)
        if isinstance(element, tuple) and not isinstance(element[1], bytes):
            # A group: the runner's iterable is read here, never in two threads.
            element = (element[0], list(element[1]))
        yield from self._crew.outputs(self._crew.start(self.work, element))

    def finish_bundle(self) -> Iterator[Any]:
        crew, self._crew = self._crew, None
        if crew is None:
            return
        window = GlobalWindow()
        for output in crew.outputs(0):
            if isinstance(output, beam.pvalue.TaggedOutput):
                windowed = WindowedValue(output.value, window.max_timestamp(), [window])
                yield beam.pvalue.TaggedOutput(output.tag, windowed)
            else:
                yield WindowedValue(output, window.max_timestamp(), [window])
        crew.dismiss()


class _Crew:
    """The threads of one DoFn in one bundle, and the outputs that they have ready.

    Every DoFn has threads of its own: in shared ones, the elements of a DoFn could wait for those of another that
    wait for room to hand on to the first.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "anchormix-work")
        self._ready: queue.Queue[tuple[bool, Any]] = queue.Queue(_MOST_READY)
        self._unfinished = 0
        self._dismissed = False

    def start(self, work: Any, element: Any) -> int:
        """Begin with an element; how many may be left unfinished before the next one should come."""
        self._unfinished += 1
        self._pool.submit(self._run, work, element)
        return self._threads  # one waits, so that no thread ever does

    def _run(self, work: Any, element: Any) -> None:
        failure: BaseException | None = None
        try:
            for output in work(element):
                self._hand_over((False, output))
        except BaseException as error:  # raised again where Beam sees it
            failure = error
        self._hand_over((True, failure))

    def _hand_over(self, item: tuple[bool, Any]) -> None:
        while not self._dismissed:
            try:
                self._ready.put(item, timeout=_LOOK_UP_SECONDS)
            except queue.Full:
                continue
            return

    def outputs(self, leave: int) -> Iterator[Any]:
        """Outputs as they come, until at most `leave` elements are unfinished."""
        try:
            while self._unfinished > leave:
                ended, output = self._ready.get()
                if not ended:
                    yield output
                    continue
                self._unfinished -= 1
                if output is not None:
                    raise output
        except BaseException:  # of an element, or of whoever takes the outputs
            self.dismiss()
            raise

    def dismiss(self) -> None:
        self._dismissed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


_MOST_READY = 4  # outputs that nobody took yet; they may be packets of many megabytes
_LOOK_UP_SECONDS = 1.0
