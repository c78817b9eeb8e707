"""Port status follows reality (S20): what hosts report becomes what Neutron shows.

Level-triggered: a pass compares all that hosts report with all ports that are bound
here, so a missed event, a restart or a restored etcd heals itself. Ports of one pass
change in one database transaction, not one each (P23).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db import provisioning_blocks as blocks
from neutron.db.models.provisioning_block import ProvisioningBlock
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from oslo_log import log

from calico.model.ids import HostName, Invalid, PortId
from calico.model.keys import Keys
from calico.model.resource import parse_json
from calico.server import floating, inventory
from calico.server.driver_name import NAME

LOG = log.getLogger(__name__)

_BATCH = 200  # ports that change in one transaction

Reports = frozenset[tuple[HostName, PortId]]
"""Ports that a host reports as programmed."""


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A port bound by this driver, as the database has it."""

    port: str
    host: str
    status: str
    is_up: bool  # administratively

    def wanted(self, reports: Reports) -> str:
        """Return the status that it should have."""
        if self.is_up and (HostName(self.host), PortId(self.port)) in reports:
            return constants.PORT_STATUS_ACTIVE
        # One that was never programmed is still being built.
        if self.is_up and self.status == constants.PORT_STATUS_BUILD:
            return constants.PORT_STATUS_BUILD
        return constants.PORT_STATUS_DOWN


def reports(keys: Keys, items: Mapping[str, bytes]) -> Reports:
    """Return what hosts report as programmed; keys and values of no sense are none."""
    found = set()
    for key, value in items.items():
        try:
            host, _, port = keys.parse_port_status(key)
            body = parse_json(value)
        except Invalid:
            continue
        if body.get("status") == "up":
            found.add((host, port))
    return frozenset(found)


def apply(reported: Reports) -> int:
    """Make all bound ports' status what it should be; return how many changed.

    And that of floating IPs, whatever changed it: those of a batch with its ports.
    """
    bound = _bound_ports(inventory.admin())
    changing = (port.port for port in bound if port.wanted(reported) != port.status)
    changed = 0
    while batch := list(islice(changing, _BATCH)):
        changed += _apply_batch(batch, reported)
    floating.settle()
    return changed


def _bound_ports(context: Any, ids: Collection[str] | None = None) -> list[BoundPort]:
    port, binding = models_v2.Port, ml2_models.PortBinding
    level = ml2_models.PortBindingLevel
    query = (
        sa.select(port.id, binding.host, port.status, port.admin_state_up)
        .join(binding, binding.port_id == port.id)
        .join(level, sa.and_(level.port_id == port.id, level.host == binding.host))
        .where(binding.status == constants.ACTIVE, level.driver == NAME)
    )
    if ids is not None:
        query = query.where(port.id.in_(ids))
    with db_api.CONTEXT_READER.using(context):
        return [BoundPort(*row) for row in context.session.execute(query)]


@db_api.retry_db_errors
def _apply_batch(ids: list[str], reported: Reports) -> int:
    """Change ports in one transaction, then tell Neutron's listeners (Nova's among)."""
    plugin, context = directory.get_plugin(), inventory.admin()
    with db_api.CONTEXT_WRITER.using(context):
        # Rows first, with their revisions: a port that moves after that has another
        # one, so that this transaction fails and is done again with the new host.
        rows = _rows(context, ids)
        wanted = {p.port: p.wanted(reported) for p in _bound_ports(context, ids)}
        rows = [row for row in rows if row.id in wanted]
        _unblock(
            context,
            [r for r in rows if wanted[r.id] == constants.PORT_STATUS_ACTIVE],
        )
        blocked = _blocked(context, rows)
        rows = [r for r in rows if wanted[r.id] != r.status and r.id not in blocked]
        before = {row.id: plugin._make_port_dict(row) for row in rows}  # noqa: SLF001 - what ML2's own status update calls
        for row in rows:
            row.status = wanted[row.id]
        context.session.flush()
        _block(context, [r for r in rows if r.status == constants.PORT_STATUS_DOWN])
        floating.settle_within(context, ids)
        after = {row.id: plugin._make_port_dict(row) for row in rows}  # noqa: SLF001 - as above
    for port, states in ((p, (before[p], after[p])) for p in before):
        payload = events.DBEventPayload(context, resource_id=port, states=states)
        registry.publish(resources.PORT, events.AFTER_UPDATE, plugin, payload=payload)
    LOG.info("Changed the status of %d ports", len(before))
    return len(before)


def _rows(context: Any, ids: Collection[str]) -> list[Any]:
    query = sa.select(models_v2.Port).where(models_v2.Port.id.in_(ids))
    return list(context.session.scalars(query).unique())


def _unblock(context: Any, rows: Iterable[Any]) -> None:
    context.session.execute(
        sa.delete(ProvisioningBlock)
        .where(
            ProvisioningBlock.standard_attr_id.in_([r.standard_attr_id for r in rows]),
            ProvisioningBlock.entity == blocks.L2_AGENT_ENTITY,
        )
        .execution_options(synchronize_session=False)
    )


def _blocked(context: Any, rows: Iterable[Any]) -> set[str]:
    """Return those that somebody else still holds back from ACTIVE."""
    by_attribute = {row.standard_attr_id: row.id for row in rows}
    query = sa.select(ProvisioningBlock.standard_attr_id).where(
        ProvisioningBlock.standard_attr_id.in_(by_attribute),
        ProvisioningBlock.entity != blocks.L2_AGENT_ENTITY,
    )
    return {by_attribute[attribute] for attribute in context.session.scalars(query)}


def _block(context: Any, rows: Iterable[Any]) -> None:
    for row in rows:
        blocks.add_provisioning_component(
            context, row.id, resources.PORT, blocks.L2_AGENT_ENTITY
        )
