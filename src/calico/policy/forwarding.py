"""Which ports of floating IPs a host may forward, and where each of them leads.

One port serves all that a floating IP forwards, wherever that leads: an address has one
host. So a forwarding may be to an instance of another host, of which nothing is known
here but that its address must be in the cloud's space. Else, what is asked of floating
IPs is asked of theirs (P47).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from calico.model.ids import Address, PortId
from calico.model.records import Endpoint, Forwarding, Subnet
from calico.policy.floating import Socket, Space, objections_to


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedForwarding:
    """A forwarding that its port, served otherwise, does not do, and why."""

    port: PortId
    forwarding: Forwarding
    reason: str


def settle_forwardings(
    endpoints: Iterable[Endpoint],
    subnets: Collection[Subnet],
    own: Collection[Address | None] = (),
) -> tuple[tuple[Endpoint, ...], tuple[RefusedForwarding, ...]]:
    """Take away the forwardings that ports must not do; say which and why.

    `own` are the host's addresses. Floating IPs were settled before. Of two ports that
    forward one floating IP the first keeps it.
    """
    endpoints = tuple(endpoints)
    if not any(endpoint.forwardings for endpoint in endpoints):
        return endpoints, ()
    judge = _Judge(endpoints, Space(subnets), own)
    settled = []
    refused: list[RefusedForwarding] = []
    for endpoint in endpoints:
        kept = []
        for one in endpoint.forwardings:
            reason = judge.objection(one, endpoint)
            if reason is None:
                kept.append(one)
                continue
            refused.append(
                RefusedForwarding(port=endpoint.port, forwarding=one, reason=reason)
            )
        settled.append(replace(endpoint, forwardings=tuple(kept)))
    return tuple(settled), tuple(refused)


def targets(endpoints: Iterable[Endpoint]) -> Mapping[Socket, tuple[IPv4Address, int]]:
    """Return where each port that is forwarded leads to."""
    return {
        (one.external, one.protocol, port): (one.internal, to)
        for endpoint in endpoints
        for one in endpoint.forwardings
        for port, to in one.pairs()
    }


class _Judge:
    """Decides on one forwarding after the other, and knows what is taken."""

    def __init__(
        self,
        endpoints: Collection[Endpoint],
        space: Space,
        own: Collection[Address | None],
    ) -> None:
        self._space = space
        self._own = own
        self._fixed = {address: e.port for e in endpoints for address in e.addresses}
        self._floating = {nat.external: e.port for e in endpoints for nat in e.nats}
        self._servers: dict[Address, PortId] = {}
        self._forwarded: set[Socket] = set()

    def objection(self, one: Forwarding, endpoint: Endpoint) -> str | None:
        """Return why a port may not forward; else it does from now on."""
        sockets = {(one.external, one.protocol, port) for port, _ in one.pairs()}
        reason = next(self._objections(one, endpoint, sockets), None)
        if reason is None:
            self._servers[one.external] = endpoint.port
            self._forwarded |= sockets
        return reason

    def _objections(
        self, one: Forwarding, endpoint: Endpoint, sockets: Collection[Socket]
    ) -> Iterator[str]:
        yield from objections_to(one.external, self._space, self._own, self._fixed)
        if one.external in self._floating:
            yield f"it is a floating IP of port {self._floating[one.external]}"
        if self._servers.get(one.external, endpoint.port) != endpoint.port:
            yield f"port {self._servers[one.external]} forwards it"
        if one.internal not in self._space:
            yield f"{one.internal} is in no subnet"
        if one.internal in self._own or self._space.is_gateway(one.internal):
            yield f"{one.internal} is no instance's"
        if not self._forwarded.isdisjoint(sockets):
            yield "a port of it is forwarded already"
        same = (f for f in endpoint.forwardings if f.external == one.external)
        if all(f.internal not in endpoint.addresses for f in same):
            yield "nothing of it leads to the port itself"
