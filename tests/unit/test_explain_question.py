"""Which packet is meant by the words of a question, and which words mean none."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.explaining import ONE, TWO, items, of_words

from calico.model.ids import PortId
from calico.verify.explain.picture import BadQuestion


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"source": "nobody"}, "'nobody' is neither"),
        ({"target": "10.65.0.2"}, "within one network stack"),
        ({"target": "192.0.2.1", "version": 6}, "has no IPv6 address"),
        ({"source": "192.0.2.1", "target": "2001:db8::1"}, "of one family"),
        ({"protocol": "256"}, "--proto 256"),
        ({"protocol": "²"}, "--proto"),
        ({"protocol": "gre"}, "--proto gre"),
        ({"protocol": "43", "version": 6}, "extension header"),
        ({"protocol": "tcp"}, "TCP needs --dport"),
        ({"protocol": "icmp", "port": 1}, "has no ports"),
        ({"protocol": "tcp", "port": 1, "icmp_type": 8}, "--icmp-type"),
        ({"icmp_code": 1}, "--icmp-code needs"),
    ],
    ids=str,
)
def test_a_bad_question_is_named(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadQuestion, match=sentence):
        of_words(items(ONE, TWO), **words)


def test_an_instance_with_two_ports_has_to_be_named_by_one() -> None:
    twin = replace(TWO, device=ONE.device)
    with pytest.raises(BadQuestion, match="matches several ports"):
        of_words(items(ONE, twin), source=str(ONE.device), target="192.0.2.1")
    found = of_words(items(ONE, TWO), source=str(ONE.device))
    assert found.question.source.port == PortId(ONE.port)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (1, None, 8, 0)),
        ({"version": 6}, (58, None, 128, 0)),
        ({"port": 80}, (6, 80, None, None)),
        ({"protocol": "UDP", "port": 53}, (17, 53, None, None)),
        ({"protocol": "47"}, (47, None, None, None)),
        ({"protocol": "1", "icmp_type": 13}, (1, None, 13, 0)),
    ],
    ids=str,
)
def test_what_is_not_said_is_chosen(
    asked: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    packet = of_words(items(ONE, TWO), **asked).question.packet
    got = (packet.protocol, packet.port, packet.icmp_type, packet.icmp_code)
    assert got == expected
