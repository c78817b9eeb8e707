"""A lab's network as data: nobody shares an address, a segment or a name."""

from collections import Counter
from ipaddress import ip_address

import pytest

from calico.lab.topology import (
    CLOUD_AS,
    CONTROL_ADDRESS,
    FABRIC4,
    FABRIC6,
    INTERNET_WEB4,
    INTERNET_WEB6,
    MANAGEMENT,
    BgpMode,
    Impossible,
    Kind,
    design,
)


def test_the_default_lab_is_two_racks_of_two_hosts() -> None:
    topology = design(2, 2, BgpMode.TOR)

    assert [host.name for host in topology.hosts] == [
        "host-1-1",
        "host-1-2",
        "host-2-1",
        "host-2-2",
    ]
    assert {router.name for router in topology.routers} == {
        "internet",
        "border-1",
        "spine-1",
        "tor-1",
        "tor-2",
    }
    assert len(topology.links) == 8


@pytest.mark.parametrize("bgp", BgpMode)
def test_the_largest_lab_has_no_address_twice(bgp: BgpMode) -> None:
    topology = design(32, 64, bgp)
    addresses = Counter(
        address
        for link in topology.links
        for end in (link.upper, link.lower)
        for address in (end.address4.ip, end.address6.ip)
    )
    addresses.update(
        address
        for node in topology.nodes
        for address in (node.loopback4, node.loopback6, node.management)
        if address
    )
    addresses.update([CONTROL_ADDRESS])

    assert addresses.most_common(1)[0][1] == 1
    assert all(a in FABRIC4 or a in FABRIC6 or a in MANAGEMENT for a in addresses)


def test_both_ends_of_a_link_are_on_a_segment_of_their_own() -> None:
    topology = design(3, 5, BgpMode.TOR)

    for link in topology.links:
        assert link.upper.address4.network == link.lower.address4.network
        assert link.upper.address6.network == link.lower.address6.network
    segments = Counter(link.upper.address4.network for link in topology.links)
    assert segments.most_common(1)[0][1] == 1


def test_interface_names_fit_and_are_unique_on_a_node() -> None:
    topology = design(32, 64, BgpMode.TOR)

    for node in topology.nodes:
        names = [own.interface for own, _ in topology.adjacent(node)]
        assert len(set(names)) == len(names)
        assert all(len(name) <= 15 for name in names)


def test_every_host_hangs_on_the_tor_of_its_rack() -> None:
    topology = design(3, 2, BgpMode.TOR)

    for host in topology.hosts:
        _, tor = topology.uplink(host)
        assert tor.node.name == f"tor-{host.rack}"


def test_every_speaker_has_an_as_of_its_own_in_tor_mode() -> None:
    topology = design(32, 64, BgpMode.TOR)
    numbers = Counter(node.as_number for node in topology.nodes)

    assert numbers.most_common(1)[0][1] == 1


@pytest.mark.parametrize("bgp", [BgpMode.MESH, BgpMode.REFLECTOR])
def test_the_cloud_is_one_as_in_the_other_modes(bgp: BgpMode) -> None:
    topology = design(2, 2, bgp)

    for node in topology.nodes:
        assert (node.as_number == CLOUD_AS) == (node.kind is not Kind.INTERNET)


def test_an_address_is_traced_to_the_node_that_has_it() -> None:
    topology = design(2, 2, BgpMode.TOR)
    own, tor = topology.uplink(topology.node("host-2-1"))

    assert topology.owner(own.address4.ip) == "host-2-1"
    assert topology.owner(tor.address6.ip) == "tor-2"
    assert topology.owner(INTERNET_WEB4) == "internet"
    assert topology.owner(INTERNET_WEB6) == "internet"
    assert topology.owner(ip_address("192.0.2.1")) is None


@pytest.mark.parametrize(("racks", "hosts"), [(0, 2), (33, 1), (1, 0), (1, 65)])
def test_a_size_that_cannot_be_addressed_is_refused(racks: int, hosts: int) -> None:
    with pytest.raises(Impossible, match="to"):
        design(racks, hosts, BgpMode.TOR)
