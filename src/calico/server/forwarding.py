"""Port forwardings in Neutron's database: which port serves those of a floating IP.

An address has one host, whatever ports of it lead to other hosts' instances. So of the
ports that a floating IP forwards to and that are served, the one with the lowest id
serves all of its forwardings. Whatever may change who that is, or what it forwards, is
news of all these ports.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import l3 as l3_models
from neutron.db.models.port_forwarding import PortForwarding as Row
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib.db import api as db_api
from neutron_lib.plugins import constants as plugin_types
from neutron_lib.plugins import directory
from sqlalchemy import orm as sa_orm

from calico.server import journal
from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject
from calico.server.port_forwarding import CalicoPortForwardingPlugin

_Floating = l3_models.FloatingIP


def are_served() -> bool:
    """Tell whether port forwardings are this project's, and not another plugin's."""
    plugin = directory.get_plugin(plugin_types.PORTFORWARDING)
    return isinstance(plugin, CalicoPortForwardingPlugin)


def serving_port() -> Any:
    """Return the subquery of which port serves a floating IP's forwardings, if any.

    A port on the move between two hosts stays in the choice: its bindings are ours.
    """
    port, level = sa_orm.aliased(models_v2.Port), ml2_models.PortBindingLevel
    ours = sa.exists().where(level.port_id == port.id, level.driver == NAME)
    return (
        sa.select(sa.func.min(port.id))
        .join(Row, Row.internal_neutron_port_id == port.id)
        .where(
            Row.floatingip_id == _Floating.id,
            port.admin_state_up,
            port.device_id != "",
            ours,
        )
        .correlate(_Floating)
        .scalar_subquery()
    )


def of_ports(
    context: Any, ports: Collection[str]
) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return the forwardings that ports serve: their own, and others' beside them.

    Those of a router that is turned off lead nowhere.
    """
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    if not are_served():
        return found
    concerned = floating_ips_of(ports)
    query = (
        sa.select(
            serving_port().label("serving"),
            _Floating.floating_ip_address,
            Row.protocol,
            Row.external_port_start,
            Row.external_port_end,
            Row.internal_ip_address,
            Row.internal_port_start,
            Row.internal_port_end,
        )
        .join(_Floating, _Floating.id == Row.floatingip_id)
        .join(l3_models.Router, l3_models.Router.id == _Floating.router_id)
        .where(_Floating.id.in_(concerned), l3_models.Router.admin_state_up)
    )
    with db_api.CONTEXT_READER.using(context):
        for row in context.session.execute(query).mappings():
            if row["serving"] in ports:
                found[row["serving"]].append(row)
    return found


def floating_ips_of(ports: Collection[str]) -> Any:
    """Return the query of the floating IPs that forward to ports, by id."""
    return sa.select(Row.floatingip_id).where(Row.internal_neutron_port_id.in_(ports))


def of_router(router: str) -> Any:
    """Return the query of the ports that a router's floating IPs forward to."""
    return (
        sa.select(Row.internal_neutron_port_id)
        .join(_Floating, _Floating.id == Row.floatingip_id)
        .where(_Floating.router_id == router)
    )


def companions(context: Any, port: str) -> list[Subject]:
    """Return the other ports that a port's floating IPs forward to.

    One of them may have to serve in its place, or it in theirs.
    """
    if not are_served():
        return []
    own = floating_ips_of([port])
    query = sa.select(Row.internal_neutron_port_id).where(
        Row.floatingip_id.in_(own), Row.internal_neutron_port_id != port
    )
    with db_api.CONTEXT_READER.using(context):
        return _subjects(context.session.scalars(query))


def watch(listen: Callable[..., Any], wake: Callable[..., None]) -> None:
    """Journal the ports concerned as a forwarding's row is written; `wake` follows.

    Neutron tells of forwardings after their commit only, when a journal row would be
    too late to be safe. `listen` is `sqlalchemy.event.listen`.
    """

    def changed(_mapper: Any, connection: Any, row: Any) -> None:
        if not are_served():
            return
        subjects = _concerned(connection, row)
        for subject in subjects:
            journal.note(connection, subject)
        session = sa_orm.object_session(row)
        listen(session, "after_commit", lambda _session: wake(*subjects), once=True)

    def gone(mapper: Any, connection: Any, row: Any) -> None:
        changed(mapper, connection, row)
        left = sa.exists().where(Row.floatingip_id == row.floatingip_id)
        connection.execute(  # P9: nobody serves it any more
            sa.update(_Floating)
            .where(_Floating.id == row.floatingip_id, ~left)
            .values(status=constants.FLOATINGIP_STATUS_DOWN)
        )

    for moment in ("after_insert", "after_update"):
        listen(Row, moment, changed)
    listen(Row, "after_delete", gone)


def _concerned(connection: Any, row: Any) -> list[Subject]:
    """Return all ports that a row's floating IP forwards to, the row's former too."""
    history = sa.inspect(row).attrs.internal_neutron_port_id.history
    query = sa.select(Row.internal_neutron_port_id).where(
        Row.floatingip_id == row.floatingip_id
    )
    others = connection.execute(query).scalars()
    return _subjects([row.internal_neutron_port_id, *history.deleted, *others])


def _subjects(ports: Iterable[str]) -> list[Subject]:
    return [Subject(Kind.PORT, port) for port in sorted(set(ports))]
