"""Runs the DNS of a host's instances, where any of them is told to ask the host."""

from pathlib import Path

from calico.config import DnsSettings
from calico.model.world import World
from calico.plan.dns_table import encode_table, plan_dns
from calico.reconcile.problem import Problem
from calico.system.service import Service, index_of

NAME = "dns"


class DnsService:
    """The DNS responder of a host; its files are in `run_dir`.

    Where no port asks it there is none, and one that runs is ended.
    """

    def __init__(self, run_dir: Path, settings: DnsSettings) -> None:
        self._settings = settings
        self._service = Service(NAME, run_dir)

    def apply(self, world: World) -> list[Problem]:
        """Answer the ports of `world`, and them alone; return what could not be."""
        settings = self._settings
        table = plan_dns(world, index_of, settings.resolvers, settings.domains)
        if not table.ports:
            self._service.end()
            return []
        try:
            return self._service.follow(encode_table(table))
        except OSError as e:
            return [Problem("DNS", "write its files", str(e))]

    def pid(self) -> int | None:
        """Return the id of the process; None if there is none."""
        return self._service.pid()

    def stop(self) -> None:
        """End the service."""
        self._service.stop()
