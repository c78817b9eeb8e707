"""Port forwarding of floating IPs on a host, with real packets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address

import pytest
from tests.endpoints import endpoint
from tests.kernel.agent_host import agent_host
from tests.kernel.capture import arrivals
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually, in_netns, link
from tests.kernel.outside import accepted
from tests.kernel.talks import QUIET, Talk

from calico.model.records import Endpoint, Forwarding, Nat, PortRange
from calico.system.conntrack import read_connections

E = "10.78.0.5"  # in a subnet of the cloud
CLIENT, ROUTER, REMOTE = "203.0.113.7", "192.0.2.2", "10.66.0.9"
A, B = endpoint(2), endpoint(3)
SERVICE = 8080
TCP, UDP = 6, 17


def forwarding(
    first: int, internal: str, to: int, *, protocol: int = TCP, width: int = 1
) -> Forwarding:
    return Forwarding(
        external=IPv4Address(E),
        protocol=protocol,
        ports=PortRange(first=first, last=first + width - 1),
        internal=IPv4Address(internal),
        to=PortRange(first=to, last=to + width - 1),
    )


def serving(one: Endpoint, *forwardings: Forwarding) -> Endpoint:
    return replace(one, forwardings=forwardings)


TO_A, TO_B = forwarding(80, "10.65.0.2", SERVICE), forwarding(81, "10.65.0.3", SERVICE)
AWAY = forwarding(82, REMOTE, SERVICE)


@dataclass
class Site:
    """A host with two guests; behind a router a client, and an instance elsewhere."""

    bed: HostBed
    router: Netns
    client: Netns
    remote: Netns
    stack: ExitStack = field(default_factory=ExitStack)

    def guest(self, one: Endpoint) -> Netns:
        return self.bed.guests[one.port]

    def serve(self, *endpoints: Endpoint) -> None:
        outcome = self.bed.serve(*endpoints)
        assert outcome.problems == ()
        assert outcome.plan.refused_forwardings == ()
        assert self.bed.changes(*endpoints) == []

    def socket(self, at: Netns, kind: socket.SocketKind) -> socket.socket:
        with in_netns(at):
            made = self.stack.enter_context(socket.socket(socket.AF_INET, kind))
        made.settimeout(QUIET)
        return made

    def talk(
        self, near: Netns, port: int, far: Netns, service: int = SERVICE
    ) -> Talk | None:
        """Connect to a port of the floating IP, where `far` serves another.

        None if that does not work.
        """
        with ExitStack() as stack:
            server = stack.enter_context(self.socket(far, socket.SOCK_STREAM))
            made = self.socket(near, socket.SOCK_STREAM)
            end = accepted(server, service, made, (E, port))
        if end is None:
            return None
        talk = Talk(made, self.stack.enter_context(end))
        assert talk.passes()
        assert talk.passes(back=True)
        return talk

    def seen(
        self, near: Netns, port: int, far: Netns, service: int = SERVICE
    ) -> str | None:
        """Return which address the far end sees; None if there is no connection."""
        talk = self.talk(near, port, far, service)
        return str(talk.far.getpeername()[0]) if talk else None


@pytest.fixture
def site() -> Iterator[Site]:
    with (
        host_bed() as bed,
        Netns("router") as router,
        Netns("client") as client,
        Netns("remote") as remote,
    ):
        for one in (A, B):
            bed.plug(one)
        router.sysctl("net/ipv4/ip_forward", 1)
        link(bed.host, "up0", router, "eth0")
        link(router, "eth1", client, "eth0")
        link(router, "eth2", remote, "eth0")
        bed.host.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        bed.host.ip("route", "add", "default", "via", ROUTER)
        router.ip("addr", "add", f"{ROUTER}/24", "dev", "eth0")
        router.ip("addr", "add", "203.0.113.1/24", "dev", "eth1")
        router.ip("addr", "add", "10.66.0.1/24", "dev", "eth2")
        client.ip("addr", "add", f"{CLIENT}/24", "dev", "eth0")
        client.ip("route", "add", "default", "via", "203.0.113.1")
        remote.ip("addr", "add", f"{REMOTE}/24", "dev", "eth0")
        remote.ip("route", "add", "default", "via", "10.66.0.1")
        for prefix in (f"{E}/32", "10.65.0.0/24"):
            router.ip("route", "add", prefix, "via", "192.0.2.1")
        made = Site(bed, router, client, remote)
        with made.stack:
            yield made


def test_each_forwarded_port_leads_to_its_own_instance(site: Site) -> None:
    site.serve(serving(A, TO_A, TO_B, AWAY), B)
    a, b = site.guest(A), site.guest(B)
    client, remote, host = site.client, site.remote, site.bed.host
    assert site.seen(client, 80, a) == CLIENT
    assert site.seen(client, 81, b) == CLIENT
    # The answers of what is elsewhere would not come back here.
    assert site.seen(client, 82, remote) == E
    # From the instances, and from the host: to others, and each to itself.
    assert site.seen(b, 80, a) == "10.65.0.3"
    assert site.seen(a, 82, remote) == E
    assert site.seen(remote, 80, a) == REMOTE
    assert site.seen(remote, 82, remote) == E
    assert site.seen(a, 80, a) == E
    assert site.seen(b, 81, b) == E
    assert site.seen(host, 80, a) is not None
    assert site.seen(host, 82, remote) == E


def test_only_the_forwarded_ports_of_a_floating_ip_answer(site: Site) -> None:
    site.serve(serving(A, TO_A, TO_B), B)
    a = site.guest(A)
    udp = site.socket(site.client, socket.SOCK_DGRAM)
    udp.connect((E, 80))
    own = "10.65.0.2"
    with (
        arrivals(site.router, "eth0", f"src host {CLIENT} or src host {own}") as back,
        arrivals(a, "eth0", f"dst host {E} or dst host {own}") as through,
    ):
        udp.send(b"?")
        assert site.client.pings(own)
        back.await_seen(f"{own} > {CLIENT}")
        through.await_seen(f"{CLIENT} > {own}")
    assert not back.seen("UDP"), "it does not go to and fro"
    assert not through.seen(E), "nor to an instance, not even to be asked for"
    assert site.talk(site.client, 80, a) is not None
    for service in (81, 8080):
        assert site.talk(site.client, service, a, service) is None
    assert not site.client.pings(E)
    waiting = site.bed.host.ip("neigh", "show", "dev", "calico-dhcp")
    assert waiting == "", "nor does it wait for somebody who has the address"


def test_what_is_forwarded_elsewhere_or_not_at_all_ends_its_connections(
    site: Site,
) -> None:
    site.serve(serving(A, TO_A, AWAY), B)
    a, b = site.guest(A), site.guest(B)
    here, away = site.talk(site.client, 80, a), site.talk(site.client, 82, site.remote)
    assert here is not None
    assert away is not None
    with in_netns(site.bed.host):
        judged = {
            (c.asked_port, c.packet.destination, c.packet.port)
            for c in read_connections(lambda _: False)
        }
    assert judged == {
        (80, A.addresses[0], SERVICE),
        (82, ip_address(REMOTE), SERVICE),
    }
    # Its port is another's now; the other connection is let be.
    site.serve(A, serving(B, forwarding(80, "10.65.0.3", SERVICE), AWAY))
    assert not here.passes()
    assert not here.passes(back=True)
    assert away.passes()
    there = site.talk(site.client, 80, b)
    assert there is not None
    # To another port of the same instance.
    site.serve(serving(B, forwarding(80, "10.65.0.3", 9090)), A)
    assert not there.passes()
    assert not away.passes(), "it is not forwarded any more"
    assert not away.passes(back=True)
    last = site.talk(site.client, 80, b, 9090)
    assert last is not None
    site.serve(A, B)
    assert not last.passes()
    assert site.talk(site.client, 80, b, 9090) is None


def test_an_instance_that_goes_elsewhere_is_reached_there(site: Site) -> None:
    site.serve(serving(A, TO_A, TO_B), B)
    before = site.talk(site.client, 81, site.guest(B))
    assert before is not None
    # As a fabric leads to another host, once this one has no route of its own.
    site.bed.host.ip("route", "add", "10.65.0.3", "via", ROUTER, "metric", "32")
    site.router.ip("route", "add", "10.65.0.3", "via", REMOTE)
    site.remote.ip("addr", "add", "10.65.0.3/32", "dev", "eth0")
    site.serve(serving(A, TO_A, TO_B))
    # Its answers would be the instance's own: it ends, and does not hang.
    before.near.send(b"x")
    with pytest.raises(ConnectionResetError):
        before.near.recv(1)
    assert site.seen(site.client, 81, site.remote) == E


def test_many_ports_lead_to_as_many_or_to_one(site: Site) -> None:
    many = forwarding(2000, "10.65.0.2", 3000, width=5)
    single = replace(many, ports=PortRange(first=2100, last=2104), to=TO_A.to)
    udp = forwarding(2000, "10.65.0.3", 53, protocol=UDP)
    site.serve(serving(A, many, single, udp), B)
    a = site.guest(A)
    for port, service in ((2000, 3000), (2004, 3004), (2100, SERVICE), (2104, SERVICE)):
        assert site.talk(site.client, port, a, service) is not None
    assert site.talk(site.client, 2005, a, 3005) is None
    server, client = (
        site.socket(at, socket.SOCK_DGRAM) for at in (site.guest(B), site.client)
    )
    server.bind(("", 53))
    client.connect((E, 2000))
    client.send(b"?")
    server.sendto(b"!", server.recvfrom(1)[1])
    assert client.recv(1) == b"!"


def test_p39_one_more_forwarding_is_its_elements(site: Site) -> None:
    first = forwarding(1, "10.65.0.2", 1, width=999)
    site.serve(serving(A, first), B)
    more = (first, forwarding(5000, "10.65.0.3", 22))
    outcome = site.bed.serve(serving(A, *more), B)
    assert outcome.problems == ()
    assert outcome.changes == {"element": 2}, "its port, and its instance to itself"


def test_p41_what_is_not_forwarded_is_told_and_all_else_is_served() -> None:
    outside = replace(TO_A, external=IPv4Address("198.51.100.9"))
    with agent_host() as host:
        host.bed.plug(A)
        host.start()
        nat = Nat(internal=A.addresses[0], external=ip_address("10.78.0.6"))
        host.publish(replace(serving(A, TO_A, outside), nats=(nat,)))
        host.await_statuses({A.port: "up"})
        told = f"port {A.port}: do {outside}: it is in no subnet"
        eventually(lambda: told in host.log)
        assert host.bed.host.pings("10.78.0.6")
        (route,) = host.bed.host.ip("route", "show", E, "proto", "111").splitlines()
        assert route.startswith(f"{E} dev calico-dhcp")
        host.publish(A)
        eventually(lambda: not host.bed.host.ip("route", "show", E))
