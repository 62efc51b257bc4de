"""Reading ahead: the next items are made in a thread of their own while the last ones are worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_DEPTH = 1  # items that are ready at most; each may be a row group
_LOOK_UP_SECONDS = 0.1


def read_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items in the same order, made in another thread; what making them raises is raised here.

    Worth its thread where making an item and using it both take compiled code that releases the GIL.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(_DEPTH)
    abandoned = threading.Event()

    def hand_over(item: tuple[Item] | BaseException | None) -> bool:
        while not abandoned.is_set():
            try:
                ready.put(item, timeout=_LOOK_UP_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not hand_over((item,)):
                    return
            hand_over(None)
        except BaseException as error:  # raised again where the items are used
            hand_over(error)

    thread = threading.Thread(target=make, name="anchormix-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:  # also where the user of the items gave up
        abandoned.set()
        thread.join()
