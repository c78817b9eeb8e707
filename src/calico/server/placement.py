"""Where a port is: the host it runs on, and those that it comes from or goes to.

Neutron has one active binding of a port and, while Nova moves its instance, inactive
ones: of the target until it is activated, then of the source until Nova deletes it.
Pure; `server.bindings` reads the rows.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from oslo_serialization import jsonutils

from calico.model.ids import HostName
from calico.model.records import Endpoint

_MIGRATING_TO = "migrating_to"  # in the profile of an active binding, by Nova


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A port's hosts: whether this driver serves it, its targets and its sources."""

    served: bool
    targets: tuple[HostName, ...] = ()
    sources: tuple[HostName, ...] = ()


def endpoints(active: Endpoint, placement: Placement) -> tuple[Endpoint, ...]:
    """Return all endpoints of a port, the active one first.

    It leaves as soon as there is a target, which has it yield to that one.
    """
    targets = [
        replace(active, host=host, arriving_from=active.host)
        for host in placement.targets
        if host != active.host
    ]
    sources = [
        replace(active, host=host, leaving_to=active.host)
        for host in placement.sources
        if host != active.host
    ]
    if targets:
        active = replace(active, leaving_to=targets[0].host)
    return (active, *targets, *sources)


def placement(rows: Iterable[Any], ours: Collection[tuple[str, str]]) -> Placement:
    """Return the placement that a port's bindings, its `rows`, come to.

    `ours` are the port and host of each binding that is this driver's.
    """
    served, targets, sources = False, set(), set()
    deactivated = False
    for row in rows:
        bound = row.vif_type == portbindings.VIF_TYPE_TAP
        is_ours = bound and (row.port_id, row.host) in ours
        unbound = row.vif_type == portbindings.VIF_TYPE_UNBOUND
        if row.status == constants.ACTIVE:
            served = is_ours
            deactivated = unbound and bool(row.host)
            targets |= _migrating_to(row.profile) if is_ours else set()
        elif is_ours:
            targets.add(HostName(row.host))
        elif unbound and row.host:
            sources.add(HostName(row.host))
    # An activation unbinds the source in a transaction before its own.
    return Placement(
        served=served or (deactivated and bool(targets)),
        targets=tuple(sorted(targets)),
        sources=tuple(sorted(sources - targets)),
    )


def _migrating_to(profile: str | None) -> set[HostName]:
    """Return what Nova wrote into the profile, if it did."""
    try:
        written: Any = jsonutils.loads(profile) if profile else {}
    except ValueError:
        return set()
    host = written.get(_MIGRATING_TO) if isinstance(written, Mapping) else None
    return {HostName(host)} if isinstance(host, str) and host else set()
