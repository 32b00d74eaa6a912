"""Batches at a time: in order, each on its share of the threads, nothing left behind whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from compress.concurrency import concurrently


@pytest.fixture(autouse=True)
def _four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_steps(workers: int) -> None:
    def work(step: int) -> int:
        time.sleep(0.02 if step % 3 == 0 else 0)  # others overtake it
        return step * step

    assert list(concurrently(work, range(10), workers)) == [step * step for step in range(10)]


def test_as_many_steps_as_workers_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)  # breaks unless three are there
    assert sorted(concurrently(lambda step: meeting.wait(), range(3), 3)) == [0, 1, 2]


def test_workers_share_the_threads_and_the_caller_keeps_its_own() -> None:
    seen = []
    for inside in concurrently(lambda step: _threads_of_a_product(), range(6), 2):
        seen.append((inside, torch.get_num_threads()))
    assert seen == [(2, 4)] * 6
    assert _in_a_new_thread() == torch.get_num_threads() == 4


def test_one_worker_is_the_caller() -> None:
    assert set(concurrently(lambda step: threading.current_thread(), range(3), 1)) == {threading.current_thread()}


def test_steps_are_drawn_by_the_caller_and_few_ahead_of_the_results() -> None:
    drawn = []

    def steps() -> Iterator[int]:
        for step in range(9):
            assert threading.current_thread() is caller
            drawn.append(step)
            yield step

    caller = threading.current_thread()
    for done, _ in enumerate(concurrently(abs, steps(), 2)):
        assert len(drawn) <= done + 1 + 2
    assert drawn == list(range(9))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_ends_the_work_at_its_place(error: type[BaseException]) -> None:
    begun: list[int] = []
    results: list[int] = []

    def work(step: int) -> int:
        begun.append(step)
        if step == 3:
            raise error
        return step

    with pytest.raises(error):
        results.extend(concurrently(work, range(1000), 2))
    assert results == [0, 1, 2]
    assert max(begun) <= 3 + 2
    _assert_nothing_is_left()


def test_an_error_of_the_steps_and_a_caller_who_leaves_end_it_too() -> None:
    def steps() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt  # as if pressed while the caller waits

    with pytest.raises(KeyboardInterrupt):
        list(concurrently(abs, steps(), 2))
    _assert_nothing_is_left()
    results = concurrently(abs, range(1000), 2)
    assert next(results) == 0
    results.close()
    _assert_nothing_is_left()


def _threads_of_a_product() -> int:
    """After a product, whose first one in a thread may set the number."""
    torch.ones(300, 300) @ torch.ones(300, 300)
    return torch.get_num_threads()


def _in_a_new_thread() -> int:
    found = []
    thread = threading.Thread(target=lambda: found.append(_threads_of_a_product()))
    thread.start()
    thread.join()
    return found[0]


def _assert_nothing_is_left() -> None:
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("batch")]
    assert _in_a_new_thread() == torch.get_num_threads() == 4
