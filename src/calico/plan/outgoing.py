"""What instances with floating IPs send out of the cloud, and whom it comes from.

An instance's own connections keep its address (S13), unless the cloud's settings say
that they come from its floating IP. Then too they keep it within the cloud, whose
groups and policies know instances by their own addresses. The rule is the same on every
host: it looks the sender up in a map, and is about nobody where that is empty.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from calico.model.ids import Address, Prefix
from calico.model.records import Endpoint
from calico.plan.antispoof import OUTGOING, Element
from calico.plan.ruleset import AFTER_ROUTING, Chain, Rule, Set

CLOUD = "cloud4"  # the set of all subnets

PARTS: tuple[Set | Chain, ...] = (
    Set(OUTGOING, ("ifname", "ipv4_addr"), to="ipv4_addr"),
    Set(CLOUD, ("ipv4_addr",), interval=True),
    Chain(
        "outgoing",
        (
            Rule(
                f"ip daddr != @{CLOUD} snat ip to iifname . ip saddr map @{OUTGOING}",
                "out of the cloud: from the floating IP",
            ),
        ),
        "postrouting",
        AFTER_ROUTING,
        nat=True,
    ),
)


def outgoing_elements(endpoint: Endpoint) -> Iterator[tuple[Element, str]]:
    """Yield the elements that say which floating IP a port's addresses send from.

    Of several that stand for one address, which only external networks of their own can
    have, the lowest.
    """
    lowest: dict[Address, Address] = {}
    for nat in sorted(endpoint.nats, key=lambda n: (n.external.version, n.external)):
        lowest.setdefault(nat.internal, nat.external)
    for internal, external in lowest.items():
        key = f'"{endpoint.interface}" . {internal}'
        yield Element("inet", OUTGOING, key), str(external)


def cloud_elements(prefixes: Iterable[Prefix]) -> Iterator[Element]:
    """Yield the subnets as elements, but those within another.

    Ranges of a set must not overlap. Neighbours are not merged: a subnet that comes or
    goes is one element, whatever else there is.
    """
    fours = {p for p in prefixes if isinstance(p, IPv4Network)}
    for prefix in fours:
        wider = (prefix.supernet(new_prefix=n) for n in range(prefix.prefixlen))
        if fours.isdisjoint(wider):
            yield Element("inet", CLOUD, _text(prefix))


def _text(prefix: IPv4Network) -> str:
    """Return a prefix as nft lists it: a single address has no length."""
    return str(prefix.network_address if prefix.prefixlen == 32 else prefix)
