"""Limits of a port: as stored, as planned for the kernel, and their own boundaries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import endpoint
from tests.unit.hosts import world

from calico.model.codec import encode_endpoint, parse_endpoint
from calico.model.ids import InterfaceName, Invalid
from calico.model.qos import (
    LARGEST_BURST,
    LONGEST_BURST,
    Bandwidth,
    PacketRate,
    Qos,
    bandwidth,
    encode_qos,
    packet_rate,
    parse_qos,
)
from calico.model.records import Endpoint
from calico.plan.antispoof import Element
from calico.plan.host import HostFacts, plan_host
from calico.plan.nft import Part
from calico.plan.ruleset import Chain
from calico.plan.shaping import Shaper, detour_of, rounded, shaper, tap_of
from calico.policy.evaluate import Direction

TAP = InterfaceName("tap00000002-02")
MBIT = 1_000_000


def limited(**limits: Any) -> Endpoint:
    return endpoint(2, qos=Qos(**limits))


def test_limits_are_stored_under_the_names_of_the_model() -> None:
    qos = Qos(
        ingress=Bandwidth(rate=8 * MBIT, burst=MBIT),
        egress=Bandwidth(rate=4 * MBIT, burst=2 * MBIT),
        ingress_packets=PacketRate(rate=1000, burst=50),
        egress_packets=PacketRate(rate=2000, burst=100),
        dscp=46,
    )
    assert encode_qos(qos) == {
        "ingressBandwidth": 8 * MBIT,
        "ingressBurst": MBIT,
        "egressBandwidth": 4 * MBIT,
        "egressBurst": 2 * MBIT,
        "ingressPacketRate": 1000,
        "ingressPacketBurst": 50,
        "egressPacketRate": 2000,
        "egressPacketBurst": 100,
        "dscp": 46,
    }
    assert parse_endpoint(encode_endpoint(endpoint(2, qos=qos))).qos == qos


def test_limits_that_went_leave_nothing_stored() -> None:
    old = encode_endpoint(limited(dscp=0, egress=bandwidth(MBIT)))
    assert b"qosControls" in old
    assert b"qosControls" not in encode_endpoint(endpoint(2), old=old)


@pytest.mark.parametrize(
    ("controls", "wanted"),
    [
        ({"ingressBandwidth": 0, "egressPacketRate": 0}, Qos()),
        ({"ingressBandwidth": MBIT}, Qos(ingress=bandwidth(MBIT))),
        ({"egressPacketRate": 100}, Qos(egress_packets=packet_rate(100))),
        ({"egressMaxConnections": 7, "ingressBurst": 9}, Qos()),
        (
            {"egressBandwidth": MBIT, "egressBurst": 4 * 10**9},
            Qos(egress=Bandwidth(rate=MBIT, burst=LONGEST_BURST * MBIT)),
        ),
    ],
    ids=["zeroes", "no-burst", "no-packet-burst", "others", "long-burst"],
)
def test_what_another_writer_leaves_out_is_understood(
    controls: dict[str, int], wanted: Qos
) -> None:
    assert parse_qos({"qosControls": controls}) == wanted


@pytest.mark.parametrize(
    "controls",
    [7, {"dscp": 64}, {"dscp": "EF"}, {"ingressBandwidth": -1}, {"egressBurst": True}],
    ids=str,
)
def test_nonsense_is_refused(controls: object) -> None:
    with pytest.raises(Invalid):
        parse_qos({"qosControls": controls})


@pytest.mark.parametrize(
    "make",
    [
        lambda: bandwidth(0),
        lambda: bandwidth(10**15 + 1),
        lambda: bandwidth(1000, 1000 * LONGEST_BURST + 1),
        lambda: bandwidth(10**12, LARGEST_BURST + 1),
        lambda: packet_rate(0),
        lambda: packet_rate(10**9 + 1),
        lambda: packet_rate(1, 2**32),
    ],
)
def test_a_limit_that_the_kernel_cannot_hold_is_none(
    make: Callable[[], object],
) -> None:
    with pytest.raises(Invalid):
        make()


def test_p16_a_burst_that_is_not_given_is_neutrons_default() -> None:
    assert bandwidth(10 * MBIT).burst == 8 * MBIT
    assert bandwidth(10**15).burst == LARGEST_BURST
    assert packet_rate(1000).burst == 100


def test_p16_a_burst_is_a_buckets_depth_and_no_rate() -> None:
    one = shaper(TAP, Direction.EGRESS, bandwidth(8 * MBIT, 800_000))
    assert (one.rate, one.burst) == (1_000_000, 100_032)  # octets, in units of 64


def test_what_waits_does_not_grow_with_the_burst() -> None:
    small, large = (
        shaper(TAP, Direction.EGRESS, bandwidth(8 * MBIT, burst))
        for burst in (80_000, 800 * MBIT)
    )
    assert small.queue == large.queue


def test_a_burst_smaller_than_a_frame_is_one_frame() -> None:
    one = shaper(TAP, Direction.EGRESS, bandwidth(8 * MBIT, 1))
    assert one.burst >= 9_018


@given(st.integers(1, 2**37), st.integers(1, LARGEST_BURST))
def test_the_kernels_rounding_of_a_burst_is_no_difference(
    octets: int, burst: int
) -> None:
    rate = octets * 8
    limit = bandwidth(rate, max(min(burst, rate * LONGEST_BURST), 1))
    wanted = shaper(TAP, Direction.INGRESS, limit)
    ticks = wanted.burst * 10**9 // wanted.rate // 64  # as psched_l2t_ns and tbf_dump
    told = round(ticks * 64 * wanted.rate / 1e9)
    assert rounded(told, wanted.rate) == wanted.burst


def test_a_detours_name_is_its_taps() -> None:
    assert detour_of(TAP) == "lim00000002-02"
    assert tap_of(detour_of(TAP)) == TAP


def test_a_port_has_the_shapers_of_its_limits_and_no_others() -> None:
    one = limited(egress=bandwidth(MBIT), ingress_packets=packet_rate(100))
    facts = HostFacts(taps=frozenset({TAP}))
    state = plan_host(world(one, endpoint(3)), facts).state
    found = [i for i in state.values() if isinstance(i, Shaper)]
    assert [(s.interface, s.direction) for s in found] == [(TAP, Direction.EGRESS)]


def planned(*endpoints: Endpoint) -> tuple[dict[Element, str], set[Chain]]:
    """Return what a host's filter has of rates and marks."""
    whole = plan_host(world(*endpoints), HostFacts()).whole_filter
    maps = {"from_rate", "to_rate", "marks"}
    elements = {e: v for e, v in whole.elements.items() if e.set in maps}
    names = {v.removeprefix("jump ") for v in elements.values()}
    chains = {whole.parts[Part("inet", "chain", name)] for name in names}
    extra = [p.name for p in whole.parts if "_rate." in p.name or "dscp" in p.name]
    assert set(extra) == names
    return elements, {c for c in chains if isinstance(c, Chain)}


