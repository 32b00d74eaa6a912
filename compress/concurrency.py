"""Several batches at a time, each on its own share of the processor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Step = TypeVar("Step")
Result = TypeVar("Result")


def concurrently(work: Callable[[Step], Result], steps: Iterable[Step], workers: int) -> Generator[Result, None, None]:
    """`work` of each of `steps`, in their order, by `workers` threads that share PyTorch's threads evenly.

    Small batches keep several cores busier so than one batch on all of them, which leaves every core but one idle
    wherever Python runs. Modes that belong to a thread, `torch.inference_mode` and `torch.autocast`, are entered in
    `work`. The steps are drawn in the caller's thread, at most one more than there are workers ahead of the results,
    so that what they read need not bear several threads. An error of a step is raised after the results before it.
    Who may leave before the last result closes the generator (`contextlib.closing`), which stops the threads.
    """
    if workers < 2:
        yield from map(work, steps)
        return
    threads = torch.get_num_threads()
    # It holds for the thread that calls it, and for threads that are new to PyTorch from then on.
    pool = ThreadPoolExecutor(workers, "batch", torch.set_num_threads, (max(1, threads // workers),))
    ahead: deque[Future[Result]] = deque()
    try:
        for step in steps:
            ahead.append(pool.submit(work, step))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        finally:  # even if Ctrl-C comes twice
            torch.set_num_threads(threads)
