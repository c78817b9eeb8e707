"""What dnsmasq of one host should serve: rendered from the host's world.

One process serves all networks of the host. What changes with ports and the options of
subnets is in two files that it reads again on SIGHUP; address ranges are in its
configuration, which it reads at its start only (P33).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)

from calico.model.ids import (
    Address,
    Interface,
    InterfaceName,
    Mac,
)
from calico.model.records import Endpoint, Subnet
from calico.model.world import World
from calico.plan.dhcp_ports import Refused, port_options, subnet_routes
from calico.plan.subnets import (
    STATEFUL,
    held,
    ipv6_mode,
    is_lacking,
    is_served,
    subnet_of_ipv4,
)

BRIDGE = "calico-dhcp"  # holds the gateway addresses; has no ports
LEASE4 = "24h"  # Neutron's own default
LEASE6 = "1h"  # shorter: a DUID that a guest forgot blocks its address so long
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who may lease an address: a MAC address behind an interface."""

    mac: Mac
    interface: InterfaceName


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpState:
    """What the DHCP service of a host needs.

    `gateways` are the addresses that the bridge must hold, with the prefix length of
    the subnet. `ranges` are configuration lines: a new one needs a new process. `hosts`
    and `options` are files. `holders` says who may lease an address: a lease of another
    must not outlive it (P34).
    """

    gateways: tuple[Interface, ...] = ()
    ranges: tuple[str, ...] = ()
    hosts: str = ""
    options: str = ""
    holders: Mapping[Address, Holder] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


def plan_dnsmasq(world: World) -> DhcpState:
    """Return what dnsmasq should serve on a host; what cannot be is in `refused`."""
    ports = [(port, world.subnets_of(port)) for port in world.endpoints]
    subnets = {subnet.id: subnet for _, found in ports for subnet in found}
    served = [subnet for _, subnet in sorted(subnets.items()) if is_served(subnet)]
    refused = [_unserved(s) for _, s in sorted(subnets.items()) if is_lacking(s)]
    routes = {subnet.id: subnet_routes(subnet, refused) for subnet in served}
    hosts6: list[str] = []
    hosts4: list[str] = []
    options: list[str] = []
    holders: dict[Address, Holder] = {}
    for port, found in _unique_macs(ports, refused):
        mine = [subnet for subnet in found if is_served(subnet)]
        if not mine:
            continue
        hosts6 += _host6(port, mine)
        hosts4 += _host4(port, mine)
        options += port_options(port, mine, routes, refused)
        holder = Holder(port.mac, port.interface)
        holders |= dict.fromkeys(_leased(port, mine), holder)
    return DhcpState(
        gateways=tuple(sorted(filter(None, map(held, subnets.values())), key=_key)),
        ranges=tuple(sorted(set(_ranges(served, holders)))),
        # dnsmasq takes the last matching line, and one without an address matches both
        # versions: IPv4's, which has one, comes after.
        hosts="".join(f"{line}\n" for line in (*hosts6, *hosts4)),
        options="".join(f"{line}\n" for line in options),
        holders=holders,
        refused=tuple(refused),
    )


def _unserved(subnet: Subnet) -> Refused:
    if subnet.gateway is None:
        reason = "it has no gateway, whose address the server would have"
    else:
        reason = f"its gateway {subnet.gateway} is not in {subnet.prefix}"
    return Refused(subject=f"subnet {subnet.id}", wish="DHCPv4", reason=reason)


def _key(interface: Interface) -> tuple[int, int, int]:
    return interface.version, int(interface.ip), interface.network.prefixlen


def _unique_macs(
    ports: list[tuple[Endpoint, tuple[Subnet, ...]]], refused: list[Refused]
) -> Iterator[tuple[Endpoint, tuple[Subnet, ...]]]:
    """Leave out ports whose MAC address another has: dnsmasq knows clients by it."""
    owners: dict[Mac, Endpoint] = {}
    for port, subnets in ports:
        owner = owners.setdefault(port.mac, port)
        if owner is port:
            yield port, subnets
        else:
            reason = f"port {owner.port} on this host has the same MAC address"
            refused.append(Refused(subject=_name(port), wish="DHCP", reason=reason))


def _leased(port: Endpoint, subnets: Iterable[Subnet]) -> list[Address]:
    """Return the addresses of a port that are handed out as leases."""
    leasing = [s for s in subnets if ipv6_mode(s) in {None, STATEFUL}]
    return [a for a in port.addresses if any(a in s.prefix for s in leasing)]


def _ranges(subnets: Iterable[Subnet], leased: Iterable[Address]) -> Iterator[str]:
    for subnet in subnets:
        prefix = subnet.prefix
        if isinstance(prefix, IPv4Network):
            network, mask = prefix.network_address, prefix.netmask
            yield f"dhcp-range={network},static,{mask},{LEASE4}"
        elif prefix.prefixlen >= 64:
            yield _range6(prefix)
        else:
            yield from _parts(prefix, leased)


def _parts(prefix: IPv6Network, leased: Iterable[Address]) -> Iterator[str]:
    """Split a prefix shorter than dnsmasq takes into the /64s that are in use (P14)."""
    used = {ip_network(f"{a}/64", strict=False) for a in leased if a in prefix}
    for part in sorted(used, key=int_of) or [
        ip_network(f"{prefix.network_address}/64")
    ]:
        yield _range6(part)
        yield f"shared-network={BRIDGE},{part.network_address}"


def int_of(network: IPv4Network | IPv6Network) -> int:
    """Return a prefix's first address as a number, to sort by."""
    return int(network.network_address)


def _range6(prefix: IPv4Network | IPv6Network) -> str:
    return f"dhcp-range={prefix.network_address},static,{prefix.prefixlen},{LEASE6}"


def _name(port: Endpoint) -> str:
    return f"port {port.port}"


def _host4(port: Endpoint, subnets: Iterable[Subnet]) -> list[str]:
    subnet = subnet_of_ipv4(port, subnets)
    if subnet is None:
        return []
    address = next(a for a in port.addresses if a in subnet.prefix)
    return [_host(port, [str(address)])]


def _host6(port: Endpoint, subnets: Iterable[Subnet]) -> list[str]:
    """Return a port's line for DHCPv6; a stateless subnet has no address (P14)."""
    mine = [s for s in subnets if s.prefix.version == 6]
    leased = [f"[{a}]" for a in _leased(port, mine) if isinstance(a, IPv6Address)]
    return [_host(port, leased)] if mine else []


def _host(port: Endpoint, addresses: list[str]) -> str:
    label = (port.fqdn or "").partition(".")[0]
    names = [label] if addresses and _LABEL.fullmatch(label) else []
    return ",".join([port.mac, *addresses, *names])
