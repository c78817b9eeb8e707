"""Floating IPs on a host, with real packets: S13, and what must not change by them."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import pytest
from tests.endpoints import endpoint
from tests.kernel.agent_host import agent_host
from tests.kernel.bgp_hosts import (
    Speaker,
    host_facts,
    lan,
    node,
    speaker,
    world_of,
)
from tests.kernel.capture import arrivals
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually, in_netns
from tests.kernel.outside import OUTSIDE, accepted, outside_of

from calico.model.groups import Groups
from calico.model.ids import Address, GroupId, PortId
from calico.model.records import Endpoint, Nat, Policy, PortRange, Rule
from calico.system.conntrack import read_connections

E, OTHER = "10.78.0.5", "10.78.0.6"  # in a subnet of the cloud
PORT = 80
QUIET = 0.3  # seconds in which nothing may arrive: an answer takes a millisecond
A, B = endpoint(2), endpoint(3)


def floating(one: Endpoint, *externals: str) -> Endpoint:
    """Return a port with these floating IPs for its IPv4 address."""
    nats = (Nat(internal=one.addresses[0], external=ip_address(e)) for e in externals)
    return replace(one, nats=tuple(nats))


@dataclass
class Site:
    """A host with two guests and a client beyond its uplink."""

    bed: HostBed
    outside: Netns
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def host(self) -> Netns:
        return self.bed.host

    def guest(self, one: Endpoint) -> Netns:
        return self.bed.guests[one.port]

    def socket(self, at: Netns, kind: socket.SocketKind) -> socket.socket:
        with in_netns(at):
            made = self.stack.enter_context(socket.socket(socket.AF_INET, kind))
        made.settimeout(QUIET)
        return made

    def serve(self, *endpoints: Endpoint) -> None:
        assert self.bed.serve(*endpoints).problems == ()
        assert self.bed.changes(*endpoints) == []


@pytest.fixture
def site() -> Iterator[Site]:
    with host_bed() as bed, outside_of(bed) as outside:
        for one in (A, B):
            bed.plug(one)
        made = Site(bed, outside)
        with made.stack:
            yield made


class Servers:
    """A datagram socket in each guest: whom does a client reach?"""

    def __init__(self, site: Site, *ports: Endpoint) -> None:
        self._sockets: dict[PortId, socket.socket] = {}
        for one in ports:
            bound = site.socket(site.guest(one), socket.SOCK_DGRAM)
            bound.bind((str(one.addresses[0]), PORT))
            self._sockets[one.port] = bound

    def reached(self, client: socket.socket) -> tuple[PortId, str] | None:
        """Return who receives from a connected client, and from which address.

        The client must have an answer.
        """
        client.send(b"?")
        with DefaultSelector() as ready:
            for port, at in self._sockets.items():
                ready.register(at, EVENT_READ, port)
            for key, _ in ready.select(QUIET):
                at = self._sockets[key.data]
                source = at.recvfrom(1)[1]
                at.sendto(b"!", source)
                assert client.recv(1) == b"!"
                return key.data, source[0]
        return None


def client(site: Site, at: Netns, to: str = E) -> socket.socket:
    """Return a datagram socket that hears nobody but `to`."""
    made = site.socket(at, socket.SOCK_DGRAM)
    made.connect((to, PORT))
    return made


@dataclass(frozen=True, slots=True)
class Talk:
    """An established TCP connection."""

    near: socket.socket
    far: socket.socket

    def passes(self) -> bool:
        return self._arrives(self.near, self.far)

    def answers(self) -> bool:
        return self._arrives(self.far, self.near)

    @staticmethod
    def _arrives(sender: socket.socket, receiver: socket.socket) -> bool:
        try:
            sender.send(b"x")
            return bool(receiver.recv(1))
        except OSError:
            return False


def talk(
    site: Site, near: Netns, to: str, far: Netns, *, port: int = PORT
) -> Talk | None:
    """Connect to a server that listens at any address; None if that does not work."""
    with ExitStack() as stack:
        server = stack.enter_context(site.socket(far, socket.SOCK_STREAM))
        made = site.socket(near, socket.SOCK_STREAM)
        end = accepted(server, port, made, (to, port))
    if end is None:
        return None
    site.stack.enter_context(end).settimeout(QUIET)
    return Talk(made, end)


def test_s13_a_floating_ip_leads_to_its_instance_from_everywhere(site: Site) -> None:
    own = floating(A, E, OTHER)
    site.serve(own, B)
    a, b = site.guest(A), site.guest(B)
    servers = Servers(site, A, B)
    b.ip("route", "add", "10.78.0.0/24", "dev", "eth0")  # as if it were a neighbour
    for at, seen in ((site.outside, OUTSIDE), (b, "10.65.0.3"), (a, E)):
        assert servers.reached(client(site, at)) == (A.port, seen)
        assert at.pings(E)
    assert servers.reached(client(site, a, OTHER)) == (A.port, OTHER)
    assert servers.reached(client(site, site.host)) is not None
    assert b.ip("neigh", "show", E).split()[4] == "fe" + B.mac[2:]


def test_s13_an_instances_own_connections_keep_its_address(site: Site) -> None:
    site.serve(floating(A, E), B)
    with arrivals(site.outside, "eth0", "icmp") as seen:
        assert site.guest(A).pings(OUTSIDE)
        seen.await_seen(f"10.65.0.2 > {OUTSIDE}")
    assert not seen.seen(E)
    direct = talk(site, site.outside, "10.65.0.2", site.guest(A))
    assert direct is not None
    assert direct.near.getpeername()[0] == "10.65.0.2"
    assert direct.far.getpeername()[0] == OUTSIDE


def test_s17_an_instance_does_not_send_from_its_floating_ip(site: Site) -> None:
    site.serve(floating(A, E), B)
    a = site.guest(A)
    assert a.pings(OUTSIDE), "and knows the gateway from now on"
    a.ip("addr", "add", f"{E}/32", "dev", "eth0")
    with arrivals(site.outside, "eth0", "icmp") as seen:
        assert not a.pings(OUTSIDE, source=E)
        assert a.pings(OUTSIDE, source="10.65.0.2")
        seen.await_seen(f"10.65.0.2 > {OUTSIDE}")
    assert not seen.seen(f"{E} >")


def served(address: Address) -> bool:
    return address in A.addresses


GUARDED, SENDERS = GroupId("guarded"), GroupId("senders")


def groups(ingress: str, egress: str) -> Groups:
    """Return groups: `guarded` takes TCP 80 from, `senders` send to a prefix."""

    def rule(remote: str) -> tuple[Rule, ...]:
        ports = PortRange(first=PORT, last=PORT)
        prefix = ip_network(remote)
        return (Rule(version=4, protocol=6, ports=ports, remote=prefix, id="r"),)

    guarded = Policy(group=GUARDED, name="", ingress=rule(ingress))
    senders = Policy(group=SENDERS, name="", egress=rule(egress))
    return Groups(policies={GUARDED: guarded, SENDERS: senders})


def test_s13_groups_see_who_sent_it_and_the_instances_own_address(site: Site) -> None:
    server = replace(floating(A, E), groups=frozenset({GUARDED}))
    sender = replace(B, groups=frozenset({SENDERS}))
    a, b = site.guest(A), site.guest(B)

    def tries(ingress: str, egress: str) -> list[bool]:
        site.bed.groups = groups(ingress, egress)
        site.serve(server, sender)
        return [talk(site, at, E, a) is not None for at in (site.outside, b)]

    assert tries(f"{OUTSIDE}/32", "10.65.0.2/32") == [True, False]
    assert tries("10.65.0.3/32", "10.65.0.2/32") == [False, True]
    assert tries("0.0.0.0/0", f"{E}/32") == [True, False]
    assert talk(site, site.outside, E, a, port=81) is None, "no rule for that port"
    established = talk(site, site.outside, E, a)
    assert established is not None
    with in_netns(site.host):
        judged = {(c.asked, c.packet.destination) for c in read_connections(served)}
    assert judged == {(ip_address(E), A.addresses[0])}
    tries("10.65.0.3/32", "10.65.0.2/32")
    assert not established.passes(), "no longer allowed (P7)"
    assert not established.answers()


def test_s13_a_floating_ip_that_moves_takes_its_connections_along(site: Site) -> None:
    site.serve(floating(A, E), B)
    a, b = site.guest(A), site.guest(B)
    servers = Servers(site, A, B)
    faithful = client(site, site.outside)
    assert servers.reached(faithful) == (A.port, OUTSIDE)
    to_a = talk(site, site.outside, E, a)
    direct = talk(site, site.outside, "10.65.0.2", a, port=81)
    assert to_a is not None
    assert direct is not None
    site.serve(A, floating(B, E))
    assert not to_a.passes()
    assert not to_a.answers()
    assert servers.reached(faithful) == (B.port, OUTSIDE), "of the same flow"
    to_b = talk(site, site.outside, E, b)
    assert to_b is not None
    site.serve(A, B)
    assert not to_b.passes()
    assert not to_b.answers()
    assert servers.reached(client(site, site.outside)) is None
    assert servers.reached(faithful) is None
    assert direct.passes(), "nothing of it was translated"
    assert direct.answers()


def test_s13_what_changed_while_no_agent_ran_is_forgotten_at_the_next_start(
    site: Site,
) -> None:
    site.serve(floating(A, E), B)
    servers = Servers(site, A, B)
    faithful = client(site, site.outside)
    assert servers.reached(faithful) == (A.port, OUTSIDE)
    site.bed.restart()
    site.serve(B)
    assert servers.reached(faithful) is None
    site.serve(A, floating(B, E))
    assert servers.reached(faithful) == (B.port, OUTSIDE)


def test_s13_a_flow_that_began_before_finds_the_floating_ip(site: Site) -> None:
    site.serve(A, B)
    servers = Servers(site, A)
    early = client(site, site.guest(B))
    assert servers.reached(early) is None, "it left by the uplink"
    site.serve(floating(A, E), B)
    assert servers.reached(early) == (A.port, "10.65.0.3")


def rules(site: Site) -> list[str]:
    """Return the rules of the host, as they are listed."""
    listed = json.loads(site.host.run(["nft", "-j", "list", "ruleset"]).stdout)
    return [str(e["rule"]["expr"]) for e in listed["nftables"] if "rule" in e]


@contextmanager
def changes(site: Site, folder: Path) -> Iterator[list[str]]:
    """Collect what nftables tells of changes; all of it is there at the end."""
    path = folder / "monitor"
    with path.open("w") as log:
        monitor = site.host.popen(["nft", "monitor"], stdout=log)
    told: list[str] = []

    def await_mark(name: str) -> None:
        def made() -> bool:
            for verb in ("add", "delete"):
                site.host.run(["nft", verb, "table", "ip", name])
            return f"delete table ip {name}" in path.read_text()

        eventually(made)

    await_mark("begun")  # it listens
    yield told
    await_mark("ended")
    monitor.terminate()
    monitor.wait(10)
    changed = path.read_text().rpartition("delete table ip begun\n")[2]
    told += [
        line
        for line in changed.partition("add table ip ended")[0].splitlines()
        if not line.startswith("#")
    ]


def test_p39_one_more_floating_ip_is_its_elements_however_many_there_are(
    site: Site, tmp_path: Path
) -> None:
    site.serve(floating(A, E), B)
    few = rules(site)
    externals = [f"10.78.{n // 250}.{n % 250 + 1}" for n in range(1000)]
    site.serve(floating(A, *externals[:-1]), B)
    with changes(site, tmp_path) as told:
        outcome = site.bed.serve(floating(A, *externals), B)
    assert outcome.problems == ()
    assert outcome.changes == {"element": 2, "route": 1}
    assert told == [
        f"add element inet calico floating4 {{ {externals[-1]} : 10.65.0.2 }}",
        f"add element inet calico hairpin4 {{ 10.65.0.2 . {externals[-1]} }}",
    ]
    assert rules(site) == few
    with changes(site, tmp_path) as told:
        assert site.bed.serve(floating(A, *externals)).problems == ()
    assert told != [], "another port went"
    assert not any("10.78." in line for line in told)
    servers = Servers(site, A)
    for external in (externals[0], externals[500], externals[-1]):
        asking = client(site, site.outside, external)
        assert servers.reached(asking) == (A.port, OUTSIDE)


def test_s13_a_floating_ip_is_announced_by_the_host_that_serves_it(
    tmp_path: Path,
) -> None:
    with host_bed() as bed, speaker("h2", tmp_path, host_facts(2)) as peer:
        bed.plug(A)
        assert bed.serve(floating(A, E)).problems == ()
        host = Speaker(bed.host, tmp_path / "h1", host_facts(1))
        bed.stack.callback(host.bird.stop)
        with lan(host, peer):
            for one in (host, peer):
                assert one.facts is not None
                nodes, space = [node(1), node(2)], ("10.65.0.0/24", "10.76.0.0/14")
                one.serve(world_of(one.facts.host, subnets=space, nodes=nodes))
            assert peer.await_route(E)["gateway"] == "172.30.0.1"
            eventually(lambda: peer.netns.pings(E))
            assert bed.serve(A).problems == ()
            peer.await_no_route(E)
            assert bed.serve(floating(A, E)).problems == ()
            peer.await_route(E)
            bed.host.ip("link", "del", A.interface)
            peer.await_no_route(E)


def test_p41_a_floating_ip_that_is_refused_is_told_and_the_others_are_served() -> None:
    with agent_host() as host:
        host.bed.plug(A)
        host.start()
        host.publish(floating(A, E, "198.51.100.9"))
        host.await_statuses({A.port: "up"})
        assert host.bed.host.pings(E)
        told = f"port {A.port}: translate 198.51.100.9: it is in no subnet"
        eventually(lambda: told in host.log)
        host.publish(A)
        eventually(lambda: not host.bed.host.pings(E))
