"""The tenant pattern: a router between a tenant's network and an external one (S12)."""

from calico.verify.stage import Stage

PROJECT, INSIDE, EXTERNAL = "demo2", "T", "E"


def attach(stage: Stage) -> str:
    """Return the id of the run's router, which is made if there is none yet."""
    api = stage.cloud.api(PROJECT).network
    name = f"{stage.prefix}-router"
    for found in api.routers(name=name):
        return str(found.id)
    gateway = {"network_id": stage.nets[EXTERNAL].id}
    router = api.create_router(name=name, external_gateway_info=gateway)
    net = stage.nets[INSIDE]
    for subnet in (net.subnet4, net.subnet6):
        api.add_interface_to_router(router.id, subnet_id=subnet)
    return str(router.id)
