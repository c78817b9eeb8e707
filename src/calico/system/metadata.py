"""Runs the metadata proxy: one process a host, which outlives the agent.

It is told of ports by a file and SIGHUP. Its settings, with the secret in them, it
reads at its start only: where they differ it is stopped first, then they are written,
so that whatever runs was started with what is written.
"""

import importlib.metadata
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from calico.config import MetadataSettings, encode_metadata
from calico.model.ids import InterfaceName
from calico.model.world import World
from calico.plan.metadata import encode_ports, plan_metadata
from calico.reconcile.problem import Problem
from calico.system.daemon import Daemon

NAME = "metadata"
SETTINGS, PORTS, READY = "metadata.json", "metadata.ports", "metadata.ready"


class MetadataProxy:
    """The metadata proxy of a host; its files are in `run_dir`.

    Without backends in the settings there is none, and one that runs is ended.
    """

    def __init__(self, run_dir: Path, settings: MetadataSettings) -> None:
        self._run_dir = run_dir
        self._settings = settings
        # Our own code: an upgrade starts it anew, by its version in the command.
        version = importlib.metadata.version("calico-openstack")
        command = (sys.executable, "-P", "-m", "calico.metadata", str(run_dir), version)
        self._daemon = Daemon(NAME, command, run_dir)

    def apply(self, world: World) -> list[Problem]:
        """Answer the ports of `world`, and them alone; return what could not be."""
        if not self._settings.backends:
            if (self._run_dir / f"{NAME}.pid").exists():
                self._daemon.stop()
            return []
        try:
            return self._apply(world)
        except OSError as e:
            return [Problem("metadata proxy", "write its files", str(e))]

    def pid(self) -> int | None:
        """Return the id of the process; None if there is none."""
        identity = self._daemon.identity()
        return identity.pid if identity else None

    def stop(self) -> None:
        """End the service."""
        self._daemon.stop()

    def _apply(self, world: World) -> list[Problem]:
        self._run_dir.mkdir(parents=True, exist_ok=True)
        try:
            settings = _whole(self._settings)
        except OSError as e:
            return [Problem("metadata proxy", "read its settings", str(e))]
        file = self._run_dir / SETTINGS
        if _read(file) != settings:
            self._daemon.stop()
            _write(file, settings, 0o600)
        ports = encode_ports(plan_metadata(world.endpoints, _index))
        changed = _read(self._run_dir / PORTS) != ports
        if changed:
            _write(self._run_dir / PORTS, ports, 0o644)
        ready = self._run_dir / READY
        if not self._daemon.running():
            ready.unlink(missing_ok=True)
            return self._daemon.ensure()
        self._daemon.trim_log()
        # One that is not ready has not read the ports yet, and no ear for signals.
        if changed and ready.exists():
            self._daemon.signal(signal.SIGHUP)
        return []


def _whole(settings: MetadataSettings) -> bytes:
    """Return settings with the secret, and what tells files from their next ones."""
    if settings.shared_secret_file is not None:
        secret = settings.shared_secret_file.read_text().strip()
        settings = replace(settings, shared_secret=secret, shared_secret_file=None)
    files = (settings.ca, settings.cert, settings.key)
    stamps = [path.stat().st_mtime_ns for path in files if path is not None]
    return encode_metadata(settings, stamps)


def _index(interface: InterfaceName) -> int | None:
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
