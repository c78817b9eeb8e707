"""Which floating IPs ports may have, and which connections are translated as they say.

All projects share one address space, and a floating IP becomes a route and a
translation: without this check a wrong record could take a gateway's traffic, a host's
or another port's (P47).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from calico.model.ids import Address, PortId
from calico.model.records import Endpoint, Nat, Subnet

Socket = tuple[IPv4Address, int, int]
"""An address, a protocol and a port."""


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
        for mask, some in self._networks.items():  # noqa: SIM110 - three times as fast
            if number & mask in some:
                return True
        return False

    def is_gateway(self, address: IPv4Address) -> bool:
        """Tell whether an address is the gateway of one of the subnets."""
        return address in self._gateways


@dataclass(frozen=True, slots=True, kw_only=True)
class Translations:
    """What a host translates: floating IPs to ports' addresses, single ports of others.

    `forwarded` are these, `local` the addresses of the host's own ports. `subnets` are
    the cloud's: an address in them is translated by nobody else.
    """

    current: Mapping[IPv4Address, IPv4Address] = field(default_factory=dict)
    forwarded: Mapping[Socket, tuple[IPv4Address, int]] = field(default_factory=dict)
    local: Collection[Address] = ()
    subnets: Collection[Subnet] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a connection was to go, where it went, and whom it was seen as from.

    `seen_as` is there if that is not its `source`.
    """

    protocol: int
    source: Address
    seen_as: Address | None = None
    asked: Address
    asked_port: int | None = None
    reached: Address
    reached_port: int | None = None


class Standing:
    """Tells which connections are to what a host translates now, and which are not."""

    def __init__(self, now: Translations) -> None:
        self._now = now
        self._forwarded = {external for external, _, _ in now.forwarded}
        self._space = Space(now.subnets)

    def concern(self, address: Address) -> bool:
        """Tell whether an address is a floating IP that this host serves."""
        return address in self._now.current or address in self._forwarded

    def is_stale(self, course: Course) -> bool:
        """Tell whether a translation of a connection does not hold any more."""
        return self._is_astray(course) or self._has_lost_source(course)

    def _is_astray(self, course: Course) -> bool:
        """Tell whether it must not go on where it goes."""
        asked, reached = course.asked, course.reached
        if not isinstance(asked, IPv4Address):
            return False
        wanted = self._now.current.get(asked)
        if wanted is not None:
            return reached != wanted
        if course.asked_port is not None:
            socket = (asked, course.protocol, course.asked_port)
            target = self._now.forwarded.get(socket)
            if target is not None:
                return target != (reached, course.reached_port) or self._strays(course)
        return reached != asked and asked in self._space

    def _strays(self, course: Course) -> bool:
        """Tell whether answers would come from elsewhere, and pass this host by."""
        return course.seen_as is None and course.reached not in self._now.local

    def _has_lost_source(self, course: Course) -> bool:
        """Tell whether it must not go on being seen as from whom it is.

        Only a floating IP that is elsewhere now is lost: that the cloud's settings say
        something else is about connections to come. What speaks to its own floating IP,
        or is forwarded by one to another host, is seen as from that, whatever its
        address.
        """
        seen_as = course.seen_as
        if seen_as is None or seen_as == course.asked:
            return False
        if not isinstance(seen_as, IPv4Address) or seen_as not in self._space:
            return False
        return self._now.current.get(seen_as) != course.source


def settle(
    endpoints: Iterable[Endpoint],
    subnets: Collection[Subnet],
    own: Collection[Address | None] = (),
    *,
    adopted: bool = True,
) -> tuple[tuple[Endpoint, ...], tuple[RefusedNat, ...]]:
    """Take away the floating IPs that ports must not have; say which and why.

    `own` are the host's addresses. Of two ports with one floating IP the first keeps
    it. Of a cloud that is not `adopted` yet not all subnets are known.
    """
    endpoints = tuple(endpoints)
    if not any(endpoint.nats for endpoint in endpoints):
        return endpoints, ()
    fixed = {address: e.port for e in endpoints for address in e.addresses}
    judge = _Judge(Space(subnets), own, fixed, adopted=adopted)
    return refuse_nats(endpoints, judge.objection)


def refuse_nats(
    endpoints: Iterable[Endpoint], objection: Callable[[Nat, Endpoint], str | None]
) -> tuple[tuple[Endpoint, ...], tuple[RefusedNat, ...]]:
    """Take away the floating IPs that there is an objection to; say which and why."""
    settled = []
    refused: list[RefusedNat] = []
    for endpoint in endpoints:
        reasons = {nat: objection(nat, endpoint) for nat in endpoint.nats}
        legal = tuple(nat for nat, reason in reasons.items() if reason is None)
        same = legal == endpoint.nats
        settled.append(endpoint if same else replace(endpoint, nats=legal))
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
        *,
        adopted: bool,
    ) -> None:
        self._space = space
        self._own = own
        self._fixed = fixed
        self._adopted = adopted
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
        yield from objections_to(
            external, self._space, self._own, self._fixed, adopted=self._adopted
        )
        if external in self._taken:
            yield f"it is a floating IP of port {self._taken[external]}"


def objections_to(
    external: IPv4Address,
    space: Space,
    own: Collection[Address | None],
    fixed: Mapping[Address, PortId],
    *,
    adopted: bool = True,
) -> Iterator[str]:
    """Yield why a host must not serve a floating IP, whatever it leads to.

    `own` are the host's addresses, `fixed` those of its ports. Until all is `adopted`
    not all subnets are known.
    """
    if external in own:
        yield "it is the host's own address"
    if adopted and external not in space:
        yield "it is in no subnet"
    if space.is_gateway(external):
        yield "it is the gateway of a subnet"
    if external in fixed:
        yield f"it is an address of port {fixed[external]}"
