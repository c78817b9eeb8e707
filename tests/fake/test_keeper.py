"""Passes over a fake host: every state converges, every failure heals."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.endpoints import HOST, endpoint
from tests.unit.hosts import pair, world

from calico.agent.keeper import Keeper, Outcome
from calico.config import AgentSettings
from calico.model.qos import Qos, bandwidth, packet_rate
from calico.model.records import Endpoint
from calico.plan.items import (
    DHCP_BRIDGE,
    Hop,
    Item,
    Link,
    Multipath,
    Route,
    interfaces_of,
)
from calico.plan.nft import Part
from calico.plan.shaping import Shaper
from calico.reconcile.filter import FilterChange
from calico.system.fake_kernel import FakeKernel

PORTS = tuple(endpoint(number) for number in range(2, 6))
A, B = PORTS[:2]
SLOW = Qos(
    ingress=bandwidth(1000),
    egress=bandwidth(2000),
    egress_packets=packet_rate(10),
    dscp=46,
)


def run(kernel: FakeKernel, *endpoints: Endpoint) -> Outcome:
    keeper = Keeper(kernel, AgentSettings(host=HOST))
    _, delta = keeper.compare(world(*endpoints), (), resync=True)
    return keeper.apply(delta)


def converged(kernel: FakeKernel, *endpoints: Endpoint) -> bool:
    keeper = Keeper(kernel, AgentSettings(host=HOST))
    return keeper.compare(world(*endpoints), (), resync=True)[1].lines() == []


def fresh() -> FakeKernel:
    return FakeKernel(port.interface for port in PORTS)


def test_one_pass_serves_and_the_next_has_nothing_to_do() -> None:
    kernel = fresh()
    assert run(kernel, A, B).problems == ()
    assert converged(kernel, A, B)
    assert run(kernel, A, B).changes == {}
    assert kernel.exposed == []


worlds = st.lists(
    st.builds(
        lambda port, secure, paired, qos: replace(
            port,
            port_security=secure,
            pairs=(pair("10.70.0.0/16", port.mac),) if paired else (),
            qos=qos,
        ),
        st.sampled_from(PORTS),
        st.booleans(),
        st.booleans(),
        st.sampled_from([Qos(), SLOW, replace(SLOW, dscp=None, ingress=None)]),
    ),
    unique_by=lambda port: port.port,
)


@given(st.lists(worlds, min_size=1, max_size=4))
def test_any_sequence_of_worlds_ends_as_the_last_one_alone(
    sequence: list[list[Endpoint]],
) -> None:
    kernel, judge = fresh(), fresh()
    for endpoints in sequence:
        assert run(kernel, *endpoints).problems == ()
    run(judge, *sequence[-1])
    assert converged(kernel, *sequence[-1])
    assert kernel.elements == judge.elements
    own = {k: i for k, i in kernel.items.items() if isinstance(i, Route)}
    assert own == {k: i for k, i in judge.items.items() if isinstance(i, Route)}
    assert kernel.exposed == []


def item_count(endpoints: tuple[Endpoint, ...]) -> int:
    kernel = fresh()
    run(kernel, *endpoints)
    return len(kernel.items)


def test_p52_a_port_whose_limit_fails_stays_shut() -> None:
    kernel = fresh()
    kernel.refuse = lambda item: isinstance(item, Shaper)
    assert run(kernel, replace(A, qos=SLOW), B).failed == {A.interface}
    assert {e.interface for e in kernel.elements if e.set == "to_port"} == {B.interface}


def test_a_port_whose_packet_limit_is_refused_is_told_and_shut_alone() -> None:
    kernel = fresh()
    kernel.refuse_filter = lambda change: any("_rate." in p.name for p in change.put)
    outcome = run(kernel, replace(A, qos=SLOW), B)
    assert outcome.failed == {A.interface}
    assert [p.subject for p in outcome.problems] == [f"filter of {A.interface}"]
    kernel.refuse_filter = lambda _: False
    assert run(kernel, replace(A, qos=SLOW), B).problems == ()
    assert converged(kernel, replace(A, qos=SLOW), B)


def test_a_tap_that_was_made_anew_gets_its_limits_again() -> None:
    kernel, slow = fresh(), replace(A, qos=SLOW)
    run(kernel, slow)
    before = dict(kernel.items)
    kernel.plug(A.interface)
    run(kernel, slow)
    assert kernel.items == before


def test_of_a_port_that_went_no_detour_is_left() -> None:
    kernel = fresh()
    run(kernel, replace(A, qos=SLOW))
    kernel.unplug(A.interface)
    assert any(isinstance(item, Shaper) for item in kernel.items.values())
    assert run(kernel).problems == ()
    assert not any(isinstance(item, Shaper) for item in kernel.items.values())


@pytest.mark.parametrize("number", range(item_count((A,))))
def test_each_change_that_fails_once_is_made_good(number: int) -> None:
    kernel, calls = fresh(), count()
    kernel.refuse = lambda _: next(calls) == number
    first = run(kernel, A, B)
    if first.problems:
        assert first.failed <= {A.interface, B.interface, DHCP_BRIDGE}
    assert run(kernel, A, B).problems == ()
    assert converged(kernel, A, B)
    assert kernel.exposed == []


@given(st.data())
@settings(max_examples=30)
def test_each_filter_change_that_fails_once_is_made_good(data: st.DataObject) -> None:
    kernel = fresh()
    number, calls = data.draw(st.integers(0, 5)), count()
    kernel.refuse_filter = lambda _: next(calls) == number
    run(kernel, A, B)
    run(kernel, A, B)
    assert converged(kernel, A, B)
    assert kernel.exposed == []


def test_p41_a_failing_item_leaves_its_own_port_shut_and_no_other() -> None:
    kernel = fresh()
    kernel.refuse = lambda item: isinstance(item, Route) and _is_of(item, A)
    outcome = run(kernel, A, B)
    assert outcome.failed == {A.interface}
    gates = {e.interface for e in kernel.elements if e.set == "to_port"}
    assert gates == {B.interface}


def test_p52_without_policy_there_is_no_route() -> None:
    kernel = fresh()

    def about_a(change: FilterChange) -> bool:
        return any(e.interface == A.interface for e in change.elements.put)

    kernel.refuse_filter = about_a
    outcome = run(kernel, A, B)
    assert outcome.failed == {A.interface}
    routed = {
        name
        for i in kernel.items.values()
        if isinstance(i, Route)
        for name in interfaces_of(i)
    }
    assert routed == {B.interface}


def test_p52_of_ports_with_one_address_the_one_without_policy_gets_no_traffic() -> None:
    shared = pair("10.65.0.9/32")
    both = [replace(one, pairs=(shared,)) for one in (A, B)]
    kernel = fresh()
    kernel.refuse_filter = lambda change: any(
        e.interface == A.interface for e in change.elements.put
    )
    assert run(kernel, *both).failed == {A.interface}
    ways = [i for i in kernel.items.values() if isinstance(i, Multipath)]
    assert [way.hops for way in ways] == [(Hop(B.interface),)]
    kernel.refuse_filter = lambda _: False
    assert run(kernel, *both).problems == ()
    assert converged(kernel, *both)


def test_p52_while_nothing_is_known_a_lacking_table_is_made_and_no_other() -> None:
    kernel = fresh()
    run(kernel, A)
    kernel.parts = {p: line for p, line in kernel.parts.items() if p.family == "inet"}
    before = {e for e in kernel.elements if e.family == "inet"}
    kernel.elements = dict.fromkeys(before, "")
    keeper = Keeper(kernel, AgentSettings(host=HOST))
    keeper.shut()
    assert {part.family for part in kernel.parts} == {"inet", "arp"}
    assert set(kernel.elements) == before
    del kernel.parts[Part("inet", "chain", "forward")]
    keeper.shut()
    assert Part("inet", "chain", "forward") not in kernel.parts, "not whole, but there"


def test_without_nftables_nothing_is_routed() -> None:
    kernel = fresh()
    kernel.refuse_filter = lambda _: True
    outcome = run(kernel, A, B)
    assert outcome.failed == {A.interface, B.interface}
    assert not any(isinstance(item, Route) for item in kernel.items.values())


def test_a_link_made_anew_gets_everything_again() -> None:
    kernel = fresh()
    run(kernel, A, B)
    kernel.plug(A.interface)
    assert not converged(kernel, A, B)
    run(kernel, A, B)
    assert converged(kernel, A, B)
    assert kernel.items[2, A.interface, ""] == Link(
        A.interface,
        replace(A).mac.replace("fa:", "fe:", 1),  # type: ignore[arg-type]  # a MAC still
    )


def test_a_link_that_went_closes_its_gate() -> None:
    kernel = fresh()
    run(kernel, A, B)
    kernel.unplug(A.interface)
    outcome = run(kernel, A, B)
    assert outcome.problems == ()
    assert outcome.plan.absent == (A,)
    gates = {e.interface for e in kernel.elements if e.set == "to_port"}
    assert gates == {B.interface}


def _is_of(item: Item, port: Endpoint) -> bool:
    return port.interface in interfaces_of(item)
