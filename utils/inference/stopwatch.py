"""Where the time of a run goes."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stopwatch:
    """Seconds spent on each of several kinds of work, which may go on at the same time in different threads.

    Attributes:
        seconds: so far, by the name of the work; each is measured by one thread only.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._started: float | None = None

    @contextmanager
    def measuring(self, work: str) -> Iterator[None]:
        """Count the time inside as spent on `work`."""
        started = time.perf_counter()
        self._started = self._started or started
        try:
            yield
        finally:
            self.seconds[work] += time.perf_counter() - started

    def each(self, work: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, counting the time that they take to come as spent on `work`."""
        iterator = iter(items)
        while True:
            with self.measuring(work):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def describe(self, count: int, unit: str) -> str:
        """Say how long each work took for one of `count` items, and how many came in a second of the whole run."""
        each = ", ".join(f"{work} {1000 * seconds / count:.1f} ms" for work, seconds in self.seconds.items())
        whole = time.perf_counter() - (self._started or 0)
        return f"{each} per {unit}, side by side; {count / whole:.2f} {unit}s/s overall"
