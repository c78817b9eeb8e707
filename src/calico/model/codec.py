"""Endpoints, subnets, groups and members as the JSON that etcd holds, both ways.

The resources are the published Calico v3 ones. What Neutron knows and they have no
field for goes into annotations, which other readers of the model ignore.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, TypeVar

import msgspec

from calico.model.ids import (
    Address,
    DeviceId,
    GroupId,
    HostName,
    Interface,
    InterfaceName,
    Invalid,
    Mac,
    NetworkId,
    PortId,
    Prefix,
    ProjectId,
    SubnetId,
    parse_mac,
)
from calico.model.keys import Keys, namespace
from calico.model.qos import encode_qos, parse_controls, parse_qos
from calico.model.records import (
    AddressPair,
    DhcpOption,
    Endpoint,
    Forwarding,
    HostRoute,
    Nat,
    PortRange,
    Subnet,
)
from calico.model.resource import (
    FORMER,
    OPENSTACK,
    Json,
    Resource,
    decode,
    encode,
    items,
    label_value,
    optional_text,
    parse,
    parse_json,
    text,
)

_T = TypeVar("_T")
_A = TypeVar("_A", IPv4Address, IPv6Address)

SG_LABEL = "sg.projectcalico.org/openstack-"
SG_NAME_LABEL = "sg-name.projectcalico.org/openstack-"
# Other readers refuse an endpoint with a label whose name is too long for Kubernetes;
# other writers cut it here, and operators' policies name it so.
_SG_NAME_LENGTH = 63 - len(SG_NAME_LABEL)

# What Nova makes, and all that can stand in quotes in other programs' languages.
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]+")


def parse_address(value: object) -> Address:
    """Return an address; Invalid for anything else.

    One with a scope (fe80::1%eth0) is refused: it means something on one host only, and
    a scope may be any text, line breaks too, on its way into a daemon's settings.
    """
    return _unscoped(value, ip_address, "an address")


def parse_prefix(value: object) -> Prefix:
    """Return a prefix, host bits cleared; Invalid for anything else."""
    return _unscoped(value, partial(ip_network, strict=False), "a prefix")


def parse_interface(value: object) -> Interface:
    """Return an address with the prefix it is in; Invalid for anything else."""
    return _unscoped(value, ip_interface, "an address")


def _unscoped(value: object, read: Callable[[str], _T], what: str) -> _T:
    # Not str(): the number 1 is an address to ipaddress, and to nobody who wrote it.
    if not isinstance(value, str) or "%" in value:
        raise Invalid(f"{value!r} is not {what}")
    try:
        return read(value)
    except ValueError as e:
        raise Invalid(f"{value!r} is not {what}") from e


def encode_endpoint(
    endpoint: Endpoint, keys: Keys | None = None, old: bytes | None = None
) -> bytes:
    """Return an endpoint as a WorkloadEndpoint's JSON.

    `keys` names the region; `old` is the stored value, whose unknown fields are kept.
    """
    keys = keys or Keys()
    pairs = [str(pair.prefix) for pair in endpoint.pairs]
    spec: Json = {
        "orchestrator": "openstack",
        "workload": endpoint.device,
        "node": endpoint.host,
        "endpoint": endpoint.port,
        "interfaceName": endpoint.interface,
        "mac": endpoint.mac,
        # The fixed addresses stand first: the reader takes the pairs off the end.
        "ipNetworks": [str(ip_network(a)) for a in endpoint.addresses] + pairs,
        "allowedIps": pairs or None,
        "ipv4Gateway": _optional(endpoint.gateway4),
        "ipv6Gateway": _optional(endpoint.gateway6),
        "ipNATs": [
            {"internalIP": str(nat.internal), "externalIP": str(nat.external)}
            for nat in endpoint.nats
        ]
        or None,
        "qosControls": encode_qos(endpoint.qos),
    }
    return encode(
        Resource(
            kind="WorkloadEndpoint",
            name=keys.endpoint_name(endpoint.host, endpoint.device, endpoint.port),
            namespace=namespace(keys.region),
            labels=_endpoint_labels(endpoint, keys),
            annotations=_endpoint_annotations(endpoint),
            spec=spec,
            created=endpoint.created,
        ),
        old,
    )


def _endpoint_labels(endpoint: Endpoint, keys: Keys) -> dict[str, str]:
    names = dict(endpoint.group_names)
    labels = {
        "projectcalico.org/namespace": namespace(keys.region),
        "projectcalico.org/orchestrator": "openstack",
        f"{OPENSTACK}project-id": label_value(endpoint.project),
        f"{OPENSTACK}project-name": label_value(endpoint.project_name),
        f"{OPENSTACK}project-parent-id": label_value(endpoint.project_parent),
        f"{OPENSTACK}network-name": label_value(endpoint.network_name),
        # Operators' policies may select by these.
        f"{FORMER}project-id": label_value(endpoint.project),
        f"{FORMER}network-name": label_value(endpoint.network_name),
    }
    for group in sorted(endpoint.groups):
        name = names.get(group, "")
        labels[SG_LABEL + group] = label_value(name)
        if short := label_value(name[:_SG_NAME_LENGTH]):
            labels[SG_NAME_LABEL + short] = group
    return labels


def _endpoint_annotations(endpoint: Endpoint) -> dict[str, str]:
    notes: dict[str, Any] = {
        "pair-macs": [pair.mac for pair in endpoint.pairs],
        "granted-pairs": [str(prefix) for prefix in endpoint.granted],
        "dhcp-options": [[o.version, o.name, o.value] for o in endpoint.dhcp_options],
        "group-names": dict(endpoint.group_names),
        "aliases": endpoint.aliases,
        "floating-qos": {
            str(nat.external): controls
            for nat in endpoint.nats
            if (controls := encode_qos(nat.qos))
        },
        "port-forwardings": [encode_forwarding(f) for f in endpoint.forwardings],
    }
    texts = {
        "network-id": endpoint.network,
        "project-id": endpoint.project,
        "network-name": endpoint.network_name,
        "project-name": endpoint.project_name,
        "project-parent-id": endpoint.project_parent,
        "fqdn": endpoint.fqdn or "",
        "port-security": "" if endpoint.port_security else "disabled",
        "arriving-from": endpoint.arriving_from or "",
        "leaving-to": endpoint.leaving_to or "",
    }
    annotations = {
        OPENSTACK + name: msgspec.json.encode(note, order="sorted").decode()
        for name, note in notes.items()
        if note
    }
    return annotations | {OPENSTACK + k: v for k, v in texts.items() if v}


def parse_endpoint(value: bytes) -> Endpoint:
    """Return the endpoint in a WorkloadEndpoint's JSON; Invalid says what is wrong."""
    resource = parse(value, "WorkloadEndpoint")
    spec, notes = resource.spec, _Notes(resource)
    mac = parse_mac(text(spec, "mac"))
    prefixes = [parse_prefix(p) for p in items(spec, "ipNetworks")]
    allowed = [parse_prefix(p) for p in items(spec, "allowedIps")]
    macs = notes.json("pair-macs", list) or [mac] * len(allowed)
    if len(macs) != len(allowed):
        raise Invalid(f"{len(allowed)} allowedIps but {len(macs)} pair-macs")
    return Endpoint(
        host=HostName(text(spec, "node")),
        device=DeviceId(text(spec, "workload")),
        port=PortId(text(spec, "endpoint")),
        interface=_interface_name(spec),
        mac=mac,
        network=NetworkId(notes.text("network-id")),
        project=ProjectId(notes.text("project-id")),
        addresses=_fixed_addresses(prefixes, allowed),
        pairs=tuple(
            AddressPair(prefix=prefix, mac=_pair_mac(m))
            for prefix, m in zip(allowed, macs, strict=True)
        ),
        granted=tuple(parse_prefix(p) for p in notes.json("granted-pairs", list)),
        nats=_nats(items(spec, "ipNATs"), notes.json("floating-qos", dict)),
        forwardings=tuple(
            parse_forwarding(entry) for entry in notes.json("port-forwardings", list)
        ),
        qos=parse_qos(spec),
        groups=frozenset(
            GroupId(name.removeprefix(SG_LABEL))
            for name in resource.labels
            if name.startswith(SG_LABEL)
        ),
        gateway4=_gateway(spec, "ipv4Gateway", IPv4Address),
        gateway6=_gateway(spec, "ipv6Gateway", IPv6Address),
        port_security=notes.text("port-security") != "disabled",
        dhcp_options=tuple(
            _dhcp_option(entry) for entry in notes.json("dhcp-options", list)
        ),
        fqdn=notes.text("fqdn") or None,
        aliases=tuple(_text(entry) for entry in notes.json("aliases", list)),
        group_names=_group_names(notes.json("group-names", dict)),
        network_name=notes.text("network-name"),
        project_name=notes.text("project-name"),
        project_parent=notes.text("project-parent-id"),
        arriving_from=HostName(notes.text("arriving-from")) or None,
        leaving_to=HostName(notes.text("leaving-to")) or None,
    )


