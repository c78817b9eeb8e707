"""Which floating IPs ports may have, and which connections are translated as they say.

All projects share one address space, and a floating IP becomes a route and a
translation: without this check a wrong record could take a gateway's traffic, a host's
or another port's (P47).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from calico.model.ids import Address, PortId
from calico.model.records import Endpoint, Nat, Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedNat:
    """A floating IP that its port, served otherwise, does not get, and why."""

    port: PortId
    external: Address
    reason: str


class Space:
    """The IPv4 addresses of subnets. Asked often, so a question costs few look-ups."""

    def __init__(self, subnets: Iterable[Subnet] = ()) -> None:
        self._networks: dict[int, set[int]] = defaultdict(set)  # by mask
        self._gateways: set[Address] = set()
        for subnet in subnets:
            if isinstance(subnet.prefix, IPv4Network):
                mask = int(subnet.prefix.netmask)
                self._networks[mask].add(int(subnet.prefix.network_address))
                if subnet.gateway is not None:
                    self._gateways.add(subnet.gateway)

    def __contains__(self, address: IPv4Address) -> bool:
        number = int(address)
        return any(number & mask in some for mask, some in self._networks.items())

    def is_gateway(self, address: IPv4Address) -> bool:
        """Tell whether an address is the gateway of one of the subnets."""
        return address in self._gateways


@dataclass(frozen=True, slots=True, kw_only=True)
class Translations:
    """What a host translates: floating IPs to ports' addresses.

    `subnets` are the cloud's: an address in them is translated by nobody else.
    """

    current: Mapping[IPv4Address, IPv4Address] = field(default_factory=dict)
    subnets: Collection[Subnet] = ()


class Standing:
    """Tells which connections are to what a host translates now, and which are not."""

    def __init__(self, now: Translations) -> None:
        self._current = now.current
        self._space = Space(now.subnets)

    def concern(self, address: Address) -> bool:
        """Tell whether an address is a floating IP that this host serves."""
        return address in self._current

    def is_stale(self, asked: Address, reached: Address) -> bool:
        """Tell whether a connection to `asked` must not go on reaching `reached`."""
        if not isinstance(asked, IPv4Address):
            return False
        wanted = self._current.get(asked)
        if wanted is not None:
            return reached != wanted
        return reached != asked and asked in self._space

    def has_lost_source(
        self, source: Address, seen_as: Address, asked: Address
    ) -> bool:
        """Tell whether a connection must not go on being seen as from `seen_as`.

        Only a floating IP that is elsewhere now is lost: that the cloud's settings say
        something else is about connections to come. What speaks to its own floating IP
        is seen as from that, whatever its address.
        """
        if seen_as == asked:
            return False
        if not isinstance(seen_as, IPv4Address) or seen_as not in self._space:
            return False
        return self._current.get(seen_as) != source


def settle(
    endpoints: Iterable[Endpoint],
    subnets: Collection[Subnet],
    own: Collection[Address | None] = (),
) -> tuple[tuple[Endpoint, ...], tuple[RefusedNat, ...]]:
    """Take away the floating IPs that ports must not have; say which and why.

    `own` are the host's addresses. Of two ports with one floating IP the first keeps
    it.
    """
    endpoints = tuple(endpoints)
    if not any(endpoint.nats for endpoint in endpoints):
        return endpoints, ()
    fixed = {address: e.port for e in endpoints for address in e.addresses}
    judge = _Judge(Space(subnets), own, fixed)
    settled = []
    refused: list[RefusedNat] = []
    for endpoint in endpoints:
        reasons = {nat: judge.objection(nat, endpoint) for nat in endpoint.nats}
        legal = tuple(nat for nat, reason in reasons.items() if reason is None)
        settled.append(replace(endpoint, nats=legal) if reasons else endpoint)
        refused += [
            RefusedNat(port=endpoint.port, external=nat.external, reason=reason)
            for nat, reason in reasons.items()
            if reason is not None
        ]
    return tuple(settled), tuple(refused)


class _Judge:
    """Decides on one floating IP after the other, and knows those that are taken."""

    def __init__(
        self,
        space: Space,
        own: Collection[Address | None],
        fixed: Mapping[Address, PortId],
    ) -> None:
        self._space = space
        self._own = own
        self._fixed = fixed
        self._taken: dict[Address, PortId] = {}

    def objection(self, nat: Nat, endpoint: Endpoint) -> str | None:
        """Return why a port may not have a floating IP; else it has it from now on."""
        reason = next(self._objections(nat.internal, nat.external, endpoint), None)
        if reason is None:
            self._taken[nat.external] = endpoint.port
        return reason

    def _objections(
        self, internal: Address, external: Address, endpoint: Endpoint
    ) -> Iterator[str]:
        if not isinstance(external, IPv4Address):
            yield "it is not IPv4"
            return
        if internal.version != 4 or internal not in endpoint.addresses:
            yield f"{internal} is no IPv4 address of the port"
        if external in self._own:
            yield "it is the host's own address"
        if external not in self._space:
            yield "it is in no subnet"
        if self._space.is_gateway(external):
            yield "it is the gateway of a subnet"
        if external in self._fixed:
            yield f"it is an address of port {self._fixed[external]}"
        if external in self._taken:
            yield f"it is a floating IP of port {self._taken[external]}"
