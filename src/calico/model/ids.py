"""Names for the identifiers that would otherwise all be strings.

A port id passed where a network id is wanted is a bug that mypy can find, if the two
have different types.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
)
from typing import NewType

HostName = NewType("HostName", str)
DeviceId = NewType("DeviceId", str)
PortId = NewType("PortId", str)
NetworkId = NewType("NetworkId", str)
SubnetId = NewType("SubnetId", str)
GroupId = NewType("GroupId", str)
AddressGroupId = NewType("AddressGroupId", str)
ProjectId = NewType("ProjectId", str)
LogId = NewType("LogId", str)
Mac = NewType("Mac", str)
InterfaceName = NewType("InterfaceName", str)

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Invalid(ValueError):  # noqa: N818 - it names what the value is
    """A value that breaks the rules of its type; the message says which and why."""


def parse_mac(text: str) -> Mac:
    """Return the canonical (lower case, colons) form of a MAC address.

    Raises Invalid for anything that is not six octets.
    """
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise Invalid(f"{text!r} is not a MAC address")
    return Mac(mac)


def is_single(prefix: Prefix) -> bool:
    """Tell whether a prefix is one address."""
    return prefix.prefixlen == prefix.max_prefixlen


def collapsed(prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    """Yield the fewest prefixes that hold the same addresses, IPv4 first."""
    prefixes = list(prefixes)
    yield from collapse_addresses(p for p in prefixes if isinstance(p, IPv4Network))
    yield from collapse_addresses(p for p in prefixes if isinstance(p, IPv6Network))


def host_side_mac(mac: Mac) -> Mac:
    """Return the MAC of the host's end of a port's interface.

    It is the instance's with the first octet `fe`: the same on every host, so that the
    guest's neighbour cache survives a live migration (P37).
    """
    return Mac("fe" + mac[2:])


def tap_name(port: PortId) -> InterfaceName:
    """Return the name that Nova gives the interface of a port with vif type tap."""
    return InterfaceName(f"tap{port[:11]}")
