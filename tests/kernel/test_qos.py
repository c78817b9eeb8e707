"""Limits and marks of ports, measured with their guests' traffic.

A busy machine makes traffic slower and never faster: bounds from above are strict,
those from below are wide.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.endpoints import endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually
from tests.kernel.rates import datagrams, stream, traffic_class

from calico.model.qos import Qos, bandwidth, packet_rate
from calico.model.records import Endpoint

A, B = endpoint(2), endpoint(3)
MBIT = 1_000_000
SMALL = 200_000  # bits: a burst that hardly counts in a measurement


@pytest.fixture
def bed() -> Iterator[HostBed]:
    with host_bed() as one:
        yield one


@pytest.fixture
def guests(bed: HostBed) -> tuple[Netns, Netns]:
    pair_of_guests = bed.plug(A), bed.plug(B, up=True)
    serve(bed)
    return pair_of_guests


def limited(**limits: Any) -> Endpoint:
    return replace(A, qos=Qos(**limits))


def serve(bed: HostBed, **limits: Any) -> None:
    """Have A limited; nothing is to be changed then."""
    assert bed.serve(limited(**limits), B).problems == ()
    assert bed.changes(limited(**limits), B) == []


def queues(bed: HostBed) -> list[str]:
    """Return what the host has of queues, of redirections and of detours."""
    tap = ["dev", A.interface, "ingress"]
    found = bed.host.run(["tc", "qdisc", "show"]).stdout
    found += bed.host.run(["tc", "filter", "show", *tap], check=False).stdout
    lines = [ln for ln in found.split("\n") if "ca11" in ln or "Redirect" in ln]
    links = bed.host.ip("-br", "link", "show", "type", "ifb").split("\n")
    return lines + [" ".join(link.split()[:2]) for link in links if link]


def test_p16_bandwidth_is_limited_each_way_by_its_own_limit(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    a, b = guests
    serve(bed, egress=bandwidth(8 * MBIT, SMALL), ingress=bandwidth(20 * MBIT, SMALL))
    for rate, ends in (
        (8 * MBIT, (a, b, "10.65.0.3")),
        (20 * MBIT, (b, a, "2001:db8:65::2")),
    ):
        with stream(*ends) as limited:
            assert limited.read(1.2) > 0.6 * rate
            assert limited.total <= SMALL + rate * limited.elapsed
    serve(bed)
    for source, target, address in ((a, b, "10.65.0.3"), (b, a, "10.65.0.2")):
        with stream(source, target, address) as free:
            assert free.read(0.3) > 50 * MBIT
    assert queues(bed) == []


def test_p16_a_burst_passes_at_once_and_then_the_rate_holds(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    a, b = guests
    rate, burst = 4 * MBIT, 12 * MBIT
    for way, ends in (
        ("egress", (a, b, "10.65.0.3")),
        ("ingress", (b, a, "10.65.0.2")),
    ):
        serve(bed, **{way: bandwidth(rate, burst)})
        with stream(*ends) as one:
            one.read(0.6)
            assert one.total > 11 * MBIT
            one.read(0.6)
            assert one.total <= burst + rate * one.elapsed


def test_a_limit_changes_under_a_connection_that_lives_on(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    a, b = guests
    slow, fast = 2 * MBIT, 30 * MBIT
    serve(bed, egress=bandwidth(slow, SMALL))
    with stream(a, b, "10.65.0.3") as one:
        one.read(0.8)
        assert one.total <= SMALL + slow * one.elapsed
        changed = one.elapsed
        serve(bed, egress=bandwidth(fast, SMALL))
        # The sender may keep to the old rate for a while, as BBR does.
        eventually(lambda: one.read(0.3) > 10 * MBIT)
        most = 2 * SMALL + slow * changed + fast * (one.elapsed - changed)
        assert one.total <= most
        serve(bed, ingress=bandwidth(MBIT, SMALL))
        one.read(0.3)
        assert one.read(0.3) > 50 * MBIT


def test_packet_rates_are_limited_each_way(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    a, b = guests
    ways = {"egress": (a, b, "10.65.0.3"), "ingress": (b, a, "2001:db8:65::2")}
    for way, ends in ways.items():
        # A limit that was spent before is another one: it begins anew.
        limit = packet_rate(100, 50 if way == "egress" else 40)
        assert datagrams(*ends, 500)[0] == 500
        serve(bed, **{f"{way}_packets": limit})
        arrived, elapsed = datagrams(*ends, 20_000)
        # A few more are neighbour discovery's.
        assert limit.burst - 5 <= arrived <= limit.burst + limit.rate * elapsed + 1
        serve(bed)


def test_what_a_port_sends_is_marked_and_nothing_else(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    a, b = guests
    for mark in (46, 8):
        serve(bed, dscp=mark)
        for address in ("10.65.0.3", "2001:db8:65::3"):
            assert traffic_class(a, b, address) == mark, address
        for address in ("10.65.0.2", "2001:db8:65::2"):
            assert traffic_class(b, a, address) == 0, address
    serve(bed)
    assert traffic_class(a, b, "10.65.0.3") == 0


@pytest.mark.parametrize(
    "damage",
    [
        "tc qdisc del dev {tap} root",
        "tc qdisc replace dev {tap} root handle 7: tbf rate 1gbit burst 1mb limit 1mb",
        "tc qdisc del dev {tap} clsact",
        "tc filter del dev {tap} ingress",
        "tc qdisc del dev {detour} root",
        "tc qdisc change dev {detour} root tbf rate 1gbit burst 1mb limit 1mb",
        "ip link del {detour}",
        "ip link set {detour} down",
        "nft flush chain inet calico rates_from",
    ],
)
def test_a_limit_that_somebody_undid_is_made_good(
    bed: HostBed, guests: tuple[Netns, Netns], damage: str
) -> None:
    limits = {
        "egress": bandwidth(8 * MBIT),
        "ingress": bandwidth(8 * MBIT),
        "egress_packets": packet_rate(1000),
    }
    serve(bed, **limits)
    before = queues(bed)
    detour = "lim" + A.interface[3:]
    bed.host.run(damage.format(tap=A.interface, detour=detour).split())
    assert bed.changes(limited(**limits), B) != []
    serve(bed, **limits)
    assert queues(bed) == before
    assert guests[0].pings("10.65.0.3")


def test_a_tap_that_was_made_anew_has_its_limits_and_one_that_went_none(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    del guests
    limits = {"egress": bandwidth(8 * MBIT), "ingress": bandwidth(8 * MBIT)}
    serve(bed, **limits)
    bed.host.ip("link", "del", A.interface)
    a = bed.plug(A)
    serve(bed, **limits)
    assert len(queues(bed)) == 4
    assert a.pings("10.65.0.3")
    bed.host.ip("link", "del", A.interface)
    bed.serve(B)
    assert queues(bed) == []


def test_what_an_operator_has_on_a_tap_is_left_alone(
    bed: HostBed, guests: tuple[Netns, Netns]
) -> None:
    del guests
    serve(bed, egress=bandwidth(8 * MBIT))
    tap = A.interface
    queue = "root handle 7: tbf rate 1gbit burst 1mb limit 1mb"
    match = "ingress pref 5 protocol ip u32 match u32 0 0 classid 1:1"
    for kind, words in (("qdisc", queue), ("filter", match)):
        bed.host.run(["tc", kind, "add", "dev", tap, *words.split()])
    serve(bed, egress=bandwidth(8 * MBIT))
    serve(bed)
    assert queues(bed) == []
    assert "tbf 7:" in bed.host.run(["tc", "qdisc", "show", "dev", tap]).stdout
    kept = bed.host.run(["tc", "filter", "show", "dev", tap, "ingress"]).stdout
    assert "pref 5 " in kept
