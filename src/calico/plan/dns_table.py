"""What a host's DNS responder is told: whom it answers, and what it knows."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from calico.model.ids import InterfaceName, ProjectId
from calico.model.names import PortNames
from calico.model.world import World
from calico.plan.dns import asked
from calico.plan.host import accept


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsPort:
    """A port whose instance asks its host: the interface, by name and index, where.

    `addresses` are those that it asks; `project` is the one whose names it is told.
    """

    interface: InterfaceName
    index: int
    project: ProjectId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a port is called, its own name first, and its addresses."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsTable:
    """All that a host's responder needs to know.

    `names` are those of each project. What is not among them is asked of `resolvers`,
    unless it is in one of the cloud's own `domains`.
    """

    ports: tuple[DnsPort, ...] = ()
    names: Mapping[ProjectId, tuple[Known, ...]] = field(default_factory=dict)
    resolvers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


def plan_dns(
    world: World,
    index_of: Callable[[InterfaceName], int | None],
    resolvers: Iterable[str] = (),
    domains: Iterable[str] = (),
) -> DnsTable:
    """Return the responder's table, by the index of each interface that there is.

    Of two endpoints with one interface, the one that is served counts.
    """
    addresses = asked(world)
    accepted, _ = accept(e for e in world.endpoints if e.port in addresses)
    ports = tuple(
        DnsPort(
            interface=one.interface,
            index=index,
            project=one.project,
            addresses=tuple(map(str, addresses[one.port])),
        )
        for one in accepted
        if (index := index_of(one.interface)) is not None
    )
    projects = {port.project for port in ports}
    return DnsTable(
        ports=ports,
        names=_by_project(n for n in world.names if n.project in projects),
        resolvers=tuple(resolvers),
        domains=tuple(domain.rstrip(".").lower() for domain in domains),
    )


def _by_project(names: Iterable[PortNames]) -> dict[ProjectId, tuple[Known, ...]]:
    found: dict[ProjectId, list[Known]] = defaultdict(list)
    for one in names:
        addresses = tuple(map(str, one.addresses))
        found[one.project].append(Known(names=one.names, addresses=addresses))
    return {project: tuple(known) for project, known in found.items()}


def encode_table(table: DnsTable) -> bytes:
    """Return a table as the responder's file has it."""
    return msgspec.json.encode(table)


def decode_table(text: bytes) -> DnsTable:
    """Return the table in a file; msgspec's errors for anything else."""
    return msgspec.json.decode(text, type=DnsTable)
