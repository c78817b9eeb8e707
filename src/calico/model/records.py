"""The records that the Neutron side publishes and the hosts serve.

Each validates itself: one that breaks its rules cannot exist, so that no code behind
the parser has to ask again. Collections are sorted tuples or frozensets, which makes
equality and text output stable. `created` is when Neutron made the object, in RFC 3339:
written for people and other tools, never read back, and no part of equality.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from calico.model.ids import (
    Address,
    AddressGroupId,
    DeviceId,
    GroupId,
    HostName,
    InterfaceName,
    Invalid,
    Mac,
    NetworkId,
    PortId,
    Prefix,
    ProjectId,
    SubnetId,
)
from calico.model.qos import UNLIMITED, Qos

_NAME = re.compile(r"[0-9A-Za-z_-]{1,48}")
PORT_PROTOCOLS = frozenset({6, 17, 132})  # TCP, UDP, SCTP
ICMP = {4: 1, 6: 58}  # the protocol number of ICMP in each IP version


def _check_name(text: str, what: str) -> None:
    """Refuse what could not be part of a name in a host's rules."""
    if not _NAME.fullmatch(text):
        raise Invalid(f"{what} {text!r} is not made of letters, digits, '-' and '_'")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPair:
    """An allowed address pair: what a port may use besides its fixed addresses."""

    prefix: Prefix
    mac: Mac


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """A floating IP, `external`, and the port's fixed address that it stands for.

    Hosts translate IPv4 only, and refuse any other by name (policy.floating). `qos` is
    what may pass by it at most, besides what the port may have: bandwidth.
    """

    internal: Address
    external: Address
    qos: Qos = UNLIMITED

    def __post_init__(self) -> None:
        if self.qos != Qos(ingress=self.qos.ingress, egress=self.qos.egress):
            raise Invalid(
                f"floating IP {self.external}: limited in more than bandwidth"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """TCP, UDP or SCTP ports, both ends included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= 65535:
            raise Invalid(f"ports {self.first}:{self.last}")

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if len(self) == 1 else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """Ports of a floating IP, `external`, that lead to ports of an address.

    As many on either side, one to one in order, or many to a single one.
    """

    external: IPv4Address
    protocol: int
    ports: PortRange
    internal: IPv4Address
    to: PortRange

    def __post_init__(self) -> None:
        if self.protocol not in PORT_PROTOCOLS:
            raise Invalid(f"{self}: protocol {self.protocol} has no ports")
        if not (self.ports.first and self.to.first):
            raise Invalid(f"{self}: port 0")
        if len(self.to) not in {1, len(self.ports)}:
            raise Invalid(f"{self}: {len(self.ports)} ports to {len(self.to)}")

    def __str__(self) -> str:
        return (
            f"forwarding of {self.external}:{self.ports} to {self.internal}:{self.to}"
        )

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield each port of the floating IP, and the one that it leads to."""
        step = 0 if len(self.to) == 1 else 1
        for place in range(len(self.ports)):
            yield self.ports.first + place, self.to.first + step * place


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpOption:
    """One of Neutron's extra_dhcp_opts: a name or number, a value, a family (4, 6)."""

    name: str
    value: str
    version: int

    def __post_init__(self) -> None:
        if self.version not in {4, 6}:
            raise Invalid(f"DHCP option {self.name!r}: IP version {self.version}")
        for text in (self.name, self.value):
            # P54: a line break would end the daemon's option and begin another line.
            if any(ord(c) < 32 or ord(c) == 127 for c in text):
                raise Invalid(f"DHCP option {self.name!r}: control character")
        if not self.name:
            raise Invalid("DHCP option without a name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A Neutron port that a host serves (WorkloadEndpoint in the datastore).

    `addresses` are the fixed IPs; `pairs` the allowed address pairs; `groups` the
    security groups. `port_security` False lifts anti-spoofing and groups. The names are
    for people and existing tools only (labels), nothing is decided by them. `granted`
    are what of the pairs rests on more than the project's subnets (policy.ownership).
    `nats` are the floating IPs, `forwardings` those of which it serves single ports, be
    they its own or another port's, `qos` what it may send and be sent at most.
    `arriving_from` is the host that the instance still runs on, `leaving_to` the one
    that it moves to (live migration). `aliases` are names in DNS besides `fqdn`.
    """

    host: HostName
    device: DeviceId
    port: PortId
    interface: InterfaceName
    mac: Mac
    network: NetworkId
    project: ProjectId
    addresses: tuple[Address, ...] = ()
    pairs: tuple[AddressPair, ...] = ()
    granted: tuple[Prefix, ...] = ()
    nats: tuple[Nat, ...] = ()
    forwardings: tuple[Forwarding, ...] = ()
    qos: Qos = UNLIMITED
    groups: frozenset[GroupId] = frozenset()
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None
    port_security: bool = True
    dhcp_options: tuple[DhcpOption, ...] = ()
    fqdn: str | None = None
    aliases: tuple[str, ...] = ()
    group_names: tuple[tuple[GroupId, str], ...] = ()
    network_name: str = ""
    project_name: str = ""
    project_parent: str = ""
    arriving_from: HostName | None = None
    leaving_to: HostName | None = None
    created: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.arriving_from and self.leaving_to:
            raise Invalid(f"port {self.port}: arrives and leaves at once")
        for name in ("host", "device", "port", "interface"):
            if not getattr(self, name):
                raise Invalid(f"endpoint of port {self.port!r}: empty {name}")
        if len(self.interface) > 15:  # IFNAMSIZ - 1
            raise Invalid(f"port {self.port}: interface name {self.interface!r}")
        for group in self.groups:
            _check_name(group, f"port {self.port}: security group")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoute:
    """A route that DHCP hands to the instances of a subnet."""

    destination: Prefix
    nexthop: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A Neutron subnet, as far as hosts need it: DHCP, RA, and whose space it is.

    `ra_mode` and `address_mode` are Neutron's ipv6_ra_mode and ipv6_address_mode:
    "slaac", "dhcpv6-stateful", "dhcpv6-stateless" or None. `mtu` in bytes. `project`
    None is unknown: no project owns the subnet.
    """

    id: SubnetId
    network: NetworkId
    prefix: Prefix
    project: ProjectId | None = None
    gateway: Address | None = None
    dhcp: bool = True
    dns_servers: tuple[Address, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()
    ra_mode: str | None = None
    address_mode: str | None = None
    mtu: int = 1500
    dns_domain: str | None = None

    def __post_init__(self) -> None:
        for mode in (self.ra_mode, self.address_mode):
            if mode not in {None, "slaac", "dhcpv6-stateful", "dhcpv6-stateless"}:
                raise Invalid(f"subnet {self.id}: IPv6 mode {mode!r}")
        if self.gateway is not None and self.gateway.version != self.prefix.version:
            raise Invalid(f"subnet {self.id}: gateway {self.gateway} of other family")
        if not 68 <= self.mtu <= 65535:
            raise Invalid(f"subnet {self.id}: MTU {self.mtu}")


@dataclass(frozen=True, slots=True)
class RemoteGroup:
    """The members of a security group, as a rule's remote end."""

    group: GroupId

    def __post_init__(self) -> None:
        _check_name(self.group, "remote group")


@dataclass(frozen=True, slots=True)
class RemoteAddressGroup:
    """The prefixes of an address group, as a rule's remote end."""

    address_group: AddressGroupId

    def __post_init__(self) -> None:
        _check_name(self.address_group, "remote address group")


Remote = Prefix | RemoteGroup | RemoteAddressGroup
"""The far end of a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One allow rule of a security group. None means any, everywhere.

    `version` is the IP version, `protocol` an IP protocol number.
    """

    version: int
    protocol: int | None = None
    ports: PortRange | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    remote: Remote | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if self.version not in {4, 6}:
            raise Invalid(f"rule {self.id}: IP version {self.version}")
        if self.id is not None:
            _check_name(self.id, "rule")
        if self.protocol is not None and not 0 <= self.protocol <= 255:
            raise Invalid(f"rule {self.id}: protocol {self.protocol}")
        if self.ports is not None and self.protocol not in PORT_PROTOCOLS:
            raise Invalid(f"rule {self.id}: ports need TCP, UDP or SCTP")
        if self.icmp_type is not None and self.protocol != ICMP[self.version]:
            raise Invalid(f"rule {self.id}: an ICMP type needs the family's ICMP")
        if self.icmp_code is not None and self.icmp_type is None:
            raise Invalid(f"rule {self.id}: an ICMP code needs a type")
        if isinstance(self.remote, IPv4Network | IPv6Network) and (
            self.remote.version != self.version
        ):
            raise Invalid(f"rule {self.id}: {self.remote} is not IPv{self.version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A security group and its rules (NetworkPolicy in the datastore)."""

    group: GroupId
    name: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    stateful: bool = True
    created: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_name(self.group, "security group")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressGroup:
    """A Neutron address group (NetworkSet in the datastore)."""

    id: AddressGroupId
    name: str
    prefixes: tuple[Prefix, ...] = ()
    created: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One address of one port in one security group: the member index's unit."""

    group: GroupId
    address: Prefix
    port: PortId


@dataclass(frozen=True, slots=True, kw_only=True)
class BgpConfiguration:
    """Cloud-wide BGP settings (BGPConfiguration `default`)."""

    as_number: int = 64512
    full_mesh: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BgpPeer:
    """A BGP session that hosts keep (BGPPeer).

    `node` None means every host. `bfd` asks for BFD on the session.
    """

    name: str
    address: Address
    as_number: int
    node: HostName | None = None
    bfd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host as a BGP speaker (Node)."""

    name: HostName
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    as_number: int | None = None
    labels: tuple[tuple[str, str], ...] = field(default=())
