"""Starting a server of the cloud, and waiting until it serves or why it will not."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calico.lab.namespaces import LabFailed
from calico.lab.processes import Processes

_POLL = 0.1  # seconds between looks
_LOG_LINES = 15


class ServerFailed(LabFailed):
    """A server did not start; the message names it, its log, and the log's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """How the cloud's servers are started: in which namespace, logging where."""

    processes: Processes
    netns: str | None
    logs: Path

    def start(
        self, name: str, argv: Sequence[str], env: dict[str, str] | None = None
    ) -> None:
        """Start a server in the namespace unless it runs; ServerFailed without it."""
        if self.processes.running(name):
            return
        self._spawn(name, argv, netns=self.netns, env=env)

    def start_outside(self, name: str, argv: Sequence[str]) -> None:
        """Start a server where this process is, unless it runs."""
        if self.processes.running(name):
            return
        self._spawn(name, argv, netns=None, env=None)

    def _spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        netns: str | None,
        env: dict[str, str] | None,
    ) -> None:
        try:
            self.processes.spawn(
                name, argv, netns=netns, env=env, log=self.log_of(name)
            )
        except FileNotFoundError as e:
            raise ServerFailed(f"{name}: there is no program {argv[0]}") from e

    def await_ready(
        self, name: str, ready: Callable[[], bool], timeout: float = 60.0
    ) -> None:
        """Wait until `ready()`; ServerFailed if the server ends or time is over."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.processes.running(name):
                raise ServerFailed(f"{name} ended: {self.last_words(name)}")
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{name} does not answer after {timeout:.0f} s: "
                    f"{self.last_words(name)}"
                )
            time.sleep(_POLL)

    def stop(self, *names: str) -> None:
        """Stop servers, all at once."""
        self.processes.stop(*names)

    def log_of(self, name: str) -> Path:
        """Return where a server's output goes."""
        return self.logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        """Return where a server's log is and how it ends."""
        log = self.log_of(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        end = "\n  ".join(lines[-_LOG_LINES:])
        return f"the end of {log} is\n  {end}" if lines else f"{log} is empty"
