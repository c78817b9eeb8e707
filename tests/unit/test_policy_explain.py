"""The words for what groups say of a packet."""

from ipaddress import ip_address, ip_network
from random import Random

import pytest
from tests.policy_cases import Corners, packet_of

from calico.model.groups import Groups
from calico.model.ids import AddressGroupId, GroupId
from calico.model.records import (
    Policy,
    PortRange,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.policy.evaluate import Direction, Packet, evaluate
from calico.policy.explain import packet_words, printable, rule_on

WEB, PEERS = GroupId("web"), GroupId("peers")
CORNERS = {
    4: tuple(ip_address(f"10.65.0.{n}") for n in (2, 3, 4, 8)),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (2, 3, 4, 8)),
}
PACKET = Packet(
    source=ip_address("10.65.0.9"),
    destination=ip_address("10.65.0.2"),
    protocol=6,
    port=80,
)


def groups(*rules: Rule, name: str = "Web") -> Groups:
    return Groups(
        policies={WEB: Policy(group=WEB, name=name, ingress=rules)},
        members={PEERS: frozenset({ip_network("10.65.0.8/32")})},
    )


def said(known: Groups, *of_port: GroupId, packet: Packet = PACKET) -> str:
    return rule_on(known, of_port, Direction.INGRESS, packet).text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(version=4, id="r"), "IPv4 any protocol from anywhere"),
        (
            Rule(version=4, id="r", protocol=6, ports=PortRange(first=80, last=80)),
            "IPv4 TCP port 80 from anywhere",
        ),
        (
            Rule(
                version=4,
                id="r",
                protocol=6,
                ports=PortRange(first=1, last=99),
                remote=ip_network("10.65.0.0/24"),
            ),
            "IPv4 TCP ports 1-99 from 10.65.0.0/24",
        ),
    ],
    ids=["any", "port", "ports and prefix"],
)
def test_an_allowed_packet_names_rule_and_group(rule: Rule, words: str) -> None:
    assert said(groups(rule), WEB) == f"rule r of group Web (web): {words}"


def test_a_denied_packet_names_all_groups_and_what_nearly_allowed_it() -> None:
    near = Rule(version=4, id="near", protocol=6, remote=RemoteGroup(PEERS))
    other = Rule(version=4, id="far", protocol=17)
    text = said(groups(near, other), WEB, PEERS)

    assert "no ingress rule of peers, Web (web) allows IPv4 TCP to port 80" in text
    assert "nothing usable is stored of group peers" in text
    assert "near: rule near of group Web (web)" in text
    assert "from members of peers, 1 address" in text
    assert "far" not in text.replace("near", "")


def test_an_address_group_is_named() -> None:
    remote = RemoteAddressGroup(AddressGroupId("office"))
    rule = Rule(version=4, id="r", protocol=6, remote=remote)
    assert "near: rule r of group Web (web): IPv4 TCP from address group office" in (
        said(groups(rule), WEB)
    )


def test_a_port_without_groups_says_so() -> None:
    assert "no security group" in said(groups())


def test_a_name_cannot_write_to_the_terminal() -> None:
    text = said(groups(name="\x1b[31mroot"), WEB)
    assert "\x1b" not in text
    assert "root" in text
    assert printable("Büro 7") == "Büro 7"


def test_an_icmp_packet_says_type_and_code() -> None:
    one, two = CORNERS[6][:2]
    packet = Packet(
        source=one, destination=two, protocol=58, icmp_type=128, icmp_code=0
    )
    assert packet_words(packet) == "IPv6 ICMPv6 type 128 code 0"


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("seed", range(100))
def test_the_verdict_is_the_judges_whatever_is_said(
    seed: int, direction: Direction
) -> None:
    corners = Corners(Random(seed), CORNERS)
    known, of_port = corners.groups(), corners.of_port()
    for _ in range(10):
        version, transport, far = corners.packet(known, of_port, direction)
        near = CORNERS[version][1]
        packet = packet_of(transport, far or CORNERS[version][0], near, direction)
        ruling = rule_on(known, of_port, direction, packet)
        verdict = evaluate(known, of_port, direction, packet)
        assert ruling.verdict == verdict
        assert verdict.allowed == ruling.text.startswith("rule ")
