"""Runs the metadata proxy, with the secret that it shares with its backends."""

from dataclasses import replace
from pathlib import Path

from calico.config import MetadataSettings, encode_metadata
from calico.model.world import World
from calico.plan.metadata import encode_ports, plan_metadata
from calico.reconcile.problem import Problem
from calico.system.service import Service, index_of

NAME = "metadata"


class MetadataProxy(Service):
    """The metadata proxy of a host; its files are in `run_dir`.

    Without backends in the settings there is none, and one that runs is ended.
    """

    def __init__(self, run_dir: Path, settings: MetadataSettings) -> None:
        super().__init__(NAME, run_dir)
        self._settings = settings

    def apply(self, world: World) -> list[Problem]:
        """Answer the ports of `world`, and them alone; return what could not be."""
        if not self._settings.backends:
            self.end()
            return []
        try:
            settings = _whole(self._settings)
        except OSError as e:
            return [Problem("metadata proxy", "read its settings", str(e))]
        ports = encode_ports(plan_metadata(world.endpoints, index_of))
        try:
            return self.follow(ports, settings)
        except OSError as e:
            return [Problem("metadata proxy", "write its files", str(e))]


def _whole(settings: MetadataSettings) -> bytes:
    """Return settings with the secret, and what tells files from their next ones."""
    if settings.shared_secret_file is not None:
        secret = settings.shared_secret_file.read_text().strip()
        settings = replace(settings, shared_secret=secret, shared_secret_file=None)
    files = (settings.ca, settings.cert, settings.key)
    stamps = [path.stat().st_mtime_ns for path in files if path is not None]
    return encode_metadata(settings, stamps)
