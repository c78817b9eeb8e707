"""Network namespaces for tests: made here, removed here, whatever happens.

Namespaces are called `ct-PID-NAME`, so that two test runs never meet. Nothing touches
the root namespace's interfaces.
"""

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_COUNTER = count()


def ip(*argv: str, namespace: str | None = None) -> str:
    """Run iproute2's `ip`, in a namespace if one is named; return what it printed."""
    where = ["-n", namespace] if namespace else []
    result = subprocess.run(
        ["ip", *where, *argv], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"ip {' '.join(argv)}: {result.stderr.strip()}"
    return result.stdout


class Netns:
    """A network namespace with its loopback up; a context manager.

    Processes started with `popen` are ended, and the namespace removed, on exit.
    """

    def __init__(self, name: str) -> None:
        self.name = f"ct-{os.getpid()}-{next(_COUNTER)}-{name}"
        self.path = Path("/run/netns") / self.name
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        ip("netns", "add", self.name)
        ip("link", "set", "lo", "up", namespace=self.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        ip("netns", "del", self.name)

    def ip(self, *argv: str) -> str:
        """Run `ip` in this namespace; it must succeed. Return what it printed."""
        return ip(*argv, namespace=self.name)

    def run(
        self, argv: Sequence[str], *, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace to its end; it must succeed unless told."""
        options.setdefault("timeout", 60)
        result = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        if check:
            said = (result.stderr or result.stdout).strip()
            assert result.returncode == 0, f"{' '.join(argv)}: {said}"
        return result

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program in the namespace; it is killed when the namespace goes."""
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        process: subprocess.Popen[str] = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *argv], text=True, **options
        )
        self._processes.append(process)
        return process

    def sysctl(self, name: str, value: object) -> None:
        """Write a sysctl of the namespace, named with slashes or dots."""
        path = Path("/proc/sys") / name.replace(".", "/")
        with in_netns(self):
            path.write_text(f"{value}\n")

    def pings(self, address: str, *, source: str | None = None) -> bool:
        """Return whether one echo request to `address` is answered in a second."""
        bound = ["-I", source] if source else []
        argv = ["ping", "-n", "-c1", "-W1", *bound, address]
        return self.run(argv, check=False).returncode == 0


def link(
    a: Netns, a_name: str, b: Netns, b_name: str, *, macs: tuple[str, str] | None = None
) -> None:
    """Join two namespaces by a veth pair, both ends up; `macs` are of a and of b."""
    of_a, of_b = (("address", mac) for mac in macs) if macs else ((), ())
    end_a = ["name", a_name, *of_a, "netns", a.name]
    end_b = ["peer", "name", b_name, *of_b, "netns", b.name]
    ip("link", "add", *end_a, "type", "veth", *end_b)
    a.ip("link", "set", a_name, "up")
    b.ip("link", "set", b_name, "up")


@contextmanager
def in_netns(namespace: Netns | str) -> Iterator[None]:
    """Move the calling thread, and what it starts, into a namespace, and back."""
    name = namespace if isinstance(namespace, str) else namespace.name
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _setns(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(there)
        os.close(home)


def eventually(
    condition: Callable[[], Any],
    timeout: float = 10,
    message: str | Callable[[], str] = "",
) -> Any:
    """Wait until `condition` is true and return its value; fail after `timeout` s.

    `message`, or what it returns when called, is said on failure.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            said = message() if callable(message) else message
            raise AssertionError(said or f"not within {timeout} s: {condition}")
        time.sleep(0.02)


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
