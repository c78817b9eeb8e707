"""Floating IPs in Neutron's database: which ports have them, and which are ACTIVE.

A floating IP is ACTIVE while its port is served and all that was said of that port is
in etcd (P9). So its status is derived, level-triggered, from rows that are there
anyway, and whoever changes one of them has it derived again: a status pass, in its own
transaction, and each publication of ports.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import l3 as l3_models
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import constants as plugin_types
from neutron_lib.plugins import directory

from calico.server import floating_qos, forwarding
from calico.server.db.models import JournalRow
from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject
from calico.server.l3 import CalicoRouterPlugin

_ACTIVE = constants.FLOATINGIP_STATUS_ACTIVE
_DOWN = constants.FLOATINGIP_STATUS_DOWN

Row = l3_models.FloatingIP


def are_served() -> bool:
    """Tell whether floating IPs are this project's, and not another L3 plugin's."""
    return isinstance(directory.get_plugin(plugin_types.L3), CalicoRouterPlugin)


def of_ports(
    context: Any, ports: Collection[str]
) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return the floating IPs that ports have, as the API names their parts.

    Those of a router that is turned off lead nowhere.
    """
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    if not are_served():
        return found
    own, networks = floating_qos.Own, floating_qos.Networks
    query = (
        sa.select(
            Row.fixed_port_id,
            Row.fixed_ip_address,
            Row.floating_ip_address,
            own.policy_id.label("qos_policy_id"),
            networks.policy_id.label("qos_network_policy_id"),
        )
        .join(l3_models.Router, l3_models.Router.id == Row.router_id)
        .outerjoin(own, own.fip_id == Row.id)
        .outerjoin(networks, networks.network_id == Row.floating_network_id)
        .where(Row.fixed_port_id.in_(ports), l3_models.Router.admin_state_up)
    )
    with db_api.CONTEXT_READER.using(context):
        for row in context.session.execute(query).mappings():
            found[row["fixed_port_id"]].append(dict(row))
    return found


def ports_of_router(context: Any, router: str) -> list[Subject]:
    """Return the ports that have a floating IP, or a port of one, by a router."""
    query = sa.select(Row.fixed_port_id).where(
        Row.router_id == router, Row.fixed_port_id.is_not(None)
    )
    with db_api.CONTEXT_READER.using(context):
        found = set(context.session.scalars(query))
        found |= set(context.session.scalars(forwarding.of_router(router)))
    return [Subject(Kind.PORT, port) for port in sorted(found)]


@db_api.retry_db_errors
def settle(ports: Collection[str] | None = None) -> None:
    """Make the status of floating IPs what it should be, in a transaction of its own.

    Of those of some ports, or of all.
    """
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_WRITER.using(context):
        settle_within(context, ports)


def settle_within(context: Any, ports: Collection[str] | None) -> None:
    """Do so in the caller's transaction.

    Rows are changed, and not by one statement: a floating IP that moves meanwhile has
    another revision then, so that the transaction fails and is done again.
    """
    if not are_served():
        return
    for floating, status in context.session.execute(_wrong(ports)).unique():
        floating.status = status


def _wrong(ports: Collection[str] | None) -> Any:
    """Return a query for the floating IPs with a wrong status, and the right one."""
    port, router = models_v2.Port, l3_models.Router
    serving: Any = Row.fixed_port_id
    if forwarding.are_served():
        serving = sa.func.coalesce(serving, forwarding.serving_port())
    works = sa.and_(
        port.status == constants.PORT_STATUS_ACTIVE,
        port.admin_state_up,
        router.admin_state_up,
        _is_bound(),
    )
    wanted = sa.case((works, _ACTIVE), else_=_DOWN)
    pending = sa.exists().where(
        JournalRow.kind == Kind.PORT.value, JournalRow.id == port.id
    )
    query = (
        sa.select(Row, wanted)
        .select_from(Row)
        .outerjoin(port, port.id == serving)
        .outerjoin(router, router.id == Row.router_id)
        .where(Row.status != wanted, sa.or_(wanted == _DOWN, ~pending))
    )
    if ports is None:
        return query
    concerned = Row.fixed_port_id.in_(ports)
    if forwarding.are_served():
        concerned |= Row.id.in_(forwarding.floating_ips_of(ports))
    return query.where(concerned)


def _is_bound() -> Any:
    """Return the condition that a floating IP's port is bound by this driver."""
    binding, level = ml2_models.PortBinding, ml2_models.PortBindingLevel
    return sa.exists().where(
        binding.port_id == models_v2.Port.id,
        binding.status == constants.ACTIVE,
        level.port_id == binding.port_id,
        level.host == binding.host,
        level.driver == NAME,
    )
