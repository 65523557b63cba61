"""Steps of work that go on at the same time, each in a thread of its own."""

from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], *, depth: int = 2) -> Iterator[Item]:
    """Yield `items` in their order, made in a thread that runs at most `depth` of them ahead.

    Nested calls make a pipeline: `ahead(label(ahead(decode())))` decodes, labels, and leaves the caller free to write.
    What `items` raises is raised here. When the caller stops early, so does the thread, and `items` is closed.
    """
    waiting: Queue[tuple[bool, Any]] = Queue(depth)
    stopped = Event()
    thread = Thread(target=_work, args=(items, waiting, stopped), daemon=True)
    thread.start()
    try:
        while True:
            more, value = waiting.get()
            if more:
                yield value
            elif value is not None:
                raise value
            else:
                return
    finally:
        stopped.set()
        while thread.is_alive():
            _empty(waiting)  # so that a thread that waits for room goes on
            thread.join(0.01)


def _work(items: Iterable[Any], waiting: Queue, stopped: Event) -> None:
    """Put (True, item) for every item, then (False, what was raised or None)."""
    iterator = iter(items)
    error = None
    try:
        for item in iterator:
            waiting.put((True, item))
            if stopped.is_set():
                break
    except BaseException as raised:  # the caller's to handle
        error = raised
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
    waiting.put((False, error))


def _empty(waiting: Queue) -> None:
    while True:
        try:
            waiting.get_nowait()
        except Empty:
            return
