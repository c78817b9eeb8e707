"""Doing many things at once, and waiting for one that will come."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from calico.lab.build import undisturbed

T = TypeVar("T")


def parallel(calls: Iterable[Callable[[], T]], workers: int = 16) -> list[T]:
    """Call each in a thread; return what they return, in order.

    Raises the first error. What has not begun by then never does, and what has is
    waited for, whatever signals come: it would go on making what nobody takes away.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="verify")
    try:
        futures = [pool.submit(call) for call in calls]
        return [future.result() for future in futures]
    finally:
        with undisturbed():
            pool.shutdown(cancel_futures=True)


def eventually(condition: Callable[[], T], timeout: float, poll: float = 0.1) -> T:
    """Return the condition's first true value, or its last when time is up."""
    deadline = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(poll)
    return value
