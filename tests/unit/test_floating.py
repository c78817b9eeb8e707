"""Which floating IPs a host lets its ports have, and what they come to."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest
from tests.endpoints import endpoint
from tests.policies import OPEN_GROUPS
from tests.unit.hosts import SUBNET, WIDE, pair, world

from calico.model.codec import encode_endpoint
from calico.model.records import Endpoint, Nat
from calico.plan.antispoof import Element
from calico.plan.filter import FilterFacts, FilterPlanner
from calico.plan.host import HostFacts, HostPlan, plan_host
from calico.plan.items import Route
from calico.policy.floating import Course, RefusedNat, Standing, Translations

A, B, C = endpoint(2), endpoint(3), endpoint(4)
E = "10.70.0.5"
TAPS = frozenset(one.interface for one in (A, B, C))
FACTS = HostFacts(address4=IPv4Address("10.70.0.1"), taps=TAPS)


def floating(one: Endpoint, *nats: tuple[str, str]) -> Endpoint:
    made = (Nat(internal=ip_address(i), external=ip_address(e)) for i, e in nats)
    return replace(one, nats=tuple(made))


def translated(plan: HostPlan) -> dict[str, str]:
    elements = plan.whole_filter.elements
    return {e.key: value for e, value in elements.items() if e.set == "floating4"}


@pytest.mark.parametrize(
    ("internal", "external", "reason"),
    [
        ("10.65.0.2", "2001:db8::5", "it is not IPv4"),
        ("2001:db8:65::2", E, "2001:db8:65::2 is no IPv4 address of the port"),
        ("10.65.0.9", E, "10.65.0.9 is no IPv4 address of the port"),
        ("10.65.0.3", E, "10.65.0.3 is no IPv4 address of the port"),
        ("10.65.0.2", "10.70.0.1", "it is the host's own address"),
        ("10.65.0.2", "192.0.2.9", "it is in no subnet"),
        ("10.65.0.2", "10.65.0.1", "it is the gateway of a subnet"),
        ("10.65.0.2", "10.65.0.3", f"it is an address of port {B.port}"),
        ("10.65.0.2", "10.65.0.2", f"it is an address of port {A.port}"),
    ],
)
def test_p47_a_floating_ip_that_a_port_must_not_have_leaves_it_all_the_rest(
    internal: str, external: str, reason: str
) -> None:
    own = replace(A, pairs=(pair("10.65.0.9/32"),))
    legal = ("10.65.0.2", "10.70.0.6")
    plan = plan_host(world(floating(own, (internal, external), legal), B), FACTS)
    clean = plan_host(world(floating(own, legal), B), FACTS)
    refused = RefusedNat(port=A.port, external=ip_address(external), reason=reason)
    assert plan.refused_nats == (refused,)
    assert plan.state == clean.state
    assert plan.whole_filter.elements == clean.whole_filter.elements
    assert plan.served == clean.served


def test_p47_of_two_ports_with_one_floating_ip_the_first_has_it() -> None:
    claims = (floating(A, ("10.65.0.2", E)), floating(B, ("10.65.0.3", E)))
    reason = f"it is a floating IP of port {A.port}"
    for order in (claims, claims[::-1]):
        plan = plan_host(world(*order), FACTS)
        assert translated(plan) == {E: "10.65.0.2"}
        assert plan.refused_nats == (
            RefusedNat(port=B.port, external=ip_address(E), reason=reason),
        )
        assert plan.translations.current == {
            IPv4Address(E): IPv4Address("10.65.0.2"),
        }


def test_s13_a_floating_ip_is_a_route_and_an_element_of_each_map() -> None:
    one = floating(A, ("10.65.0.2", E))
    with_it, without = (plan_host(world(port, B), FACTS) for port in (one, A))
    new = with_it.state.items() - without.state.items()
    route = Route(pair(f"{E}/32").prefix, A.interface, FACTS.address4)
    assert [item for _, item in new] == [route]
    before = without.whole_filter.elements
    assert {
        element: value
        for element, value in with_it.whole_filter.elements.items()
        if element not in before
    } == {
        Element("inet", "floating4", E): "10.65.0.2",
        Element("inet", "hairpin4", f"10.65.0.2 . {E}"): "",
    }
    assert with_it.whole_filter.parts == without.whole_filter.parts


def test_s13_a_floating_ip_goes_before_another_ports_pair() -> None:
    rival = replace(A, pairs=(pair(f"{E}/32"),))
    plan = plan_host(world(rival, floating(B, ("10.65.0.3", E))), FACTS)
    route = Route(pair(f"{E}/32").prefix, B.interface, FACTS.address4)
    assert route in plan.state.values()


def test_s13_without_its_interface_a_floating_ip_leads_nowhere() -> None:
    plan = plan_host(world(floating(A, ("10.65.0.2", E))), HostFacts())
    assert translated(plan) == {}
    assert plan.translations.current == {}


def test_p39_nothing_of_a_floating_ip_is_planned_anew_for_another_port() -> None:
    one, planner = floating(A, ("10.65.0.2", E)), FilterPlanner()
    facts = FilterFacts(taps=TAPS)
    before = planner.plan([one, B], [SUBNET, WIDE], OPEN_GROUPS, facts)
    moved = floating(B, ("10.65.0.3", "10.70.0.6"))
    after = planner.plan([one, moved, C], [SUBNET, WIDE], OPEN_GROUPS, facts)
    changed = {name for name in after if after[name] is not before.get(name)}
    assert changed == {f"port {B.interface}", f"port {C.interface}"}


@pytest.mark.parametrize(
    ("asked", "reached", "stale"),
    [
        (E, "10.65.0.2", False),
        (E, "10.65.0.3", True),
        (E, E, True),
        ("10.70.0.6", "10.65.0.2", True),
        ("10.70.0.6", "10.70.0.6", False),
        ("192.0.2.80", "10.65.0.2", False),
        ("2001:db8::5", "2001:db8:65::2", False),
    ],
    ids=[
        "as it is now",
        "as it was before it moved",
        "from before it came",
        "of one that went",
        "of no floating IP",
        "translated by somebody else",
        "IPv6",
    ],
)
def test_s13_a_connection_goes_where_the_floating_ip_leads_now(
    asked: str, reached: str, *, stale: bool
) -> None:
    current = {IPv4Address(E): IPv4Address("10.65.0.2")}
    standing = Standing(Translations(current=current, subnets=(SUBNET, WIDE)))
    course = Course(
        protocol=6,
        source=IPv4Address("198.51.100.80"),
        asked=ip_address(asked),
        reached=ip_address(reached),
    )
    assert standing.is_stale(course) is stale


@pytest.mark.parametrize(
    ("source", "seen_as", "asked", "lost"),
    [
        ("10.65.0.2", E, "192.0.2.1", False),
        ("10.65.0.3", E, "192.0.2.1", True),
        ("10.65.0.2", "10.70.0.6", "192.0.2.1", True),
        ("10.65.0.9", E, E, False),
        ("10.65.0.2", "192.0.2.80", "192.0.2.1", False),
        ("2001:db8:65::2", "2001:db8::5", "2001:db8::1", False),
    ],
    ids=[
        "as it is now",
        "it moved",
        "it went",
        "its own, from a pair's address",
        "somebody else's",
        "IPv6",
    ],
)
def test_s13_a_connection_keeps_its_source_while_its_sender_has_that(
    source: str, seen_as: str, asked: str, *, lost: bool
) -> None:
    current = {IPv4Address(E): IPv4Address("10.65.0.2")}
    standing = Standing(Translations(current=current, subnets=(SUBNET, WIDE)))
    course = Course(
        protocol=6,
        source=ip_address(source),
        seen_as=ip_address(seen_as),
        asked=ip_address(asked),
        reached=current[IPv4Address(E)] if asked == E else ip_address(asked),
    )
    assert standing.is_stale(course) is lost


def test_floating_ips_are_stored_as_calico_does() -> None:
    stored = encode_endpoint(floating(A, ("10.65.0.2", E)))
    assert f'"ipNATs":[{{"externalIP":"{E}","internalIP":"10.65.0.2"}}]' in (
        stored.decode()
    )
