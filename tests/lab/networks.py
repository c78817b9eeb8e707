"""Networks for tests in a lab, and their instances' addresses."""

from contextlib import ExitStack
from typing import Any

from calico.lab.instances import Instance


def dual_stack(
    api: Any, cleanup: ExitStack, name: str, number: int, **details: Any
) -> str:
    """Make a network with the subnets 10.NUMBER.0.0/24 and fd00:NUMBER::/64; its id.

    `api` is a project's; `cleanup` takes it away.
    """
    network = api.create_network(name=name, **details)
    cleanup.callback(api.delete_network, network.id)
    api.create_subnet(network_id=network.id, ip_version=4, cidr=f"10.{number}.0.0/24")
    api.create_subnet(
        network_id=network.id,
        ip_version=6,
        cidr=f"fd00:{number}::/64",
        ipv6_ra_mode="slaac",
        ipv6_address_mode="slaac",
    )
    return str(network.id)


def address(instance: Instance, version: int) -> str:
    """Return an instance's address of an IP version."""
    return next(a for a in instance.addresses if (":" in a) == (version == 6))
