"""Runs radvd: one process a host, re-reading its configuration on SIGHUP."""

import signal
from pathlib import Path

from calico.reconcile.problem import Problem
from calico.system.daemon import Daemon


class Radvd:
    """The radvd of a host; its files are in `run_dir`."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._config = run_dir / "radvd.conf"
        self._daemon = Daemon(
            "radvd",
            (
                "radvd",
                "--nodaemon",
                f"--config={self._config}",
                f"--pidfile={run_dir / 'radvd.ready'}",
                "--logmethod=stderr",
            ),
            run_dir,
        )

    def apply(self, text: str) -> list[Problem]:
        """Make radvd advertise what its configuration `text` says."""
        try:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            self._daemon.trim_log()
            changed = not self._config.exists() or self._config.read_text() != text
            if changed:
                draft = self._config.with_name("radvd.conf.new")
                draft.write_text(text)
                draft.chmod(0o644)  # radvd refuses one that others may write
                draft.replace(self._config)
        except OSError as e:
            return [Problem("radvd", "write its configuration", str(e))]
        if not self._daemon.running():
            return self._daemon.ensure() if text else []
        if changed:
            self._daemon.signal(signal.SIGHUP)
        return []

    def pid(self) -> int | None:
        """Return the id of the process; None if there is none."""
        identity = self._daemon.identity()
        return identity.pid if identity else None

    def stop(self) -> None:
        """End the service; guests are told that the router goes."""
        self._daemon.stop()
