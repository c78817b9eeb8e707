"""Two or three hosts in a full mesh: real BIRDs, real kernels, nothing by hand."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests.kernel.bgp_hosts import (
    Speaker,
    host_facts,
    lan,
    node,
    speaker,
    world_of,
)
from tests.kernel.netns import eventually

from calico.model.ids import NetworkId, SubnetId
from calico.model.records import Subnet
from calico.plan.items import YIELDING_METRIC

NODES = (node(1), node(2), node(3))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Speaker]]:
    directory = tmp_path_factory.mktemp("mesh")
    with ExitStack() as stack:
        hosts = [
            stack.enter_context(speaker(f"h{n}", directory, host_facts(n)))
            for n in (1, 2, 3)
        ]
        stack.enter_context(lan(*hosts))
        for host in hosts:
            assert host.facts is not None
            host.serve(world_of(host.facts.host, nodes=NODES))
        for host in hosts:
            host.await_sessions(4)
        yield hosts


def test_p43_a_mesh_comes_up_from_the_nodes_alone(mesh: list[Speaker]) -> None:
    a, b, _ = mesh
    a.add_route("10.65.0.5/32")
    a.add_route("fd65::5/128")
    route = b.await_route("10.65.0.5")
    assert route["gateway"] == "172.30.0.1"
    assert route["prefsrc"] == "172.30.0.2"
    route = b.await_route("fd65::5", 6)
    assert route["prefsrc"] == "fd00::2"
    a.del_route("10.65.0.5/32")
    a.del_route("fd65::5/128")
    b.await_no_route("10.65.0.5")
    b.await_no_route("fd65::5", 6)


def test_an_address_with_two_homes_is_reached_through_both(
    mesh: list[Speaker],
) -> None:
    a, b, c = mesh
    a.add_route("10.65.0.9/32")
    b.add_route("10.65.0.9/32")
    eventually(
        lambda: len(c.routes().get("10.65.0.9", {}).get("nexthops", ())) == 2,
        message=lambda: str(c.routes()),
    )
    # Each home keeps its own, and does not withdraw it for the other's sake.
    assert "10.65.0.9" not in a.routes()
    assert "10.65.0.9" not in b.routes()
    a.del_route("10.65.0.9/32")
    eventually(lambda: c.gateway("10.65.0.9") == "172.30.0.2")
    assert a.await_route("10.65.0.9")["gateway"] == "172.30.0.2"
    b.del_route("10.65.0.9/32")
    c.await_no_route("10.65.0.9")


def test_nothing_but_marked_routes_within_subnets_goes_out(
    mesh: list[Speaker],
) -> None:
    a, b, _ = mesh
    a.add_route("192.0.2.7/32")  # ours, but in no subnet
    a.netns.ip("route", "add", "10.65.0.77/32", "dev", "taps", "proto", "static")
    a.netns.ip("route", "add", "198.51.100.0/24", "dev", "taps", "proto", "static")
    a.netns.ip("route", "add", "default", "dev", "taps", "proto", "static")
    a.add_route("10.65.7.0/28")  # a pair with a CIDR
    b.await_route("10.65.7.0/28")
    assert set(b.routes()) == {"10.65.7.0/28"}
    # b would refuse the rest; but a must not even say it.
    said = a.bird.ask("show route export bgp4_172_30_0_2").text
    assert re.findall(r"\d+\.\d+\.\d+\.\d+/\d+", said) == ["10.65.7.0/28"]
    for prefix in ("192.0.2.7/32", "10.65.7.0/28"):
        a.del_route(prefix)
    for prefix in ("10.65.0.77/32", "198.51.100.0/24", "default"):
        a.netns.ip("route", "del", prefix, "dev", "taps")
    b.await_no_route("10.65.7.0/28")


def test_a_subnet_more_or_less_changes_filters_and_restarts_no_session(
    mesh: list[Speaker],
) -> None:
    a, b, _ = mesh
    more = ("10.65.0.0/16", "fd65::/32", "10.99.0.0/24")

    before = connections(a), connections(b)
    assert len(before[0]) == len(before[1]) == 4
    a.add_route("10.99.0.1/32")
    for host in mesh:
        assert host.facts is not None
        host.serve(world_of(host.facts.host, nodes=NODES, subnets=more))
    b.await_route("10.99.0.1")
    for host in mesh:
        assert host.facts is not None
        host.serve(world_of(host.facts.host, nodes=NODES))
    b.await_no_route("10.99.0.1")
    assert (connections(a), connections(b)) == before
    a.del_route("10.99.0.1/32")


def test_a_node_that_goes_takes_only_its_own_sessions(mesh: list[Speaker]) -> None:
    a, _, c = mesh
    a.add_route("10.65.0.11/32")
    c.await_route("10.65.0.11")
    assert c.facts is not None
    c.serve(world_of(c.facts.host, nodes=(node(1), node(3))))
    c.await_sessions(2)
    assert "10.65.0.11" in c.routes()
    c.serve(world_of(c.facts.host, nodes=NODES))
    c.await_sessions(4)
    a.del_route("10.65.0.11/32")
    c.await_no_route("10.65.0.11")


def test_a_broken_configuration_changes_nothing(mesh: list[Speaker]) -> None:
    a = mesh[0]
    (problem,) = a.bird.apply("protocol nonsense {")
    assert "syntax error" in str(problem)
    a.await_sessions(4)


def connections(host: Speaker) -> list[str]:
    """Return the TCP connections of BGP, by both ends' addresses and ports."""
    lines = host.netns.run(["ss", "-tnH", "state", "established"]).stdout.splitlines()
    ends = (" ".join(line.split()[2:4]) for line in lines)
    return sorted(end for end in ends if ":179" in end)


