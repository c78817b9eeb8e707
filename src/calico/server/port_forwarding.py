"""Port forwarding in Neutron's API: the service plugin `calico-port-forwarding`.

Neutron's own plugin, with the router that it needs replaced: it would load Neutron's.
Who serves a forwarding, `forwarding` decides from the rows that it leaves.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from neutron.db.models.port_forwarding import PortForwarding as Row
from neutron.services.portforwarding.pf_plugin import PortForwardingPlugin
from neutron_lib import exceptions
from neutron_lib.api.definitions import fip_pf_detail
from neutron_lib.db import api as db_api

from calico.server import floating_qos
from calico.server.rivals import ROUTER_PROVIDER

MOST_PORTS = 4096
"""Ports of one floating IP: each is an element of its host's map."""

_PROTOCOLS = ("tcp", "udp", "sctp")


class NotForwarded(exceptions.BadRequest):
    """A forwarding that no host could do: 400."""

    message = "Floating IP %(floating)s: %(reason)s"


class CalicoPortForwardingPlugin(PortForwardingPlugin):
    """Keeps port forwardings in Neutron's tables, without agents."""

    required_service_plugins = (ROUTER_PROVIDER,)
    _rpc_notifications_required = False
    supported_extension_aliases = (
        *PortForwardingPlugin.supported_extension_aliases,
        fip_pf_detail.ALIAS,
    )

    def create_floatingip_port_forwarding(
        self, context: Any, floatingip_id: str, port_forwarding: Mapping[str, Any]
    ) -> Any:
        """Create a forwarding, if hosts can do it."""
        _check(context, floatingip_id, port_forwarding["port_forwarding"])
        with db_api.CONTEXT_READER.using(context):
            if floating_qos.own_policy(context, floatingip_id):
                raise floating_qos.PortsForwarded(floating=floatingip_id)
        return super().create_floatingip_port_forwarding(
            context, floatingip_id, port_forwarding
        )

    def update_floatingip_port_forwarding(
        self,
        context: Any,
        id: str,  # noqa: A002 - Neutron's name
        floatingip_id: str,
        port_forwarding: Mapping[str, Any],
    ) -> Any:
        """Change a forwarding, if hosts can do what it becomes."""
        _check(context, floatingip_id, port_forwarding["port_forwarding"], id)
        return super().update_floatingip_port_forwarding(
            context, id, floatingip_id, port_forwarding
        )


def _check(
    context: Any, floating: str, wanted: Mapping[str, Any], itself: str | None = None
) -> None:
    """Raise NotForwarded for a protocol without ports, and for too many ports."""
    protocol = wanted.get("protocol")
    if protocol is not None and protocol not in _PROTOCOLS:
        reason = f"{protocol} is not forwarded, only {', '.join(_PROTOCOLS)} are"
        raise NotForwarded(floating=floating, reason=reason)
    written = wanted.get("external_port_range")
    if not written:
        return  # a single port, or the ports that it has
    first, _, last = str(written).partition(":")
    width = int(last or first) - int(first) + 1
    if width + _others(context, floating, itself) > MOST_PORTS:
        reason = f"more than {MOST_PORTS} ports of it would be forwarded"
        raise NotForwarded(floating=floating, reason=reason)


def _others(context: Any, floating: str, itself: str | None) -> int:
    """Return how many ports of a floating IP its other forwardings have."""
    width = Row.external_port_end - Row.external_port_start + 1
    query = sa.select(sa.func.coalesce(sa.func.sum(width), 0)).where(
        Row.floatingip_id == floating, Row.id != (itself or "")
    )
    with db_api.CONTEXT_READER.using(context):
        return int(context.session.scalar(query))
