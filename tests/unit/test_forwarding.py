"""Which forwardings a host does for its ports, and what they come to."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import endpoint
from tests.unit.hosts import pair, world

from calico.model.codec import parse_forwarding
from calico.model.ids import Invalid
from calico.model.records import Endpoint, Forwarding, Nat, PortRange
from calico.plan.host import HostFacts, HostPlan, plan_host
from calico.plan.items import DHCP_BRIDGE, Route
from calico.policy.floating import Course, Standing, Translations
from calico.policy.forwarding import RefusedForwarding

A, B = endpoint(2), endpoint(3)
E, AWAY = "10.70.0.5", "10.65.0.77"
FACTS = HostFacts(
    address4=IPv4Address("10.70.0.1"), taps=frozenset({A.interface, B.interface})
)
SETS = {"forwarded4", "forwarding4", "forwarded_self4"}


def forwarding(
    internal: str = "10.65.0.2", *, external: str = E, port: int = 80, width: int = 1
) -> Forwarding:
    return Forwarding(
        external=IPv4Address(external),
        protocol=6,
        ports=PortRange(first=port, last=port + width - 1),
        internal=IPv4Address(internal),
        to=PortRange(first=8080, last=8080 + width - 1),
    )


def serving(one: Endpoint, *forwardings: Forwarding) -> Endpoint:
    return replace(one, forwardings=forwardings)


def elements(plan: HostPlan) -> dict[str, str]:
    found = plan.whole_filter.elements
    return {f"{e.set} {e.key}": value for e, value in found.items() if e.set in SETS}


@given(st.integers(1, 9), st.booleans())
def test_ports_lead_to_as_many_in_order_or_to_one(width: int, single: bool) -> None:  # noqa: FBT001 - a value
    one = forwarding(width=width)
    if single:
        one = replace(one, to=PortRange(first=22, last=22))
    assert list(one.pairs()) == [
        (80 + n, 22 if single else 8080 + n) for n in range(width)
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": 1}, "protocol 1 has no ports"),
        ({"to": PortRange(first=1, last=3)}, "2 ports to 3"),
        ({"ports": PortRange(first=0, last=1)}, "port 0"),
        ({"to": PortRange(first=0, last=0)}, "port 0"),
    ],
)
def test_a_forwarding_that_makes_no_sense_does_not_exist(
    change: dict[str, object], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        replace(forwarding(width=2), **change)  # type: ignore[arg-type] # of any field


def test_a_forwarding_is_its_elements_and_a_route_that_ends_here() -> None:
    one = serving(A, forwarding(width=2), forwarding(AWAY, port=90))
    plan, without = (plan_host(world(port, B), FACTS) for port in (one, A))
    assert elements(plan) == {
        f"forwarded4 {E} . 6 . 80": "10.65.0.2 . 8080",
        f"forwarded4 {E} . 6 . 81": "10.65.0.2 . 8081",
        f"forwarded4 {E} . 6 . 90": f"{AWAY} . 8080",
        f"forwarding4 {E}": "",
        f"forwarded_self4 10.65.0.2 . 10.65.0.2 . {E}": "",
        f"forwarded_self4 {AWAY} . {AWAY} . {E}": "",
    }
    new = plan.state.items() - without.state.items()
    route = Route(pair(f"{E}/32").prefix, DHCP_BRIDGE, FACTS.address4)
    assert [item for _, item in new] == [route]
    assert plan.whole_filter.parts == without.whole_filter.parts
    closed = plan_host(world(one), HostFacts())
    assert elements(closed) == {}, "its tap is not there"
    assert route not in closed.state.values()


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (forwarding(external="192.0.2.9"), "it is in no subnet"),
        (forwarding(external="10.65.0.1"), "it is the gateway of a subnet"),
        (forwarding(external="10.70.0.1"), "it is the host's own address"),
        (forwarding(external="10.65.0.3"), f"it is an address of port {B.port}"),
        (forwarding(external="10.70.0.6"), f"it is a floating IP of port {B.port}"),
        (forwarding("192.0.2.9"), "192.0.2.9 is in no subnet"),
        (forwarding("10.65.0.1"), "10.65.0.1 is no instance's"),
        (forwarding("10.70.0.1"), "10.70.0.1 is no instance's"),
        (forwarding("10.65.0.3"), "a port of it is forwarded already"),
        (
            forwarding("10.65.0.3", external="10.70.0.7"),
            "nothing of it leads to the port itself",
        ),
    ],
)
def test_p47_what_a_port_must_not_forward_leaves_it_all_the_rest(
    one: Forwarding, reason: str
) -> None:
    nat = Nat(internal=B.addresses[0], external=ip_address("10.70.0.6"))
    other = replace(B, nats=(nat,))
    plan = plan_host(world(serving(A, forwarding(), one), other), FACTS)
    clean = plan_host(world(serving(A, forwarding()), other), FACTS)
    assert plan.refused_forwardings == (
        RefusedForwarding(port=A.port, forwarding=one, reason=reason),
    )
    assert plan.state == clean.state
    assert elements(plan) == elements(clean)


def test_p47_of_two_ports_that_forward_one_floating_ip_the_first_does() -> None:
    claims = serving(A, forwarding()), serving(B, forwarding("10.65.0.3", port=81))
    for order in (claims, claims[::-1]):
        plan = plan_host(world(*order), FACTS)
        (refused,) = plan.refused_forwardings
        assert (refused.port, refused.reason) == (B.port, f"port {A.port} forwards it")
        assert elements(plan) == elements(plan_host(world(claims[0], B), FACTS))


@pytest.mark.parametrize(
    ("port", "reached", "reached_port", "hidden", "stale"),
    [
        (80, "10.65.0.2", 8080, False, False),
        (80, "10.65.0.3", 8080, False, True),
        (80, "10.65.0.2", 8081, False, True),
        (80, E, 80, False, True),
        (81, "10.65.0.2", 8080, False, True),
        (81, E, 81, False, False),
        (90, AWAY, 8080, True, False),
        (90, AWAY, 8080, False, True),
        (80, "10.65.0.2", 8080, True, False),
    ],
    ids=[
        "as it is now",
        "as it was before it moved",
        "to another port before",
        "from before it came",
        "of one that went",
        "of none",
        "to an instance elsewhere",
        "to one that went elsewhere",
        "to one that came here",
    ],
)
def test_a_connection_goes_where_a_forwarded_port_leads_now(
    port: int,
    reached: str,
    reached_port: int,
    *,
    hidden: bool,
    stale: bool,
) -> None:
    one = serving(A, forwarding(), forwarding(AWAY, port=90))
    standing = Standing(plan_host(world(one, B), FACTS).translations)
    course = Course(
        protocol=6,
        source=IPv4Address("198.51.100.80"),
        seen_as=IPv4Address(E) if hidden else None,
        asked=IPv4Address(E),
        asked_port=port,
        reached=ip_address(reached),
        reached_port=reached_port,
    )
    assert standing.is_stale(course) is stale
    assert standing.concern(IPv4Address(E))
    assert not Standing(Translations()).concern(IPv4Address(E))


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        ["192.0.2.1", 6, 80, 80, "10.0.0.1", 80],
        ["192.0.2.1", "tcp", 80, 80, "10.0.0.1", 80, 80],
        ["2001:db8::1", 6, 80, 80, "10.0.0.1", 80, 80],
        ["192.0.2.1", 6, 80, 80, "fd00::1", 80, 80],
    ],
)
def test_p41_a_forwarding_that_cannot_be_read_is_named(entry: object) -> None:
    with pytest.raises(Invalid, match="port-forwardings entry"):
        parse_forwarding(entry)
