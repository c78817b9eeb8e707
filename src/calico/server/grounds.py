"""What allowed address pairs rest on, read from the database; and which rest on what.

A pair is checked when it is written and each time its port is published. What it rests
on may go or come in between, so whoever changes that has the ports published again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import segment as segment_models
from neutron.db.models.allowed_address_pair import AllowedAddressPair

from calico.model.ids import (
    Address,
    NetworkId,
    Prefix,
    ProjectId,
    SubnetId,
)
from calico.model.records import Subnet
from calico.policy.ownership import Allowed, Grounds, survey
from calico.server.journal import Kind, Subject
from calico.server.translate import NETWORK_TYPES


def read(
    session: Any,
    projects: Collection[str],
    prefixes: Collection[Prefix],
    allowed: tuple[Allowed, ...],
) -> Grounds:
    """Return what pairs of these prefixes may rest on, for ports of these projects."""
    if not prefixes:
        return Grounds()
    texts = {str(prefix.network_address) for prefix in prefixes}
    row = models_v2.Subnet
    return Grounds(
        space=survey(
            _subnets(
                session,
                sa.or_(row.project_id.in_(projects), row.gateway_ip.in_(texts)),
            )
        ),
        reserved=_reserved(session, projects, texts),
        allowed=allowed,
    )


def overlapping(session: Any, prefix: Prefix) -> list[Subnet]:
    """Return the served subnets that a prefix overlaps: whose space it is in."""
    return [s for s in _subnets(session, sa.true()) if s.prefix.overlaps(prefix)]


def _subnets(session: Any, condition: Any) -> list[Subnet]:
    row = models_v2.Subnet
    query = sa.select(
        row.id, row.network_id, row.project_id, row.cidr, row.gateway_ip
    ).where(condition, _is_served(row.network_id))
    return [
        Subnet(
            id=SubnetId(found.id),
            network=NetworkId(found.network_id),
            project=ProjectId(found.project_id) if found.project_id else None,
            prefix=ip_network(str(found.cidr)),
            gateway=ip_address(str(found.gateway_ip)) if found.gateway_ip else None,
        )
        for found in session.execute(query)
    ]


def _reserved(
    session: Any, projects: Collection[str], texts: Collection[str]
) -> dict[ProjectId, frozenset[Address]]:
    port, allocation = models_v2.Port, models_v2.IPAllocation
    query = (
        sa.select(port.project_id, allocation.ip_address)
        .join(allocation, allocation.port_id == port.id)
        .where(
            port.project_id.in_(projects),
            allocation.ip_address.in_(texts),
            _is_served(port.network_id),
        )
    )
    found: dict[ProjectId, set[Address]] = defaultdict(set)
    for project, text in session.execute(query):
        found[ProjectId(project)].add(ip_address(str(text)))
    return {project: frozenset(addresses) for project, addresses in found.items()}


def _is_served(network_id: Any) -> Any:
    segment = segment_models.NetworkSegment
    return ~sa.exists().where(
        segment.network_id == network_id, segment.network_type.not_in(NETWORK_TYPES)
    )


def resting_on_addresses(
    session: Any, project: str, addresses: Iterable[Address]
) -> list[Subject]:
    """Return the ports of a project that have pairs of some of these addresses."""
    wanted = {str(address) for address in addresses}
    pair = AllowedAddressPair
    # Pairs are stored as they were written. IPv4 is written in two ways, IPv6 in many.
    written = pair.ip_address.in_([*wanted, *(f"{text}/32" for text in wanted)])
    if any(":" in text for text in wanted):
        written = sa.or_(written, pair.ip_address.like("%:%"))
    singles = {ip_network(text) for text in wanted}
    rows = _pairs(session, models_v2.Port.project_id == project, written)
    return _ports(port for port, _, prefix in rows if prefix in singles)


def resting_on_subnet(
    session: Any, project: str | None, cidr: str, gateways: Iterable[str | None]
) -> list[Subject]:
    """Return the ports with pairs in a subnet of their project, or of a gateway."""
    outer = ip_network(cidr)
    barred = {ip_network(gateway) for gateway in gateways if gateway}
    return _ports(
        port
        for port, owner, prefix in _pairs(session)
        if prefix in barred or (owner == project and prefix.overlaps(outer))
    )


def _pairs(session: Any, *conditions: Any) -> list[tuple[str, str, Prefix]]:
    port, pair = models_v2.Port, AllowedAddressPair
    query = (
        sa.select(pair.port_id, port.project_id, pair.ip_address)
        .join(port, port.id == pair.port_id)
        .where(*conditions)
    )
    return [
        (port_id, project, ip_network(str(text), strict=False))
        for port_id, project, text in session.execute(query)
    ]


def _ports(ids: Iterable[str]) -> list[Subject]:
    return [Subject(Kind.PORT, port) for port in sorted(set(ids))]
