"""Address configuration of a host's instances: DHCP and router advertisements."""

from pathlib import Path

from calico.model.world import World
from calico.plan.dnsmasq import plan_dnsmasq
from calico.plan.radvd import plan_radvd
from calico.reconcile.problem import Problem
from calico.system.dnsmasq import Dnsmasq
from calico.system.radvd import Radvd


class DhcpService:
    """What answers instances that ask for addresses; its files are in `run_dir`.

    Both daemons outlive the agent. `run_dir` and its parents must be searchable by
    everyone: dnsmasq reads its files as an unprivileged user.
    """

    def __init__(self, run_dir: Path) -> None:
        self.dnsmasq = Dnsmasq(run_dir)
        self.radvd = Radvd(run_dir)

    def apply(self, world: World) -> list[Problem]:
        """Serve the ports of `world`, and them alone; return what could not be.

        The bridge `calico-dhcp` must hold `plan_dnsmasq(world).gateways` for IPv4 and
        DHCPv6 to be answered; order does not matter. Cheap when nothing changed. A dead
        daemon is started again.
        """
        return [
            *self.dnsmasq.apply(plan_dnsmasq(world)),
            *self.radvd.apply(plan_radvd(world)),
        ]

    def stop(self) -> None:
        """End both daemons."""
        self.dnsmasq.stop()
        self.radvd.stop()
