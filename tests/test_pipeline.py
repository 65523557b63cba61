import threading
import time

import pytest

from utils.io import pipeline
from utils.io.pipeline import Stopwatch, WriteBehind, in_rounds, prefetch


def wait_until(happened):
    """Wait for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_prefetch_keeps_the_order():
    assert list(prefetch(range(50), 3)) == list(range(50))
    assert list(prefetch([])) == []


def test_prefetch_is_bounded_by_its_depth():
    fetched = []

    def items():
        for number in range(20):
            fetched.append(number)
            yield number

    ahead = prefetch(items(), 2)
    assert next(ahead) == 0
    wait_until(lambda: len(fetched) == 3)
    time.sleep(0.05)
    assert len(fetched) == 3
    ahead.close()


def test_error_is_raised_in_place_of_its_item():
    def items():
        yield 1
        raise ValueError("broken.png")

    seen = []
    with pytest.raises(ValueError, match=r"broken\.png"):
        for item in prefetch(items()):
            seen.append(item)
    assert seen == [1]


def test_thread_ends_when_the_consumer_stops_early():
    before = set(threading.enumerate())
    for item in prefetch(range(1000), 2):
        if item == 3:
            break
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_rounds_load_in_parallel_and_in_order_but_never_while_the_consumer_works():
    barrier, loaded = threading.Barrier(3, timeout=10), []

    def load(key):
        barrier.wait()  # breaks unless three load at a time
        loaded.append(key)
        return -key

    for count, item in enumerate(in_rounds(load, range(9), threads=3)):
        assert item == -count
        assert sorted(loaded) == list(range(3 * (count // 3 + 1)))


def test_error_in_a_round_reaches_the_consumer():
    with pytest.raises(ZeroDivisionError):
        list(in_rounds(lambda key: 1 // key, [2, 1, 0], threads=2))


def test_context_waits_for_all_jobs():
    done = []
    with WriteBehind(threads=3, depth=4) as work:
        for number in range(40):
            work.submit(done.append, number)
    assert sorted(done) == list(range(40))


def test_submit_blocks_while_too_many_jobs_are_pending():
    begin, running = threading.Event(), []

    def job():
        running.append(1)
        begin.wait(5)

    with WriteBehind(threads=1, depth=2) as work:
        work.submit(job)
        work.submit(job)
        third = threading.Thread(target=work.submit, args=[job])
        third.start()
        third.join(0.05)
        assert third.is_alive()
        begin.set()
        third.join()
    assert len(running) == 3


def fail():
    raise OSError("disk full")


def test_error_of_a_job_is_raised_by_a_later_submit():
    done = []
    with pytest.raises(OSError, match="disk full"), WriteBehind(threads=1, depth=1) as work:
        work.submit(fail)
        for _ in range(5):
            work.submit(done.append, 1)
    assert not done


def test_error_of_the_last_job_is_raised_at_the_end():
    with pytest.raises(OSError, match="disk full"), WriteBehind() as work:
        work.submit(fail)


def test_error_of_the_caller_takes_precedence():
    with pytest.raises(KeyError, match="mine"), WriteBehind() as work:
        work.submit(fail)
        raise KeyError("mine")


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by what is appended to it."""
    times = [100.0]
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: sum(times))
    return times


def test_seconds_of_each_stage_accumulate(clock):
    watch = Stopwatch()
    for seconds in (1, 2):
        with watch.measuring("network"):
            clock.append(seconds)
        clock.append(0.5)
    with pytest.raises(ValueError, match="x"), watch.measuring("write"):
        clock.append(4)
        raise ValueError("x")
    assert watch.seconds == {"network": 3, "write": 4}
    assert watch.describe(4) == "network 750.0 ms, write 1000.0 ms"


def test_only_the_time_to_produce_items_counts(clock):
    def slow():
        for number in range(3):
            clock.append(2)
            yield number

    watch = Stopwatch()
    for _ in watch.each("decode", slow()):
        clock.append(10)
    assert watch.seconds == {"decode": 6}
