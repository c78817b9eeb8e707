"""Neutron's agent table, from the leased heartbeats that hosts write.

A host whose lease ran out shows as not alive at the next pass. All living hosts are
written in one statement: a large cloud's heartbeats never queue behind each other
(P31).
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from neutron.db.models.agent import Agent
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from calico.model.ids import HostName, Invalid
from calico.model.keys import Keys
from calico.model.resource import parse_json
from calico.server import inventory

LOG = log.getLogger(__name__)

AGENT_TYPE = "Calico agent"
BINARY = "calico-agent"

# Of what a host says of itself, what the agent table shows and how much of it. A host
# may write anything, the table's column takes 4095 bytes; and what changes with each
# heartbeat would be wrong at once.
_SHOWN = ("version",)
_SHOWN_LENGTH = 255


def alive(keys: Keys, items: Mapping[str, bytes]) -> dict[HostName, dict[str, Any]]:
    """Return hosts that hold a heartbeat, with what it says about them."""
    found = {}
    for key, value in items.items():
        if host := keys.parse_host_status(key):
            try:
                found[host] = parse_json(value)
            except Invalid:
                # A lease that is held proves life, whatever is written under it.
                found[host] = {}
    return found


def apply(living: Mapping[HostName, dict[str, Any]]) -> None:
    """Make the agent table say who lives: new hosts appear, silent ones go down."""
    context = inventory.admin()
    known = _known(context)
    now = timeutils.utcnow()
    down = timedelta(seconds=cfg.CONF.agent_down_time)
    _stamp(context, living.keys() & known.keys(), now)
    _stamp(
        context,
        [h for h in known.keys() - living.keys() if known[h] > now - down],
        now - down - timedelta(seconds=1),
    )
    for host in sorted(living.keys() - known.keys()):
        try:
            _register(host, living[host])
        except Exception:  # P41: what one host writes must not stop the others
            LOG.exception("Host %.80s does not become an agent", host)


def _known(context: Any) -> dict[str, Any]:
    query = sa.select(Agent.host, Agent.heartbeat_timestamp)
    with db_api.CONTEXT_READER.using(context):
        rows = context.session.execute(query.where(Agent.agent_type == AGENT_TYPE))
        return {row.host: row.heartbeat_timestamp for row in rows}


def _register(host: HostName, body: Mapping[str, Any]) -> None:
    state = {
        "agent_type": AGENT_TYPE,
        "binary": BINARY,
        "host": host,
        "topic": "N/A",
        "configurations": {
            name: str(body[name])[:_SHOWN_LENGTH] for name in _SHOWN if name in body
        },
        "start_flag": True,
    }
    directory.get_plugin().create_or_update_agent(inventory.admin(), state)


@db_api.retry_db_errors
def _stamp(context: Any, hosts: Collection[str], heartbeat: Any) -> None:
    if not hosts:
        return
    with db_api.CONTEXT_WRITER.using(context):
        context.session.execute(
            sa.update(Agent)
            .where(Agent.agent_type == AGENT_TYPE, Agent.host.in_(hosts))
            .values(heartbeat_timestamp=heartbeat)
            .execution_options(synchronize_session=False)
        )
