"""Whose an address is, and so which allowed address pairs a port may have (P47).

All projects share one address space, and a pair becomes a route: without this check a
tenant could have another's address, a gateway or a host routed to his own port. The API
asks when a pair is written, publication and each host ask again; one decision for all.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from calico.model.ids import Address, PortId, Prefix, ProjectId, is_single
from calico.model.records import AddressPair, Endpoint, Subnet


class Objection(Enum):
    """Why a port may not have a pair; the value is for people."""

    GATEWAY = "it is the gateway of a subnet"
    FOREIGN = "it is not within the project's own subnets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The projects' shares of the address space, and the gateways in it.

    `unclaimed` is what may be anybody's, since nobody said whose it is, where that was
    never said: None where it was, and all can be judged.
    """

    owned: Mapping[ProjectId, frozenset[Prefix]] = field(default_factory=dict)
    gateways: frozenset[Address] = frozenset()
    unclaimed: frozenset[Prefix] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """A prefix that an operator lets pairs be of: one project's, or everybody's."""

    prefix: Prefix
    project: ProjectId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """All that a pair may rest on, as Neutron's side knows it.

    `reserved` are the fixed addresses of the projects' ports: whoever creates a port to
    keep an address (a VIP) may use it on others.
    """

    space: Space = field(default_factory=Space)
    reserved: Mapping[ProjectId, frozenset[Address]] = field(default_factory=dict)
    allowed: tuple[Allowed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What counts of a port that no host serves yet; for others see Endpoint."""

    project: ProjectId
    addresses: tuple[Address, ...] = ()
    granted: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPair:
    """An allowed address pair that its port, served otherwise, does not get."""

    port: PortId
    prefix: Prefix
    reason: Objection


def survey(subnets: Iterable[Subnet], *, adopted: bool = True) -> Space:
    """Return the space that subnets make. One of unknown project is nobody's.

    Unless the cloud is not `adopted` yet: then it may be anybody's.
    """
    owned: dict[ProjectId, set[Prefix]] = defaultdict(set)
    unclaimed: set[Prefix] = set()
    gateways: set[Address] = set()
    for subnet in subnets:
        # A subnet that is everything would be the right to everything.
        if subnet.project and subnet.prefix.prefixlen > 0:
            owned[subnet.project].add(subnet.prefix)
        elif not subnet.project:
            unclaimed.add(subnet.prefix)
        if subnet.gateway is not None:
            gateways.add(subnet.gateway)
    return Space(
        owned={project: frozenset(prefixes) for project, prefixes in owned.items()},
        gateways=frozenset(gateways),
        unclaimed=None if adopted else frozenset(unclaimed),
    )


def grants(
    prefixes: Iterable[Prefix], project: ProjectId, grounds: Grounds
) -> tuple[Prefix, ...]:
    """Return those prefixes that hosts cannot judge: reserved or allowed ones."""
    reserved = grounds.reserved.get(project, frozenset()) if project else ()
    allowed = [a.prefix for a in grounds.allowed if a.project in {None, project}]
    granted = {
        prefix
        for prefix in prefixes
        if _is_one_of(prefix, reserved) or _is_within(prefix, allowed)
    }
    return tuple(sorted(granted, key=lambda prefix: (prefix.version, prefix)))


def objection(prefix: Prefix, port: Endpoint | Claim, space: Space) -> Objection | None:
    """Return why a port may not have a pair of a prefix; None if it may."""
    if _is_one_of(prefix, space.gateways):
        return Objection.GATEWAY  # whoever grants it: all others of the subnet use it
    if space.unclaimed is not None and (
        not port.project or _is_within(prefix, space.unclaimed)
    ):
        return None
    own = space.owned.get(port.project, frozenset())
    if (
        _is_one_of(prefix, port.addresses)
        or _is_within(prefix, port.granted)
        or _is_within(prefix, own)
    ):
        return None
    return Objection.FOREIGN


def own_pairs(
    endpoint: Endpoint, space: Space
) -> tuple[tuple[AddressPair, ...], tuple[RefusedPair, ...]]:
    """Return an endpoint's pairs that its project may use, and the others."""
    legal: list[AddressPair] = []
    refused: list[RefusedPair] = []
    for pair in endpoint.pairs:
        reason = objection(pair.prefix, endpoint, space)
        if reason is None:
            legal.append(pair)
        else:
            refused.append(
                RefusedPair(port=endpoint.port, prefix=pair.prefix, reason=reason)
            )
    return tuple(legal), tuple(refused)


def grounded(
    endpoint: Endpoint, grounds: Grounds
) -> tuple[Endpoint, tuple[RefusedPair, ...]]:
    """Return an endpoint with those of its pairs that it may have, and the others.

    It carries what was granted, so that hosts come to the same verdict.
    """
    prefixes = [pair.prefix for pair in endpoint.pairs]
    granted = grants(prefixes, endpoint.project, grounds)
    endpoint = replace(endpoint, granted=granted)
    legal, refused = own_pairs(endpoint, grounds.space)
    return replace(endpoint, pairs=legal), refused


def confine(
    endpoints: Iterable[Endpoint], subnets: Iterable[Subnet], *, adopted: bool = True
) -> tuple[tuple[Endpoint, ...], tuple[RefusedPair, ...]]:
    """Take away the pairs that are not their ports' projects' to have.

    In a cloud that is not `adopted` yet whose they are may be unknown: those stay.
    """
    endpoints = tuple(endpoints)
    if not any(endpoint.pairs for endpoint in endpoints):
        return endpoints, ()
    space = survey(subnets, adopted=adopted)
    confined = []
    refused: list[RefusedPair] = []
    for endpoint in endpoints:
        legal, illegal = own_pairs(endpoint, space)
        confined.append(replace(endpoint, pairs=legal))
        refused += illegal
    return tuple(confined), tuple(refused)


def explain(
    found: Objection, prefix: Prefix, subnets: Iterable[Subnet], seen: ProjectId | None
) -> str:
    """Return what to tell who asked for a pair, who sees one project (None: all).

    `subnets` are those that the prefix overlaps. Of another project's he learns
    nothing, not even that there is one.
    """
    known = sorted(
        (s for s in subnets if seen is None or s.project == seen), key=lambda s: s.id
    )
    if found is Objection.GATEWAY:
        for subnet in known:
            if subnet.gateway is not None and _is_one_of(prefix, [subnet.gateway]):
                return f"it is the gateway of subnet {subnet.id}"
    text = (
        f"{Objection.FOREIGN.value}, no address of another port of it, and not among "
        "what the operator allows"
    )
    if seen is not None:
        return text
    places = [f"subnet {s.id} of project {s.project or 'none'}" for s in known[:3]]
    return f"{text}; it is of {' and of '.join(places) or 'no subnet'}"


def _is_one_of(prefix: Prefix, addresses: Collection[Address]) -> bool:
    return is_single(prefix) and prefix.network_address in addresses


def _is_within(prefix: Prefix, outer: Iterable[Prefix]) -> bool:
    return any(
        one.prefixlen <= prefix.prefixlen and prefix.network_address in one
        for one in outer
    )
