"""BGP settings, peers and nodes as Calico v3 JSON, both ways.

A peer or setting that asks for what this project cannot do is refused with its name: a
session configured without the password that was asked for would be worse than none.
"""

from ipaddress import IPv4Address, IPv6Address

from calico.model.codec import parse_address, parse_interface
from calico.model.ids import Address, HostName, Invalid
from calico.model.records import BgpConfiguration, BgpPeer, Node
from calico.model.resource import (
    OPENSTACK,
    Json,
    Resource,
    encode,
    optional_text,
    parse,
)

_LAST_AS_NUMBER = 2**32 - 2  # RFC 7300 reserves the last one


def encode_bgp_configuration(
    configuration: BgpConfiguration, old: bytes | None = None
) -> bytes:
    """Return the cloud-wide settings as the BGPConfiguration `default`."""
    spec = {
        "asNumber": configuration.as_number,
        "nodeToNodeMeshEnabled": configuration.full_mesh,
    }
    return encode(Resource(kind="BGPConfiguration", name="default", spec=spec), old)


def parse_bgp_configuration(value: bytes) -> BgpConfiguration:
    """Return the cloud-wide settings in a BGPConfiguration's JSON."""
    spec = parse(value, "BGPConfiguration").spec
    _refuse_others(spec, {"asNumber", "nodeToNodeMeshEnabled", "logSeverityScreen"})
    defaults = BgpConfiguration()
    mesh = spec.get("nodeToNodeMeshEnabled")
    if not isinstance(mesh, bool | None):
        raise Invalid(f"nodeToNodeMeshEnabled is {mesh!r}")
    return BgpConfiguration(
        as_number=_as_number(spec) or defaults.as_number,
        full_mesh=defaults.full_mesh if mesh is None else mesh,
    )


def encode_bgp_peer(peer: BgpPeer, old: bytes | None = None) -> bytes:
    """Return a session that hosts keep as a BGPPeer's JSON."""
    spec = {
        "node": peer.node,
        "peerIP": str(peer.address),
        "asNumber": peer.as_number,
    }
    annotations = {f"{OPENSTACK}bfd": "true"} if peer.bfd else {}
    return encode(
        Resource(kind="BGPPeer", name=peer.name, annotations=annotations, spec=spec),
        old,
    )


def parse_bgp_peer(value: bytes) -> BgpPeer:
    """Return the session in a BGPPeer's JSON."""
    resource = parse(value, "BGPPeer")
    spec = resource.spec
    _refuse_others(spec, {"node", "peerIP", "asNumber"})
    as_number, node = _as_number(spec), optional_text(spec, "node")
    if as_number is None:
        raise Invalid("asNumber is missing")
    return BgpPeer(
        name=resource.name,
        address=parse_address(spec.get("peerIP")),
        as_number=as_number,
        node=HostName(node) if node else None,
        bfd=resource.annotations.get(f"{OPENSTACK}bfd") == "true",
    )


def encode_node(node: Node, old: bytes | None = None) -> bytes:
    """Return a host as a BGP speaker, as a Node's JSON."""
    bgp = {
        "ipv4Address": _host_prefix(node.address4),
        "ipv6Address": _host_prefix(node.address6),
        "asNumber": node.as_number,
    }
    return encode(
        Resource(
            kind="Node",
            name=node.name,
            labels=dict(node.labels),
            spec={"bgp": {name: value for name, value in bgp.items() if value}},
        ),
        old,
    )


def parse_node(value: bytes) -> Node:
    """Return the host in a Node's JSON."""
    resource = parse(value, "Node")
    bgp = resource.spec.get("bgp") or {}
    if not isinstance(bgp, dict):
        raise Invalid(f"bgp is {bgp!r}")
    address4 = _node_address(bgp, "ipv4Address")
    address6 = _node_address(bgp, "ipv6Address")
    if isinstance(address4, IPv6Address) or isinstance(address6, IPv4Address):
        raise Invalid("ipv4Address or ipv6Address of the other family")
    return Node(
        name=HostName(resource.name),
        address4=address4,
        address6=address6,
        as_number=_as_number(bgp),
        labels=tuple(sorted(resource.labels.items())),
    )


def _host_prefix(address: Address | None) -> str | None:
    return f"{address}/{address.max_prefixlen}" if address else None


def _node_address(bgp: Json, name: str) -> Address | None:
    written = bgp.get(name)
    if written is None:
        return None
    try:
        return parse_interface(written).ip
    except Invalid as e:
        raise Invalid(f"{name}: {e}") from e


def _as_number(spec: Json) -> int | None:
    written = spec.get("asNumber")
    if written is None:
        return None
    if isinstance(written, bool) or not isinstance(written, int | str):
        raise Invalid(f"asNumber {written!r}")
    try:
        number = int(written)
    except ValueError as e:
        raise Invalid(f"asNumber {written!r}") from e
    if not 1 <= number <= _LAST_AS_NUMBER:
        raise Invalid(f"asNumber {number}")
    return number


def _refuse_others(spec: Json, names: set[str]) -> None:
    unknown = {name for name, value in spec.items() if value} - names
    if unknown:
        raise Invalid(f"unsupported: {', '.join(sorted(unknown))}")
