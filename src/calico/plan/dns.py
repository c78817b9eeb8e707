"""Whom instances ask for names: a subnet's DNS servers or, without any, their host.

As in Neutron: a subnet that has DHCP and no `dns_nameservers` gets the address of what
serves its DHCP. Here that is the address which the host holds for the subnet: an IPv4
guest reaches it on its link, whatever its routes are.
"""

from collections.abc import Sequence

from calico.model.ids import Address, NetworkId, PortId
from calico.model.records import Endpoint, Subnet
from calico.model.world import World
from calico.plan.subnets import held, is_served, subnet_of_ipv4


def dns_servers(subnet: Subnet) -> tuple[Address, ...]:
    """Return the DNS servers that a subnet's instances are told, its host among them.

    The unspecified address among a subnet's servers means none (Neutron).
    """
    own = _host_of(subnet)
    return tuple(
        server
        for server in (subnet.dns_servers if own is None else (own,))
        if server.version == subnet.prefix.version and not server.is_unspecified
    )


def asked(world: World) -> dict[PortId, tuple[Address, ...]]:
    """Return the addresses of the host that ports are told to ask for names, if any."""
    networks: dict[NetworkId, list[Subnet]] = {e.network: [] for e in world.endpoints}
    for _, subnet in sorted(world.subnets.items()):
        mine = networks.get(subnet.network)  # few of the cloud's are
        if mine is not None and (
            subnet.prefix.version == 4 or _host_of(subnet) is not None
        ):
            mine.append(subnet)
    found = {
        endpoint.port: _asked_by(endpoint, networks[endpoint.network])
        for endpoint in world.endpoints
    }
    return {port: addresses for port, addresses in found.items() if addresses}


def _asked_by(endpoint: Endpoint, subnets: Sequence[Subnet]) -> tuple[Address, ...]:
    four = subnet_of_ipv4(endpoint, [s for s in subnets if is_served(s)])
    six = (
        subnet
        for subnet in subnets
        if subnet.prefix.version == 6
        and any(address in subnet.prefix for address in endpoint.addresses)
    )
    hosts = (_host_of(subnet) for subnet in (*([four] if four else []), *six))
    return tuple(host for host in hosts if host is not None)


def _host_of(subnet: Subnet) -> Address | None:
    """Return the host's address that a subnet's instances ask; None if they do not."""
    if subnet.dns_servers or not subnet.dhcp:
        return None
    interface = held(subnet)
    return interface.ip if interface else None
