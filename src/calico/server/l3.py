"""Routers and floating IPs in Neutron's data model: the service plugin `calico-router`.

All networks are routed whether or not there is a router (S8), so a router moves no
packet. What it decides is which ports may have floating IPs of which external network
(S12). Neutron's own tables hold all of it; `router_events` tells hosts what follows.

Extensions that promise more are not loaded, so that Neutron itself refuses their
attributes: extra routes, source translation at a gateway, distributed and highly
available routers, flavours, limits of a router's gateway.
"""

from collections.abc import Collection, Mapping
from typing import Any

from neutron.db import (
    dns_db,
    l3_db,
    l3_fip_pools_db,
    l3_fip_port_details,
    l3_fip_qos,
)
from neutron.db.models import l3 as l3_models
from neutron.quota import resource_registry
from neutron_lib import constants, exceptions
from neutron_lib.api.definitions import (
    fip_port_details,
    floatingip_pools,
    floatingip_router_writable,
    l3_port_ip_change_not_allowed,
    qos_fip,
    qos_fip_network_policy,
)
from neutron_lib.api.definitions import l3 as l3_api
from neutron_lib.plugins import constants as plugin_types
from neutron_lib.services import base
from oslo_config import cfg

from calico.server import floating_qos
from calico.server.rivals import refuse_rivals


class AddressInUse(exceptions.BadRequest):
    """A fixed address that a port must keep: 400."""

    message = (
        "Port %(port)s: %(address)s cannot be taken away, floating IP %(floating)s is "
        "associated with it."
    )


class CalicoRouterPlugin(
    base.ServicePluginBase,
    l3_db.L3_NAT_dbonly_mixin,
    # Neutron's floating IPs ask for it where an operator turns on DNS integration.
    dns_db.DNSDbMixin,
    l3_fip_port_details.Fip_port_details_db_mixin,
    l3_fip_qos.FloatingQoSDbMixin,
    l3_fip_pools_db.FloatingIPPoolsMixin,
):
    """Serves routers and floating IPs from the database, without agents."""

    @property
    def supported_extension_aliases(self) -> tuple[str, ...]:
        """Return what is had of Neutron's extensions; of QoS, where that is loaded."""
        of_qos = (qos_fip.ALIAS, qos_fip_network_policy.ALIAS)
        return (
            l3_api.ALIAS,
            fip_port_details.ALIAS,
            floatingip_pools.ALIAS,
            floatingip_router_writable.ALIAS,
            l3_port_ip_change_not_allowed.ALIAS,
            *(of_qos if floating_qos.is_loaded() else ()),
        )

    @resource_registry.tracked_resources(
        router=l3_models.Router, floatingip=l3_models.FloatingIP
    )
    def __init__(self) -> None:
        refuse_rivals(cfg.CONF.service_plugins)
        super().__init__()

    @classmethod
    def get_plugin_type(cls) -> str:
        """Return the name that Neutron keeps the plugin under."""
        return str(plugin_types.L3)

    def get_plugin_description(self) -> str:
        """Return what an operator reads about the plugin in Neutron's log."""
        return "Routers of the data model, and floating IPs that Calico's hosts serve"

    def create_floatingip(
        self,
        context: Any,
        floatingip: Mapping[str, Any],
        initial_status: str = constants.FLOATINGIP_STATUS_DOWN,
    ) -> Any:
        """Create a floating IP, which is DOWN until a host serves it (P9)."""
        return super().create_floatingip(context, floatingip, initial_status)

    def update_router_gw_ports(self, context: Any, network: Any, subnet: Any) -> None:
        """Give gateways an address of their network's first subnet, when it comes."""
        self._update_router_gateway_ports(context, network, subnet)

    def prevent_internal_ip_change_for_fip(
        self, context: Any, port_id: str, new_fixed_ips: Collection[Mapping[str, Any]]
    ) -> None:
        """Refuse to take an address from a port that a floating IP stands for.

        All of them, whoever owns them: Neutron looks at one of the caller's.
        """
        kept = {ip.get("ip_address") for ip in new_fixed_ips}
        for floating in self._get_floatingips_by_port_id(context.elevated(), port_id):
            if str(floating.fixed_ip_address) not in kept:
                raise AddressInUse(
                    port=port_id,
                    address=floating.fixed_ip_address,
                    floating=floating.floating_ip_address,
                )

    def _update_fip_assoc(self, context: Any, fip: Any, floatingip_obj: Any) -> Any:
        # Within the transaction, so that no answer claims what is not served yet, or
        # not any more (P9).
        before = _association(floatingip_obj)
        event = super()._update_fip_assoc(context, fip, floatingip_obj)
        if _association(floatingip_obj) != before:
            floatingip_obj.status = constants.FLOATINGIP_STATUS_DOWN
        return event


def _association(floating: Any) -> tuple[str | None, str | None]:
    address = floating.fixed_ip_address
    return floating.fixed_port_id, str(address) if address else None
