"""Runs the DNS of a host's instances, where any of them is told to ask the host."""

from pathlib import Path

from calico.config import DnsSettings
from calico.model.world import World
from calico.plan.dns_table import encode_table, plan_dns
from calico.reconcile.problem import Problem
from calico.system.service import Service, index_of

NAME = "dns"


class DnsService(Service):
    """The DNS responder of a host; its files are in `run_dir`.

    Where no port asks it there is none, and one that runs is ended.
    """

    def __init__(self, run_dir: Path, settings: DnsSettings) -> None:
        super().__init__(NAME, run_dir)
        self._settings = settings

    def apply(self, world: World) -> list[Problem]:
        """Answer the ports of `world`, and them alone; return what could not be."""
        settings = self._settings
        table = plan_dns(world, index_of, settings.resolvers, settings.domains)
        if not table.ports:
            self.end()
            return []
        try:
            return self.follow(encode_table(table))
        except OSError as e:
            return [Problem("DNS", "write its files", str(e))]
