"""What the host does for its ports, seen by real guests with real packets."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from tests.endpoints import endpoint
from tests.kernel.capture import arrivals
from tests.kernel.data_path import HostBed, host_bed, link_local_of, pair, rows
from tests.kernel.netns import Netns, eventually, link

from calico.model.ids import InterfaceName, Mac
from calico.model.records import Endpoint

A, B = endpoint(2), endpoint(3)
ROUTER_MAC = "02:00:00:00:00:02"


@pytest.fixture
def bed() -> Iterator[HostBed]:
    with host_bed() as one:
        yield one


@pytest.fixture
def guests(bed: HostBed) -> tuple[Netns, Netns]:
    """Return two guests that are served, and know the host's MAC."""
    pair_of_guests = bed.plug(A), bed.plug(B, up=True)
    assert bed.serve(A, B).problems == ()
    for guest, one in zip(pair_of_guests, (A, B), strict=True):
        for address in ("10.65.0.1", "10.65.0.2", "10.65.0.3", link_local_of(one)):
            know_gateway(guest, one, address)
    return pair_of_guests


def know_gateway(guest: Netns, one: Endpoint, address: str) -> None:
    """Make a guest send to `address` without asking: ARP and ND are not in the test."""
    mac = "fe" + one.mac[2:]
    guest.ip("neigh", "replace", address, "lladdr", mac, "dev", "eth0")


def spoof(guest: Netns, source: str, target: str) -> None:
    """Send one ping from an address that the guest gives itself."""
    length = 128 if ":" in source else 32
    flags = ["nodad"] if ":" in source else []
    guest.ip("addr", "add", f"{source}/{length}", "dev", "eth0", *flags)
    guest.pings(target, source=source)
    guest.ip("addr", "del", f"{source}/{length}", "dev", "eth0")


def test_s1_guests_of_a_host_reach_each_other(bed: HostBed) -> None:
    a, b = bed.plug(A), bed.plug(B, up=True)
    outcome = bed.serve(A, B)
    assert outcome.problems == ()
    for guest, peer in ((a, B), (b, A)):
        for address in peer.addresses:
            assert guest.pings(str(address)), address
    assert bed.changes(A, B) == []


def test_s3_a_peer_is_known_by_the_hosts_mac_only(bed: HostBed) -> None:
    a, _ = bed.plug(A), bed.plug(B)
    bed.serve(A, B)
    assert a.pings("10.65.0.3")
    known = {row["lladdr"] for row in rows(a, "neigh", "show", "dev", "eth0")}
    assert known == {"fe" + A.mac[2:]}


