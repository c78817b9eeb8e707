"""Neutron's dictionaries in, records out: the place where they die.

Pure. What cannot be expressed is left out and reported, never widened: a rule that is
not understood allows nothing (P1).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeVar

from calico.model.ids import (
    AddressGroupId,
    DeviceId,
    GroupId,
    HostName,
    Invalid,
    LogId,
    NetworkId,
    PortId,
    Prefix,
    ProjectId,
    SubnetId,
    parse_mac,
    tap_name,
)
from calico.model.logs import Log, parse_events
from calico.model.names import PortNames, is_name
from calico.model.records import (
    ICMP,
    PORT_PROTOCOLS,
    AddressGroup,
    AddressPair,
    DhcpOption,
    Endpoint,
    Forwarding,
    HostRoute,
    Member,
    Nat,
    Policy,
    PortRange,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    Subnet,
)
from calico.policy.ownership import Grounds, grounded
from calico.server.qos_rules import Rule as QosRule
from calico.server.qos_rules import floating_limits, limits, policy_of

NETWORK_TYPES = frozenset({"local", "flat"})
"""The types of networks that are this project's."""


# The names that the Neutron API accepts (neutron_lib's IP_PROTOCOL_MAP), in IANA's
# numbers. `any` and 0 differ: 0 is the protocol of that number.
_PROTOCOLS = {
    "hopopt": 0,
    "ip": 0,
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "udp": 17,
    "dccp": 33,
    "ipv6-encap": 41,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ospf": 89,
    "vrrp": 112,
    "pgm": 113,
    "sctp": 132,
    "udplite": 136,
}
_T = TypeVar("_T")

