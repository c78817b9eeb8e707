"""Port forwarding as the host's rules: maps that every host has, and their elements.

The destination is translated as a floating IP's is (`plan.nat`), by address, protocol
and port. Where that leads to another host's instance, its answers have to come back
here, so the source is translated too, to the floating IP; an instance of this host sees
who it was. One that is led to itself would answer itself without ever leaving.

The floating IP's route leads to a bridge without ports: what is not forwarded ends
there, and no packet goes to and fro between a router and this host.
"""

from collections.abc import Iterator

from calico.model.records import Endpoint
from calico.plan.antispoof import FORWARDED, Element
from calico.plan.items import DHCP_BRIDGE
from calico.plan.ruleset import AFTER_ROUTING, ANY_TAP, BEFORE_ROUTING, Chain, Rule, Set

_BEFORE_POLICY = -20
_BACK, _OF_SELVES = "forwarding4", "forwarded_self4"
_TO_TARGET = Rule(
    f"dnat ip to ip daddr . meta l4proto . th dport map @{FORWARDED}",
    "a forwarded port: to its instance",
)
PARTS: tuple[Set | Chain, ...] = (
    Set(
        FORWARDED,
        ("ipv4_addr", "inet_proto", "inet_service"),
        to="ipv4_addr . inet_service",
    ),
    Set(_BACK, ("ipv4_addr",)),
    Set(_OF_SELVES, ("ipv4_addr", "ipv4_addr", "ipv4_addr")),
    Chain("forwarding", (_TO_TARGET,), "prerouting", BEFORE_ROUTING, nat=True),
    Chain("forwarding_host", (_TO_TARGET,), "output", BEFORE_ROUTING, nat=True),
    Chain(
        "forwarding_back",
        (
            Rule(
                f"oifname != {ANY_TAP} ct status dnat ct original ip daddr @{_BACK} "
                "snat ip to ct original ip daddr",
                "an instance of another host: answers to here",
            ),
            Rule(
                f"ip saddr . ip daddr . ct original ip daddr @{_OF_SELVES} "
                "snat ip to ct original ip daddr",
                "an instance that speaks to itself",
            ),
        ),
        "postrouting",
        AFTER_ROUTING,
        nat=True,
    ),
    Chain(
        "unforwarded",
        (Rule(f'oifname "{DHCP_BRIDGE}" drop', "a port that is not forwarded"),),
        "forward",
        _BEFORE_POLICY,
    ),
)


def forwarding_elements(endpoint: Endpoint) -> Iterator[tuple[Element, str]]:
    """Yield the elements of what a port forwards."""
    for external in dict.fromkeys(one.external for one in endpoint.forwardings):
        yield Element("inet", _BACK, str(external)), ""
    for one in endpoint.forwardings:
        for port, to in one.pairs():
            key = f"{one.external} . {one.protocol} . {port}"
            yield Element("inet", FORWARDED, key), f"{one.internal} . {to}"
        itself = f"{one.internal} . {one.internal} . {one.external}"
        yield Element("inet", _OF_SELVES, itself), ""
