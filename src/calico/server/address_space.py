"""One flat address space: no two served subnets overlap, whoever owns them (S10, P11).

Two API workers may store overlapping subnets at the same time, each of which sees none.
So whoever is about to store one first changes the one row of a table of ours: within a
database the other waits for it, and between the writers of a cluster (Galera) one of
them fails and is tried again, by Neutron. Only then are the others read, as they are
now, and not as they were when the transaction began.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import segment as segment_models
from neutron.db.models_v2 import SubnetPoolPrefix
from neutron_lib import exceptions
from oslo_log import log
from sqlalchemy import orm as sa_orm

from calico.model.ids import Prefix
from calico.server.db.models import AddressSpaceRow
from calico.server.translate import NETWORK_TYPES

LOG = log.getLogger(__name__)

_LOCK = 1  # the row's id
_HELD = "calico: prefixes that a pool had"
_NAMED = 3  # of the subnets that one overlaps
# What a subnet has until a delegating router names its prefix (RFC 8415).
_PROVISIONAL = "::/64"


class SpaceTaken(exceptions.Conflict):
    """A subnet or a pool where another subnet is already: 409."""

    message = (
        "%(what)s overlaps with %(other)s. All routed networks share one address space."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A part of the address space that a stored subnet has."""

    prefix: Prefix
    subnet: str
    network: str
    project: str
    pool: str | None

    def told_to(self, seen: str | None) -> str:
        """Return how to name it to who sees one project (None: all).

        Of another project's he learns the prefix alone, which he cannot do without.
        """
        if seen is None:
            return f"{self.prefix} of subnet {self.subnet} of project {self.project}"
        if self.project == seen:
            return f"{self.prefix} of subnet {self.subnet}"
        return f"{self.prefix} of a subnet of another project"


class AddressSpace:
    """Refuses what would take space that is taken. Subnets come from the driver's hook.

    With `audit` it says so in the log and lets it be. `pools` tells whether prefixes of
    subnet pools are looked at too: they are not where other drivers' networks, which
    have spaces of their own, may be what a pool is for.
    """

    def __init__(self, *, audit: bool, pools: bool, listen: Callable[..., Any]) -> None:
        """Take `sqlalchemy.event.listen` too."""
        self._audit = audit
        # Before it is stored: after that, two would wait for each other.
        listen(models_v2.Subnet, "before_insert", lambda _m, c, _row: _lock(c))
        if pools:
            listen(SubnetPoolPrefix, "before_delete", _remember)
            listen(SubnetPoolPrefix, "before_insert", self._pool)

    def subnet(self, context: Any) -> None:
        """Refuse a subnet that is being stored, or gets another CIDR."""
        subnet, old = context.current, context.original or {}
        cidr = subnet["cidr"]
        if cidr in {old.get("cidr"), _PROVISIONAL}:
            return
        if any(
            segment["network_type"] not in NETWORK_TYPES
            for segment in context.network.network_segments
        ):
            return
        connection = context.plugin_context.session.connection()
        if old:
            _lock(connection)
        prefix = ip_network(cidr)
        others = (
            each
            for each in _taken(connection, prefix)
            if each.network != subnet["network_id"]  # Neutron's own to refuse
        )
        seen = _seen(context.plugin_context)
        self._refuse(f"Subnet {prefix}{_named(subnet)}", others, seen)

    def _pool(self, _mapper: Any, connection: Any, row: Any) -> None:
        _lock(connection)
        prefix = ip_network(row.cidr)
        # Who asks is not known here. A change of a pool stores all its prefixes anew.
        pool = row.subnetpool_id
        if any(_within(prefix, one) for one in _held(row, pool)):
            return
        others = [each for each in _taken(connection, prefix) if each.pool != pool]
        if _is_onboarded(connection, pool, prefix, others):
            return
        what = f"Prefix {prefix} of subnet pool {row.subnetpool_id}"
        self._refuse(what, others, "")

    def _refuse(self, what: str, others: Iterable[Taken], seen: str | None) -> None:
        taken = list(others)
        if not taken:
            return
        LOG.warning("%s overlaps with %s", what, _named_all(taken, None))
        if not self._audit:
            raise SpaceTaken(what=what, other=_named_all(taken, seen))


