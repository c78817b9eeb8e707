"""Runs a service to instances: one process a host, which outlives the agent.

It is told of ports by a file and SIGHUP. Its settings, with secrets in them, it reads
at its start only: where they differ it is stopped first, then they are written, so that
whatever runs was started with what is written.
"""

import importlib.metadata
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calico.model.ids import InterfaceName
from calico.reconcile.problem import Problem
from calico.system.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a service in `run_dir`, besides its daemon's.

    `settings` are for root alone. `table` is what it is told; `ready` is there once it
    has an ear for signals.
    """

    run_dir: Path
    name: str

    @property
    def settings(self) -> Path:
        """Return the file of what it reads at its start."""
        return self.run_dir / f"{self.name}.json"

    @property
    def table(self) -> Path:
        """Return the file of what it reads again on SIGHUP."""
        return self.run_dir / f"{self.name}.table"

    @property
    def ready(self) -> Path:
        """Return the file that says that it can be told."""
        return self.run_dir / f"{self.name}.ready"


class Service:
    """The service `name`, the module `calico.NAME`; its files are in `run_dir`."""

    def __init__(self, name: str, run_dir: Path) -> None:
        self.name = name
        self._files = Files(run_dir, name)
        # Our own code: an upgrade starts it anew, by its version in the command.
        version = importlib.metadata.version("calico-openstack")
        command = (sys.executable, "-P", "-m", f"calico.{name}", str(run_dir), version)
        self._daemon = Daemon(name, command, run_dir)

    def follow(self, table: bytes, settings: bytes | None = None) -> list[Problem]:
        """Have it run and know this table; return what could not be.

        OSError where the files cannot be written.
        """
        self._files.run_dir.mkdir(parents=True, exist_ok=True)
        if settings is not None and _read(self._files.settings) != settings:
            self._daemon.stop()
            _write(self._files.settings, settings, 0o600)
        changed = _read(self._files.table) != table
        if changed:
            _write(self._files.table, table, 0o644)
        if not self._daemon.running():
            self._files.ready.unlink(missing_ok=True)
            return self._daemon.ensure()
        self._daemon.trim_log()
        # One that is not ready has not read the table yet, and no ear for signals.
        if changed and self._files.ready.exists():
            self._daemon.signal(signal.SIGHUP)
        return []

    def end(self) -> None:
        """End the service if one was ever started here."""
        if (self._files.run_dir / f"{self.name}.pid").exists():
            self._daemon.stop()

    def pid(self) -> int | None:
        """Return the id of the process; None if there is none."""
        identity = self._daemon.identity()
        return identity.pid if identity else None

    def stop(self) -> None:
        """End the service."""
        self._daemon.stop()


def index_of(interface: InterfaceName) -> int | None:
    """Return the index of an interface; None if there is no such interface."""
    with suppress(OSError):
        return socket.if_nametoindex(interface)
    return None


def _read(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file at once; nobody else could read it at any time, unless `mode`."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(content)
    draft.chmod(mode)
    draft.replace(path)