class _Notes:
    """The annotations of ours on a resource."""

    def __init__(self, resource: Resource) -> None:
        self._annotations = resource.annotations

    def text(self, name: str) -> str:
        return self._annotations.get(OPENSTACK + name, "")

    def json(self, name: str, kind: type[_T]) -> _T:
        written = self.text(name)
        try:
            note = decode(written) if written else kind()
        except Invalid as e:
            raise Invalid(f"annotation {name}: {e}") from e
        if not isinstance(note, kind):
            raise Invalid(f"annotation {name} is not a {kind.__name__}")
        return note


def _fixed_addresses(
    prefixes: Sequence[Prefix], allowed: Sequence[Prefix]
) -> tuple[Address, ...]:
    # Another writer may order them otherwise; then what is not a pair is fixed.
    if allowed and list(prefixes[-len(allowed) :]) == list(allowed):
        fixed = list(prefixes[: -len(allowed)])
    else:
        fixed = [prefix for prefix in prefixes if prefix not in allowed]
    for prefix in fixed:
        if prefix.prefixlen != prefix.max_prefixlen:
            raise Invalid(f"ipNetworks: fixed address {prefix} is not one address")
    return tuple(prefix.network_address for prefix in fixed)


def _interface_name(spec: Json) -> InterfaceName:
    name = text(spec, "interfaceName")
    if not _INTERFACE.fullmatch(name):
        raise Invalid(f"interface name {name!r}")
    return InterfaceName(name)


