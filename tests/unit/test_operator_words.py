"""A rule is one line that says all of it."""

from ipaddress import ip_network

import pytest

from calico.model.operator import Action, End, Icmp, OperatorRule
from calico.model.records import PortRange
from calico.model.selector_parser import parse_selector
from calico.policy.operator_words import rule_words

WEB = (PortRange(first=22, last=22), PortRange(first=80, last=90))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (OperatorRule(action=Action.DENY), "deny everything"),
        (OperatorRule(action=Action.LOG, version=6), "log IPv6"),
        (
            OperatorRule(
                action=Action.ALLOW,
                protocol=6,
                source=End(nets=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
                destination=End(ports=WEB),
            ),
            "allow tcp from nets 10.0.0.0/8,fd00::/8 to ports 22,80-90",
        ),
        (
            OperatorRule(
                action=Action.PASS,
                version=4,
                protocol=1,
                icmp=Icmp(type=3, code=4),
                not_icmp=Icmp(type=8),
            ),
            "pass IPv4 icmp type 3 code 4 not type 8",
        ),
        (
            OperatorRule(
                action=Action.DENY,
                protocol=17,
                source=End(not_nets=(ip_network("fd00::/8"),), not_ports=WEB[:1]),
                destination=End(
                    selector=parse_selector("has(a)"),
                    not_selector=parse_selector("has(b)"),
                ),
            ),
            (
                "deny udp from not nets fd00::/8 and not ports 22"
                " to selector (has(a)) and not selector (has(b))"
            ),
        ),
        (
            OperatorRule(action=Action.DENY, not_protocol=47),
            "deny not protocol 47",
        ),
    ],
)
def test_a_rule_in_words(rule: OperatorRule, words: str) -> None:
    assert rule_words(rule) == words
