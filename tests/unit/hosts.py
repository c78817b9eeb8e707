"""Endpoints and worlds for tests of what one host does."""

from ipaddress import ip_address, ip_network

from tests.endpoints import HOST, NETWORK, PROJECT
from tests.policies import OPEN_GROUPS

from calico.model.ids import (
    Mac,
    NetworkId,
    SubnetId,
)
from calico.model.records import AddressPair, Endpoint, Subnet
from calico.model.world import World

SUBNET = Subnet(
    id=SubnetId("s4"),
    network=NETWORK,
    prefix=ip_network("10.65.0.0/24"),
    project=PROJECT,
    gateway=ip_address("10.65.0.1"),
)

WIDE = Subnet(
    id=SubnetId("wide4"),
    network=NetworkId("net-b"),
    prefix=ip_network("10.70.0.0/15"),
    project=PROJECT,
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
