"""Which ports of a host have which addresses, and in what order they come."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from calico.model.ids import InterfaceName, Mac, PortId, Prefix
from calico.model.records import Endpoint
from calico.plan.antispoof import single
from calico.plan.items import DHCP_BRIDGE


def homes(
    endpoints: Iterable[Endpoint],
) -> dict[Prefix, dict[InterfaceName, Mac]]:
    """Return who has a prefix: fixed addresses before floating IPs before pairs.

    Of the ports that come first all are used. A floating IP is translated before it is
    routed: its route is there to be announced, and for neighbours who ask for it.
    """
    fixed: dict[Prefix, dict[InterfaceName, Mac]] = defaultdict(dict)
    floating: dict[Prefix, dict[InterfaceName, Mac]] = defaultdict(dict)
    paired: dict[Prefix, dict[InterfaceName, Mac]] = defaultdict(dict)
    for endpoint in endpoints:
        for address in endpoint.addresses:
            fixed[single(address)][endpoint.interface] = endpoint.mac
        for nat in endpoint.nats:
            floating[single(nat.external)][endpoint.interface] = endpoint.mac
        for one in endpoint.forwardings:
            # What is not forwarded is no instance's, and ends there (plan.forwarding).
            floating[single(one.external)][DHCP_BRIDGE] = endpoint.mac
        for pair in endpoint.pairs:
            paired[pair.prefix].setdefault(endpoint.interface, pair.mac)
    return {**paired, **floating, **fixed}


def without_nats(
    endpoints: Iterable[Endpoint], awaited: Collection[PortId]
) -> tuple[Endpoint, ...]:
    """Take from awaited ports their floating IPs, which lead elsewhere until then."""
    return tuple(
        replace(e, nats=(), forwardings=())
        if e.port in awaited and (e.nats or e.forwardings)
        else e
        for e in endpoints
    )
