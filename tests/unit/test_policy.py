"""What groups mean, and that the quick judges say what the slow one says."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest
from tests.endpoints import endpoint
from tests.policy_cases import Corners, packet_of

from calico.model.groups import Groups
from calico.model.ids import AddressGroupId, GroupId
from calico.model.records import (
    AddressPair,
    Policy,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.policy.cover import Cover, Piece, pieces
from calico.policy.evaluate import DENIED, Direction, Packet, evaluate, matches
from calico.policy.flows import Connections

WEB, PEERS = GroupId("web"), GroupId("peers")
OFFICE = AddressGroupId("office")
NEAR, FAR = ip_address("10.65.0.2"), ip_address("10.65.0.9")
CORNERS = {
    4: tuple(ip_address(f"10.65.0.{n}") for n in (2, 3, 4, 8)),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (2, 3, 4, 8)),
}


def ingress(*rules: Rule) -> Groups:
    return Groups(
        policies={WEB: Policy(group=WEB, name="", ingress=rules)},
        members={PEERS: frozenset({ip_network("10.65.0.8/30")})},
        address_groups={OFFICE: frozenset({ip_network("10.65.0.9/32")})},
    )


def tcp(port: int) -> Packet:
    return Packet(source=FAR, destination=NEAR, protocol=6, port=port)


def allowed(groups: Groups, packet: Packet) -> bool:
    return evaluate(groups, {WEB}, Direction.INGRESS, packet).allowed


@pytest.mark.parametrize(
    ("remote", "verdict"),
    [
        (None, True),
        (ip_network("10.65.0.0/24"), True),
        (ip_network("10.65.0.10/32"), False),
        (RemoteGroup(PEERS), True),
        (RemoteGroup(GroupId("nobody")), False),
        (RemoteAddressGroup(OFFICE), True),
        (RemoteAddressGroup(AddressGroupId("unknown")), False),
    ],
    ids=str,
)
def test_p01_a_rule_allows_its_remote_and_nobody_else(
    remote: Remote | None, *, verdict: bool
) -> None:
    rule = Rule(version=4, protocol=6, remote=remote, id="r")
    assert allowed(ingress(rule), tcp(80)) is verdict


def test_rules_only_allow_and_the_first_that_does_is_named() -> None:
    wide = Rule(version=4, id="wide")
    web = Rule(version=4, protocol=6, ports=PortRange(first=80, last=80), id="web")
    groups = ingress(web, wide)
    assert evaluate(groups, {WEB}, Direction.INGRESS, tcp(80)).rule == web
    assert evaluate(groups, {WEB}, Direction.INGRESS, tcp(81)).rule == wide
    assert evaluate(groups, {PEERS}, Direction.INGRESS, tcp(80)) == DENIED
    assert evaluate(groups, {WEB}, Direction.EGRESS, tcp(80)) == DENIED


@pytest.mark.parametrize("seed", range(300))
def test_pieces_say_what_their_rules_say_and_never_overlap(seed: int) -> None:
    corners = Corners(Random(seed), CORNERS)
    groups = corners.groups()
    for group, policy in groups.policies.items():
        for _ in range(20):
            version, transport, far = corners.packet(
                groups, frozenset({group}), Direction.INGRESS
            )
            far, near = far or CORNERS[version][0], CORNERS[version][1]
            packet = packet_of(transport, far, near, Direction.INGRESS)
            rules = [r for r in policy.ingress if r.version == version and _plain(r)]
            found = [p for p in pieces(rules) if _allows(p, packet)]
            expected = any(
                matches(groups, rule, Direction.INGRESS, packet) for rule in rules
            )
            assert bool(found) is expected, packet
            assert len({piece.kind for piece in found}) == len(found), "overlap"
            for piece in found:
                assert matches(groups, piece.rule, Direction.INGRESS, packet)


def _plain(rule: Rule) -> bool:
    return not isinstance(rule.remote, RemoteGroup | RemoteAddressGroup)


def _allows(piece: Piece, packet: Packet) -> bool:
    first, last = piece.within
    what = {
        "all": True,
        "protos": packet.protocol == piece.number,
        "ports": packet.protocol == piece.number
        and first <= (packet.port or 0) <= last,
        "icmp": packet.icmp_type == piece.number
        and first <= (packet.icmp_code or 0) <= last,
    }[piece.kind]
    return what and (piece.prefix is None or packet.source in piece.prefix)


def test_a_cover_knows_what_it_lacks() -> None:
    cover = Cover()
    assert cover.missing(5, 9) == [(5, 9)]
    cover.add(5, 9)
    assert cover.missing(0, 20) == [(0, 4), (10, 20)]
    cover.add(10, 12)
    cover.add(0, 3)
    assert cover.missing(0, 20) == [(4, 4), (13, 20)]
    cover.add(4, 4)
    assert cover.missing(0, 12) == []


@pytest.mark.parametrize("seed", range(300))
def test_connections_are_judged_as_the_judge_does(seed: int) -> None:
    random = Random(seed)
    corners = Corners(random, CORNERS)
    groups = corners.groups()
    a = replace(endpoint(2), groups=corners.of_port())
    b = replace(endpoint(3), groups=corners.of_port())
    wide = AddressPair(prefix=ip_network("10.65.0.8/30"), mac=a.mac)
    a = replace(a, pairs=(wide,))
    judge = Connections((a, b), groups)
    for _ in range(40):
        version, transport, _ = corners.packet(groups, b.groups, Direction.INGRESS)
        source, destination = random.sample(CORNERS[version], 2)
        packet = packet_of(transport, source, destination, Direction.INGRESS)
        ends = ((source, Direction.EGRESS), (destination, Direction.INGRESS))
        expected = all(
            evaluate(groups, owner.groups, direction, packet).allowed
            for address, direction in ends
            for owner in (a, b)
            if address in owner.addresses or (owner is a and address in wide.prefix)
        )
        assert judge.allow(packet) is expected, packet
