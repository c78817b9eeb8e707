"""What cannot be had beside the service plugin `calico-router`; pure."""

from collections.abc import Collection

from calico.model.ids import Invalid

ROUTER_PROVIDER = "calico-router"
"""The name of the plugin's entry point."""

# Those that are routers themselves, and those that load Neutron's router by themselves.
_RIVALS = frozenset(
    {"router", "ovn-router", "port_forwarding", "conntrack_helper", "ndp_proxy"}
)


def refuse_rivals(service_plugins: Collection[str]) -> None:
    """Raise Invalid where Neutron would load another plugin for routers too.

    The two would hear of each other's routers, and calls would never end.
    """
    if rivals := sorted(_RIVALS.intersection(service_plugins)):
        raise Invalid(
            f"service_plugins: {', '.join(rivals)} cannot be had beside "
            f"{ROUTER_PROVIDER}"
        )