def _text(written: object) -> str:
    if not isinstance(written, str):
        raise Invalid(f"aliases entry {written!r}")
    return written


def _pair_mac(written: object) -> Mac:
    if not isinstance(written, str):
        raise Invalid(f"pair-macs entry {written!r}")
    return parse_mac(written)


def _nats(entries: Sequence[object], limits: Json) -> tuple[Nat, ...]:
    """Return the floating IPs, with their `limits` by address."""
    return tuple(_nat(entry, limits) for entry in entries)


def _nat(entry: object, limits: Json) -> Nat:
    if not isinstance(entry, dict):
        raise Invalid(f"ipNATs entry {entry!r}")
    external = parse_address(entry.get("externalIP"))
    return Nat(
        internal=parse_address(entry.get("internalIP")),
        external=external,
        qos=parse_controls(limits.get(str(external), {})),
    )


def encode_forwarding(forwarding: Forwarding) -> list[str | int]:
    """Return a forwarding as it is stored: an entry of a list in an annotation."""
    ports, to = forwarding.ports, forwarding.to
    outside = (str(forwarding.external), forwarding.protocol, ports.first, ports.last)
    return [*outside, str(forwarding.internal), to.first, to.last]


def parse_forwarding(entry: object) -> Forwarding:
    """Return what such an entry says; Invalid names one that says nothing."""
    match entry:
        case [
            str(external),
            int(protocol),
            int(first),
            int(last),
            str(internal),
            int(to_first),
            int(to_last),
        ]:
            pass
        case _:
            raise Invalid(f"port-forwardings entry {entry!r}")
    outside, inside = parse_address(external), parse_address(internal)
    if not (isinstance(outside, IPv4Address) and isinstance(inside, IPv4Address)):
        raise Invalid(f"port-forwardings entry {entry!r} is not of IPv4")
    return Forwarding(
        external=outside,
        protocol=protocol,
        ports=PortRange(first=first, last=last),
        internal=inside,
        to=PortRange(first=to_first, last=to_last),
    )


