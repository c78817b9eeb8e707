"""What an operator says of who may talk to whom: records of the Calico v3 model.

GlobalNetworkPolicy, NetworkSet and GlobalNetworkSet, HostEndpoint. Each validates
itself, like all records (`model.records`). None means any, everywhere.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from calico.model.ids import Address, HostName, Invalid, Prefix
from calico.model.records import ICMP, PORT_PROTOCOLS, PortRange
from calico.model.selectors import EVERYTHING, Selector

_INTERFACE = re.compile(r"[A-Za-z0-9_.@:-]{1,15}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NAME_LENGTH = 253


def _check_name(name: str) -> None:
    """Refuse what the model's other writers would, and hosts' rules could not hold."""
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        raise Invalid(
            f"name {name!r} is not made of lower case letters, digits, '-' and '.'"
            f" (at most {_NAME_LENGTH}, first and last a letter or digit)"
        )


class Action(enum.Enum):
    """What a rule does with a packet that it matches.

    ALLOW and DENY decide; LOG tells and goes on with the next rule; PASS leaves the
    operator's policies of this stage to whatever comes next (docs/design/policy.md).
    """

    ALLOW = "Allow"
    DENY = "Deny"
    LOG = "Log"
    PASS = "Pass"  # noqa: S105 - no password


@dataclass(frozen=True, slots=True, kw_only=True)
class Icmp:
    """An ICMP type, and a code of it."""

    type: int
    code: int | None = None

    def __post_init__(self) -> None:
        for number in (self.type, self.code):
            if number is not None and not 0 <= number <= 255:
                raise Invalid(f"ICMP type or code {number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a packet: all that is said must hold.

    Its address is in one of `nets` and in none of `not_nets`; it is of something that
    `selector` selects and `not_selector` does not; its port is in one of `ports` and in
    none of `not_ports`.
    """

    nets: tuple[Prefix, ...] | None = None
    not_nets: tuple[Prefix, ...] = ()
    selector: Selector | None = None
    not_selector: Selector | None = None
    ports: tuple[PortRange, ...] | None = None
    not_ports: tuple[PortRange, ...] = ()

    def __post_init__(self) -> None:
        # The stored form cannot say "none of them": it would be read as any.
        if self.nets == () or self.ports == ():
            raise Invalid("an empty list of nets or ports; None is any")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRule:
    """One rule of an operator's policy. `version` is the IP version.

    `protocol` and `not_protocol` are IP protocol numbers.
    """

    action: Action
    version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: End = End()
    destination: End = End()

    def __post_init__(self) -> None:
        if self.version not in {None, 4, 6}:
            raise Invalid(f"IP version {self.version}")
        for number in (self.protocol, self.not_protocol):
            if number is not None and not 0 <= number <= 255:
                raise Invalid(f"protocol {number}")
        ends = (self.source, self.destination)
        if any(end.ports is not None or end.not_ports for end in ends) and (
            self.protocol not in PORT_PROTOCOLS
        ):
            raise Invalid("ports need the protocol TCP, UDP or SCTP")
        if (self.icmp or self.not_icmp) and self.protocol not in ICMP.values():
            raise Invalid("an ICMP type needs the protocol ICMP or ICMPv6")
        self._check_version()

    def _check_version(self) -> None:
        if self.version is None:
            return
        if self.protocol in ICMP.values() and self.protocol != ICMP[self.version]:
            raise Invalid(f"protocol {self.protocol} is not of IPv{self.version}")
        for end in (self.source, self.destination):
            for prefix in (*(end.nets or ()), *end.not_nets):
                if prefix.version != self.version:
                    raise Invalid(f"{prefix} is not IPv{self.version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalPolicy:
    """An operator's policy (GlobalNetworkPolicy).

    It applies to the workload and host endpoints that `selector` selects, in the
    directions that it has rules for: None is a direction that it says nothing of, an
    empty tuple one that it is asked about and never decides. With an `order` it comes
    before the tenants' groups, lower first; without one after them. Of equal orders
    the name decides.
    """

    name: str
    order: float | None = None
    selector: Selector = EVERYTHING
    ingress: tuple[OperatorRule, ...] | None = None
    egress: tuple[OperatorRule, ...] | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.order is not None and not isfinite(self.order):
            raise Invalid(f"order {self.order}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSet:
    """Prefixes with labels (NetworkSet; without namespace GlobalNetworkSet)."""

    name: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    nets: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEndpoint:
    """A host's interfaces, to be protected (HostEndpoint).

    `interface` None is every interface of the host but loopback and those of
    instances. `addresses` are those by which rules of others know it. What no policy
    decides is denied; with `default_allow` it is allowed in a direction of which no
    policy of this endpoint speaks.
    """

    name: str
    host: HostName
    interface: str | None = None
    addresses: tuple[Address, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    default_allow: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.interface is not None and not _INTERFACE.fullmatch(self.interface):
            raise Invalid(f"{self.interface!r} is no name of an interface")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailsafePort:
    """A port of hosts that no policy closes, to all addresses or those in `net`."""

    protocol: int
    port: int
    net: Prefix | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PORT_PROTOCOLS:
            raise Invalid(f"protocol {self.protocol} has no ports")
        if not 0 <= self.port <= 65535:
            raise Invalid(f"port {self.port}")


def _failsafe(tcp: tuple[int, ...], udp: tuple[int, ...]) -> tuple[FailsafePort, ...]:
    ports = [FailsafePort(protocol=17, port=port) for port in udp]
    return (*ports, *(FailsafePort(protocol=6, port=port) for port in tcp))


# BGP, etcd (old and new ports), Typha, the API of Kubernetes: what a host of the model
# must not lose. In comes SSH besides, out go DNS and DHCP.
_CLUSTER = (179, 2379, 2380, 5473, 6443, 6666, 6667)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failsafe:
    """What a host's own traffic may do whatever policies say, lest it be cut off."""

    inbound: tuple[FailsafePort, ...] = _failsafe(tcp=(22, *_CLUSTER), udp=(68,))
    outbound: tuple[FailsafePort, ...] = _failsafe(tcp=_CLUSTER, udp=(53, 67))
