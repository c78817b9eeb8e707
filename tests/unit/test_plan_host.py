"""What a host should have, as values."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import endpoint
from tests.policies import OPEN, OPEN_GROUPS, OPEN_POLICY
from tests.policy_cases import Corners
from tests.unit.hosts import SUBNET, pair, world

from calico.model.groups import Groups
from calico.model.ids import GroupId, InterfaceName, Mac, SubnetId
from calico.model.records import RemoteGroup, Rule
from calico.plan.antispoof import Element, sources
from calico.plan.filter import FilterFacts, FilterPlanner, Sections, merged, plan_filter
from calico.plan.host import HostFacts, HostPlan, link_local, plan_host
from calico.plan.items import (
    Hop,
    Link,
    LocalAddress,
    Multipath,
    Neighbour,
    Route,
    Setting,
)
from calico.plan.ruleset import Chain
from calico.policy.ownership import Objection, RefusedPair
from calico.reconcile.filter import FilterState, compare, compare_sections, render

A, B = endpoint(2), endpoint(3)
CORNERS = {
    4: tuple(ip_address(f"10.65.0.{n}") for n in (2, 3, 4, 8)),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (2, 3, 4, 8)),
}
V6 = (ip_network("2001:db8:65::/64"),)
OPEN_A = FilterFacts(taps=frozenset({A.interface}))
FACTS = HostFacts(
    address4=IPv4Address("192.0.2.1"),
    address6=IPv6Address("2001:db8::1"),
    taps=frozenset({A.interface, B.interface}),
)


def of(plan: HostPlan, kind: type) -> list[object]:
    return [item for item in plan.state.values() if isinstance(item, kind)]


def test_a_port_gets_a_route_and_a_neighbour_for_each_address() -> None:
    plan = plan_host(world(A), FACTS)
    assert of(plan, Route) == [
        Route(ip_network("10.65.0.2/32"), A.interface, FACTS.address4),
        Route(ip_network("2001:db8:65::2/128"), A.interface, FACTS.address6),
    ]
    assert of(plan, Neighbour) == [
        Neighbour(A.interface, ip_address("10.65.0.2"), A.mac),
        Neighbour(A.interface, ip_address("2001:db8:65::2"), A.mac),
    ]


def test_p37_the_hosts_end_has_the_ports_mac_with_fe() -> None:
    plan = plan_host(world(A), FACTS)
    assert of(plan, Link) == [Link(A.interface, Mac("fe:16:3e:00:00:02"))]
    gateway = ip_interface("fe80::fc16:3eff:fe00:2/64")
    assert LocalAddress(A.interface, gateway) in of(plan, LocalAddress)
    assert link_local(Mac("fe:16:3e:00:00:02")) == gateway.ip


def test_p02_pairs_may_be_single_addresses_and_cidrs() -> None:
    other = "fa:16:3e:00:00:77"
    paired = replace(A, pairs=(pair("10.65.0.9/32", other), pair("10.70.0.0/16")))
    plan = plan_host(world(paired), FACTS)
    destinations = {str(r.destination) for r in of(plan, Route) if isinstance(r, Route)}
    assert {"10.65.0.9/32", "10.70.0.0/16"} <= destinations
    assert Neighbour(A.interface, ip_address("10.65.0.9"), Mac(other)) in of(
        plan, Neighbour
    )
    assert all(
        isinstance(n, Neighbour) and n.address not in ip_network("10.70.0.0/16")
        for n in of(plan, Neighbour)
    )


@pytest.mark.parametrize(
    "foreign",
    [
        "0.0.0.0/0",
        "0.0.0.0/1",
        "192.0.2.1/32",
        "10.64.0.0/15",
        "::/0",
        "2001:db8::1/128",
        "fe80::/64",
    ],
)
def test_p47_a_pair_outside_of_all_subnets_gets_neither_route_nor_filter(
    foreign: str,
) -> None:
    mac = "fa:16:3e:00:00:77"
    inside = pair("10.65.0.9/32")
    claimant = replace(A, pairs=(pair(foreign, mac), inside))
    plan = plan_host(world(claimant), FACTS)
    clean = plan_host(world(replace(A, pairs=(inside,))), FACTS)
    assert plan.refused_pairs == (
        RefusedPair(port=A.port, prefix=ip_network(foreign), reason=Objection.FOREIGN),
    )
    assert plan.state == clean.state
    assert plan.whole_filter.elements == clean.whole_filter.elements
    assert plan.served == clean.served, "the port has all the rest"


def test_p47_a_subnet_that_is_everything_allows_nothing() -> None:
    claimant = replace(A, pairs=(pair("192.0.2.1/32"),))
    everything = replace(SUBNET, id=SubnetId("all"), prefix=ip_network("0.0.0.0/0"))
    all_there_is = replace(world(claimant), subnets={everything.id: everything})
    assert len(plan_host(all_there_is, FACTS).refused_pairs) == 1


def test_a_fixed_address_goes_before_another_ports_pair() -> None:
    claimant = replace(A, pairs=(pair("10.65.0.3/32"),))
    plan = plan_host(world(claimant, B), FACTS)
    assert Route(ip_network("10.65.0.3/32"), B.interface, FACTS.address4) in of(
        plan, Route
    )


def test_s05_an_address_of_two_ports_leads_to_both() -> None:
    macs = (A.mac, Mac("fa:16:3e:00:00:77"))
    prefixes = ("10.65.0.9/32", "10.70.0.0/16", "2001:db8:65::9/128")
    both = [
        replace(one, pairs=tuple(pair(p, mac) for p in prefixes), granted=V6)
        for one, mac in zip((A, B), macs, strict=True)
    ]
    plan = plan_host(world(*both), FACTS)
    plain = (Hop(A.interface), Hop(B.interface))
    near = tuple(
        Hop(e.interface, link_local(m)) for e, m in zip(both, macs, strict=True)
    )
    assert of(plan, Multipath) == [
        Multipath(ip_network("10.65.0.9/32"), plain, FACTS.address4),
        Multipath(ip_network("10.70.0.0/16"), plain, FACTS.address4),
        Multipath(ip_network("2001:db8:65::9/128"), near, FACTS.address6),
    ]
    neighbours = of(plan, Neighbour)
    for hop, mac in zip(near, macs, strict=True):
        assert Neighbour(hop.interface, link_local(mac), mac) in neighbours
    assert plan.state == plan_host(world(*reversed(both)), FACTS).state


def test_a_port_without_a_link_has_policy_and_nothing_else() -> None:
    plan = plan_host(world(A), HostFacts())
    assert plan.absent == (A,)
    assert of(plan, Route) == of(plan, Link) == []
    assert {
        e.set for e in plan.whole_filter.elements if e.interface == A.interface
    } == {
        "in_1",
        "out_1",
        "macs",
        "sources4",
        "sources6",
        "own4",
    }


@pytest.mark.parametrize("name", ["eth0", "tap0", 'tap"; x', "tap", "tap/../x"])
def test_p41_an_interface_that_is_no_tap_is_refused(name: str) -> None:
    bad = replace(B, interface=InterfaceName(name))
    plan = plan_host(world(A, bad), FACTS)
    assert [r.port for r in plan.refused] == [B.port]
    assert plan.served == (A,)


def test_p41_of_two_ports_with_one_interface_the_first_is_served() -> None:
    plan = plan_host(world(replace(B, interface=A.interface), A), FACTS)
    assert plan.served == (A,)
    assert [r.port for r in plan.refused] == [B.port]


def test_p50_neighbour_limits_are_raised_where_the_kernel_has_them() -> None:
    limits = [
        s
        for s in of(plan_host(world(), FACTS), Setting)
        if isinstance(s, Setting) and "gc_thresh" in s.path
    ]
    assert len(limits) == 6
    assert all(int(s.value) > 8 * 1024 and s.at_least and s.optional for s in limits)


def test_s3_broadcast_addresses_of_all_subnets_are_guarded() -> None:
    elements = plan_filter([], [SUBNET], Groups(), FilterFacts()).elements
    assert elements == {Element("inet", "broadcasts", "10.65.0.255"): ""}


def test_s17_port_security_decides_on_the_gate() -> None:
    gate = Element("inet", "from_port", f'"{A.interface}"')
    for secure, verdict in ((True, "goto guarded"), (False, "goto destination")):
        port = replace(A, port_security=secure)
        elements = plan_filter([port], [], Groups(), OPEN_A).elements
        assert elements[gate] == verdict


addresses = st.integers(0, 63).map(lambda n: IPv4Address(f"10.0.0.{n}"))
networks = st.builds(
    lambda n, length: ip_network(f"10.0.0.{n}/{length}", strict=False),
    st.integers(0, 63),
    st.integers(26, 32),
)


@given(st.frozensets(addresses, max_size=4), st.frozensets(networks, max_size=6))
def test_sources_mean_what_was_allowed_and_never_overlap(
    fixed: frozenset[IPv4Address], allowed: frozenset[object]
) -> None:
    one = replace(
        A,
        addresses=tuple(sorted(fixed)),
        pairs=tuple(pair(str(p)) for p in sorted(map(str, allowed))),
    )
    found = sources(one)[A.mac]
    meant = set(fixed) | {a for p in allowed for a in p}  # type: ignore[attr-defined]  # networks
    assert {a for prefix in found for a in prefix} == meant
    wide = [p for p in found if p.prefixlen < 32]
    assert all(not a.overlaps(b) for a in wide for b in wide if a is not b)
    assert {p.network_address for p in found if p.prefixlen == 32} >= fixed


def test_every_rule_is_recognisable() -> None:
    plan = plan_host(world(A), FACTS)
    comments = [
        rule.comment
        for part in plan.whole_filter.parts.values()
        if isinstance(part, Chain)
        for rule in part.rules
    ]
    assert all(len(comment) <= 127 for comment in comments), "the kernel's limit"
    change = compare(plan.whole_filter.parts, plan.whole_filter.elements, FilterState())
    assert all(comment in render(change) for comment in comments)


@pytest.mark.parametrize("seed", range(60))
def test_p51_sections_that_are_kept_say_what_a_fresh_plan_says(seed: int) -> None:
    corners = Corners(Random(seed), CORNERS)
    planner = FilterPlanner()
    left: Sections = {}
    state = FilterState()
    for _ in range(6):
        groups = corners.groups()
        some = tuple(
            replace(one, groups=corners.of_port())
            for one in corners.random.sample([A, B], corners.random.choice((0, 1, 2)))
        )
        facts = FilterFacts(
            taps=frozenset(e.interface for e in some if corners.random.random() < 0.8),
            uplinks=corners.random.choice([(), ("up0",), ("up0", "up1")]),
        )
        planner.plan(some, [SUBNET], corners.groups(), facts)
        sections = planner.replan(groups)
        fresh = plan_filter(some, [SUBNET], groups, facts)
        whole = merged(sections.values())
        assert (whole.parts, whole.elements) == (fresh.parts, fresh.elements)
        change = compare_sections(sections, left)
        state = change.applied_to(state)
        assert not compare(fresh.parts, fresh.elements, state)
        left = sections


def test_p51_a_change_costs_its_own_sections() -> None:
    planner = FilterPlanner()
    before = planner.plan([A, B], [SUBNET], OPEN_GROUPS, FilterFacts())
    again = planner.plan([A, B], [SUBNET], OPEN_GROUPS, FilterFacts())
    assert all(again[name] is section for name, section in before.items())
    after = planner.plan([A, B], [SUBNET], OPEN_GROUPS, OPEN_A)
    changed = [name for name in after if after[name] is not before.get(name)]
    assert changed == [f"port {A.interface}"]


def test_p51_a_member_that_comes_concerns_few_of_the_others() -> None:
    peers = GroupId("peers")
    rule = Rule(version=4, remote=RemoteGroup(peers), id="r")
    policies = {OPEN: replace(OPEN_POLICY, ingress=(rule,))}
    many = frozenset(ip_network(0x0B000000 + n) for n in range(5000))
    wide = ip_network("10.1.0.0/16")
    planner, facts = FilterPlanner(), FilterFacts()
    before: Sections = {}
    for members, most in (
        (many, 5000),
        (many | {ip_network("10.0.0.1/32")}, 100),
        (many | {ip_network("10.0.0.1/32"), wide}, 1),
        (many - {ip_network("11.0.0.9/32")}, 300),
        (frozenset(list(many)[:3]), 5000),
    ):
        groups = Groups(policies=policies, members={peers: members})
        after = planner.plan([A], [SUBNET], groups, facts)
        fresh = plan_filter([A], [SUBNET], groups, facts)
        assert merged(after.values()).elements == fresh.elements
        changed = merged(s for n, s in after.items() if s is not before.get(n))
        assert (
            sum(e.set.startswith(("members", "nets")) for e in changed.elements) <= most
        )
        before = after
