"""What cannot be had beside the service plugin `calico-router`; pure."""

from collections.abc import Collection

from calico.model.ids import Invalid

ROUTER_PROVIDER = "calico-router"
FORWARDING_PROVIDER = "calico-port-forwarding"
"""The names of the plugins' entry points."""

# Those that are routers themselves, and those that load Neutron's router by themselves.
_FORWARDING = "port_forwarding"
_RIVALS = frozenset(
    {"router", "ovn-router", _FORWARDING, "conntrack_helper", "ndp_proxy"}
)


def refuse_rivals(service_plugins: Collection[str]) -> None:
    """Raise Invalid where Neutron would load another plugin for routers too.

    The two would hear of each other's routers, and calls would never end.
    """
    if rivals := sorted(_RIVALS.intersection(service_plugins)):
        instead = f" (write {FORWARDING_PROVIDER})" if _FORWARDING in rivals else ""
        raise Invalid(
            f"service_plugins: {', '.join(rivals)} cannot be had beside "
            f"{ROUTER_PROVIDER}{instead}"
        )