def _named_all(taken: list[Taken], seen: str | None) -> str:
    """Return what a range overlaps, the first few by name."""
    named = [one.told_to(seen) for one in taken[:_NAMED]]
    if len(taken) > _NAMED:
        named.append(f"{len(taken) - _NAMED} more")
    return ", and with ".join(named)


def _held(row: Any, pool: str) -> list[Prefix]:
    """Return the prefixes that a pool had when the running transaction began."""
    session = _session(row)
    gone = [one for one in session.deleted if isinstance(one, SubnetPoolPrefix)]
    cidrs = {one.cidr for one in gone if one.subnetpool_id == pool}
    return [ip_network(cidr) for cidr in cidrs | session.info.get((_HELD, pool), set())]


def _remember(_mapper: Any, _connection: Any, row: Any) -> None:
    """Note a prefix that a pool loses, perhaps to have it again at once."""
    info = _session(row).info
    info.setdefault((_HELD, row.subnetpool_id), set()).add(row.cidr)


def _session(row: Any) -> Any:
    return sa_orm.object_session(row)


def _within(prefix: Prefix, outer: Prefix) -> bool:
    return (
        prefix.version == outer.version
        and outer.prefixlen <= prefix.prefixlen
        and (prefix.network_address in outer)
    )


def _is_onboarded(
    connection: Any, pool: str, prefix: Prefix, others: list[Taken]
) -> bool:
    """Tell whether a prefix is a subnet of the pool's own project, to be taken in."""
    row = models_v2.SubnetPool
    query = sa.select(row.project_id).where(row.id == pool)
    project = connection.scalar(query) if others else None
    return bool(others) and all(
        one.prefix == prefix and one.pool is None and one.project == project
        for one in others
    )


def _seen(context: Any) -> str | None:
    return None if context.is_admin else str(context.project_id or "")


def _named(subnet: Any) -> str:
    return f" ({subnet['name']})" if subnet.get("name") else ""


def _lock(connection: Any) -> None:
    """Wait until nobody else is about to take space, in this transaction."""
    row = sa.update(AddressSpaceRow).where(AddressSpaceRow.id == _LOCK)
    counted = row.values(changes=AddressSpaceRow.changes + 1)
    if not connection.execute(counted).rowcount:
        connection.execute(sa.insert(AddressSpaceRow).values(id=_LOCK, changes=1))


def _taken(connection: Any, prefix: Prefix) -> list[Taken]:
    """Return the served subnets that overlap with a prefix, as they are now."""
    row = models_v2.Subnet
    query = sa.select(
        row.id, row.network_id, row.project_id, row.cidr, row.subnetpool_id
    ).where(row.ip_version == prefix.version, row.cidr != _PROVISIONAL)
    found = [
        Taken(
            prefix=other,
            subnet=each.id,
            network=each.network_id,
            project=each.project_id or "none",
            pool=each.subnetpool_id,
        )
        for each in connection.execute(query.with_for_update(read=True))
        if (other := ip_network(str(each.cidr))).overlaps(prefix)
    ]
    unserved = _unserved(connection, {each.network for each in found})
    return sorted(
        (each for each in found if each.network not in unserved),
        key=lambda each: each.subnet,
    )


def _unserved(connection: Any, networks: set[str]) -> set[str]:
    """Return those of some networks that are another driver's."""
    if not networks:
        return set()
    segment = segment_models.NetworkSegment
    query = sa.select(segment.network_id).where(
        segment.network_id.in_(networks), segment.network_type.not_in(NETWORK_TYPES)
    )
    return set(connection.scalars(query.with_for_update(read=True)))
