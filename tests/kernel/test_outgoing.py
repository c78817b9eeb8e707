"""What instances with floating IPs send, where it is to come from these: S13, S9."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.endpoints import NETWORK, endpoint
from tests.kernel.agent_host import KEYS, agent_host
from tests.kernel.capture import arrivals
from tests.kernel.data_path import SUBNETS, host_bed
from tests.kernel.netns import Netns, eventually, in_netns, link
from tests.kernel.outside import OUTSIDE, outside_of
from tests.kernel.test_floating_ips import (
    OTHER,
    PORT,
    E,
    Site,
    changes,
    floating,
    talk,
)

from calico.model.cloud_settings import (
    DEFAULTS,
    CloudSettings,
    encode_cloud_settings,
)
from calico.model.ids import SubnetId
from calico.model.records import Endpoint, Nat, Subnet
from calico.system.conntrack import read_connections

ON = CloudSettings(translate_sources=True)
A, B = endpoint(2), endpoint(3)
FIXED = "10.65.0.2"
REMOTE = "10.66.0.9"  # an instance's address on another host


@dataclass
class Cloud(Site):
    """A host with two guests; beyond its uplink the outside and another host's."""

    def tell(self, settings: CloudSettings, *endpoints: Endpoint) -> None:
        self.bed.cloud = settings
        self.serve(*endpoints)

    def seen_as(self, at: Netns, to: str, by: Netns) -> tuple[str, str]:
        """Return whom a TCP server and a UDP server take a guest for."""
        made = talk(self, at, to, by)
        assert made is not None
        assert made.answers()
        receiver = self.socket(by, socket.SOCK_DGRAM)
        receiver.bind(("" if to in {E, OTHER} else to, PORT))
        sender = self.socket(at, socket.SOCK_DGRAM)
        sender.connect((to, PORT))
        datagrams = Datagrams(sender, receiver)
        source = datagrams.source()
        receiver.close()
        return str(made.far.getpeername()[0]), source


@dataclass(frozen=True)
class Datagrams:
    """Datagrams of one flow: who they come from, as their receiver sees it."""

    sender: socket.socket
    receiver: socket.socket

    def source(self) -> str:
        """Send one; it must be answered, to where it came from."""
        self.sender.send(b"?")
        source = self.receiver.recvfrom(1)[1]
        self.receiver.sendto(b"!", source)
        assert self.sender.recv(1) == b"!"
        return str(source[0])


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with host_bed() as bed, outside_of(bed) as outside:
        for one in (A, B):
            bed.plug(one)
        outside.ip("addr", "add", f"{REMOTE}/32", "dev", "lo")
        made = Cloud(bed, outside)
        with made.stack:
            yield made


def test_s13_source_translation_is_for_what_leaves_the_cloud_and_can_be_turned_off(
    cloud: Cloud,
) -> None:
    a, b, outside = cloud.guest(A), cloud.guest(B), cloud.outside
    own, other = floating(A, E), floating(B, OTHER)
    for settings, seen in ((DEFAULTS, FIXED), (ON, E), (DEFAULTS, FIXED)):
        cloud.tell(settings, own, B)
        assert cloud.seen_as(a, OUTSIDE, outside) == (seen, seen)
        with arrivals(outside, "eth0", "icmp") as pings:
            assert a.pings(OUTSIDE)
            pings.await_seen(f"{seen} > {OUTSIDE}")
        assert cloud.seen_as(b, OUTSIDE, outside) == ("10.65.0.3", "10.65.0.3")
        assert cloud.seen_as(a, REMOTE, outside) == (FIXED, FIXED)
        assert cloud.seen_as(a, "10.65.0.3", b) == (FIXED, FIXED)
    cloud.tell(ON, own, other)
    assert cloud.seen_as(a, OTHER, b) == (FIXED, FIXED), "by another's floating IP"
    assert cloud.seen_as(a, E, a) == (E, E), "by its own"


def test_s09_without_source_translation_nothing_is_there_that_translates(
    cloud: Cloud,
) -> None:
    cloud.tell(DEFAULTS, floating(A, E), B)
    for name in ("outgoing4", "cloud4"):
        kind = "map" if name == "outgoing4" else "set"
        listed = ["nft", "list", kind, "inet", "calico", name]
        assert "elements" not in cloud.host.run(listed).stdout
    cloud.tell(ON, A, B)
    assert "elements" not in cloud.host.run(listed).stdout, "no floating IP is here"


def test_s17_source_translation_lets_nobody_send_from_a_floating_ip(
    cloud: Cloud,
) -> None:
    cloud.tell(ON, floating(A, E), B)
    a = cloud.guest(A)
    assert a.pings(OUTSIDE), "and knows the gateway from now on"
    a.ip("addr", "add", f"{E}/32", "dev", "eth0")
    assert not a.pings(OUTSIDE, source=E)
    assert a.pings(OUTSIDE, source=FIXED)


def test_s13_each_address_of_a_port_is_seen_as_its_own_floating_ip(
    cloud: Cloud,
) -> None:
    second = ip_address("10.65.0.22")
    nats = [(second, "10.78.0.4"), (A.addresses[0], OTHER), (A.addresses[0], E)]
    one = replace(
        A,
        addresses=(*A.addresses, second),
        nats=tuple(Nat(internal=i, external=ip_address(e)) for i, e in nats),
    )
    cloud.tell(ON, one, B)
    a = cloud.guest(A)
    a.ip("addr", "add", f"{second}/24", "dev", "eth0")
    with arrivals(cloud.outside, "eth0", "icmp") as seen:
        for source in (FIXED, str(second)):
            assert a.pings(OUTSIDE, source=source)
        seen.await_seen(f"{E} > {OUTSIDE}")  # the lower of two
        seen.await_seen(f"10.78.0.4 > {OUTSIDE}")


