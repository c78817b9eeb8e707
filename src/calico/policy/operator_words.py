"""A rule of an operator's policy as one line for people. Pure."""

from collections.abc import Iterable, Iterator

from calico.model.operator import End, Icmp, OperatorRule
from calico.model.records import PortRange
from calico.policy.explain import protocol_name


def rule_words(rule: OperatorRule) -> str:
    """Return a rule in words: `allow tcp from nets 10.0.0.0/8 to ports 22,80`."""
    words = [rule.action.value.lower()]
    if rule.version is not None:
        words.append(f"IPv{rule.version}")
    words += _protocol_words(rule)
    for preposition, end in (("from", rule.source), ("to", rule.destination)):
        conditions = " and ".join(_end_words(end))
        if conditions:
            words.append(f"{preposition} {conditions}")
    return " ".join(words if len(words) > 1 else [*words, "everything"])


def _protocol_words(rule: OperatorRule) -> Iterator[str]:
    if rule.protocol is not None:
        yield protocol_name(rule.protocol).lower()
    if rule.not_protocol is not None:
        yield f"not {protocol_name(rule.not_protocol).lower()}"
    if rule.icmp is not None:
        yield _icmp_words(rule.icmp)
    if rule.not_icmp is not None:
        yield f"not {_icmp_words(rule.not_icmp)}"


def _icmp_words(icmp: Icmp) -> str:
    return f"type {icmp.type}" + ("" if icmp.code is None else f" code {icmp.code}")


def _end_words(end: End) -> Iterator[str]:
    if end.nets is not None:
        yield f"nets {_listed(end.nets)}"
    if end.not_nets:
        yield f"not nets {_listed(end.not_nets)}"
    if end.selector is not None:
        yield f"selector ({end.selector})"
    if end.not_selector is not None:
        yield f"not selector ({end.not_selector})"
    if end.ports is not None:
        yield f"ports {_listed(map(_port_words, end.ports))}"
    if end.not_ports:
        yield f"not ports {_listed(map(_port_words, end.not_ports))}"


def _port_words(ports: PortRange) -> str:
    same = ports.first == ports.last
    return str(ports.first) if same else f"{ports.first}-{ports.last}"


def _listed(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
