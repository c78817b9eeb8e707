"""`core_plugin = calico`: Neutron's ML2, preconfigured for a cloud of Calico only.

Only defaults change, so that whatever an operator writes in a file still holds; and
only here, where the operator asked for it: the mechanism driver leaves ML2's settings
to whoever runs it beside others (P19).
"""

from typing import Any

from neutron.conf.plugins.ml2 import config as ml2_config
from neutron.conf.plugins.ml2.drivers import driver_type
from neutron.plugins.ml2.plugin import Ml2Plugin
from neutron_lib.api.definitions import (
    availability_zone,
    availability_zone_filter,
    network_availability_zone,
    qinq,
    vlantransparent,
)
from oslo_config import cfg

from calico.server.qos import EXTENSION
from calico.server.rivals import FORWARDING_PROVIDER, ROUTER_PROVIDER

ML2_DEFAULTS = {
    "type_drivers": ["local", "flat"],
    "project_network_types": ["local"],
    "mechanism_drivers": ["calico"],
    "extension_drivers": ["port_security", "tag_ports_during_bulk_creation"],
}
# What ML2 offers by itself, and a routed network cannot keep: frames with VLAN tags
# from instance to instance, and agents in a zone for a network to be given to.
_NOT_OFFERED = frozenset(
    {
        availability_zone.ALIAS,
        availability_zone_filter.ALIAS,
        network_availability_zone.ALIAS,
        qinq.ALIAS,
        vlantransparent.ALIAS,
    }
)
# Routers, floating IPs and ports of them, the logs of security groups, and QoS.
SERVICE_PLUGINS = (ROUTER_PROVIDER, FORWARDING_PROVIDER, "log", EXTENSION)


class CalicoPlugin(Ml2Plugin):
    """ML2 with this project's mechanism driver and nothing to configure (S21)."""

    def __init__(self) -> None:
        set_defaults(cfg.CONF)
        super().__init__()

    @property
    def supported_extension_aliases(self) -> list[str]:
        """Return what the API offers: ML2's, without what cannot be kept."""
        offered = super().supported_extension_aliases
        return [alias for alias in offered if alias not in _NOT_OFFERED]


def set_defaults(conf: Any) -> None:
    """Change ML2's defaults in an oslo.config object; what files say stays."""
    ml2_config.register_ml2_plugin_opts()
    driver_type.register_ml2_drivers_flat_opts()
    for name, value in ML2_DEFAULTS.items():
        conf.set_default(name, value, group="ml2")
    conf.set_default("service_plugins", [*SERVICE_PLUGINS])
    extensions = [*ML2_DEFAULTS["extension_drivers"]]
    if ROUTER_PROVIDER in conf.service_plugins:
        # Names of ports. Neutron refuses them without the extension `router`.
        extensions.append("dns_domain_ports")
    if EXTENSION in conf.service_plugins:
        # Without it neither ports nor networks could have a policy.
        extensions.append(EXTENSION)
    conf.set_default("extension_drivers", extensions, group="ml2")
    conf.set_default("flat_networks", ["*"], group="ml2_type_flat")
    # Each host's agent serves DHCP from the datastore; nobody schedules it.
    conf.set_default("enable_traditional_dhcp", False)
