"""Acting inside a network namespace without a process per act.

A socket belongs to the namespace of the thread that opened it, for ever. So a thread
that enters the namespace, opens the socket and ends is all it takes; the verifier can
then send and receive through thousands of sockets from one process.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess, run
from typing import Generic, TypeVar

from calico.lab.inside import enter

T = TypeVar("T")


class _Errand(threading.Thread, Generic[T]):
    """A thread that enters a namespace, calls, and keeps what came of it."""

    def __init__(self, netns: str, call: Callable[[], T]) -> None:
        super().__init__(daemon=True, name=f"inside {netns}")
        self._netns = netns
        self._call = call
        self.value: T
        self.error: BaseException | None = None

    def run(self) -> None:
        """Enter and call; the error, if any, is the caller's to raise."""
        try:
            enter(self._netns)
            self.value = self._call()
        except BaseException as e:  # noqa: BLE001 - raised again by the caller
            self.error = e


def inside(netns: str, call: Callable[[], T]) -> T:
    """Call in a network namespace, given by name, and return what it returns.

    Raises what the call raises; OSError where there is no such namespace. Threads and
    processes that the call starts are inside too.
    """
    errand = _Errand(netns, call)
    errand.start()
    errand.join()
    if errand.error is not None:
        raise errand.error
    return errand.value


@dataclass(frozen=True, slots=True)
class NamespacePlace:
    """A cloud.Place that is a network namespace of this machine."""

    name: str
    netns: str

    def inside(self, call: Callable[[], T]) -> T:
        """Call with the namespace as the thread's own."""
        return inside(self.netns, call)

    def run(
        self, argv: Sequence[str], timeout: float = 20.0
    ) -> "CompletedProcess[str]":
        """Run a program in the namespace; output as text, exit code as is."""
        return inside(
            self.netns,
            lambda: run(
                argv, capture_output=True, text=True, check=False, timeout=timeout
            ),
        )
