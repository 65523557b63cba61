import pytest

from utils.inference import stopwatch
from utils.inference.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes by what is appended to it."""
    times = [100.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: sum(times))
    return times


def test_times_of_each_work_add_up(clock):
    watch = Stopwatch()
    clock.append(7)  # before the first work: not counted
    for seconds in (1, 2):
        with watch.measuring("network"):
            clock.append(seconds)
        clock.append(0.5)
    with pytest.raises(ValueError, match="x"), watch.measuring("write"):
        clock.append(4)
        raise ValueError("x")
    assert watch.seconds == {"network": 3, "write": 4}
    told = "network 750.0 ms, write 1000.0 ms per frame, side by side; 0.50 frames/s overall"
    assert watch.describe(4, "frame") == told


def test_items_are_timed_while_they_come_only(clock):
    def slow():
        for number in range(3):
            clock.append(2)
            yield number

    watch = Stopwatch()
    for _ in watch.each("decode", slow()):
        clock.append(10)
    assert watch.seconds == {"decode": 6}