def _group_names(written: Json) -> tuple[tuple[GroupId, str], ...]:
    if not all(isinstance(name, str) for name in written.values()):
        raise Invalid(f"group-names {written!r}")
    return tuple(sorted((GroupId(group), name) for group, name in written.items()))


def _gateway(spec: Json, name: str, kind: type[_A]) -> _A | None:
    if spec.get(name) is None:
        return None
    address = parse_address(spec[name])
    if not isinstance(address, kind):
        raise Invalid(f"{name} {address} is of the other family")
    return address


def _dhcp_option(entry: object) -> DhcpOption:
    match entry:
        case [int(version), str(name), str(value)]:
            return DhcpOption(version=version, name=name, value=value)
        case _:
            raise Invalid(f"dhcp-options entry {entry!r}")


def _optional(value: object | None) -> str | None:
    return None if value is None else str(value)


def encode_subnet(subnet: Subnet, old: bytes | None = None) -> bytes:
    """Return a subnet's JSON; `old` is the stored value, whose unknown fields stay."""
    try:
        kept = parse_json(old) if old is not None else {}
    except Invalid:
        kept = {}
    written = kept | {
        "network_id": subnet.network,
        "project_id": subnet.project,
        "cidr": str(subnet.prefix),
        "gateway_ip": _optional(subnet.gateway),
        "enable_dhcp": subnet.dhcp,
        "dns_servers": [str(a) for a in subnet.dns_servers],
        "host_routes": [
            {"destination": str(r.destination), "nexthop": str(r.nexthop)}
            for r in subnet.host_routes
        ],
        "ipv6_ra_mode": subnet.ra_mode,
        "ipv6_address_mode": subnet.address_mode,
        "mtu": subnet.mtu,
        "dns_domain": subnet.dns_domain,
    }
    return msgspec.json.encode(written, order="sorted")


def parse_subnet(subnet_id: SubnetId, value: bytes) -> Subnet:
    """Return the subnet of that id in its JSON; Invalid says what is wrong."""
    body = parse_json(value)
    gateway, mtu, dhcp = (
        body.get("gateway_ip"),
        body.get("mtu"),
        body.get("enable_dhcp"),
    )
    project = body.get("project_id")
    if not isinstance(project, str | None):
        raise Invalid(f"project_id is {project!r}")
    if not isinstance(mtu, int | None) or not isinstance(dhcp, bool | None):
        raise Invalid(f"mtu is {mtu!r}, enable_dhcp is {dhcp!r}")
    return Subnet(
        id=subnet_id,
        network=NetworkId(text(body, "network_id")),
        prefix=parse_prefix(body.get("cidr")),
        project=ProjectId(project) if project else None,
        gateway=None if gateway is None else parse_address(gateway),
        dhcp=True if dhcp is None else dhcp,
        dns_servers=tuple(parse_address(a) for a in items(body, "dns_servers")),
        host_routes=tuple(_host_route(r) for r in items(body, "host_routes")),
        ra_mode=optional_text(body, "ipv6_ra_mode"),
        address_mode=optional_text(body, "ipv6_address_mode"),
        mtu=1500 if mtu is None else mtu,
        dns_domain=optional_text(body, "dns_domain"),
    )


def _host_route(entry: object) -> HostRoute:
    if not isinstance(entry, dict):
        raise Invalid(f"host route {entry!r}")
    return HostRoute(
        destination=parse_prefix(entry.get("destination")),
        nexthop=parse_address(entry.get("nexthop")),
    )
