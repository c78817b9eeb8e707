"""Which lanes floating IPs have, whatever others there are."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import endpoint
from tests.policies import OPEN_GROUPS
from tests.unit.hosts import SUBNET, WIDE, world
from tests.unit.test_floating import FACTS, TAPS, E

from calico.model.codec import encode_endpoint, parse_endpoint
from calico.model.ids import InterfaceName, Invalid
from calico.model.qos import UNLIMITED, Bandwidth, Qos, bandwidth, packet_rate
from calico.model.records import Endpoint, Nat
from calico.plan.antispoof import Element
from calico.plan.filter import FilterFacts, FilterPlanner
from calico.plan.host import HostFacts, HostPlan, plan_host
from calico.plan.lanes import Lane, LaneLink, Turn, lanes_of
from calico.plan.shaping import shaper
from calico.policy.evaluate import Direction

A, B = endpoint(2), endpoint(3)
SLOW, FAST = bandwidth(8_000_000), bandwidth(80_000_000)
WITH_UPLINK = replace(FACTS, uplinks=("up0",))


def limited(qos: Qos, external: str = E, one: Endpoint = A) -> Endpoint:
    nat = Nat(internal=one.addresses[0], external=ip_address(external), qos=qos)
    return replace(one, nats=(nat,))


def planned(*endpoints: Endpoint, facts: HostFacts = WITH_UPLINK) -> HostPlan:
    return plan_host(world(*endpoints), facts)


def lane_items(plan: HostPlan) -> list[LaneLink | Lane | Turn]:
    items = (plan.state[key] for key in sorted(plan.state))
    return [item for item in items if isinstance(item, LaneLink | Lane | Turn)]


def test_p16_a_limited_floating_ip_has_a_lane_each_way_and_all_exits_lead_there() -> (
    None
):
    plan = planned(limited(Qos(ingress=FAST, egress=SLOW)), B)
    link, to, back, *turns = lane_items(plan)
    assert link == LaneLink()
    assert isinstance(to, Lane)
    assert isinstance(back, Lane)
    for lane, way, limit in (
        (to, Direction.INGRESS, FAST),
        (back, Direction.EGRESS, SLOW),
    ):
        as_a_ports = shaper(A.interface, way, limit)
        bucket = (as_a_ports.rate, as_a_ports.burst, as_a_ports.queue)
        assert (lane.rate, lane.burst, lane.queue) == bucket
    exits = (A.interface, B.interface, InterfaceName("up0"))
    assert turns == [Turn(name) for name in sorted(exits)]
    elements = plan.whole_filter.elements
    assert elements[Element("inet", "lanes_to", E)] == f"ca11:{to.number:x}"
    assert elements[Element("inet", "lanes_from", E)] == f"ca11:{back.number:x}"


@pytest.mark.parametrize("way", ["lanes_to", "lanes_from"])
def test_a_way_without_a_limit_has_no_lane(way: str) -> None:
    qos = Qos(ingress=SLOW) if way == "lanes_to" else Qos(egress=SLOW)
    plan = planned(limited(qos))
    names = {e.set for e in plan.whole_filter.elements if e.set.startswith("lanes")}
    assert names == {way}
    assert sum(isinstance(item, Lane) for item in lane_items(plan)) == 1


def test_p51_where_nothing_is_limited_nothing_is_there() -> None:
    plan = planned(limited(UNLIMITED), B)
    assert lane_items(plan) == []
    assert not [part for part in plan.whole_filter.parts if "lanes" in part.name]
    absent = planned(limited(Qos(ingress=SLOW)), facts=HostFacts(uplinks=("up0",)))
    assert lane_items(absent) == [], "its interface is not there"


def test_p16_a_limit_that_cannot_be_kept_leaves_no_floating_ip() -> None:
    plan = planned(limited(Qos(egress=SLOW)), facts=FACTS)
    (refused,) = plan.refused_nats
    assert refused.reason == "its limit needs `uplinks` in the agent's settings"
    assert plan.translations.current == {}
    assert plan.served
    assert planned(limited(Qos(ingress=SLOW)), facts=FACTS).refused_nats == ()


# Addresses that hash alike, and to the last slots, of which the next is the first.
CROWDED = [
    address
    for address in map(IPv4Address, range(10 << 24, (10 << 24) + (1 << 17)))
    if crc32(address.packed) % 0x7FFF in {0, 0x7FFD, 0x7FFE}
]


@given(st.lists(st.sampled_from(CROWDED), min_size=1, unique=True))
def test_p39_each_way_of_each_floating_ip_has_a_lane_of_its_own(
    externals: list[IPv4Address],
) -> None:
    nats = tuple(
        Nat(internal=A.addresses[0], external=e, qos=Qos(ingress=SLOW, egress=FAST))
        for e in externals
    )
    (lanes,) = lanes_of([replace(A, nats=nats)]).values()
    numbers = {(one.external, one.direction): one.lane.number for one in lanes}
    assert len(set(numbers.values())) == len(numbers) == 2 * len(externals)
    assert all(1 <= number <= 0xFFFF for number in numbers.values())
    (again,) = lanes_of([replace(A, nats=nats[::-1])]).values()
    assert {(o.external, o.direction): o.lane.number for o in again} == numbers


def test_p39_a_limited_floating_ip_more_is_its_own_lanes() -> None:
    planner = FilterPlanner()
    facts = FilterFacts(taps=TAPS)
    one = limited(Qos(ingress=SLOW))
    before = planner.plan([one, B], [SUBNET, WIDE], OPEN_GROUPS, facts)
    other = limited(Qos(egress=SLOW), "10.70.0.6", B)
    after = planner.plan([one, other], [SUBNET, WIDE], OPEN_GROUPS, facts)
    changed = {name for name in after if after[name] is not before.get(name)}
    assert changed == {f"port {B.interface}", f"lanes {B.interface}"}


@pytest.mark.parametrize("more", [{"dscp": 8}, {"egress_packets": packet_rate(5)}])
def test_p16_a_floating_ip_is_limited_in_bandwidth_alone(more: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="limited in more than bandwidth"):
        limited(Qos(ingress=SLOW, **more))  # type: ignore[arg-type] # any of its fields


def test_limits_of_a_floating_ip_are_beside_it_in_words_of_calico() -> None:
    one = limited(Qos(egress=Bandwidth(rate=1000, burst=500)))
    stored = encode_endpoint(one)
    text = '{\\"10.70.0.5\\":{\\"egressBandwidth\\":1000,\\"egressBurst\\":500}}'
    assert f'"openstack.projectcalico.org/floating-qos":"{text}"' in stored.decode()
    assert parse_endpoint(stored) == one
