"""Ports' bindings in Neutron's database: what they are, and when they change.

ML2 tells drivers of none of the inactive ones but of the activation.
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib.api.definitions.portbindings import VIF_TYPE_TAP
from neutron_lib.db import api as db_api
from sqlalchemy import orm as sa_orm

from calico.server import journal
from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject
from calico.server.placement import Placement, placement


def watch(listen: Callable[..., Any], wake: Callable[[Subject], None]) -> None:
    """Journal changes of bindings that drivers are not told of; `wake` follows.

    `listen` is `sqlalchemy.event.listen`.
    """

    def note(connection: Any, row: Any) -> None:
        subject = Subject(Kind.PORT, row.port_id)
        journal.note(connection, subject)
        session = sa_orm.object_session(row)
        listen(session, "after_commit", lambda _session: wake(subject), once=True)

    def changed(_mapper: Any, connection: Any, row: Any) -> None:
        if row.status == constants.INACTIVE:
            note(connection, row)

    def gone(_mapper: Any, connection: Any, row: Any) -> None:
        # An active one may be deleted too, by who has the right.
        if row.status == constants.INACTIVE or row.vif_type == VIF_TYPE_TAP:
            note(connection, row)

    for moment in ("after_insert", "after_update"):
        listen(ml2_models.PortBinding, moment, changed)
    listen(ml2_models.PortBinding, "after_delete", gone)


def read(context: Any, ids: Collection[str]) -> dict[str, Placement]:
    """Return the placements of ports, by id."""
    binding, level = ml2_models.PortBinding, ml2_models.PortBindingLevel
    rows = sa.select(
        binding.port_id,
        binding.host,
        binding.status,
        binding.vif_type,
        binding.profile,
    ).where(binding.port_id.in_(ids))
    drivers = sa.select(level.port_id, level.host).where(
        level.port_id.in_(ids), level.driver == NAME
    )
    found: dict[str, list[Any]] = defaultdict(list)
    with db_api.CONTEXT_READER.using(context):
        for row in context.session.execute(rows):
            found[row.port_id].append(row)
        ours = {(row.port_id, row.host) for row in context.session.execute(drivers)}
    return {port: placement(rows, ours) for port, rows in found.items()}
