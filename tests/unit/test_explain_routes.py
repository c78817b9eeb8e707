"""Kernels are asked for a packet's route, and their answers are read."""

import json
from ipaddress import ip_address

import pytest

from calico.policy.evaluate import Packet
from calico.verify.explain.routes import question, read_route

ECMP = json.dumps(
    [
        {
            "dst": "10.99.0.0/24",
            "protocol": "bird",
            "nexthops": [
                {"gateway": "192.0.2.1", "dev": "up1", "weight": 1},
                {"via": {"family": "inet6", "host": "::1"}, "dev": "up2"},
            ],
        }
    ]
)


@pytest.mark.parametrize(
    ("answer", "error", "matched", "text"),
    [
        (
            '[{"dst":"10.99.0.1","gateway":"192.0.2.1","dev":"up1"}]',
            "",
            ECMP,
            "10.99.0.0/24 via 192.0.2.1 dev up1 (bird), or via ::1 dev up2",
        ),
        (
            '[{"dst":"10.91.0.2","dev":"tap1"}]',
            "",
            '[{"dst":"10.91.0.2","dev":"tap1","protocol":"111"}]',
            "10.91.0.2 dev tap1 (calico)",
        ),
        ('[{"dst":"10.91.0.2","dev":"tap1"}]', "", "", "route dev tap1"),
        ('[{"type":"local","dst":"192.0.2.1","dev":"lo"}]', "", "", "Local()"),
        (
            '[{"type":"unreachable","dst":"::1","dev":"lo"}]',
            "",
            "",
            "Unroutable(reason='its route says unreachable')",
        ),
        (
            "",
            "RTNETLINK answers: Network is unreachable\n",
            "",
            "Unroutable(reason='there is no route (Network is unreachable)')",
        ),
        ("", "", "", "Unroutable(reason='the kernel says nothing')"),
    ],
    ids=["equal ways", "tap", "unmatched", "local", "unreachable", "error", "silence"],
)
def test_a_kernels_answer_is_read(
    answer: str, error: str, matched: str, text: str
) -> None:
    assert str(read_route(answer, error, matched)) == text


def test_a_kernel_is_asked_for_the_packets_own_route() -> None:
    packet = Packet(
        source=ip_address("10.0.0.1"), destination=ip_address("10.0.0.2"), protocol=1
    )
    assert " ".join(question(packet, "tap1")) == (
        "ip -json route get 10.0.0.2 from 10.0.0.1 iif tap1"
    )
    assert " ".join(question(packet, None, matched=True)) == (
        "ip -json route get fibmatch 10.0.0.2"
    )