def flow(cloud: Cloud, at: Netns, bound: int) -> Datagrams:
    receiver = cloud.socket(cloud.outside, socket.SOCK_DGRAM)
    receiver.bind((OUTSIDE, bound))
    sender = cloud.socket(at, socket.SOCK_DGRAM)
    sender.connect((OUTSIDE, bound))
    return Datagrams(sender, receiver)


def test_s13_what_is_seen_as_a_floating_ip_ends_when_that_goes_elsewhere(
    cloud: Cloud,
) -> None:
    own, a, b = floating(A, E), cloud.guest(A), cloud.guest(B)
    cloud.tell(ON, own, B)
    datagrams, others = flow(cloud, a, 81), flow(cloud, b, 82)
    assert datagrams.source() == E
    assert others.source() == "10.65.0.3"
    first = talk(cloud, a, OUTSIDE, cloud.outside)
    assert first is not None
    cloud.tell(ON, floating(A, E, OTHER), B)
    cloud.tell(DEFAULTS, own, B)
    assert datagrams.source() == E, "what has begun goes on while it has that"
    assert first.passes()
    assert first.answers()
    cloud.tell(ON, A, floating(B, E))
    assert datagrams.source() == FIXED
    assert not first.passes()
    assert flow(cloud, b, 83).source() == E
    assert others.source() == "10.65.0.3", "it began as that"
    cloud.bed.restart()
    cloud.tell(DEFAULTS, own, B)
    with in_netns(cloud.host):
        seen = {c.seen_as for c in read_connections(lambda _: True)}
    assert seen == {None}, "of B's flow, whatever happened while no agent was here"


def test_a_flow_of_which_a_port_alone_was_changed_is_seen_as_from_its_sender(
    cloud: Cloud,
) -> None:
    cloud.tell(ON, floating(A, E), B)
    server = cloud.socket(cloud.guest(A), socket.SOCK_DGRAM)
    server.bind((FIXED, PORT))
    client = cloud.socket(cloud.guest(B), socket.SOCK_DGRAM)
    client.bind(("10.65.0.3", 4000))
    for address in (E, FIXED):
        client.sendto(b"?", (address, PORT))
    ports = {server.recvfrom(1)[1][1] for _ in range(2)}
    assert len(ports) == 2, "the kernel told the two flows apart"
    with in_netns(cloud.host):
        found = list(read_connections(lambda a: a in B.addresses))
    assert {one.seen_as for one in found} == {None}


NEW = Subnet(id=SubnetId("new4"), network=NETWORK, prefix=ip_network("192.0.2.128/25"))


def test_p39_a_new_subnet_is_one_element_and_keeps_addresses_to_itself(
    cloud: Cloud, tmp_path: Path
) -> None:
    own = floating(A, E)
    cloud.tell(ON, own, B)
    cloud.outside.ip("addr", "add", "192.0.2.200/32", "dev", "lo")
    a, outside = cloud.guest(A), cloud.outside
    assert cloud.seen_as(a, "192.0.2.200", outside) == (E, E)
    with changes(cloud, tmp_path) as told:
        cloud.bed.subnets = {**SUBNETS, NEW.id: NEW}
        cloud.serve(own, B)
    assert sorted(line for line in told if "192.0.2" in line) == [
        "add element inet calico broadcasts { 192.0.2.255 }",
        "add element inet calico cloud4 { 192.0.2.128/25 }",
    ]
    assert len(told) == 2
    assert cloud.seen_as(a, "192.0.2.200", outside) == (FIXED, FIXED)
    cloud.bed.subnets = SUBNETS
    cloud.serve(own, B)
    assert cloud.seen_as(a, "192.0.2.200", outside) == (E, E)


def test_p40_a_running_agent_follows_the_clouds_settings() -> None:
    with agent_host() as host, Netns("outside") as outside:
        bed = host.bed
        bed.plug(A)
        link(bed.host, "up0", outside, "eth0")
        bed.host.ip("addr", "add", "198.51.100.1/24", "dev", "up0")
        outside.ip("addr", "add", "198.51.100.2/24", "dev", "eth0")
        outside.ip("route", "add", "default", "via", "198.51.100.1")
        settings = host.settings.read_text()
        host.settings.write_text(settings.replace('["lo"]', '["lo", "up0"]'))
        host.start()
        host.publish(floating(A, E))
        host.await_statuses({A.port: "up"})
        written = encode_cloud_settings(ON).decode()
        words = {True: ["put", KEYS.settings, written]}
        words[False] = ["del", KEYS.settings]
        with arrivals(outside, "eth0", "icmp") as seen:
            for on in (True, False):
                host.etcdctl(*words[on])
                source = E if on else FIXED
                seen.lines.clear()

                def arrives(source: str = source) -> bool:
                    assert bed.guests[A.port].pings("198.51.100.2")
                    return seen.seen(f"{source} > 198.51.100.2")

                eventually(arrives)
        (agent,) = host.agents
        assert agent.poll() is None
