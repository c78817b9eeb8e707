"""Builds a topology's links, addresses and kernel settings in namespaces."""

from collections import defaultdict
from collections.abc import Mapping
from ipaddress import IPv4Address

from calico.lab import namespaces
from calico.lab.paths import CONTROL, LabPaths
from calico.lab.topology import (
    CONTROL_ADDRESS,
    INTERNET_WEB4,
    INTERNET_WEB6,
    MANAGEMENT,
    BgpMode,
    Kind,
    Node,
    Topology,
)

MANAGEMENT_INTERFACE = "mgmt"

# Routers and hosts forward; nobody but a guest listens to router advertisements; errors
# are not rationed, so that a traceroute shows every hop.
_ROUTING: Mapping[str, str] = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.fib_multipath_hash_policy": "1",
    "net.ipv6.fib_multipath_hash_policy": "1",
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.conf.default.forwarding": "1",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
# Links are point to point: nothing to detect, and a second saved.
_NO_DAD: Mapping[str, str] = {"net.ipv6.conf.default.accept_dad": "0"}


def build_control(paths: LabPaths) -> None:
    """Make the control node's namespace and the management bridge inside it."""
    control = paths.netns(CONTROL)
    namespaces.create([control])
    namespaces.ip_batch(
        [
            f"link add {MANAGEMENT_INTERFACE} type bridge",
            _add_management(CONTROL_ADDRESS),
            f"link set {MANAGEMENT_INTERFACE} up",
        ],
        netns=control,
    )


def build(paths: LabPaths, topology: Topology) -> None:
    """Make the namespaces of all hosts and routers, and the cables between them.

    The control node must be there: hosts get an interface on its bridge. Raises
    LabFailed; what was made until then is the caller's to delete, by prefix.
    """
    namespaces.create([paths.netns(node.name) for node in topology.nodes])
    for node in topology.nodes:
        namespaces.write_sysctls(paths.netns(node.name), {**_ROUTING, **_NO_DAD})
    commands = _links(paths, topology)
    for node in topology.nodes:
        commands[node.name] += _addresses(topology, node)
    for name in (*(n.name for n in topology.nodes), CONTROL):
        namespaces.ip_batch(commands[name], netns=paths.netns(name))
    for host in topology.hosts:
        _settle(paths, host)


def _links(paths: LabPaths, topology: Topology) -> dict[str, list[str]]:
    """Return commands that make the cables; a node makes those to nodes behind it."""
    commands: dict[str, list[str]] = defaultdict(list)
    for link in topology.links:
        commands[link.upper.node.name].append(
            f"link add {link.upper.interface} type veth peer "
            f"name {link.lower.interface} netns {paths.netns(link.lower.node.name)}"
        )
    for host in topology.hosts:
        commands[host.name].append(
            f"link add {MANAGEMENT_INTERFACE} type veth peer "
            f"name {host.name} netns {paths.netns(CONTROL)}"
        )
        commands[CONTROL] += [
            f"link set {host.name} master {MANAGEMENT_INTERFACE}",
            f"link set {host.name} up",
        ]
    return commands


def _addresses(topology: Topology, node: Node) -> list[str]:
    commands = []
    for own, _ in topology.adjacent(node):
        commands += [
            f"address add {own.address4} dev {own.interface}",
            f"address add {own.address6} dev {own.interface} nodad",
            f"link set {own.interface} up",
        ]
    if node.management:
        commands += [
            _add_management(node.management),
            f"link set {MANAGEMENT_INTERFACE} up",
        ]
    own_addresses = [node.loopback4, node.loopback6]
    if node.kind is Kind.INTERNET:
        own_addresses += [INTERNET_WEB4, INTERNET_WEB6]
    commands += [f"address add {a} dev lo" for a in own_addresses if a]
    return commands + _static_routes(topology, node)


def _add_management(address: IPv4Address) -> str:
    return f"address add {address}/{MANAGEMENT.prefixlen} dev {MANAGEMENT_INTERFACE}"


def _static_routes(topology: Topology, node: Node) -> list[str]:
    """Return a host's default route where its ToR is no BGP neighbour of its own.

    The metric is below BIRD's: it is how the host reaches BGP next hops.
    """
    if node.kind is not Kind.HOST or topology.bgp is not BgpMode.MESH:
        return []
    _, tor = topology.uplink(node)
    return [
        f"route add default via {tor.address4.ip} metric 16",
        f"route add ::/0 via {tor.address6.ip} metric 16",
    ]


def _settle(paths: LabPaths, host: Node) -> None:
    """Close the way from a host's management network into the fabric."""
    namespaces.write_sysctls(
        paths.netns(host.name),
        {
            f"net.ipv4.conf.{MANAGEMENT_INTERFACE}.forwarding": "0",
            f"net.ipv6.conf.{MANAGEMENT_INTERFACE}.forwarding": "0",
            # What appears from now on is instances', who do detect duplicates.
            "net.ipv6.conf.default.accept_dad": "1",
        },
    )
