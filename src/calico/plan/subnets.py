"""Which of a host's subnets are served, how, and at which address of the host's."""

from collections.abc import Iterable
from ipaddress import ip_interface

from calico.model.ids import Interface
from calico.model.records import Endpoint, Subnet

STATEFUL, STATELESS, SLAAC = "dhcpv6-stateful", "dhcpv6-stateless", "slaac"


def ipv6_mode(subnet: Subnet) -> str | None:
    """Return how the guests of an IPv6 subnet get addresses; None for IPv4, no DHCP.

    The host is the only router that an instance can see, so it advertises where Neutron
    would leave it to others: a missing mode is the other one's. With neither, Neutron
    serves DHCPv6 leases, and so is it here.
    """
    if subnet.prefix.version == 4 or not subnet.dhcp:
        return None
    return subnet.ra_mode or subnet.address_mode or STATEFUL


def is_served(subnet: Subnet) -> bool:
    """Tell whether a subnet's DHCP requests are answered."""
    return subnet.dhcp and ipv6_mode(subnet) != SLAAC and not is_lacking(subnet)


def is_lacking(subnet: Subnet) -> bool:
    """Return whether there is nothing to answer a subnet's DHCP requests from.

    IPv4 has no address that is the routers' by itself: any other than the gateway's may
    be an instance's.
    """
    return subnet.prefix.version == 4 and subnet.dhcp and not _has_gateway(subnet)


def held(subnet: Subnet) -> Interface | None:
    """Return the address that makes a host part of a subnet; None if it has none.

    Where no gateway is in the subnet (a link-local one is not), its subnet-router
    anycast address, which belongs to routers (RFC 4291 2.6.1), stands for it.
    """
    address = subnet.gateway
    if address is None or not _has_gateway(subnet):
        stood_for = subnet.prefix.version == 6 and subnet.gateway is not None
        if not (stood_for or is_served(subnet)):
            return None
        address = subnet.prefix.network_address
    return ip_interface(f"{address}/{subnet.prefix.prefixlen}")


def subnet_of_ipv4(port: Endpoint, subnets: Iterable[Subnet]) -> Subnet | None:
    """Return the subnet of a port's first IPv4 address: DHCPv4 hands out only one."""
    for address in port.addresses:
        for subnet in subnets:
            if address.version == 4 and address in subnet.prefix:
                return subnet
    return None


def _has_gateway(subnet: Subnet) -> bool:
    """Return whether a subnet has a gateway of its own.

    An address outside of the subnet may be anybody's, a host's or the fabric's: it is
    never made this host's (P47).
    """
    return subnet.gateway is not None and subnet.gateway in subnet.prefix
