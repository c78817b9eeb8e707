"""A rule as it is wished, asked for through the API and told the judge. Pure.

Two renderings of one wish (`asked`, `judged`), neither made from the other, nor from
what the server has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from calico.model.ids import AddressGroupId, GroupId
from calico.model.records import (
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.policy.evaluate import Direction
from calico.verify.cloud import Address

IN, OUT = Direction.INGRESS, Direction.EGRESS
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class OfGroup:
    """The members of a configuration's group."""

    key: str


@dataclass(frozen=True, slots=True)
class OfAddresses:
    """The addresses of an address group: those of the instances that it names."""

    key: str


@dataclass(frozen=True, slots=True)
class OfInstance:
    """The one address of an instance, as a prefix."""

    key: str


Whose = OfGroup | OfAddresses | OfInstance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """A rule as a person would ask for it; `spelled` is how the API hears it."""

    direction: Direction = IN
    version: int
    protocol: int | None = None
    spelled: str | None = None
    first: int | None = None
    last: int | None = None
    whose: Whose = None


@dataclass(frozen=True, slots=True)
class Names:
    """Ids of what configurations name, and the instances' addresses."""

    groups: Mapping[str, str]
    address_groups: Mapping[str, str]
    addresses: Mapping[str, tuple[Address, ...]]

    def one(self, instance: str, version: int) -> str:
        """Return an instance's address of an IP version, as a prefix."""
        found = next(a for a in self.addresses[instance] if a.version == version)
        return str(ip_network(found))


def asked(allow: Allow, names: Names) -> dict[str, Any]:
    """Return a rule as the Neutron API is asked for it."""
    body: dict[str, Any] = {
        "direction": allow.direction.value,
        "ether_type": f"IPv{allow.version}",
        "protocol": allow.spelled,
        "port_range_min": allow.first,
        "port_range_max": allow.last,
    }
    match allow.whose:
        case OfGroup(key=key):
            body["remote_group_id"] = names.groups[key]
        case OfAddresses(key=key):
            body["remote_address_group_id"] = names.address_groups[key]
        case OfInstance(key=key):
            body["remote_ip_prefix"] = names.one(key, allow.version)
        case None:
            pass
    return {name: value for name, value in body.items() if value is not None}


def judged(allow: Allow, names: Names) -> Rule:
    """Return a rule as the judge hears it."""
    ports = allow.first is not None and allow.protocol in NUMBERS.values()
    return Rule(
        version=allow.version,
        protocol=allow.protocol,
        ports=PortRange(first=allow.first or 0, last=allow.last or 0)
        if ports
        else None,
        icmp_type=None if ports else allow.first,
        icmp_code=None if ports else allow.last,
        remote=_remote(allow, names),
    )


def _remote(allow: Allow, names: Names) -> Remote | None:
    match allow.whose:
        case OfGroup(key=key):
            return RemoteGroup(GroupId(names.groups[key]))
        case OfAddresses(key=key):
            return RemoteAddressGroup(AddressGroupId(names.address_groups[key]))
        case OfInstance(key=key):
            return ip_network(names.one(key, allow.version))
        case None:
            return None
