"""The options that dnsmasq hands to each port: its subnets', and its own.

They are given to a MAC address: each of its octets sets a tag, by lines that never
change, and a port's options ask for all six. Tags in a port's own line would do, but
dnsmasq 2.90 links those into lists on its stack, and frees them on SIGHUP.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from calico.model.ids import Invalid, Mac, SubnetId
from calico.model.records import Endpoint, HostRoute, Subnet
from calico.plan.dhcp_options import (
    CLASSLESS_ROUTES,
    MICROSOFT_ROUTES,
    is_domain,
    render_option,
    render_routes,
)
from calico.plan.dns import dns_servers
from calico.plan.subnets import subnet_of_ipv4


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Something that cannot be served: whose it is, what was wanted, and why not."""

    subject: str
    wish: str
    reason: str


def port_options(
    port: Endpoint,
    subnets: Iterable[Subnet],
    routes: Mapping[SubnetId, str],
    refused: list[Refused],
) -> Iterator[str]:
    """Return the lines of a port's options; those of its own override its subnets'.

    `subnets` are those of the port that are served; `routes` what `subnet_routes`
    returned for each. What cannot be handed out is added to `refused`.
    """
    mine = list(subnets)
    yield from _options4(port, mine, routes)
    yield from _options6(port, mine)
    yield from _own_options(port, refused)


def _tags(mac: Mac) -> str:
    """Return the condition that a client has a MAC address."""
    octets = enumerate(mac.split(":"))
    return ",".join(f"tag:m{place}{octet}" for place, octet in octets)


def mac_settings() -> str:
    """Return the settings that make each octet of a client's MAC address a tag."""
    lines = []
    for place in range(6):
        for value in range(256):
            pattern = ["*"] * 6
            pattern[place] = f"{value:02x}"
            lines.append(f"dhcp-mac=set:m{place}{value:02x},{':'.join(pattern)}\n")
    return "".join(lines)


def _options4(
    port: Endpoint, subnets: Iterable[Subnet], routes: Mapping[SubnetId, str]
) -> Iterator[str]:
    subnet = subnet_of_ipv4(port, subnets)
    if subnet is None:
        return
    tags = _tags(port.mac)
    yield f"{tags},option:router,{subnet.gateway}"
    servers = dns_servers(subnet)
    if servers:
        yield f"{tags},option:dns-server," + ",".join(map(str, servers))
    yield f"{tags},option:mtu,{subnet.mtu}"
    domain = _domain(subnet)
    if domain:
        yield f'{tags},option:domain-name,"{domain}"'
    if routes[subnet.id]:
        yield f"{tags},{CLASSLESS_ROUTES},{routes[subnet.id]}"
        yield f"{tags},{MICROSOFT_ROUTES},{routes[subnet.id]}"


def _options6(port: Endpoint, subnets: Iterable[Subnet]) -> Iterator[str]:
    mine = [s for s in subnets if s.prefix.version == 6]
    servers = [f"[{server}]" for subnet in mine for server in dns_servers(subnet)]
    domains = [domain for subnet in mine if (domain := _domain(subnet))]
    tags = _tags(port.mac)
    if servers:
        yield f"{tags},option6:dns-server," + ",".join(dict.fromkeys(servers))
    if domains:
        yield f"{tags},option6:domain-search," + ",".join(dict.fromkeys(domains))


def _domain(subnet: Subnet) -> str | None:
    domain = (subnet.dns_domain or "").rstrip(".")
    return domain if is_domain(domain) else None


def subnet_routes(subnet: Subnet, refused: list[Refused]) -> str:
    """Render a subnet's host routes, and the default: with 121, 3 is ignored (3442)."""
    default = IPv4Network("0.0.0.0/0")
    routes = [r for r in subnet.host_routes if r.destination.version == 4]
    if subnet.prefix.version == 6 or subnet.gateway is None:
        return ""
    if all(route.destination != default for route in routes):
        routes.append(HostRoute(destination=default, nexthop=subnet.gateway))
    try:
        return render_routes(routes)
    except Invalid as e:
        subject = f"subnet {subnet.id}"
        refused.append(Refused(subject=subject, wish="host routes", reason=str(e)))
        return ""


def _own_options(port: Endpoint, refused: list[Refused]) -> Iterator[str]:
    tags = _tags(port.mac)
    domain = (port.fqdn or "").partition(".")[2].rstrip(".")
    if is_domain(domain):
        yield f'{tags},option:domain-name,"{domain}"'
    for option in port.dhcp_options:
        try:
            yield render_option(tags, option)
        except Invalid as e:
            wish = f"DHCPv{option.version} option {option.name!r}"
            refused.append(
                Refused(subject=f"port {port.port}", wish=wish, reason=str(e))
            )
