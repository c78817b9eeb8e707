"""What a run leaves that has to go in an order: floating IPs and routers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

_INTERFACE = "network:router_interface"
_NO_SUCH_RESOURCE = 404

Deletions = list[tuple[str, Callable[[], object]]]


def take_apart(api: Any, prefix: str) -> Iterator[Deletions]:
    """Yield what is to be deleted of a run's routers and floating IPs, in steps.

    `api` is an administrator's. A cloud without routers has nothing.
    """
    if api.get("/routers").status_code == _NO_SUCH_RESOURCE:
        return
    networks = {n.id for n in api.networks() if (n.name or "").startswith(prefix)}
    yield [
        (f"floating IP {one.floating_ip_address}", partial(api.delete_ip, one.id))
        for one in api.ips()
        if one.floating_network_id in networks
    ]
    routers = [r for r in api.routers() if (r.name or "").startswith(prefix)]
    yield [
        (
            f"interface {port.id} of router {router.name}",
            partial(api.remove_interface_from_router, router.id, port_id=port.id),
        )
        for router in routers
        for port in api.ports(device_id=router.id, device_owner=_INTERFACE)
    ]
    yield [(f"router {r.name}", partial(api.delete_router, r.id)) for r in routers]
