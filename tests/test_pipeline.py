import threading

import pytest

from utils.pipeline import ahead


def threads() -> int:
    return threading.active_count()


def test_items_come_in_their_order():
    assert list(ahead(range(100), depth=3)) == list(range(100))
    assert list(ahead(ahead(ahead("abc")))) == ["a", "b", "c"]
    assert list(ahead([])) == []
    assert list(ahead([None, False, None])) == [None, False, None]


def test_made_in_another_thread_and_no_further_ahead_than_asked():
    made = []

    def make():
        for number in range(50):
            made.append((number, threading.current_thread()))
            yield number

    items = ahead(make(), depth=3)
    for number in items:
        assert len(made) <= number + 5  # 3 wait, one is being put, one was taken
    assert all(thread is not threading.current_thread() for _, thread in made)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_raised_there_is_raised_here_after_the_items_before_it(error):
    def failing():
        yield 1
        yield 2
        raise error("late")

    got = []
    with pytest.raises(error, match="late"):
        for item in ahead(failing()):
            got.append(item)
    assert got == [1, 2]


def test_a_caller_that_stops_ends_the_threads_and_closes_the_items():
    before = threads()
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    items = ahead(ahead(endless()))
    next(items)
    assert threads() == before + 2
    items.close()
    assert threads() == before and closed == [True]


def test_both_sides_work_at_the_same_time():
    """Each waits for a word of the other in the middle of its own item."""
    here, there = threading.Event(), threading.Event()

    def make():
        yield 1
        there.set()
        assert here.wait(10)
        yield 2

    for item in ahead(make()):
        if item == 1:
            assert there.wait(10)
            here.set()