def test_s3_broadcast_and_local_multicast_arrive_nowhere(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    a, b = guests
    fabric = bed.stack.enter_context(Netns("fabric"))
    link(bed.host, "up0", fabric, "up0")
    bed.host.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    bed.host.ip("neigh", "add", "192.0.2.2", "lladdr", ROUTER_MAC, "dev", "up0")
    bed.host.ip("route", "add", "default", "via", "192.0.2.2")
    ours = "src host 10.65.0.2 or src host 2001:db8:65::2 or ether src " + A.mac
    with arrivals(b, "eth0", ours) as at_peer, arrivals(fabric, "up0", ours) as outside:
        for target in ("10.65.0.255", "255.255.255.255"):
            a.run(["ping", "-bnc1", "-W0.2", target], check=False)
        # 10.66.0.255 is the broadcast address of another network's subnet.
        for target in ("10.66.0.255", "224.0.0.5", "224.0.0.251", "ff02::1%eth0"):
            a.run(["ping", "-nc1", "-W0.2", target], check=False)
        a.run(["ping", "-nc1", "-W0.2", "10.66.0.9"], check=False)
        assert a.pings("10.65.0.3")
        at_peer.await_seen("10.65.0.2 > 10.65.0.3: ICMP echo request")
        outside.await_seen("10.65.0.2 > 10.66.0.9")
    assert [line for line in at_peer.lines if "> 10.65.0.3" not in line.strip()] == []
    assert [line for line in outside.lines if "> 10.66.0.9" not in line.strip()] == []


def test_s17_only_the_ports_own_addresses_pass(guests: tuple[Netns, Netns]) -> None:
    a, b = guests
    with arrivals(b, "eth0", "icmp or icmp6") as seen:
        spoof(a, "10.65.0.99", "10.65.0.3")
        spoof(a, "2001:db8:65::99", "2001:db8:65::3")
        assert a.pings("10.65.0.3")
        assert a.pings("2001:db8:65::3")
        seen.await_seen("10.65.0.2 > 10.65.0.3")
        seen.await_seen("2001:db8:65::2 > 2001:db8:65::3")
    assert not seen.seen("10.65.0.99")
    assert not seen.seen("2001:db8:65::99")


def test_p17_the_source_mac_is_checked(guests: tuple[Netns, Netns]) -> None:
    a, b = guests
    stranger = "fa:16:3e:aa:aa:aa"
    with arrivals(b, "eth0", "icmp or icmp6") as seen:
        a.ip("link", "set", "eth0", "address", stranger)
        for address in ("10.65.0.3", link_local_of(A)):
            know_gateway(a, A, address)  # forgotten with the MAC
        a.run(["ping", "-nc1", "-W0.2", "-s", "100", "10.65.0.3"], check=False)
        a.run(["ping", "-nc1", "-W0.2", "-s", "100", "2001:db8:65::3"], check=False)
        a.ip("link", "set", "eth0", "address", A.mac)
        assert a.pings("10.65.0.3")
        assert a.pings("2001:db8:65::3")
        seen.await_seen("2001:db8:65::2 > 2001:db8:65::3")
    lengths = [line for line in seen.lines if "length 108" in line]
    assert lengths == []


def test_s17_allowed_pairs_pass_single_and_cidr_with_their_mac(bed: HostBed) -> None:
    allowed = replace(
        A,
        pairs=(
            pair("10.65.0.50/32", A),
            pair("10.77.0.0/16", A),
            pair("2001:db8:77::/64", A),
        ),
    )
    a, b = bed.plug(allowed), bed.plug(B)
    assert bed.serve(allowed, B).problems == ()
    for source in ("10.65.0.50", "10.77.3.4", "2001:db8:77::9"):
        with arrivals(b, "eth0", "icmp or icmp6") as seen:
            spoof(a, source, "2001:db8:65::3" if ":" in source else "10.65.0.3")
            seen.await_seen(f"{source} > ")
    bed.serve(A, B)  # the pairs are withdrawn
    with arrivals(b, "eth0", "icmp") as seen:
        spoof(a, "10.65.0.50", "10.65.0.3")
        assert a.pings("10.65.0.3")
        seen.await_seen("10.65.0.2 > ")
    assert not seen.seen("10.65.0.50")


def test_p47_a_pair_never_takes_a_route_or_an_address_of_the_host(
    bed: HostBed,
) -> None:
    fabric = bed.stack.enter_context(Netns("fabric"))
    link(bed.host, "up0", fabric, "up0")
    bed.host.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    bed.host.ip("route", "add", "default", "via", "192.0.2.2")
    # The operator's own, within the space of the cloud.
    bed.host.ip("route", "add", "10.65.0.88", "via", "192.0.2.2")
    before = rows(bed.host, "route", "show")
    wanted = ("0.0.0.0/0", "0.0.0.0/1", "192.0.2.2/32", "10.65.0.88/32")
    claimant = replace(A, pairs=tuple(pair(prefix, A) for prefix in wanted))
    bed.plug(A)
    outcome = bed.serve(claimant)
    assert [str(one.prefix) for one in outcome.plan.refused_pairs] == [*wanted[:3]]
    (problem,) = outcome.problems
    assert "route 10.65.0.88/32" in str(problem)
    assert "EEXIST" in str(problem)
    after = rows(bed.host, "route", "show")
    assert [route for route in after if route.get("protocol") != "111"] == before


def test_a_route_of_ours_is_replaced_where_it_is_another_ports_now(
    bed: HostBed,
) -> None:
    moved = replace(B, addresses=A.addresses)
    bed.plug(A)
    bed.plug(moved)
    assert bed.serve(A).problems == ()
    assert bed.serve(moved).problems == ()
    assert bed.changes(moved) == []
    assert bed.host.pings("10.65.0.2")


def test_s17_port_security_off_lifts_the_checks(bed: HostBed) -> None:
    trusted = replace(A, port_security=False)
    a, b = bed.plug(trusted), bed.plug(B)
    bed.serve(trusted, B)
    with arrivals(b, "eth0", "icmp") as seen:
        spoof(a, "10.99.0.9", "10.65.0.3")
        seen.await_seen("10.99.0.9 > 10.65.0.3")


def test_s5_two_ports_of_a_host_may_both_use_an_address(bed: HostBed) -> None:
    pairs = (pair("10.65.0.50/32", A),), (pair("10.65.0.50/32", B),)
    both = replace(A, pairs=pairs[0]), replace(B, pairs=pairs[1])
    peer = endpoint(4)
    a, b = (bed.plug(one) for one in both)
    c = bed.plug(peer)
    assert bed.serve(*both, peer).problems == ()
    for guest in (a, b):
        with arrivals(c, "eth0", "icmp") as seen:
            spoof(guest, "10.65.0.50", "10.65.0.4")
            seen.await_seen("10.65.0.50 > 10.65.0.4")


@pytest.mark.parametrize("setting", [1, 2])
def test_s5_a_hosts_own_source_check_drops_nothing_of_a_ports_pairs(
    bed: HostBed, setting: int
) -> None:
    bed.host.sysctl("net/ipv4/conf/all/rp_filter", setting)
    test_s5_two_ports_of_a_host_may_both_use_an_address(bed)


def test_s17_no_dhcp_server_and_no_router_in_a_port(
    guests: tuple[Netns, Netns],
) -> None:
    a, b = guests
    send = (
        "import socket as s, struct\n"
        "u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.bind(('', 67))\n"
        "u.sendto(b'offer', ('10.65.0.3', 68))\n"
        "r = s.socket(s.AF_INET6, s.SOCK_RAW, s.IPPROTO_ICMPV6)\n"
        "r.setsockopt(s.IPPROTO_IPV6, s.IPV6_UNICAST_HOPS, 255)\n"
        "r.sendto(b'\\x86' + bytes(15), ('2001:db8:65::3', 0))\n"
    )
    with arrivals(b, "eth0", "ip or ip6") as seen:
        a.run(["python3", "-c", send])
        assert a.pings("10.65.0.3")
        assert a.pings("2001:db8:65::3")
        seen.await_seen("2001:db8:65::2 > 2001:db8:65::3: ICMP6, echo request")
    assert not seen.seen("bootps")
    assert not seen.seen(".67 >")
    assert not seen.seen("router advertisement")


def test_s18_a_port_no_longer_served_is_cut_off_both_ways(bed: HostBed) -> None:
    a, b = bed.plug(A), bed.plug(B)
    bed.serve(A, B)
    assert a.pings("10.65.0.3")
    bed.serve(B)
    for address in map(str, A.addresses):
        assert not b.pings(address)
    for address in map(str, B.addresses):
        assert not a.pings(address)
    bed.serve(A, B)
    for address in map(str, B.addresses):
        # The guest asks again for its gateway's MAC only a second after it last did.
        eventually(partial(a.pings, address))


def test_an_instance_may_ping_its_host_and_nothing_else_of_it(bed: HostBed) -> None:
    a = bed.plug(A)
    bed.host.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
    bed.serve(A)
    listener = "import socket as s; x = s.create_server(('', 8080)); x.accept()"
    bed.host.popen(["python3", "-c", listener])
    connect = "import socket as s; s.create_connection(('192.0.2.1', 8080), 1)"
    assert bed.host.run(["python3", "-c", "1"]).returncode == 0
    assert a.pings("192.0.2.1")
    assert a.pings("10.65.0.1"), "its gateway"
    assert a.run(["python3", "-c", connect], check=False).returncode != 0
    assert bed.host.pings("10.65.0.2"), "the host may talk to the instance"


def test_p35_a_guests_probe_for_its_own_address_is_not_answered(bed: HostBed) -> None:
    # The address has another home on the host: without a guard, proxy ARP answers.
    claimant = replace(A, pairs=(pair("10.65.0.3/32", A),))
    a, _ = bed.plug(claimant), bed.plug(B)
    bed.serve(claimant, B)
    probe = ["arping", "-D", "-c2", "-w2", "-I", "eth0"]
    assert a.run([*probe, "10.65.0.2"], check=False).returncode == 0
    assert a.run([*probe, "10.65.0.3"], check=False).returncode == 0
    assert a.run([*probe, "10.65.0.1"], check=False).returncode == 1, "answered"
    # Some guests ask from the very address; the kernel's own guard is for 0.0.0.0 only.
    a.ip("addr", "add", "10.65.0.3/32", "dev", "eth0")
    asking = ["arping", "-c2", "-w2", "-I", "eth0", "-s", "10.65.0.3"]
    assert a.run([*asking, "10.65.0.3"], check=False).returncode == 1
    assert a.run([*asking, "10.65.0.1"], check=False).returncode == 0, "answered"


def test_p36_guests_that_answer_no_arp_are_reached(bed: HostBed) -> None:
    a, b = bed.plug(A), bed.plug(B)
    b.sysctl("net/ipv4/conf/eth0/arp_ignore", 8)
    bed.serve(A, B)
    assert a.pings("10.65.0.3")
    state = {row["dst"]: row["state"] for row in rows(bed.host, "neigh", "show")}
    assert state["10.65.0.3"] == state["2001:db8:65::3"] == ["PERMANENT"]


def test_p37_the_hosts_mac_and_gateway_follow_from_the_port(bed: HostBed) -> None:
    bed.plug(A, up=True)  # Nova may have set it up, with another MAC
    bed.serve(A)
    (shown,) = rows(bed.host, "addr", "show", "dev", A.interface)
    assert shown["address"] == "fe" + A.mac[2:]
    assert [row["local"] for row in shown["addr_info"]] == [link_local_of(A)]


@pytest.mark.parametrize(
    "bad",
    [
        replace(endpoint(9), interface=InterfaceName("eth0")),
        replace(endpoint(9), interface=InterfaceName('tap"; reset')),
        replace(endpoint(9), interface=B.interface),
        replace(endpoint(9), pairs=(replace(pair("10.65.0.50/32", A), mac=Mac("?")),)),
    ],
    ids=["no tap", "injection", "another's", "refused by nftables"],
)
def test_p41_a_bad_endpoint_disturbs_no_other(bed: HostBed, bad: Endpoint) -> None:
    a, _ = bed.plug(A), bed.plug(B)
    if bad.interface == endpoint(9).interface:
        bed.plug(endpoint(9))
    outcome = bed.serve(A, B, bad)
    assert outcome.plan.refused or bad.interface in outcome.failed
    assert not {A.interface, B.interface} & outcome.failed
    assert a.pings("10.65.0.3")


@pytest.mark.parametrize(
    "damage",
    [
        ["nft", "delete", "table", "inet", "calico"],
        ["nft", "flush", "chain", "inet", "calico", "guarded"],
        ["nft", "flush", "set", "inet", "calico", "sources4"],
        ["nft", "delete", "element", "inet", "calico", "to_port", '{ "%" }'],
        ["nft", "delete", "table", "arp", "calico"],
        ["ip", "route", "del", "10.65.0.2"],
        ["ip", "-6", "route", "del", "2001:db8:65::2"],
        ["ip", "neigh", "del", "10.65.0.2", "dev", "%"],
        ["ip", "link", "set", "%", "down"],
        ["ip", "link", "set", "%", "address", "02:00:00:00:00:01"],
        ["ip", "link", "del", "calico-dhcp"],
        ["sysctl", "-w", "net.ipv4.conf.%.proxy_arp=0"],
        ["ip", "route", "add", "10.65.0.77", "dev", "%", "proto", "111"],
    ],
    ids=lambda argv: " ".join(argv[1:]),
)
def test_drift_is_found_and_repaired(bed: HostBed, damage: list[str]) -> None:
    a, _ = bed.plug(A), bed.plug(B)
    bed.serve(A, B)
    assert bed.changes(A, B, resync=False) == []
    bed.host.run([word.replace("%", A.interface) for word in damage])
    assert bed.changes(A, B, resync=False) != []
    assert bed.serve(A, B).problems == ()
    assert bed.changes(A, B) == []
    assert a.pings("10.65.0.3")


def test_an_operators_own_tap_keeps_what_it_has(bed: HostBed) -> None:
    peer = bed.stack.enter_context(Netns("vpn"))
    bed.host.sysctl("net/ipv6/conf/default/accept_dad", 0)  # nothing else may change
    link(bed.host, "tap0", peer, "eth0", macs=("02:00:00:00:00:01", ROUTER_MAC))
    bed.host.ip("addr", "add", "192.0.2.1/24", "dev", "tap0")
    peer.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")
    neighbour = ("192.0.2.2", "lladdr", ROUTER_MAC, "nud", "permanent")
    bed.host.ip("neigh", "add", *neighbour, "dev", "tap0")

    def state() -> list[list[dict[str, object]]]:
        shown = ("link", "addr", "neigh")
        return [rows(bed.host, kind, "show", "dev", "tap0") for kind in shown]

    before = state()
    assert bed.host.pings("192.0.2.2")
    bed.plug(A)
    assert bed.serve(A).problems == ()
    bed.serve(resync=True)
    assert state() == before
    assert not bed.host.pings("192.0.2.2"), "but it is cut off, as any tap"


def test_foreign_state_is_left_alone(bed: HostBed) -> None:
    bed.plug(A)
    bed.host.run(["nft", "add", "table", "inet", "operator"])
    bed.host.ip("route", "add", "10.65.0.88", "dev", "lo", "proto", "static")
    bed.serve(A)
    bed.serve(resync=True)
    assert "table inet operator" in bed.host.run(["nft", "list", "tables"]).stdout
    routes = rows(bed.host, "route", "show")
    assert [r["dst"] for r in routes] == ["10.65.0.88"]
    assert rows(bed.host, "link", "show", "dev", A.interface), "the tap is Nova's"
