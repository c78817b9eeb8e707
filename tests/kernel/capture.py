"""What arrives at an interface, while something is tried."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kernel.netns import Netns, eventually


class Arrivals:
    """Lines of tcpdump, as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip():
                self.lines.append(line)

    def seen(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def await_seen(self, text: str) -> None:
        """Wait for a packet: what was sent before it arrived before it, or never."""
        eventually(lambda: self.seen(text), message=lambda: f"{text}: {self.lines}")


@contextmanager
def arrivals(at: Netns, interface: str, expression: str) -> Iterator[Arrivals]:
    """Capture what `interface` receives (not what it sends)."""
    process = at.popen(
        [
            *("tcpdump", "-nlep", "--immediate-mode", "-Q", "in"),
            *("-i", interface, *expression.split()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            break
    else:
        raise AssertionError("tcpdump ended")
    yield Arrivals(process)
    process.terminate()
    process.wait(10)