def test_packet_rates_are_a_chain_of_the_ports_own() -> None:
    one = limited(
        egress_packets=packet_rate(2000, 10), ingress_packets=packet_rate(1000, 5)
    )
    elements, chains = planned(one, endpoint(3))
    assert {(e.set, e.key) for e in elements} == {
        ("from_rate", f'"{TAP}"'),
        ("to_rate", f'"{TAP}"'),
    }
    assert {rule.text for chain in chains for rule in chain.rules} == {
        "limit rate over 2000/second burst 10 packets counter drop",
        "limit rate over 1000/second burst 5 packets counter drop",
    }


def test_another_rate_is_another_chain() -> None:
    first, second = (
        planned(limited(egress_packets=packet_rate(rate, 10)))[1] for rate in (1, 2)
    )
    assert {c.name for c in first}.isdisjoint(c.name for c in second)


def test_p51_ports_with_one_mark_share_its_chain() -> None:
    marked = limited(dscp=46)
    elements, chains = planned(marked, endpoint(3, qos=marked.qos))
    assert len(elements) == 2
    (chain,) = chains
    assert {rule.text for rule in chain.rules} == {
        "meta nfproto ipv4 ip dscp set 46",
        "meta nfproto ipv6 ip6 dscp set 46",
    }


def test_the_mark_0_is_a_mark() -> None:
    assert planned(limited(dscp=0))[1]
    assert planned(replace(limited(), qos=Qos())) == ({}, set())
