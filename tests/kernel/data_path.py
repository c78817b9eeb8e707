"""A host and guests behind taps, in namespaces, served by passes made in the test."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any, Self

from tests.endpoints import HOST, NETWORK, PROJECT
from tests.kernel.netns import Netns, in_netns, ip, link
from tests.policies import OPEN_GROUPS

from calico.agent.cutter import Cutter, KernelConnections
from calico.agent.keeper import Keeper, Outcome
from calico.config import AgentSettings
from calico.model.cloud_settings import DEFAULTS, CloudSettings
from calico.model.groups import Groups
from calico.model.ids import (
    PortId,
    SubnetId,
)
from calico.model.logs import Log
from calico.model.names import PortNames
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.records import AddressPair, Endpoint, Subnet
from calico.model.world import World
from calico.plan.dnsmasq import plan_dnsmasq
from calico.system.kernel import Kernel

# They have DNS servers of their own, or each agent's host would run one.
_SERVERS = (ip_address("192.0.2.53"), ip_address("2001:db8::53"))
SUBNETS = {
    SubnetId(name): Subnet(
        id=SubnetId(name),
        network=NETWORK,
        prefix=ip_network(prefix),
        project=PROJECT,
        gateway=ip_address(gateway) if gateway else None,
        ra_mode="slaac" if ":" in prefix else None,
        address_mode="slaac" if ":" in prefix else None,
        dns_servers=_SERVERS,
    )
    for name, prefix, gateway in (
        ("s4", "10.65.0.0/24", "10.65.0.1"),
        ("s6", "2001:db8:65::/64", "2001:db8:65::1"),
        ("other4", "10.66.0.0/24", "10.66.0.1"),
        # Where pairs are from, as an operator sets such space aside.
        ("pairs4", "10.76.0.0/14", None),
        ("pairs6", "2001:db8:77::/48", None),
    )
}


def pair(prefix: str, of: Endpoint) -> AddressPair:
    return AddressPair(prefix=ip_network(prefix), mac=of.mac)


@dataclass(kw_only=True)
class HostBed:
    """A host's namespace and its guests', and what the host is told to serve."""

    host: Netns
    stack: ExitStack
    endpoints: dict[PortId, Endpoint] = field(default_factory=dict)
    guests: dict[PortId, Netns] = field(default_factory=dict)
    keeper: Keeper | None = None
    cutter: Cutter = field(default_factory=lambda: Cutter(KernelConnections()))
    groups: Groups = OPEN_GROUPS
    logs: tuple[Log, ...] = ()
    operator: OperatorWorld = NO_OPERATOR
    cloud: CloudSettings = DEFAULTS
    subnets: Mapping[SubnetId, Subnet] = field(default_factory=lambda: SUBNETS)
    names: tuple[PortNames, ...] = ()
    inform: Callable[[World], None] = lambda _: None
    settings: AgentSettings = field(default_factory=lambda: AgentSettings(host=HOST))

    def plug(self, one: Endpoint, *, up: bool = False) -> Netns:
        """Make a guest and its tap, as Nova would; `up` sets the host's end up."""
        guest = self.guests.get(one.port)
        if guest is None:
            guest = self.stack.enter_context(Netns(f"g{one.mac[-2:]}"))
            self.guests[one.port] = guest
        link(
            self.host, one.interface, guest, "eth0", macs=(one.mac[:-2] + "ff", one.mac)
        )
        if not up:
            self.host.ip("link", "set", one.interface, "down")
        guest.sysctl("net/ipv6/conf/eth0/accept_dad", 0)
        for address in one.addresses:
            length = 24 if address.version == 4 else 128
            flags = ["nodad"] if address.version == 6 else []
            guest.ip("addr", "add", f"{address}/{length}", "dev", "eth0", *flags)
        guest.ip("route", "add", "default", "via", "10.65.0.1")
        gateway = link_local_of(one)
        guest.ip("-6", "route", "add", "default", "via", gateway, "dev", "eth0")
        return guest

    def serve(self, *endpoints: Endpoint, resync: bool = False) -> Outcome:
        """Make one pass for these endpoints and no others."""
        world = self.world(endpoints)
        self.inform(world)
        with in_netns(self.host):
            if self.keeper is None:
                self.keeper = Keeper(Kernel(), self.settings)
            gateways = plan_dnsmasq(world).gateways
            _, delta = self.keeper.compare(world, gateways, resync=resync)
            outcome = self.keeper.apply(delta)
            problems = self.cutter.follow(
                outcome, delta.filter, self.groups, self.operator
            )
            return replace(outcome, problems=(*outcome.problems, *problems))

    def changes(self, *endpoints: Endpoint, resync: bool = True) -> list[str]:
        """Return what a pass would change."""
        world = self.world(endpoints)
        with in_netns(self.host):
            assert self.keeper is not None
            gateways = plan_dnsmasq(world).gateways
            _, delta = self.keeper.compare(world, gateways, resync=resync)
            return delta.lines()

    def world(self, endpoints: tuple[Endpoint, ...]) -> World:
        """Return a world with these endpoints."""
        return World(
            host=HOST,
            endpoints=endpoints,
            subnets=self.subnets,
            settings=self.cloud,
            groups=self.groups,
            logs=self.logs,
            operator=self.operator,
            names=self.names,
        )

    def restart(self) -> None:
        """Forget what an agent remembers."""
        self.keeper = None
        self.cutter = Cutter(KernelConnections())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()


@contextmanager
def host_bed() -> Iterator[HostBed]:
    with ExitStack() as stack:
        host = stack.enter_context(Netns("host"))
        yield HostBed(host=host, stack=stack)


def link_local_of(one: Endpoint) -> str:
    """Return the gateway's link-local address: fixed by the port's MAC (P37)."""
    octets = one.mac.split(":")
    suffix = f"fc{octets[1]}:{octets[2]}ff:fe{octets[3]}:{octets[4]}{octets[5]}"
    return str(ip_address(f"fe80::{suffix}"))


def rows(namespace: Netns, *argv: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ip("-j", *argv, namespace=namespace.name))
    return found
