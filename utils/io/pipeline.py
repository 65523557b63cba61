"""Pipelines of threads, which overlap reading and writing with the network, and timing of their stages."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yield the items in order while a thread fetches up to `depth` of them ahead.

    An error while fetching is raised in place of its item. The thread ends when the generator is closed or collected.
    """
    end = object()
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        ahead = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(next, iterator, end))
            yield item  # type: ignore[misc]  # not the sentinel
    finally:
        pool.shutdown(cancel_futures=True)


def in_rounds(load: Callable[[Key], Item], keys: Sequence[Key], *, threads: int) -> Generator[Item, None, None]:
    """Yield `load(key)` for every key in order, loading `threads` of them in parallel while the consumer waits.

    For a consumer whose own threads occupy every core: those split each operation evenly, so a loader that takes one
    core away stalls them all. Nothing is loaded while the consumer works.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        for start in range(0, len(keys), threads):
            yield from list(pool.map(load, keys[start : start + threads]))


class WriteBehind:
    """Context manager that runs small jobs (encoding, writing, counting) in threads while the caller goes on.

    At most `depth` jobs are pending; beyond that `submit` blocks, which bounds memory. A job's error is raised by a
    later `submit` or at the end of the context, which waits for all jobs. If the context ends with an error, jobs that
    have not started are dropped.
    """

    def __init__(self, *, threads: int = 2, depth: int = 8) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._depth = depth
        self._pending: deque[Future] = deque()

    def submit(self, job: Callable[..., object], *args: Any) -> None:
        """Schedule `job(*args)`."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= self._depth):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(job, *args))

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            while self._pending and error is None:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


class Stopwatch:
    """Accumulates the seconds spent in each stage; stages may run concurrently, each in one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measuring(self, stage: str) -> Iterator[None]:
        """Count the time spent in the context."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, counting the time spent to produce them."""
        iterator, end = iter(items), object()
        while True:
            with self.measuring(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # not the sentinel

    def describe(self, count: int) -> str:
        """Format the mean milliseconds of each stage for `count` images."""
        return ", ".join(f"{stage} {1000 * seconds / count:.1f} ms" for stage, seconds in self.seconds.items())
