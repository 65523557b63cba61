"""Reading ahead and writing behind."""

import threading
import time

import pytest

from utils.io.pipeline import WriteBehind, in_rounds, prefetch


def test_items_come_in_order():
    assert list(prefetch(range(50), 3)) == list(range(50))
    assert list(prefetch([])) == []


def test_only_so_many_items_are_got_ahead():
    got = []

    def items():
        for number in range(20):
            got.append(number)
            yield number

    ahead = prefetch(items(), 2)
    assert next(ahead) == 0
    time.sleep(0.1)
    assert len(got) <= 4  # one given out, two ready, one in the thread's hand
    ahead.close()


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        raise ValueError("broken.png")

    seen = []
    with pytest.raises(ValueError, match=r"broken\.png"):
        for item in prefetch(items()):
            seen.append(item)
    assert seen == [1]


def test_a_consumer_that_stops_ends_the_thread():
    before = threading.active_count()
    for item in prefetch(range(1000), 2):
        if item == 3:
            break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_rounds_load_side_by_side_in_order_and_never_while_the_consumer_works():
    together, loaded = threading.Barrier(3, timeout=10), []

    def load(key):
        together.wait()  # breaks unless three load at a time
        loaded.append(key)
        return -key

    for count, item in enumerate(in_rounds(load, range(9), threads=3)):
        assert item == -count
        assert sorted(loaded) == list(range(3 * (count // 3 + 1)))


def test_an_error_in_a_round_is_the_consumers():
    with pytest.raises(ZeroDivisionError):
        list(in_rounds(lambda key: 1 // key, [2, 1, 0], threads=2))


def test_all_jobs_are_done_when_the_context_ends():
    done = []
    with WriteBehind(threads=3, depth=4) as work:
        for number in range(40):
            work.submit(done.append, number)
    assert sorted(done) == list(range(40))


def test_jobs_that_wait_are_bounded():
    begin, running = threading.Event(), []

    def job():
        running.append(1)
        begin.wait(5)

    with WriteBehind(threads=1, depth=2) as work:
        work.submit(job)
        work.submit(job)
        third = threading.Thread(target=work.submit, args=[job])
        third.start()
        third.join(0.1)
        assert third.is_alive()  # it waits for one to end
        begin.set()
        third.join()
    assert len(running) == 3


def fail():
    raise OSError("disk full")


def test_an_error_of_a_job_is_raised_by_a_later_submit():
    done = []
    with pytest.raises(OSError, match="disk full"), WriteBehind(threads=1, depth=1) as work:
        work.submit(fail)
        for _ in range(5):
            work.submit(done.append, 1)
    assert not done


def test_an_error_of_the_last_job_is_raised_at_the_end():
    with pytest.raises(OSError, match="disk full"), WriteBehind() as work:
        work.submit(fail)


def test_an_error_of_the_caller_is_not_hidden():
    with pytest.raises(KeyError, match="mine"), WriteBehind() as work:
        work.submit(fail)
        raise KeyError("mine")
