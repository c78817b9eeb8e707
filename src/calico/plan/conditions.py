"""What a rule of an operator asks of a packet, in nft's words.

Nothing is said by negation that can be said by what remains: of two negations of fields
that are next to each other in a packet, nft (1.0.6) makes one, that the pair is not
this pair.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from calico.model.ids import Prefix
from calico.model.operator import End, Icmp, OperatorRule
from calico.model.records import ICMP, PortRange
from calico.plan.policy import Selected, remote_set_names
from calico.policy.cover import Cover, Range

_PROTOCOL = {4: "ip", 6: "ip6"}
_BITS = {4: 32, 6: 128}
_LAST_PORT = 65535
_ICMP = {4: "icmp", 6: "icmpv6"}


def conditions(rule: OperatorRule) -> Iterator[list[str]]:
    """Yield conditions of which at most one holds, where the rule matches.

    There are several where a rule is for both families, or a selector's addresses are
    in two sets; none where it can match nothing.
    """
    transport = _transport(rule)
    if transport is None:
        return
    ends = {"saddr": rule.source, "daddr": rule.destination}
    if rule.version is None and not _is_of_family(rule):
        yield transport
        return
    for version in (4, 6):
        if rule.version not in {None, version}:
            continue
        icmp = _icmp(rule, version)
        sides = [_addresses(end, side, version) for side, end in ends.items()]
        if icmp is None:
            continue
        for source, destination in product(*sides):
            yield [
                f"meta nfproto ipv{version}",
                *transport,
                *icmp,
                *source,
                *destination,
            ]


def _is_of_family(rule: OperatorRule) -> bool:
    """Tell whether something of a rule is spelled differently in IPv4 and IPv6."""
    return bool(rule.icmp or rule.not_icmp) or any(
        end.nets is not None or end.not_nets or end.selector or end.not_selector
        for end in (rule.source, rule.destination)
    )


def _transport(rule: OperatorRule) -> list[str] | None:
    """Return what a rule says of protocol and ports; None if nothing has it."""
    texts = []
    if rule.protocol is not None:
        texts.append(f"meta l4proto {rule.protocol}")
    if rule.not_protocol is not None:
        texts.append(f"meta l4proto != {rule.not_protocol}")
    for side, end in (("sport", rule.source), ("dport", rule.destination)):
        some = None if end.ports is None else _port_ranges(end.ports)
        ranges = _remaining(some, _port_ranges(end.not_ports), _LAST_PORT)
        if not ranges:
            return None
        if ranges != [(0, _LAST_PORT)]:
            texts.append(f"th {side} {set_of(_range_text(*each) for each in ranges)}")
    return texts


def _remaining(
    some: Iterable[Range] | None, others: Iterable[Range], last: int
) -> list[Range]:
    """Return what is in some ranges, or in 0 to `last`, and in none of the others."""
    wanted, excluded = Cover(), Cover()
    for each in some if some is not None else [(0, last)]:
        wanted.add(*each)
    for each in others:
        excluded.add(*each)
    return [part for each in wanted.ranges for part in excluded.missing(*each)]


def _port_ranges(ports: Iterable[PortRange]) -> list[Range]:
    return [(one.first, one.last) for one in ports]


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def set_of(texts: Iterable[str]) -> str:
    """Return values as an anonymous set."""
    return f"{{ {', '.join(texts)} }}"


def _icmp(rule: OperatorRule, version: int) -> list[str] | None:
    """Return what a rule says of ICMP; None if it is the other family's."""
    if not (rule.icmp or rule.not_icmp):
        return []
    if rule.protocol != ICMP[version]:
        return None
    texts = [_icmp_text(rule.icmp, version, "")] if rule.icmp else []
    return texts + (
        [_icmp_text(rule.not_icmp, version, "!= ")] if rule.not_icmp else []
    )


def _icmp_text(icmp: Icmp, version: int, sign: str) -> str:
    name = _ICMP[version]
    if icmp.code is None:
        return f"{name} type {sign}{icmp.type}"
    return f"{name} type . {name} code {sign}{{ {icmp.type} . {icmp.code} }}"


def _addresses(end: End, side: str, version: int) -> list[list[str]]:
    """Return alternative conditions on one address, that exclude each other.

    None at all where nothing of this version can be meant.
    """
    field = f"{_PROTOCOL[version]} {side}"
    last = (1 << _BITS[version]) - 1
    some = None if end.nets is None else _ranges(end.nets, version)
    ranges = _remaining(some, _ranges(end.not_nets, version), last)
    if not ranges:
        return []
    texts = []
    if ranges != [(0, last)]:
        spans = (_address_range(*each, version) for each in ranges)
        texts.append(f"{field} {set_of(spans)}")
    if end.not_selector is not None:
        names = remote_set_names(Selected(end.not_selector), version)
        texts += [f"{field} != @{name}" for name in names]
    if end.selector is None:
        return [texts]
    singles, networks = remote_set_names(Selected(end.selector), version)
    return [
        [*texts, f"{field} @{singles}"],
        [*texts, f"{field} != @{singles}", f"{field} @{networks}"],
    ]


def _ranges(nets: Iterable[Prefix], version: int) -> list[Range]:
    """Return the nets of a version as ranges of numbers."""
    return [
        (int(net.network_address), int(net.broadcast_address))
        for net in nets
        if net.version == version
    ]


def _address_range(first: int, last: int, version: int) -> str:
    address = IPv4Address if version == 4 else IPv6Address
    ends = sorted({first, last})
    return "-".join(str(address(end)) for end in ends)
