"""Tell the truth about layer 2: no two instances of a Calico network share one (S4).

A service plugin, because only those can speak after Neutron's own `segments` plugin,
which believes that any network without routed subnets is a broadcast domain (P10).
"""

from typing import Any

from neutron_lib.api.definitions import l2_adjacency as api
from neutron_lib.api.definitions import network as network_api
from neutron_lib.api.definitions import provider_net
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.db import resource_extend
from neutron_lib.services import base

from calico.server.translate import NETWORK_TYPES

PROVIDER = "calico-l2-adjacency"  # the name of its entry point


@registry.has_registry_receivers
class L2AdjacencyPlugin(base.ServicePluginBase):
    """Serves the attribute `l2_adjacency` of networks, beside `segments` or alone."""

    supported_extension_aliases = (api.ALIAS,)

    @classmethod
    def get_plugin_type(cls) -> str:
        """Return the name that Neutron keeps the plugin under."""
        return "calico-l2-adjacency"

    def get_plugin_description(self) -> str:
        """Return what an operator reads about the plugin in Neutron's log."""
        return "Reports that Calico networks are not broadcast domains"

    @registry.receives(resources.PROCESS, [events.BEFORE_SPAWN])
    def _speak_last(self, *_event: Any, **_more: Any) -> None:
        # Extenders run in the order of their registration. By now all plugins are
        # loaded, so that no order in `service_plugins` can let `segments` have the
        # last word.
        resource_extend.register_funcs(network_api.COLLECTION_NAME, [extend_network])


def extend_network(network: dict[str, Any], row: Any) -> None:
    """Set the attribute in a network's API form, from its database row.

    Networks that another driver's segments carry keep what they have.
    """
    # While a network is being created its row does not list its segments yet, but
    # its API form already names its type.
    kinds = {segment.network_type for segment in row.segments} or {
        network.get(provider_net.NETWORK_TYPE)
    }
    if kinds <= NETWORK_TYPES:
        network[api.L2_ADJACENCY] = False
    else:
        network.setdefault(api.L2_ADJACENCY, True)


def ensure_loaded(conf: Any) -> None:
    """Add this plugin to the service plugins that Neutron is about to load.

    Whoever uses the mechanism driver gets the truth, listed or not (S4).
    """
    if PROVIDER not in conf.service_plugins:
        conf.set_override("service_plugins", [*conf.service_plugins, PROVIDER])
