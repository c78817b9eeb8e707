"""Work beside the checks: most of their time they wait, and Neutron could be busy."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from calico.lab.build import undisturbed

T = TypeVar("T")


class Background:
    """One thread that does one piece after the other, in the order of their coming.

    Pieces should be short: `close` waits for the one that is being done.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="verify-background")

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Have a call made; the future says what it returned or raised."""
        return self._pool.submit(call)

    def close(self) -> None:
        """Drop what has not begun and wait for what has, whatever signals come."""
        with undisturbed():
            self._pool.shutdown(cancel_futures=True)
