"""Packet rates and marks as the host's rules: a look-up for all ports, chains for few.

A limit is a state of its own, so a port that has one has a chain with it; its name says
the limit, so that another limit is another chain and takes its place at once. A mark is
a chain for all ports that have the same one.
"""

from collections.abc import Iterator

from calico.model.qos import PacketRate
from calico.model.records import Endpoint
from calico.plan.antispoof import FROM_RATE, MARKS, TO_RATE, Element
from calico.plan.ruleset import Chain, Rule, Set

_BEFORE_ALL = -301  # just before the sender's checks: what is too much costs least
_BEFORE_POLICY = -150  # NF_IP_PRI_MANGLE
_LAST = 0

PARTS: tuple[Set | Chain, ...] = (
    Set(FROM_RATE, ("ifname",), verdicts=True),
    Set(TO_RATE, ("ifname",), verdicts=True),
    Set(MARKS, ("ifname",), verdicts=True),
    Chain(
        "rates_from",
        (Rule(f"iifname vmap @{FROM_RATE}", "to the port's own limit"),),
        "prerouting",
        _BEFORE_ALL,
    ),
    Chain(
        "rates_to",
        (Rule(f"oifname vmap @{TO_RATE}", "to the port's own limit"),),
        "postrouting",
        _LAST,
    ),
    Chain(
        "marking",
        (Rule(f"iifname vmap @{MARKS}", "to the port's own mark"),),
        "forward",
        _BEFORE_POLICY,
    ),
)


def rate_chains(endpoint: Endpoint) -> Iterator[Chain]:
    """Yield the chains with a port's packet rates."""
    for name, limit in _rates(endpoint):
        text = f"limit rate over {limit.rate}/second burst {limit.burst} packets"
        note = "more packets than its limit"
        yield Chain(
            _chain(name, endpoint, limit), (Rule(f"{text} counter drop", note),)
        )


def rate_elements(endpoint: Endpoint) -> Iterator[tuple[Element, str]]:
    """Yield what leads a port's packets to its limits and to its mark."""
    key = f'"{endpoint.interface}"'
    for name, limit in _rates(endpoint):
        yield Element("inet", name, key), f"jump {_chain(name, endpoint, limit)}"
    if endpoint.qos.dscp is not None:
        yield Element("inet", MARKS, key), f"jump {mark_chain(endpoint.qos.dscp).name}"


def mark_chain(dscp: int) -> Chain:
    """Return the chain that marks the packets that enter it."""
    return Chain(
        f"dscp{dscp}",
        (
            Rule(f"meta nfproto ipv4 ip dscp set {dscp}", "the port's mark"),
            Rule(f"meta nfproto ipv6 ip6 dscp set {dscp}", "the port's mark"),
        ),
    )


def _rates(endpoint: Endpoint) -> Iterator[tuple[str, PacketRate]]:
    if endpoint.qos.egress_packets:
        yield FROM_RATE, endpoint.qos.egress_packets
    if endpoint.qos.ingress_packets:
        yield TO_RATE, endpoint.qos.ingress_packets


def _chain(name: str, endpoint: Endpoint, limit: PacketRate) -> str:
    return f"{name}.{endpoint.interface}.{limit.rate}.{limit.burst}"