def test_a_route_that_yields_gives_way_to_another_hosts(mesh: list[Speaker]) -> None:
    a, b, c = mesh
    a.add_route("10.65.0.12/32", "metric", str(YIELDING_METRIC))
    assert c.await_route("10.65.0.12")["gateway"] == "172.30.0.1"
    # Worse before there is a better one: else both are used until it is withdrawn.
    said = c.bird.ask("show route for 10.65.0.12 all").text
    assert "BGP.local_pref: 50" in said
    assert "BGP.as_path: \n" in said
    b.add_route("10.65.0.12/32")
    eventually(lambda: c.gateway("10.65.0.12") == "172.30.0.2")
    # The host that it leaves sends on what still comes to it.
    eventually(lambda: via(a, "10.65.0.12") == "172.30.0.2")
    b.del_route("10.65.0.12/32")
    eventually(lambda: c.gateway("10.65.0.12") == "172.30.0.1")
    assert via(a, "10.65.0.12") == ""
    a.del_route("10.65.0.12/32")
    c.await_no_route("10.65.0.12")


def via(host: Speaker, address: str) -> str:
    """Return the gateway that a host sends to an address by; empty for its own tap."""
    (route,) = json.loads(host.netns.ip("-j", "route", "get", address))
    return str(route.get("gateway", ""))


def test_hosts_of_other_regions_are_believed_about_their_subnets(
    mesh: list[Speaker],
) -> None:
    a, b, c = mesh
    worlds = [world_of(h.facts.host, nodes=NODES) for h in mesh if h.facts]
    of_a = Subnet(
        id=SubnetId("a"), network=NetworkId("a"), prefix=ip_network("10.99.0.0/16")
    )
    a.serve(replace(worlds[0], subnets={of_a.id: of_a}))
    b.serve(replace(worlds[1], elsewhere=frozenset({of_a.prefix})))
    for address in ("10.99.0.7", "10.98.0.7"):
        a.add_route(f"{address}/32")
    b.await_route("10.99.0.7")
    assert "10.98.0.7" not in b.routes(), "a route out of all subnets"
    assert "10.99.0.7" not in c.routes(), "c has not heard of that region"
    for host, world in zip(mesh, worlds, strict=True):
        host.serve(world)
    b.await_no_route("10.99.0.7")

    # What networking-calico left unsaid is not foreign.
    for host, world in zip(mesh, worlds, strict=True):
        host.serve(replace(world, adopted=False))
    c.await_route("10.98.0.7")
    for host, world in zip(mesh, worlds, strict=True):
        host.serve(world)
    c.await_no_route("10.98.0.7")
    for address in ("10.99.0.7", "10.98.0.7"):
        a.del_route(f"{address}/32")
