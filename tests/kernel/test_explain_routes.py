"""A real kernel is asked for the routes of packets that it would forward."""

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from tests.kernel.netns import Netns, link

from calico.policy.evaluate import Packet
from calico.verify.explain.routes import Forwarded, Unroutable, question, read_route
from calico.verify.explain.routes import Route as Answer
from calico.verify.inside import NamespacePlace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

WAYS = {"up1", "up2"}


@pytest.fixture
def router() -> Iterator[NamespacePlace]:
    """A router with two equal ways to 10.99.0.0/16 and fd99::/64, and `in`."""
    with Netns("r") as router, Netns("far") as far:
        router.sysctl("net.ipv4.ip_forward", 1)
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        for number, name in enumerate(("in", "up1", "up2"), 1):
            macs = (f"02:00:00:00:00:0{number}", f"02:00:00:00:01:0{number}")
            link(router, name, far, name, macs=macs)
            router.ip("address", "add", f"10.0.{number}.1/24", "dev", name)
            router.ip("address", "add", f"fd0{number}::1/64", "dev", name, "nodad")
        hops = ("nexthop", "via", "10.0.2.2", "nexthop", "via", "10.0.3.2")
        router.ip("route", "add", "10.99.0.0/16", *hops)
        hops = ("nexthop", "via", "fd02::2", "nexthop", "via", "fd03::2")
        router.ip("-6", "route", "add", "fd99::/64", *hops)
        yield NamespacePlace(router.name, router.name)


def asked(router: NamespacePlace, source: str, destination: str) -> Answer:
    packet = Packet(
        source=ip_address(source), destination=ip_address(destination), protocol=6
    )
    answer = router.run(question(packet, "in"))
    matched = router.run(question(packet, "in", matched=True))
    return read_route(answer.stdout, answer.stderr, matched.stdout)


@pytest.mark.parametrize(
    ("source", "destination", "prefix"),
    [
        ("10.0.1.9", "10.99.0.1", "10.99.0.0/16"),
        ("fd01::9", "fd99::1", "fd99::/64"),
    ],
)
def test_equal_ways_are_all_named(
    router: NamespacePlace, source: str, destination: str, prefix: str
) -> None:
    route = asked(router, source, destination)
    assert isinstance(route, Forwarded)
    assert route.prefix == prefix
    assert len(route.others) == 1
    assert {route.interface, route.others[0].split()[-1]} == WAYS


@pytest.mark.parametrize(
    ("source", "destination"), [("10.0.1.9", "10.98.0.1"), ("fd01::9", "fd98::1")]
)
def test_no_route_is_said_in_words(
    router: NamespacePlace, source: str, destination: str
) -> None:
    route = asked(router, source, destination)
    assert isinstance(route, Unroutable)
    assert route.reason.startswith("there is no route")
