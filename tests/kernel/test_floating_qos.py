"""Bandwidth limits of floating IPs, measured with traffic.

A busy machine makes traffic slower and never faster: bounds from above are strict,
those from below are wide.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.endpoints import HOST, endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually
from tests.kernel.outside import OUTSIDE, outside_of
from tests.kernel.rates import Stream, stream

from calico.config import AgentSettings
from calico.model.cloud_settings import CloudSettings
from calico.model.qos import UNLIMITED, Bandwidth, Qos, bandwidth
from calico.model.records import Endpoint, Nat

A, B = endpoint(2), endpoint(3)
E, FREE = "10.78.0.5", "10.78.0.6"
FIXED = "10.65.0.2"
MBIT = 1_000_000
SMALL = 200_000  # bits: a burst that hardly counts in a measurement
GIANT = 8 * 65536  # bits: what the kernel handles as one packet


def limited(limits: Qos, one: Endpoint = A, **more: Any) -> Endpoint:
    """Return a port with two floating IPs, of which the first is limited."""
    nats = (
        Nat(internal=one.addresses[0], external=ip_address(E), qos=limits),
        Nat(internal=one.addresses[0], external=ip_address(FREE)),
    )
    return replace(one, nats=nats, **more)


@dataclass
class Site:
    """A host with two guests, and a client beyond its uplink."""

    bed: HostBed
    outside: Netns

    def guest(self, one: Endpoint) -> Netns:
        return self.bed.guests[one.port]

    def serve(self, *endpoints: Endpoint) -> None:
        """Have them served; nothing is to be changed then."""
        assert self.bed.serve(*endpoints).problems == ()
        assert self.bed.changes(*endpoints) == []

    def stream(
        self, at: Netns, address: str, way: str = "ingress"
    ) -> AbstractContextManager[Stream]:
        """Fill a connection from a client to A, the way seen from A."""
        a, back = self.guest(A), way == "egress"
        return stream(at, a, address, own=FIXED, back=back)

    def lanes(self) -> list[str]:
        """Return what the host has of lanes and of filters that lead there."""
        host = self.bed.host
        show = {
            "class": ["tc", "class", "show", "dev", "calico-lanes"],
            "qdisc": ["tc", "qdisc", "show", "dev", "calico-lanes"],
            **{
                name: ["tc", "filter", "show", "dev", name, "egress"]
                for name in ("up0", A.interface, B.interface)
            },
        }
        texts = [host.run(argv, check=False).stdout for argv in show.values()]
        lines = "\n".join(texts).splitlines()
        ours = [line for line in lines if "ca11" in line or "Redirect" in line]
        # The kernel numbers the queues of lanes as it likes, and lists them so.
        return sorted(re.sub(r"\b8\w{3}:", "", line) for line in ours)


@pytest.fixture
def site() -> Iterator[Site]:
    with host_bed() as bed, outside_of(bed) as outside:
        bed.settings = AgentSettings(host=HOST, uplinks=("up0",))
        for one in (A, B):
            bed.plug(one)
        yield Site(bed, outside)


def holds(measured: Stream, limit: Bandwidth) -> None:
    """Assert that a limit is kept, and used."""
    assert measured.read(0.5) > 0.3 * limit.rate
    assert measured.total <= most(measured, limit)


def most(measured: Stream, limit: Bandwidth) -> float:
    """Return the most that may have come of a stream."""
    return limit.burst + GIANT + limit.rate * measured.elapsed


def test_p16_a_floating_ips_bandwidth_is_limited_each_way_and_nothing_else(
    site: Site,
) -> None:
    fast, slow = bandwidth(20 * MBIT, SMALL), bandwidth(8 * MBIT, SMALL)
    site.serve(limited(Qos(ingress=fast, egress=slow)), B)
    for way, limit, client in (
        ("ingress", fast, site.outside),
        ("egress", slow, site.outside),
        ("egress", slow, site.guest(B)),
    ):
        with site.stream(client, E, way) as measured:
            holds(measured, limit)
    for way, address in (("ingress", FREE), ("egress", FREE), ("egress", FIXED)):
        with site.stream(site.outside, address, way) as free:
            assert free.read(0.2) > 50 * MBIT
    site.serve(limited(UNLIMITED), B)
    with site.stream(site.outside, E, "egress") as free:
        assert free.read(0.2) > 50 * MBIT
    assert site.lanes() == []
    assert "calico-lanes" not in site.bed.host.ip("-br", "link")


def test_p16_what_is_seen_as_a_floating_ip_has_its_limits_too(site: Site) -> None:
    slow = bandwidth(6 * MBIT, SMALL)
    site.bed.cloud = CloudSettings(translate_sources=True)
    site.serve(limited(Qos(ingress=slow, egress=slow)), B)
    a = site.guest(A)
    for back in (False, True):
        with stream(a, site.outside, OUTSIDE, back=back) as measured:
            holds(measured, slow)
    with stream(a, site.guest(B), "10.65.0.3") as free:
        assert free.read(0.2) > 50 * MBIT


@pytest.mark.parametrize(
    ("way", "of_port", "of_floating"),
    [("ingress", 4, 20), ("egress", 4, 20), ("egress", 20, 4)],
)
def test_p16_a_ports_own_limit_holds_beside_it(
    site: Site, way: str, of_port: int, of_floating: int
) -> None:
    own, lane = (bandwidth(n * MBIT, SMALL) for n in (of_port, of_floating))
    limits = Qos(ingress=lane, egress=lane)
    site.serve(limited(limits, qos=Qos(ingress=own, egress=own)), B)
    with site.stream(site.outside, E, way) as measured:
        holds(measured, min(own, lane, key=lambda limit: limit.rate))


def test_p16_a_burst_passes_at_once_and_then_the_rate_holds(site: Site) -> None:
    limit = bandwidth(4 * MBIT, 12 * MBIT)
    site.serve(limited(Qos(egress=limit)), B)
    with site.stream(site.outside, E, "egress") as one:
        one.read(0.5)
        assert one.total > 10 * MBIT
        one.read(0.5)
        assert one.total <= most(one, limit)


def test_a_limit_changes_under_a_connection_that_lives_on(site: Site) -> None:
    slow, fast = bandwidth(2 * MBIT, SMALL), bandwidth(30 * MBIT, SMALL)
    site.serve(limited(Qos(egress=slow)), B)
    with site.stream(site.outside, E, "egress") as one:
        holds(one, slow)
        site.serve(limited(Qos(egress=fast)), B)
        eventually(lambda: one.read(0.2) > 10 * MBIT)


def test_p41_a_floating_ip_takes_its_lanes_along_and_leaves_none(site: Site) -> None:
    qos = Qos(ingress=bandwidth(8 * MBIT), egress=bandwidth(8 * MBIT))
    site.serve(limited(qos), B)
    lanes = site.lanes()
    site.serve(A, limited(qos, B))
    assert site.lanes() == lanes
    site.bed.host.ip("link", "del", B.interface)
    site.bed.serve(A, limited(qos, B))
    assert site.lanes() == [], "its port has no interface"


@pytest.mark.parametrize(
    "damage",
    [
        "ip link del calico-lanes",
        "ip link set calico-lanes down",
        "tc class change dev calico-lanes parent ca11: classid {lane} htb rate 1gbit",
        "tc qdisc replace dev calico-lanes parent {lane} pfifo limit 5",
        "tc filter del dev up0 egress",
        "tc qdisc del dev {tap} clsact",
    ],
)
def test_a_lane_that_somebody_undid_is_made_good(site: Site, damage: str) -> None:
    limit = bandwidth(8 * MBIT)
    wanted = (limited(Qos(ingress=limit, egress=limit)), B)
    site.serve(*wanted)
    before = site.lanes()
    lane = next(line.split()[2] for line in before if line.startswith("class"))
    words = damage.format(lane=lane, tap=A.interface)
    site.bed.host.run(words.split())
    assert site.bed.changes(*wanted) != []
    site.serve(*wanted)
    assert site.lanes() == before
    with site.stream(site.outside, E, "egress") as measured:
        assert measured.read(0.1) > 0
