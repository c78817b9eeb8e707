"""Waiting for what another process will bring about."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], message: str, timeout: float = 30.0) -> T:
    """Return the condition's first true value; fail with the message without one."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {message}"
        time.sleep(0.05)
    return value
