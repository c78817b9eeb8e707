"""Hosts and routers with a BIRD each, in namespaces, for the tests of BGP."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Self

from tests.kernel.netns import Netns, eventually, in_netns

from calico.model.ids import HostName, NetworkId, SubnetId
from calico.model.records import BgpConfiguration, BgpPeer, Node, Subnet
from calico.model.world import World
from calico.plan.bird import BgpFacts, plan_bird
from calico.plan.bird_status import ProtocolStatus
from calico.system.bird import Bird
from calico.system.daemon import Daemon

SUBNETS = ("10.65.0.0/16", "fd65::/32")


@dataclass
class Speaker:
    """A namespace with a BIRD: a host if it has facts, else a router."""

    netns: Netns
    run_dir: Path
    facts: BgpFacts | None = None
    bird: Bird = field(init=False)

    def __post_init__(self) -> None:
        self.bird = Bird(self.run_dir)

    def apply(self, config: str) -> None:
        """Have BIRD run a configuration; it must take it."""
        with in_netns(self.netns):
            assert self.bird.apply(config) == []

    def serve(self, world: World) -> None:
        """Have a host's BIRD run what is planned for the world."""
        assert self.facts is not None
        self.apply(plan_bird(world, self.facts))

    def protocols(self) -> dict[str, ProtocolStatus]:
        return {p.name: p for p in self.bird.protocols()}

    def sessions(self) -> list[ProtocolStatus]:
        return [p for p in self.bird.protocols() if p.kind == "BGP"]

    def await_sessions(self, count: int) -> None:
        """Wait until exactly `count` sessions are there, all established."""
        eventually(
            lambda: (
                len(self.sessions()) == count
                and all(s.established for s in self.sessions())
            ),
            timeout=30,
            message=lambda: f"{self.netns.name}: {self.sessions()}",
        )

    def daemon(self) -> Daemon:
        """Return BIRD's process, for tests to kill."""
        return self.bird._daemon

    def add_route(self, prefix: str, *more: str) -> None:
        """Add a route of an instance: to a device, with the agent's mark."""
        self.netns.ip("route", "add", prefix, "dev", "taps", "proto", "111", *more)

    def del_route(self, prefix: str) -> None:
        self.netns.ip("route", "del", prefix, "dev", "taps", "proto", "111")

    def routes(self, version: int = 4) -> dict[str, dict[str, Any]]:
        """Return the routes that BIRD put into the kernel, by destination."""
        text = self.netns.ip(
            "-j", f"-{version}", "route", "show", "proto", "bird", "table", "main"
        )
        return {route["dst"]: route for route in json.loads(text or "[]")}

    def gateway(self, prefix: str) -> str | None:
        """Return the next hop of BIRD's route to a prefix; None without one.

        There may be none for a moment where a better one takes another's place: its
        owner withdraws when he hears of the better, perhaps before others have.
        """
        gateway: str | None = self.routes().get(prefix, {}).get("gateway")
        return gateway

    def await_route(self, prefix: str, version: int = 4) -> dict[str, Any]:
        """Wait for a route of BIRD's in the kernel and return it."""
        eventually(
            lambda: prefix in self.routes(version),
            message=lambda: f"{prefix} not in {self.routes(version)}",
        )
        return self.routes(version)[prefix]

    def await_no_route(self, prefix: str, version: int = 4) -> None:
        eventually(
            lambda: prefix not in self.routes(version),
            message=f"{prefix} still in the kernel",
        )


@contextmanager
def speaker(
    name: str, directory: Path, facts: BgpFacts | None = None
) -> Iterator[Speaker]:
    """Make a namespace that forwards, with an interface `taps` for instances."""
    with Netns(name) as netns:
        netns.sysctl("net/ipv4/ip_forward", 1)
        netns.sysctl("net/ipv6/conf/all/forwarding", 1)
        netns.sysctl("net/ipv6/conf/default/accept_dad", 0)
        # A bridge without ports stands for the taps: up, and it takes routes.
        netns.ip("link", "add", "taps", "type", "bridge")
        netns.ip("link", "set", "taps", "up")
        it = Speaker(netns, directory / name, facts)
        try:
            yield it
        finally:
            it.bird.stop()


