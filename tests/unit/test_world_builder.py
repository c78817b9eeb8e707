"""A world that is built from changes is the one that is built from everything."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import HOST, PROJECT, endpoint

from calico.model.bgp_codec import encode_bgp_peer
from calico.model.codec import encode_endpoint, encode_subnet
from calico.model.ids import AddressGroupId, GroupId, LogId, NetworkId, PortId, SubnetId
from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS, Keys
from calico.model.logs import Log, encode_log
from calico.model.names import PortNames, encode_port_names
from calico.model.policy_codec import encode_address_group, encode_policy
from calico.model.records import AddressGroup, BgpPeer, Policy, Rule, Subnet
from calico.model.world import WorldBuilder, build

KEYS = Keys()
BAD = (b"", b"{", b"[]")


def _endpoints() -> dict[str, tuple[bytes, ...]]:
    return {
        KEYS.endpoint(HOST, e.device, e.port): (encode_endpoint(e), *BAD)
        for e in map(endpoint, (1, 2, 3))
    }


def _subnet(number: int, mtu: int) -> bytes:
    return encode_subnet(
        Subnet(
            id=SubnetId(f"s{number}"),
            network=NetworkId("n"),
            prefix=ip_network(f"10.{number}.0.0/24"),
            mtu=mtu,
        )
    )


def _policy(group: str, *rules: Rule) -> bytes:
    return encode_policy(Policy(group=GroupId(group), name="", ingress=rules))


def _names(port: str, name: str) -> bytes:
    return encode_port_names(
        PortNames(
            project=PROJECT,
            port=PortId(port),
            names=(name,),
            addresses=(ip_network("10.0.0.1/32")[0],),
        )
    )


def _members() -> dict[str, tuple[bytes, ...]]:
    return {
        KEYS.member(GroupId(group), ip_network(address), PortId(port)): (b"", b"{}")
        for group in ("a", "b")
        for address in ("10.0.0.1/32", "10.0.0.2/32")
        for port in ("p", "q")
    }


STORED: dict[str, tuple[bytes, ...]] = {
    **_endpoints(),
    **{
        KEYS.subnet(SubnetId(f"s{n}")): (_subnet(n, 1400), _subnet(n, 1500), *BAD)
        for n in (1, 2)
    },
    **{
        KEYS.policy(GroupId(g)): (_policy(g), _policy(g, Rule(version=4)), *BAD)
        for g in ("a", "b")
    },
    KEYS.address_group(AddressGroupId("x")): (
        encode_address_group(AddressGroup(id=AddressGroupId("x"), name="")),
        *BAD,
    ),
    KEYS.log(LogId("log")): (
        *(encode_log(Log(id=LogId("log"), project=PROJECT, name=n)) for n in "ab"),
        *BAD,
    ),
    **{
        KEYS.port_names(PROJECT, PortId(port)): (
            *(_names(port, name) for name in ("web", "db.example")),
            b'{"names":["A b"],"addresses":[]}',
            *BAD,
        )
        for port in "pq"
    },
    KEYS.names + "nonsense": BAD,
    KEYS.settings: (b'{"floating_ip_source_translation":true}', b"{}", *BAD),
    BGP_CONFIGURATION: BAD,
    BGP_PEERS + "peer": (
        encode_bgp_peer(
            BgpPeer(name="peer", address=ip_network("192.0.2.1/32")[0], as_number=1)
        ),
        *BAD,
    ),
    **_members(),
    KEYS.members + "nonsense": BAD,
    "/another/key": BAD,
}
CHANGE = st.sampled_from(sorted(STORED)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from((None, *STORED[key])))
)


@given(st.lists(st.lists(CHANGE, max_size=4), max_size=12))
def test_a_world_depends_on_what_is_stored_alone(
    rounds: list[list[tuple[str, bytes | None]]],
) -> None:
    builder = WorldBuilder(HOST, KEYS)
    items: dict[str, bytes] = {}
    for changes in rounds:
        for key, value in changes:
            items.pop(key, None)
            if value is not None:
                items[key] = value
        world = builder.build(items, {key for key, _ in changes})
        assert world == build(HOST, KEYS, items)


def test_what_a_change_does_not_concern_is_the_same_object() -> None:
    builder = WorldBuilder(HOST, KEYS)
    items = {key: values[0] for key, values in STORED.items()}
    before = builder.build(items, items)
    member = KEYS.member(GroupId("a"), ip_network("10.0.0.9/32"), PortId("p"))
    after = builder.build({**items, member: b""}, [member])
    mine, others = GroupId("a"), GroupId("b")
    assert after.groups.members[mine] == before.groups.members[mine] | {
        ip_network("10.0.0.9/32")
    }
    assert after.groups.members[others] is before.groups.members[others]
    assert after.groups.policies is before.groups.policies
    assert after.endpoints is before.endpoints
    assert after.subnets is before.subnets
    assert after.settings is before.settings
    assert after.rejected is before.rejected
