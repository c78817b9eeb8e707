"""A host's picture of the cloud: what is in it, and what bad objects do to it."""

from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import cast

import msgspec
import pytest

from calico.model.bgp_codec import encode_bgp_peer
from calico.model.codec import encode_endpoint, encode_subnet
from calico.model.ids import (
    DeviceId,
    HostName,
    InterfaceName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    SubnetId,
)
from calico.model.keys import BGP_PEERS, Keys
from calico.model.records import BgpPeer, Endpoint, Subnet
from calico.model.world import build, watched_prefixes

KEYS = Keys()
HOST = HostName("host-1-1")
DEVICE = DeviceId("d-1")
SUBNET = Subnet(
    id=SubnetId("s"), network=NetworkId("n"), prefix=ip_network("10.0.0.0/24")
)


def endpoint(port: str, address: str, host: HostName = HOST) -> Endpoint:
    return Endpoint(
        host=host,
        device=DEVICE,
        port=PortId(port),
        interface=InterfaceName("tap" + port[:11]),
        mac=Mac("fa:16:3e:00:00:01"),
        network=NetworkId("n"),
        project=ProjectId("p"),
        addresses=(ip_address(address),),
    )


def stored(*endpoints: Endpoint) -> dict[str, bytes]:
    return {
        KEYS.endpoint(e.host, e.device, e.port): encode_endpoint(e) for e in endpoints
    }


def test_p41_a_bad_object_is_set_aside_and_disturbs_no_other() -> None:
    good = endpoint("p-good", "10.0.0.1")
    bad_key = KEYS.endpoint(HOST, DEVICE, PortId("p-bad"))
    items = stored(good) | {bad_key: b"{not json", KEYS.subnet(SubnetId("s")): b"[]"}
    world = build(HOST, KEYS, items)
    assert world.endpoints == (good,)
    assert {r.key for r in world.rejected} == {bad_key, KEYS.subnet(SubnetId("s"))}
    assert {r.port for r in world.rejected} == {(DEVICE, "p-bad"), None}


def test_an_endpoint_stored_under_another_host_is_not_served() -> None:
    stray = endpoint("p", "10.0.0.1", host=HostName("host-2"))
    key = KEYS.endpoint(HOST, DEVICE, PortId("p"))
    world = build(HOST, KEYS, {key: encode_endpoint(stray)})
    assert world.endpoints == ()
    assert "host-2" in str(world.rejected[0])


def test_p29_a_host_watches_no_other_hosts_endpoints() -> None:
    other = KEYS.endpoint(HostName("host-1-10"), DEVICE, PortId("p"))
    assert not any(other.startswith(prefix) for prefix in watched_prefixes(HOST, KEYS))
    mine = KEYS.endpoint(HOST, DEVICE, PortId("p"))
    assert any(mine.startswith(prefix) for prefix in watched_prefixes(HOST, KEYS))


def test_peers_of_other_hosts_are_left_out() -> None:
    peers = [
        BgpPeer(name=name, address=ip_address("10.9.9.9"), as_number=65000, node=node)
        for name, node in (("all", None), ("mine", HOST), ("other", HostName("host-2")))
    ]
    world = build(HOST, KEYS, {BGP_PEERS + p.name: encode_bgp_peer(p) for p in peers})
    assert [p.name for p in world.peers] == ["all", "mine"]


def test_subnets_of_an_endpoint_are_those_its_addresses_are_from() -> None:
    subnets = [
        Subnet(id=SubnetId(i), network=NetworkId(n), prefix=ip_network(prefix))
        for i, n, prefix in (
            ("a", "n", "10.0.0.0/24"),
            ("b", "n", "10.0.1.0/24"),
            ("c", "other", "10.0.0.0/24"),
        )
    ]
    mine = endpoint("p", "10.0.0.1")
    items = stored(mine) | {KEYS.subnet(s.id): encode_subnet(s) for s in subnets}
    assert build(HOST, KEYS, items).subnets_of(mine) == (subnets[0],)


@pytest.mark.parametrize(
    "value",
    [
        b'{"ipv6_ra_mode":[]}',
        b'{"ipv6_ra_mode":{}}',
        b'{"dns_domain":5}',
        b'{"dns_servers":["fe80::1%a\\nport=0"]}',
        b"[" * 100_000,
        b'{"network_id":"\xff"}',
    ],
)
def test_p41_a_malformed_subnet_stops_no_host(value: bytes) -> None:
    good = endpoint("p-good", "10.0.0.1")
    whole = msgspec.json.decode(encode_subnet(SUBNET))
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.encode(whole | msgspec.json.decode(value))
    world = build(HOST, KEYS, stored(good) | {KEYS.subnet(SubnetId("s")): value})
    assert world.endpoints == (good,)
    assert [r.key for r in world.rejected] == [KEYS.subnet(SubnetId("s"))]


def test_p41_a_parsers_mistake_costs_one_object_only() -> None:
    good = endpoint("p-good", "10.0.0.1")
    # What no store holds stands for what no parser foresaw.
    unforeseen = cast("bytes", 5)
    items = {KEYS.subnet(SubnetId("s")): unforeseen, BGP_PEERS + "peer": unforeseen}
    world = build(HOST, KEYS, stored(good) | items)
    assert world.endpoints == (good,)
    assert {r.key for r in world.rejected} == set(items)
    assert "TypeError" in str(world.rejected[0])
