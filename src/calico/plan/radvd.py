"""What radvd should advertise to each instance of one host.

Each tap is a link of its own: it is told of the prefixes that its port has addresses
in, and of no others. Prefixes are never on-link: the host is the way to everything, the
rest of the subnet included (S19, and no layer 2 between instances).
"""

import re
from ipaddress import IPv6Network

from calico.model.ids import host_side_mac
from calico.model.records import Endpoint, Subnet
from calico.model.world import World
from calico.plan.dhcp_options import is_domain
from calico.plan.dns import dns_servers
from calico.plan.host import link_local
from calico.plan.subnets import SLAAC, STATEFUL, STATELESS, ipv6_mode

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_LIFETIME = 9000  # seconds
_MIN_MTU = 1280  # of IPv6; a smaller one must not be advertised (RFC 8200 5)


def plan_radvd(world: World) -> str:
    """Return radvd's configuration for a host: a stanza for each tap with IPv6 DHCP."""
    stanzas = []
    for port in sorted(world.endpoints, key=lambda port: port.interface):
        subnets = [s for s in world.subnets_of(port) if ipv6_mode(s) is not None]
        if subnets and _INTERFACE.fullmatch(port.interface):
            stanzas.append(_interface(port, subnets))
    return "".join(stanzas)


def _interface(port: Endpoint, subnets: list[Subnet]) -> str:
    modes = {ipv6_mode(subnet) for subnet in subnets}
    is_router = any(subnet.gateway is not None for subnet in subnets)
    lines = [
        "AdvSendAdvert on;",
        "IgnoreIfMissing on;",
        # The metadata service's address is on the link too, and is no router's.
        f"AdvRASrcAddress {{ {link_local(host_side_mac(port.mac))}; }};",
        "MinRtrAdvInterval 200;",
        "MaxRtrAdvInterval 600;",
        # The most there is: a guest has no other router. Without a gateway, none.
        f"AdvDefaultLifetime {_LIFETIME if is_router else 0};",
        f"AdvManagedFlag {_on(STATEFUL in modes)};",
        f"AdvOtherConfigFlag {_on(bool(modes & {STATEFUL, STATELESS}))};",
        f"AdvLinkMTU {max(_MIN_MTU, min(s.mtu for s in subnets))};",
        *(line for subnet in subnets for line in _prefix(subnet)),
        *(line for s in subnets if s.gateway is None for line in _route(s)),
        *_dns(subnets),
    ]
    body = "".join(f"    {line}\n" for line in lines)
    return f"interface {port.interface} {{\n{body}}};\n"


def _prefix(subnet: Subnet) -> list[str]:
    """Return a subnet's prefix, which guests form addresses in if its mode says so."""
    autonomous = ipv6_mode(subnet) in {SLAAC, STATELESS}
    if not isinstance(subnet.prefix, IPv6Network):
        return []
    return [
        f"prefix {subnet.prefix} {{",
        "    AdvOnLink off;",
        f"    AdvAutonomous {_on(autonomous)};",
        "};",
    ]


def _route(subnet: Subnet) -> list[str]:
    """Return the route to a subnet's other ports, where there is no default route.

    Guests that know RFC 4191 reach them; the prefix is not on-link.
    """
    lifetime = f"    AdvRouteLifetime {_LIFETIME};"
    return [f"route {subnet.prefix} {{", lifetime, "};"]


def _dns(subnets: list[Subnet]) -> list[str]:
    servers = [str(server) for subnet in subnets for server in dns_servers(subnet)]
    domains = [(s.dns_domain or "").rstrip(".") for s in subnets]
    names = [name for name in domains if is_domain(name)]
    return [
        *([f"RDNSS {' '.join(dict.fromkeys(servers))} {{ }};"] if servers else []),
        *([f"DNSSL {' '.join(dict.fromkeys(names))} {{ }};"] if names else []),
    ]


def _on(value: bool) -> str:  # noqa: FBT001 - the value is what is rendered
    return "on" if value else "off"