def host_facts(number: int, *, loopback: bool = False) -> BgpFacts:
    """Return the facts of host N of the tests: 172.30.0.N and fd00::N."""
    address4, address6 = f"172.30.0.{number}", f"fd00::{number}"
    on_link = (f"{address4}/24", f"{address6}/64")
    return BgpFacts(
        host=HostName(f"h{number}"),
        address4=IPv4Address(address4),
        address6=IPv6Address(address6),
        uplinks=("eth0",),
        connected=() if loopback else tuple(ip_interface(a) for a in on_link),
    )


@contextmanager
def lan(*speakers: Speaker) -> Iterator[None]:
    """Join speakers by one bridge; they get 172.30.0.N and fd00::N, N from 1."""
    with Netns("lan") as bridge:
        bridge.ip("link", "add", "name", "lan0", "type", "bridge")
        bridge.ip("link", "set", "lan0", "up")
        for number, member in enumerate(speakers, 1):
            end = ["name", "eth0", "netns", member.netns.name]
            bridge.ip("link", "add", f"p{number}", "type", "veth", "peer", *end)
            bridge.ip("link", "set", f"p{number}", "master", "lan0", "up")
            member.netns.ip("link", "set", "eth0", "up")
            number_of(member, number)
        yield


def number_of(member: Speaker, number: int, interface: str = "eth0") -> None:
    """Give an interface the addresses of host N."""
    for address in (f"172.30.0.{number}/24", f"fd00::{number}/64"):
        nodad = ["nodad"] if ":" in address else []
        member.netns.ip("address", "add", address, "dev", interface, *nodad)


def world_of(
    host: HostName,
    *,
    subnets: Sequence[str] = SUBNETS,
    peers: Sequence[BgpPeer] = (),
    nodes: Sequence[Node] = (),
    full_mesh: bool = True,
) -> World:
    """Return a host's world with these subnets and BGP resources."""
    made = [
        Subnet(
            id=SubnetId(f"s{prefix}"),
            network=NetworkId("n"),
            prefix=ip_network(prefix),
        )
        for prefix in subnets
    ]
    return World(
        host=host,
        subnets={subnet.id: subnet for subnet in made},
        bgp=BgpConfiguration(full_mesh=full_mesh),
        peers=tuple(peers),
        nodes=tuple(nodes),
    )


def node(number: int, as_number: int | None = None) -> Node:
    """Return host N as a Node resource."""
    return Node(
        name=HostName(f"h{number}"),
        address4=IPv4Address(f"172.30.0.{number}"),
        address6=IPv6Address(f"fd00::{number}"),
        as_number=as_number,
    )


class RouteEvents:
    """What happens to a namespace's routes meanwhile: `ip monitor route`."""

    def __init__(self, netns: Netns, log: Path) -> None:
        self._netns = netns
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = self._netns.popen(
                ["ip", "-o", "monitor", "route"], stdout=log
            )
        # The monitor listens once it reports what is made to happen.
        mark = ["198.18.0.1/32", "dev", "taps"]

        def listens() -> bool:
            self._netns.ip("route", "add", *mark)
            self._netns.ip("route", "del", *mark)
            return "Deleted 198.18.0.1" in self._log.read_text()

        eventually(listens)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def added(self) -> list[str]:
        """Return the routes of instances that came, or changed, since we listen."""
        lines = self._log.read_text().splitlines()
        return [line for line in lines if line.startswith("10.65.")]

    def deleted(self) -> list[str]:
        """Return the routes of instances that were deleted since we listen."""
        lines = self._log.read_text().splitlines()
        return [line for line in lines if line.startswith("Deleted 10.65.")]