Neutron = Mapping[str, Any]
"""A resource as Neutron's plugin gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a port's own dictionary only points to, by id; rules by their policy's."""

    subnets: Mapping[str, Neutron]
    networks: Mapping[str, Neutron]
    group_names: Mapping[str, str]
    grounds: Grounds = field(default_factory=Grounds)
    floating: Mapping[str, Sequence[Neutron]] = field(default_factory=dict)
    forwardings: Mapping[str, Sequence[Neutron]] = field(default_factory=dict)
    qos_rules: Mapping[str, Sequence[Neutron]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Omitted:
    """A part that could not be expressed, and why; for the log."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} left out: {self.reason}"


def is_published(port: Neutron) -> bool:
    """Tell whether a port that this driver bound is to be served: in use and up.

    A port that is administratively down is not published at all, which cuts it off
    (S18).
    """
    return bool(
        port["admin_state_up"] and port.get("binding:host_id") and port["device_id"]
    )


def endpoint(port: Neutron, around: Surroundings) -> tuple[Endpoint, list[Omitted]]:
    """Return a port's endpoint, and what of it had to be left out.

    Raises Invalid where nothing useful would be left.
    """
    omitted: list[Omitted] = []
    gateways = [
        ip_address(gateway)
        for ip in port["fixed_ips"]
        if (gateway := around.subnets.get(ip["subnet_id"], {}).get("gateway_ip"))
    ]
    network = around.networks.get(port["network_id"], {})
    groups = frozenset(GroupId(g) for g in port.get("security_groups") or ())
    port_id = PortId(port["id"])
    qos, unlimited = limits(around.qos_rules.get(policy_of(port) or "", ()))
    omitted += _unlimited(unlimited)
    found = Endpoint(
        host=HostName(port["binding:host_id"]),
        device=DeviceId(port["device_id"]),
        port=port_id,
        interface=tap_name(port_id),
        mac=parse_mac(port["mac_address"]),
        network=NetworkId(port["network_id"]),
        project=ProjectId(port["project_id"] or ""),
        addresses=tuple(sorted(_fixed(port), key=lambda a: (a.version, a))),
        pairs=_parts(port.get("allowed_address_pairs"), pair, omitted),
        nats=_nats(port, around, omitted),
        forwardings=_forwardings(port, around, omitted),
        qos=qos,
        groups=groups,
        gateway4=next((g for g in gateways if isinstance(g, IPv4Address)), None),
        gateway6=next((g for g in gateways if isinstance(g, IPv6Address)), None),
        port_security=port.get("port_security_enabled", True),
        dhcp_options=_parts(port.get("extra_dhcp_opts"), dhcp_option, omitted),
        fqdn=_fqdn(port),
        aliases=_aliases(port, network),
        group_names=tuple(
            (group, around.group_names.get(group, "")) for group in sorted(groups)
        ),
        network_name=network.get("name") or "",
        created=_created(port),
    )
    found, refused = grounded(found, around.grounds)
    omitted += [Omitted(f"pair {one.prefix}", one.reason.value) for one in refused]
    return found, omitted


def _unlimited(rules: Iterable[tuple[QosRule, str]]) -> Iterable[Omitted]:
    return [Omitted(f"QoS rule {rule['id']}", reason) for rule, reason in rules]


def members(endpoint: Endpoint) -> frozenset[Member]:
    """Return an endpoint's entries in the member index.

    Neutron counts allowed address pairs among a member's addresses.
    """
    prefixes = {ip_network(a) for a in endpoint.addresses}
    prefixes |= {pair.prefix for pair in endpoint.pairs}
    return frozenset(
        Member(group=group, address=prefix, port=endpoint.port)
        for group in endpoint.groups
        for prefix in prefixes
    )


def names(endpoint: Endpoint) -> PortNames | None:
    """Return an endpoint's names in DNS; None if it has none that anybody could ask.

    They are its project's alone, also on a network that several projects share.
    """
    written = (name.lower() for name in (endpoint.fqdn or "", *endpoint.aliases))
    found = tuple(dict.fromkeys(name for name in written if is_name(name)))
    if not (found and endpoint.project and endpoint.addresses):
        return None
    return PortNames(
        project=endpoint.project,
        port=endpoint.port,
        names=found,
        addresses=endpoint.addresses,
    )


def subnet(subnet: Neutron, network: Neutron) -> Subnet:
    """Return a subnet's record; Invalid if Neutron holds something impossible."""
    gateway = subnet["gateway_ip"]
    return Subnet(
        id=SubnetId(subnet["id"]),
        network=NetworkId(subnet["network_id"]),
        prefix=_prefix(subnet["cidr"]),
        project=ProjectId(subnet["project_id"]) if subnet.get("project_id") else None,
        gateway=ip_address(gateway) if gateway else None,
        dhcp=subnet["enable_dhcp"],
        dns_servers=tuple(ip_address(a) for a in subnet["dns_nameservers"]),
        host_routes=tuple(
            HostRoute(
                destination=_prefix(route["destination"]),
                nexthop=ip_address(route["nexthop"]),
            )
            for route in subnet["host_routes"]
        ),
        ra_mode=subnet.get("ipv6_ra_mode"),
        address_mode=subnet.get("ipv6_address_mode"),
        mtu=network.get("mtu") or 1500,
        dns_domain=(network.get("dns_domain") or "").rstrip(".") or None,
    )


def policy(group: Neutron) -> tuple[Policy, list[Omitted]]:
    """Return a security group's policy, and the rules that had to be left out.

    A rule that is left out allows nothing; the others stay (P3).
    """
    omitted: list[Omitted] = []
    rules = sorted(group["security_group_rules"], key=lambda r: str(r["id"]))

    def direction(name: str) -> tuple[Rule, ...]:
        chosen = [r for r in rules if r["direction"] == name]
        return _parts(chosen, rule, omitted)

    return Policy(
        group=GroupId(group["id"]),
        name=group["name"] or "",
        ingress=direction("ingress"),
        egress=direction("egress"),
        stateful=group.get("stateful") is not False,
        created=_created(group),
    ), omitted


def rule(written: Neutron) -> Rule:
    """Return a security group rule; Invalid for one that cannot be expressed."""
    version = _version(written["ethertype"])
    number = protocol(written["protocol"], version)
    first, last = written["port_range_min"], written["port_range_max"]
    is_icmp = number == ICMP[version]
    if number not in PORT_PROTOCOLS and not is_icmp and first is not None:
        raise Invalid(f"ports with protocol {written['protocol']!r}")
    return Rule(
        version=version,
        protocol=number,
        ports=None if is_icmp else _ports(first, last),
        icmp_type=first if is_icmp else None,
        icmp_code=last if is_icmp else None,
        remote=_remote(written),
        id=written["id"],
    )


def protocol(name: str | int | None, version: int) -> int | None:
    """Return the number of a protocol in any of the forms that Neutron accepts.

    `name` may be a number, any case (P55), legacy (`icmpv6`), or ICMP's name of the
    other family (P3). Invalid for a name that nobody knows.
    """
    if name is None or str(name).lower() == "any":
        return None
    text = str(name).lower()
    try:
        number = _PROTOCOLS[text] if text in _PROTOCOLS else int(text)
    except ValueError as e:
        raise Invalid(f"protocol {name!r} is unknown") from e
    # Neutron takes `icmp` in an IPv6 rule for ICMPv6.
    return ICMP[version] if number == ICMP[4] else number


def address_group(group: Neutron) -> AddressGroup:
    """Return an address group's record."""
    prefixes = {_prefix(address) for address in group["addresses"]}
    return AddressGroup(
        id=AddressGroupId(group["id"]),
        name=group["name"] or "",
        prefixes=tuple(sorted(prefixes, key=lambda p: (p.version, p))),
        created=_created(group),
    )


def log(log: Neutron) -> Log:
    """Return a log of security groups; Invalid for an event that is none."""
    group, port = log["resource_id"], log["target_id"]
    return Log(
        id=LogId(log["id"]),
        project=ProjectId(log["project_id"]),
        group=GroupId(group) if group else None,
        port=PortId(port) if port else None,
        events=parse_events(log["event"]),
        name=log["name"] or "",
    )


def _fixed(port: Neutron) -> Iterable[IPv4Address | IPv6Address]:
    return {ip_address(ip["ip_address"]) for ip in port["fixed_ips"]}


def pair_prefixes(port: Neutron) -> tuple[Prefix, ...]:
    """Return the prefixes of a port's pairs, as far as they are prefixes."""
    pairs = _parts(port.get("allowed_address_pairs"), pair, [])
    return tuple(one.prefix for one in pairs)


def pair(pair: Neutron) -> AddressPair:
    """Return an allowed address pair; Invalid for what is none."""
    return AddressPair(
        prefix=_prefix(pair["ip_address"]), mac=parse_mac(pair["mac_address"])
    )


def _nats(
    port: Neutron, around: Surroundings, omitted: list[Omitted]
) -> tuple[Nat, ...]:
    own = set(_fixed(port))

    def nat(floating: Neutron) -> Nat:
        internal = ip_address(floating["fixed_ip_address"])
        if internal not in own:
            raise Invalid(f"{internal} is no address of the port")
        rules = around.qos_rules.get(policy_of(floating) or "", ())
        is_its_own = floating.get("qos_policy_id") is not None
        qos, unlimited = floating_limits(rules, own=is_its_own)
        omitted.extend(_unlimited(unlimited))
        return Nat(
            internal=internal,
            external=ip_address(floating["floating_ip_address"]),
            qos=qos,
        )

    found = _parts(around.floating.get(port["id"]), nat, omitted)
    return tuple(sorted(found, key=lambda one: (one.external.version, one.external)))


def _forwardings(
    port: Neutron, around: Surroundings, omitted: list[Omitted]
) -> tuple[Forwarding, ...]:
    found = _parts(around.forwardings.get(port["id"]), forwarding, omitted)
    return tuple(sorted(found, key=lambda f: (f.external, f.protocol, f.ports.first)))


def forwarding(row: Neutron) -> Forwarding:
    """Return what ports of a floating IP lead to; Invalid for what hosts cannot do."""
    number = protocol(row["protocol"], 4)
    if number is None:
        raise Invalid("no protocol")
    return Forwarding(
        external=IPv4Address(row["floating_ip_address"]),
        protocol=number,
        ports=PortRange(
            first=row["external_port_start"], last=row["external_port_end"]
        ),
        internal=IPv4Address(row["internal_ip_address"]),
        to=PortRange(first=row["internal_port_start"], last=row["internal_port_end"]),
    )


def dhcp_option(option: Neutron) -> DhcpOption:
    """Return an extra DHCP option; Invalid for one that cannot be given."""
    return DhcpOption(
        name=option["opt_name"],
        value=option["opt_value"],
        version=option.get("ip_version") or 4,
    )


def _parts(
    written: Iterable[Neutron] | None,
    translate: Callable[[Neutron], _T],
    omitted: list[Omitted],
) -> tuple[_T, ...]:
    parts = []
    for one in written or ():
        try:
            parts.append(translate(one))
        except Invalid as e:
            omitted.append(Omitted(str(dict(one)), str(e)))
    return tuple(parts)


def _fqdn(port: Neutron) -> str | None:
    """Return a port's name in DNS, if it was given one.

    Without a `dns_name` Neutron makes one up from the address, in a domain that may not
    be the network's.
    """
    if not port.get("dns_name"):
        return None
    names = [a.get("fqdn", "") for a in port.get("dns_assignment") or ()]
    return next((name.rstrip(".") for name in names if name), None)


def _aliases(port: Neutron, network: Neutron) -> tuple[str, ...]:
    """Return a port's name in the domains that it and its network have of their own.

    Neutron assigns it one in the cloud's domain. A guest completes names with its
    network's.
    """
    name, fqdn = port.get("dns_name"), _fqdn(port)
    if not name or name.endswith("."):
        return ()
    domains = [(of.get("dns_domain") or "").rstrip(".") for of in (port, network)]
    names = dict.fromkeys(f"{name}.{domain}" for domain in domains if domain)
    return tuple(alias for alias in names if alias != fqdn)


def _created(resource: Neutron) -> str | None:
    match resource.get("created_at"):
        case datetime() as moment:  # of the database, in UTC
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        case str(text) if text:  # of the API
            return text
        case _:
            return None


def _version(ethertype: str) -> int:
    match str(ethertype).lower():
        case "ipv4":
            return 4
        case "ipv6":
            return 6
        case _:
            raise Invalid(f"ethertype {ethertype!r}")


def _ports(first: int | None, last: int | None) -> PortRange | None:
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise Invalid(f"ports {first}:{last}")
    return PortRange(first=first, last=last)


def _remote(written: Neutron) -> Prefix | RemoteGroup | RemoteAddressGroup | None:
    if group := written.get("remote_group_id"):
        return RemoteGroup(GroupId(group))
    if group := written.get("remote_address_group_id"):
        return RemoteAddressGroup(AddressGroupId(group))
    prefix = written.get("remote_ip_prefix")
    return _prefix(prefix) if prefix else None


def _prefix(text: Any) -> Prefix:
    try:
        return ip_network(str(text), strict=False)
    except ValueError as e:
        raise Invalid(f"{text!r} is not a prefix") from e
