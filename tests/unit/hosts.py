"""Endpoints and worlds for tests of what one host does."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from tests.policies import OPEN, OPEN_GROUPS

from calico.model.ids import (
    DeviceId,
    HostName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    SubnetId,
    tap_name,
)
from calico.model.records import AddressPair, Endpoint, Subnet
from calico.model.world import World

HOST = HostName("host-a")
SUBNET = Subnet(
    id=SubnetId("s4"),
    network=NetworkId("net-a"),
    prefix=ip_network("10.65.0.0/24"),
    project=ProjectId("project"),
    gateway=ip_address("10.65.0.1"),
)

WIDE = Subnet(
    id=SubnetId("wide4"),
    network=NetworkId("net-b"),
    prefix=ip_network("10.70.0.0/15"),
    project=ProjectId("project"),
)


def endpoint(number: int, **changes: Any) -> Endpoint:
    port = PortId(f"{number:08x}-{number:02x}00-0000")
    return replace(
        Endpoint(
            host=HOST,
            device=DeviceId(f"device-{number}"),
            port=port,
            interface=tap_name(port),
            mac=Mac(f"fa:16:3e:00:00:{number:02x}"),
            network=NetworkId("net-a"),
            project=ProjectId("project"),
            addresses=(
                ip_address(f"10.65.0.{number}"),
                ip_address(f"2001:db8:65::{number:x}"),
            ),
            groups=frozenset({OPEN}),
        ),
        **changes,
    )


def pair(prefix: str, mac: str = "fa:16:3e:00:00:02") -> AddressPair:
    return AddressPair(prefix=ip_network(prefix), mac=Mac(mac))


def world(*endpoints: Endpoint) -> World:
    return World(
        host=HOST,
        endpoints=endpoints,
        subnets={s.id: s for s in (SUBNET, WIDE)},
        groups=OPEN_GROUPS,
    )
