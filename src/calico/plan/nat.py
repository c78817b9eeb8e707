"""Floating IPs as the host's rules: two rules and two look-ups, whatever their number.

The destination is translated before routing, so policy and routes see the instance's
own address and the source as it was sent; answers are translated back by the connection
(P39). The source is translated in one case only: an instance that speaks to its own
floating IP would answer itself without ever leaving.
"""

from collections.abc import Iterator

from calico.model.ids import is_single
from calico.model.records import Endpoint
from calico.plan.antispoof import FLOATING, Element, sources
from calico.plan.ruleset import AFTER_ROUTING, BEFORE_ROUTING, Chain, Rule, Set

_TO_INSTANCE = Rule(
    f"dnat ip to ip daddr map @{FLOATING}", "a floating IP: to its instance"
)
PARTS: tuple[Set | Chain, ...] = (
    Set(FLOATING, ("ipv4_addr",), to="ipv4_addr"),
    Set("hairpin4", ("ipv4_addr", "ipv4_addr")),
    Chain("floating", (_TO_INSTANCE,), "prerouting", BEFORE_ROUTING, nat=True),
    Chain("floating_host", (_TO_INSTANCE,), "output", BEFORE_ROUTING, nat=True),
    Chain(
        "hairpin",
        (
            Rule(
                "ip saddr . ct original ip daddr @hairpin4 "
                "snat ip to ct original ip daddr",
                "an instance that speaks to its own floating IP",
            ),
        ),
        "postrouting",
        AFTER_ROUTING,
        nat=True,
    ),
)


def floating_elements(endpoint: Endpoint) -> Iterator[tuple[Element, str]]:
    """Yield the elements of a port's floating IPs."""
    if not endpoint.nats:
        return
    own = [
        prefix.network_address
        for prefixes in sources(endpoint).values()
        for prefix in prefixes
        if prefix.version == 4 and is_single(prefix)
    ]
    for nat in endpoint.nats:
        yield Element("inet", FLOATING, str(nat.external)), str(nat.internal)
        for source in own:
            yield Element("inet", "hairpin4", f"{source} . {nat.external}"), ""
