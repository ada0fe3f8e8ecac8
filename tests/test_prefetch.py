"""Working ahead in threads: same results, bounded, errors and interruptions arrive, no thread stays."""

from __future__ import annotations

import signal
import threading
import time
from itertools import count, islice

import pytest

from lib.utils.errors import UserError
from lib.utils.prefetch import map_ahead, prefetch


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Counting:
    """Counts from 0 and remembers how far it was asked, and by which thread."""

    def __init__(self, n: int | None = None) -> None:
        self.n, self.taken, self.threads = n, 0, set()

    def __iter__(self):
        for i in count() if self.n is None else range(self.n):
            self.taken = i + 1
            self.threads.add(threading.get_ident())
            yield i


@pytest.mark.parametrize("n", [0, 1, 3, 4, 50])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_items_stay_in_order(n, ahead):
    with prefetch(Counting(n), ahead) as items:
        assert list(items) == list(range(n))
    with map_ahead(lambda i: i * i, range(n), workers=3, ahead=ahead) as squares:
        assert list(squares) == [i * i for i in range(n)]


def test_slow_early_results_are_waited_for():
    with map_ahead(lambda i: time.sleep(0.02 * (i == 0)) or i, range(8), workers=4, ahead=4) as items:
        assert list(items) == list(range(8))


def test_one_other_thread_takes_the_items():
    source = Counting(20)
    with prefetch(source, 2) as items:
        list(items)
    assert len(source.threads) == 1
    assert threading.get_ident() not in source.threads


@pytest.mark.parametrize("ahead", [1, 4])
def test_no_more_than_so_many_items_are_ahead(ahead):
    source = Counting()
    with prefetch(source, ahead) as items:
        for used in range(6):
            assert next(items) == used
            time.sleep(0.02)  # as if the item were used: the thread gets as far as it may
            assert source.taken == used + 1 + ahead


def test_work_and_use_overlap():
    """Each side waits for the other's event: one after the other, this would never end."""
    made = [threading.Event() for _ in range(5)]

    def make():
        for event in made:
            event.set()
            yield event

    with prefetch(make(), 1) as items:
        for i, _ in enumerate(items):
            if i + 1 < len(made):
                assert made[i + 1].wait(5)


def test_several_workers_work_at_once():
    together = threading.Barrier(3, timeout=5)
    with map_ahead(lambda _: together.wait(), range(3), workers=3, ahead=3) as items:
        assert sorted(items) == [0, 1, 2]


def test_an_error_comes_after_the_items_before_it_with_its_own_message():
    def failing():
        yield from range(3)
        raise UserError("frame 3 is damaged")

    got = []
    with pytest.raises(UserError, match="frame 3 is damaged"), prefetch(failing(), 2) as items:
        for item in items:
            got.append(item)
    assert got == [0, 1, 2]

    quotients = []
    with (
        pytest.raises(ZeroDivisionError),
        map_ahead(lambda i: 2 // (2 - i), range(9), workers=2, ahead=4) as results,
    ):
        for quotient in results:
            quotients.append(quotient)
    assert quotients == [1, 2]


def test_stages_follow_one_another():
    """As in the demo: each stage takes from the one before in a thread of its own."""
    source = Counting()
    with (
        prefetch(source, 2) as numbers,
        prefetch((2 * i for i in numbers), 2) as doubled,
        map_ahead(str, doubled, workers=2, ahead=2) as texts,
    ):
        assert list(islice(texts, 5)) == ["0", "2", "4", "6", "8"]
    assert source.taken <= 5 + 3 * 3


def test_an_error_in_a_stage_ends_all_stages():
    def fail(i):
        if i == 4:
            raise OSError("disk full")
        return i

    source = Counting()
    with (
        pytest.raises(OSError, match="disk full"),
        prefetch(source, 2) as numbers,
        prefetch(map(fail, numbers), 2) as checked,
    ):
        list(checked)
    taken = source.taken
    time.sleep(0.02)
    assert source.taken == taken


def test_an_error_of_the_user_of_the_items_ends_the_thread():
    source = Counting()
    with pytest.raises(KeyError), prefetch(source, 3) as items:
        next(items)
        raise KeyError


def test_work_that_waits_is_cancelled():
    begun = []

    def work(i):
        begun.append(i)
        time.sleep(0.01)
        return i

    with pytest.raises(KeyError), map_ahead(work, range(1000), workers=1, ahead=900) as items:
        next(items)
        raise KeyError
    assert len(begun) < 100


def test_ctrl_c_ends_the_threads():
    source = Counting()
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt), prefetch(source, 3) as items:
        timer.start()
        for _ in items:
            time.sleep(0.001)
    timer.join()
    taken = source.taken
    time.sleep(0.02)
    assert source.taken == taken
