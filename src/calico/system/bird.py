"""BIRD on this host: its configuration, its process, and what it says of itself.

Ours are the files `bird.*` in the run directory, and the process that the pid file
there names. BIRD is started once and then told of changes through its control socket;
it outlives the agent, and keeps its routes in the kernel if it dies itself.
"""

import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import structlog
from pyroute2 import IPRoute

from calico.plan.bird_status import (
    ProtocolStatus,
    Reply,
    parse_protocols,
    parse_reply,
)
from calico.reconcile.problem import Problem
from calico.system.daemon import Daemon

_KERNEL_MARK = 12  # RTPROT_BIRD (rtnetlink.h): how BIRD marks its kernel routes
_REPLY_LIMIT = 16 << 20  # bytes
_log = structlog.get_logger(__name__)


class Silent(Exception):  # noqa: N818 - names what BIRD is
    """BIRD's control socket does not answer; the message says how it fails."""


class Bird:
    """The BIRD of this host, or of the network namespace that the caller is in.

    `patience` is how many seconds BIRD may take to answer.
    """

    def __init__(self, run_dir: Path, patience: float = 10.0) -> None:
        self._dir = run_dir
        self._config = run_dir / "bird.conf"
        self._socket = run_dir / "bird.ctl"
        self._patience = patience
        command = ("bird", "-f", "-c", str(self._config), "-s", str(self._socket))
        self._daemon = Daemon("bird", command, run_dir, start_flags=_start_flags)

    def apply(self, config: str) -> list[Problem]:
        """Make BIRD run with `config`; return why it does not, if so.

        A running BIRD is reconfigured, which leaves alone the sessions that do not
        change. One that is missing is started. A configuration that BIRD refuses
        changes nothing: what ran before goes on.
        """
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._daemon.trim_log()
            if self._daemon.running():
                return self._reconfigure(config)
            return self._start(config)
        except (OSError, Silent) as e:
            return [Problem("BIRD", "apply the configuration", str(e))]

    def keep(self, config: str) -> list[Problem]:
        """Have BIRD go on with the configuration that it has; else run with `config`.

        Returns why it does not run, if so.
        """
        try:
            if self._config.exists():
                config = self._config.read_text()
        except OSError as e:
            return [Problem("BIRD", "read its configuration", str(e))]
        return self.apply(config)

    def running(self) -> bool:
        """Return whether BIRD runs."""
        return self._daemon.running()

    def protocols(self) -> tuple[ProtocolStatus, ...]:
        """Return the state of all protocols; Silent if BIRD does not answer."""
        return parse_protocols(self.ask("show protocols all").text)

    def ask(self, command: str) -> Reply:
        """Return BIRD's reply to one command; Silent if there is none in time."""
        try:
            with closing(_connect(self._socket, self._patience)) as connection:
                _receive(connection)  # the greeting
                connection.sendall(f"{command}\n".encode())
                return _receive(connection)
        except OSError as e:
            raise Silent(f"{self._socket}: {e.strerror or e}") from e

    def stop(self) -> None:
        """End BIRD; its routes stay in the kernel."""
        self._daemon.stop()

    def _reconfigure(self, config: str) -> list[Problem]:
        if self._config.exists() and self._config.read_text() == config:
            return []
        new = self._write(config)
        reply = self.ask(f'configure "{new}"')
        if reply.failed:
            return [Problem("BIRD", "configure", " ".join(reply.text.split("\n")))]
        # Only now: a file that differs from what runs would be taken for applied.
        new.replace(self._config)
        return []

    def _start(self, config: str) -> list[Problem]:
        problems = self._check_and_keep(config)
        if problems and not self._config.exists():
            return problems
        failed = self._daemon.ensure()
        if failed:
            return [*problems, *failed]
        try:
            self._await_answer()
        except Silent as e:
            said = self._daemon.log_tail()
            return [*problems, Problem("BIRD", "start", f"{e} ({said})")]
        _log.warning("BIRD did not run and was started", config=str(self._config))
        return problems

    def _check_and_keep(self, config: str) -> list[Problem]:
        """Put a configuration in place, if BIRD finds no fault with it."""
        new = self._write(config)
        try:
            checked = subprocess.run(
                ["bird", "-p", "-c", str(new)],
                capture_output=True,
                text=True,
                check=False,
                timeout=self._patience,
            )
        except FileNotFoundError:
            return [Problem("BIRD", "start", "no program bird found; install bird2")]
        if checked.returncode != 0:
            said = (checked.stderr or checked.stdout).strip()
            return [Problem("BIRD", "configure", said)]
        new.replace(self._config)
        return []

    def _write(self, config: str) -> Path:
        new = self._dir / "bird.conf.new"
        new.write_text(config)
        return new

    def _await_answer(self) -> None:
        """Wait until a BIRD that was just started answers; Silent if it does not."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                self.ask("show status")
            except Silent:
                if not self._daemon.running() or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


def _start_flags() -> Sequence[str]:
    """Return the flags of graceful restart if the kernel still has BIRD's routes.

    A BIRD that claims to have kept forwarding (RFC 4724) when it has not would have
    its peers send into the void; and one that has must say so (P49).
    """
    with IPRoute(strict_check=True) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            for _ in kernel.get_routes(family=family, proto=_KERNEL_MARK):
                return ("-R",)
    return ()


def _connect(path: Path, patience: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(patience)
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _receive(connection: socket.socket) -> Reply:
    received = b""
    while len(received) < _REPLY_LIMIT:
        part = connection.recv(65536)
        if not part:
            raise Silent("BIRD closed its control socket")
        received += part
        reply = parse_reply(received.decode(errors="replace"))
        if reply is not None:
            return reply
    raise Silent("BIRD's reply has no end")
