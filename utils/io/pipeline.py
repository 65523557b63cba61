"""Work in threads beside the network's: reading ahead of it or between its calls, and writing behind it."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")
_POLL = 0.1  # seconds between looks at whether anyone still wants the items


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yield the items in order, while a thread gets up to `depth` of them ahead.

    What goes wrong in getting an item is raised where it would have come. The thread ends when the generator is closed,
    or collected after a consumer that stopped early.
    """
    ready: queue.Queue[list[Item] | BaseException] = queue.Queue(depth)  # one item; none: the end; or what went wrong
    stopped = threading.Event()

    def put(entry: list[Item] | BaseException) -> None:
        while not stopped.is_set():
            try:
                return ready.put(entry, timeout=_POLL)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put([item])
                if stopped.is_set():
                    return
            put([])
        except BaseException as error:  # whatever it is, it belongs to the consumer
            put(error)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            entry = ready.get()
            if isinstance(entry, BaseException):
                raise entry
            if not entry:
                return
            yield entry.pop()
    finally:
        stopped.set()
        thread.join()


def in_rounds(load: Callable[[Key], Item], keys: Sequence[Key], *, threads: int) -> Generator[Item, None, None]:
    """Yield `load(key)` for every key, in order; so many at a time are loaded, side by side, while the consumer waits.

    For a consumer whose own threads use every core: they share their work in equal parts, so that one thread which
    loses its core to a loader holds up all others. Nothing is loaded while the consumer works.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        for start in range(0, len(keys), threads):
            yield from list(pool.map(load, keys[start : start + threads]))


class WriteBehind:
    """Do small jobs (encoding, writing, counting) in threads while the caller goes on; a context manager.

    At most `depth` jobs wait or run: `submit` then waits, so memory does not grow. The first error of a job is raised
    by the next `submit`, or when the context ends, which waits for all jobs. If the context ends by an error, jobs
    that were not begun are left out.
    """

    def __init__(self, *, threads: int = 2, depth: int = 8) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._free = threading.Semaphore(depth)
        self._error: BaseException | None = None

    def submit(self, job: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Have `job(*args, **kwargs)` done soon; raises what went wrong in an earlier job."""
        self._free.acquire()
        if self._error is not None:
            self._free.release()
            raise self._error
        self._pool.submit(job, *args, **kwargs).add_done_callback(self._done)

    def _done(self, future: Future) -> None:
        if not future.cancelled() and self._error is None:
            self._error = future.exception()
        self._free.release()

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None and self._error is not None:
            raise self._error
