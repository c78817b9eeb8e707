"""The probes of policy, each shown a network that does what must not be."""

import os
import time
from dataclasses import replace

import pytest
from tests.kernel.test_probes import (
    BOTH,
    CHAIN,
    MAC_A,
    MAC_B,
    MAC_RA,
    MAC_RB,
    ONE,
    OTHER,
    Path,
    nft,
    routed,  # noqa: F401 - a fixture
)

from calico.verify.cloud import Host, Site
from calico.verify.probes.claims import Claim, announced, asked, is_answered
from calico.verify.probes.echo import PORT, request
from calico.verify.probes.flows import Course, FlowFailed, Flows, cut, goes_on
from calico.verify.probes.frames import transmit
from calico.verify.probes.shots import ECHO, ICMP4, ICMP6, SCTP, TCP, UDP, Shot
from calico.verify.probes.spread import spread
from calico.verify.probes.volley import Aim, End, Outcome, fire

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

FORWARD = "filter hook forward priority 0;"
GATEWAY = {4: "192.0.2.1", 6: "2001:db8:a::1"}


def courses(path: Path) -> list[Course]:
    return [
        Course(
            name=f"{kind} {version}",
            kind=kind,
            source=path.a,
            target=path.b,
            address=OTHER[version],
            port=8000,
        )
        for kind in ("TCP", "UDP")
        for version in (4, 6)
    ]


def test_s16_a_flow_that_goes_on_is_not_cut_and_one_that_is_does_not_go_on(
    routed: Path,  # noqa: F811
) -> None:
    with Flows() as flows:
        begun = [flows.begin(course) for course in courses(routed)]
        assert set(goes_on(begun).values()) == {None}
        for wrong in cut(begun, time.monotonic(), 0.5).values():
            assert wrong is not None
            assert "goes on" in wrong
        nft(routed, CHAIN.format(FORWARD, "drop"))
        since = time.monotonic()
        assert set(cut(begun, since, 1.0).values()) == {None}
        assert set(goes_on(begun).values()) == {"it was interrupted"}
        late = cut(begun, since - 5, 1.0).values()
        assert all(wrong and "was cut after" in wrong for wrong in late)


def test_s16_a_flow_that_is_cut_one_way_only_is_not_cut(
    routed: Path,  # noqa: F811
) -> None:
    with Flows() as flows:
        begun = [flows.begin(c) for c in courses(routed) if c.kind == "UDP"]
        nft(routed, CHAIN.format(FORWARD, 'iifname "to-a" drop'))
        assert all(cut(begun, time.monotonic(), 0.5).values())
        assert all(goes_on(begun).values())


def test_s16_a_flow_that_cannot_begin_says_so(routed: Path) -> None:  # noqa: F811
    nft(routed, CHAIN.format(FORWARD, "drop"))
    with Flows() as flows:
        for course in courses(routed):
            with pytest.raises(FlowFailed, match=course.name):
                flows.begin(course)


def volley(path: Path) -> dict[str, Outcome]:
    """Fire one shot of each kind from the first guest at the other."""
    ends = {
        "a": End(place=path.a, interface="eth0", mac=MAC_A, gateway=MAC_RA),
        "b": End(place=path.b, interface="eth0", mac=MAC_B, gateway=MAC_RB),
    }
    kinds = {"TCP": (TCP, PORT), "UDP": (UDP, PORT), "SCTP": (SCTP, 9), "echo": (0, 0)}
    shots = {}
    for version in (4, 6):
        icmp = ICMP4 if version == 4 else ICMP6
        for number, (name, (protocol, port)) in enumerate(kinds.items()):
            shots[f"{name} {version}"] = Shot(
                source=ONE[version],
                destination=OTHER[version],
                protocol=protocol or icmp,
                number=20000 + number,
                port=port,
                icmp=(0, 0) if protocol else (ECHO[version], 0),
                payload=request()[1],
            )
    outcomes = fire(ends, [Aim("a", "b", shot) for shot in shots.values()])
    return dict(zip(shots, outcomes, strict=True))


def test_s16_shots_arrive_and_are_answered(routed: Path) -> None:  # noqa: F811
    for name, outcome in volley(routed).items():
        assert outcome == Outcome(arrived=True, answered="SCTP" not in name), name


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", "{ icmp, icmpv6 }"])
def test_s16_a_shot_that_is_dropped_is_missed_and_no_other(
    routed: Path,  # noqa: F811
    protocol: str,
) -> None:
    nft(routed, CHAIN.format(FORWARD, f"meta l4proto {protocol} drop"))
    name = "echo" if "icmp" in protocol else protocol.upper()
    outcomes = volley(routed)
    missed = {n for n, outcome in outcomes.items() if not outcome.arrived}
    assert missed == {f"{name} 4", f"{name} 6"}


def test_p06_an_answer_that_is_dropped_is_missed(routed: Path) -> None:  # noqa: F811
    nft(routed, CHAIN.format(FORWARD, 'iifname "to-b" drop'))
    assert set(volley(routed).values()) == {Outcome(arrived=True, answered=False)}


@BOTH
def test_s17_a_host_that_believes_anybody_answers_and_learns(
    routed: Path,  # noqa: F811
    version: int,
) -> None:
    foreign = ONE[version] + 5
    wanted = type(foreign)(GATEWAY[version])
    claim = Claim(ethernet=MAC_A, mac=MAC_A, address=foreign)
    question = asked(claim, wanted, MAC_RA)
    assert is_answered(routed.a, "eth0", question, wanted)
    nobody = wanted + 9
    question = asked(claim, nobody, MAC_RA)
    assert not is_answered(routed.a, "eth0", question, nobody)
    lying = Claim(ethernet=MAC_A, mac=MAC_B, address=foreign)
    transmit(routed.a, "eth0", [announced(lying, wanted, MAC_RA)])
    assert routed.router
    assert MAC_B in str(routed.router.run(["ip", "neigh", "show", "dev", "to-a"]))


def test_s05_datagrams_are_counted_where_they_arrive(
    routed: Path,  # noqa: F811
) -> None:
    b = Site(
        name="x-b",
        host=Host(name="r", rack="r"),
        port="",
        network="",
        mac=MAC_B,
        interface="eth0",
        tap="",
        addresses=(),
        place=routed.b,
    )
    a = replace(b, name="x-a", place=routed.a)
    target = OTHER[4], PORT
    assert set(spread(routed.a, target, [a, b])) == {"b"}
    nft(routed, CHAIN.format(FORWARD, "drop"))
    assert set(spread(routed.a, target, [a, b])) == {""}
