"""Every record survives the way into etcd's JSON and back, whatever it holds."""

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.hostile import CORNERS, places, substituted, values, well_typed

from calico.model.bgp_codec import (
    encode_bgp_configuration,
    encode_bgp_peer,
    encode_node,
    parse_bgp_configuration,
    parse_bgp_peer,
    parse_node,
)
from calico.model.cloud_settings import (
    DEFAULTS,
    CloudSettings,
    encode_cloud_settings,
    parse_cloud_settings,
)
from calico.model.codec import (
    encode_endpoint,
    encode_subnet,
    parse_address,
    parse_endpoint,
    parse_interface,
    parse_prefix,
    parse_subnet,
)
from calico.model.ids import (
    Address,
    AddressGroupId,
    DeviceId,
    GroupId,
    HostName,
    InterfaceName,
    Invalid,
    LogId,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    SubnetId,
    tap_name,
)
from calico.model.keys import Keys
from calico.model.logs import Event, Log, encode_log, parse_log
from calico.model.policy_codec import (
    encode_address_group,
    encode_policy,
    parse_address_group,
    parse_policy,
)
from calico.model.qos import Qos, bandwidth, packet_rate
from calico.model.records import (
    ICMP,
    PORT_PROTOCOLS,
    AddressGroup,
    AddressPair,
    BgpConfiguration,
    BgpPeer,
    DhcpOption,
    Endpoint,
    Forwarding,
    HostRoute,
    Nat,
    Node,
    Policy,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    Subnet,
)

names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=80)
uuids = st.uuids().map(str)
addresses4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
addresses6 = st.builds(IPv6Address, st.integers(0, 2**128 - 1))
addresses = addresses4 | addresses6
prefixes4 = st.builds(
    lambda a, n: IPv4Network((a, n), strict=False), addresses4, st.integers(0, 32)
)
prefixes6 = st.builds(
    lambda a, n: IPv6Network((a, n), strict=False), addresses6, st.integers(0, 128)
)
prefixes = prefixes4 | prefixes6
macs = st.binary(min_size=6, max_size=6).map(lambda b: Mac(b.hex(":")))
as_numbers = st.integers(1, 2**32 - 2)
modes = st.sampled_from([None, "slaac", "dhcpv6-stateful", "dhcpv6-stateless"])

bandwidths = st.builds(bandwidth, st.integers(1000, 10**12), st.integers(0, 10**5))
packet_rates = st.builds(packet_rate, st.integers(1, 10**9), st.integers(0, 10**5))
limits = st.builds(
    Qos,
    ingress=st.none() | bandwidths,
    egress=st.none() | bandwidths,
    ingress_packets=st.none() | packet_rates,
    egress_packets=st.none() | packet_rates,
    dscp=st.none() | st.integers(0, 63),
)


@st.composite
def port_forwardings(draw: st.DrawFn) -> Forwarding:
    width = draw(st.sampled_from([1, 2, 65535]) | st.integers(1, 65535))
    to_width = draw(st.sampled_from([1, width]))
    first, to_first = (draw(st.integers(1, 65536 - w)) for w in (width, to_width))
    return Forwarding(
        external=draw(addresses4),
        protocol=draw(st.sampled_from(sorted(PORT_PROTOCOLS))),
        ports=PortRange(first=first, last=first + width - 1),
        internal=draw(addresses4),
        to=PortRange(first=to_first, last=to_first + to_width - 1),
    )


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    port = PortId(draw(uuids))
    groups = draw(st.frozensets(uuids.map(GroupId), max_size=3))
    group_names = tuple((group, draw(names)) for group in sorted(groups))
    options = st.builds(
        DhcpOption, name=names, value=names, version=st.sampled_from([4, 6])
    )
    pairs = st.builds(AddressPair, prefix=prefixes, mac=macs)
    qos = st.builds(Qos, ingress=st.none() | bandwidths, egress=st.none() | bandwidths)
    nats = st.builds(Nat, internal=addresses, external=addresses, qos=qos)
    return Endpoint(
        host=HostName(draw(names)),
        device=DeviceId(draw(uuids)),
        port=port,
        interface=InterfaceName(tap_name(port)),
        mac=draw(macs),
        network=NetworkId(draw(uuids)),
        project=ProjectId(draw(uuids)),
        addresses=tuple(draw(st.lists(addresses, max_size=3))),
        pairs=tuple(draw(st.lists(pairs, max_size=3))),
        granted=tuple(draw(st.lists(prefixes, max_size=3))),
        nats=tuple(
            draw(st.lists(nats, max_size=2, unique_by=lambda nat: nat.external))
        ),
        forwardings=tuple(draw(st.lists(port_forwardings(), max_size=2))),
        qos=draw(limits),
        groups=groups,
        gateway4=draw(st.none() | addresses4),
        gateway6=draw(st.none() | addresses6),
        port_security=draw(st.booleans()),
        dhcp_options=tuple(draw(st.lists(options, max_size=3))),
        fqdn=draw(st.none() | names),
        aliases=tuple(draw(st.lists(names, max_size=2))),
        group_names=group_names,
        network_name=draw(names),
        project_name=draw(names),
        project_parent=draw(uuids),
    )


@st.composite
def subnets(draw: st.DrawFn) -> Subnet:
    prefix = draw(prefixes)
    gateway: st.SearchStrategy[Address] = (
        addresses4 if prefix.version == 4 else addresses6
    )
    routes = st.builds(HostRoute, destination=prefixes, nexthop=addresses)
    return Subnet(
        id=SubnetId(draw(uuids)),
        network=NetworkId(draw(uuids)),
        prefix=prefix,
        project=draw(st.none() | uuids.map(ProjectId)),
        gateway=draw(st.none() | gateway),
        dhcp=draw(st.booleans()),
        dns_servers=tuple(draw(st.lists(addresses, max_size=3))),
        host_routes=tuple(draw(st.lists(routes, max_size=3))),
        ra_mode=draw(modes),
        address_mode=draw(modes),
        mtu=draw(st.integers(68, 65535)),
        dns_domain=draw(st.none() | names),
    )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    version = draw(st.sampled_from([4, 6]))
    # An IPv6 rule cannot ask for IPv4's ICMP: both go by one name in the resource.
    protocol = draw(
        st.none() | st.integers(0, 255).filter(lambda n: n != 1 or version == 4)
    )
    ports = None
    if protocol in PORT_PROTOCOLS:
        ends = draw(st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)))
        ports = PortRange(first=min(ends), last=max(ends)) if ends else None
    octets = st.none() | st.integers(0, 255)
    icmp_type = draw(octets) if protocol == ICMP[version] else None
    remote: st.SearchStrategy[Remote | None] = st.one_of(
        st.none(),
        prefixes4 if version == 4 else prefixes6,
        uuids.map(lambda g: RemoteGroup(GroupId(g))),
        uuids.map(lambda g: RemoteAddressGroup(AddressGroupId(g))),
    )
    return Rule(
        version=version,
        protocol=protocol,
        ports=ports,
        icmp_type=icmp_type,
        icmp_code=draw(octets) if icmp_type is not None else None,
        remote=draw(remote),
        id=draw(st.none() | uuids),
    )


policies = st.builds(
    Policy,
    group=uuids.map(GroupId),
    name=names,
    ingress=st.lists(rules(), max_size=4).map(tuple),
    egress=st.lists(rules(), max_size=4).map(tuple),
    stateful=st.booleans(),
)
logs = st.builds(
    Log,
    id=uuids.map(LogId),
    project=uuids.map(ProjectId),
    group=st.none() | uuids.map(GroupId),
    port=st.none() | uuids.map(PortId),
    events=st.sets(st.sampled_from(Event), min_size=1).map(frozenset),
    name=st.text(max_size=10),
)
address_groups = st.builds(
    AddressGroup,
    id=uuids.map(AddressGroupId),
    name=names,
    prefixes=st.lists(prefixes, max_size=4).map(tuple),
)
nodes = st.builds(
    Node,
    name=names.map(HostName),
    address4=st.none() | addresses4,
    address6=st.none() | addresses6,
    as_number=st.none() | as_numbers,
    labels=st.dictionaries(
        names.map(lambda n: "example.com/" + n), names, max_size=2
    ).map(lambda d: tuple(sorted(d.items()))),
)
peers = st.builds(
    BgpPeer,
    name=names,
    address=addresses,
    as_number=as_numbers,
    node=st.none() | names.map(HostName),
    bfd=st.booleans(),
)


@given(endpoints())
def test_an_endpoint_survives_the_round_trip(endpoint: Endpoint) -> None:
    assert parse_endpoint(encode_endpoint(endpoint)) == endpoint


@given(subnets())
def test_a_subnet_survives_the_round_trip(subnet: Subnet) -> None:
    assert parse_subnet(subnet.id, encode_subnet(subnet)) == subnet


@given(policies)
def test_a_policy_survives_the_round_trip(policy: Policy) -> None:
    assert parse_policy(encode_policy(policy)) == policy


@given(address_groups)
def test_an_address_group_survives_the_round_trip(group: AddressGroup) -> None:
    assert parse_address_group(encode_address_group(group)) == group


@given(logs)
def test_a_log_survives_the_round_trip(log: Log) -> None:
    assert parse_log(log.id, encode_log(log)) == log


@given(nodes)
def test_a_node_survives_the_round_trip(node: Node) -> None:
    assert parse_node(encode_node(node)) == node


@given(peers)
def test_a_peer_survives_the_round_trip(peer: BgpPeer) -> None:
    assert parse_bgp_peer(encode_bgp_peer(peer)) == peer


@given(st.builds(BgpConfiguration, as_number=as_numbers, full_mesh=st.booleans()))
def test_bgp_settings_survive_the_round_trip(settings: BgpConfiguration) -> None:
    assert parse_bgp_configuration(encode_bgp_configuration(settings)) == settings


def test_the_clouds_settings_survive_the_round_trip() -> None:
    translating = CloudSettings(translate_sources=True)
    assert parse_cloud_settings(encode_cloud_settings(translating)) == translating
    assert parse_cloud_settings(b'{"of a later release":1}') == DEFAULTS


@given(uuids, prefixes, uuids)
def test_a_member_survives_in_its_key(
    group: str, prefix: IPv4Network, port: str
) -> None:
    key = Keys().member(GroupId(group), prefix, PortId(port))
    assert Keys().parse_member(key) == (group, prefix, port)


@given(endpoints())
def test_what_others_wrote_on_an_endpoint_is_kept(endpoint: Endpoint) -> None:
    stored = msgspec.json.decode(encode_endpoint(endpoint))
    stored["spec"]["allowSpoofedSourcePrefixes"] = ["10.9.0.0/16"]
    stored["metadata"]["labels"]["example.com/rack"] = "7"
    stored["metadata"]["uid"] = "first"
    rewritten = encode_endpoint(endpoint, old=msgspec.json.encode(stored))
    assert msgspec.json.decode(rewritten) == stored


def test_the_time_of_creation_stays_what_it_was_first() -> None:
    made, later = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
    first = encode_endpoint(replace(_endpoint(), created=made))
    again = encode_endpoint(replace(_endpoint(), created=later), old=first)
    assert msgspec.json.decode(again)["metadata"]["creationTimestamp"] == made


def test_p18_a_renamed_group_leaves_no_stale_label() -> None:
    endpoint = _endpoint()
    old = encode_endpoint(endpoint)
    renamed = replace(endpoint, group_names=((GroupId("g"), "after"),))
    labels = msgspec.json.decode(encode_endpoint(renamed, old=old))["metadata"][
        "labels"
    ]
    assert labels["sg.projectcalico.org/openstack-g"] == "after"
    assert "sg-name.projectcalico.org/openstack-before" not in labels


def test_labels_keep_within_kubernetes_limits() -> None:
    endpoint = _endpoint(network_name="-" + "network of Zoë/" * 9)
    labels = msgspec.json.decode(encode_endpoint(endpoint))["metadata"]["labels"]
    name = labels["openstack.projectcalico.org/network-name"]
    assert len(name) <= 63
    assert name.startswith("network_of_Zo")
    assert set(name) <= set("network_ofZ")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("mac", "00:11:22:33:44", "not a MAC"),
        ("ipNetworks", ["10.0.0.0/24"], "not one address"),
        ("ipNetworks", "10.0.0.1/32", "not a list"),
        ("ipNetworks", ["10.0.0.300/32"], "not a prefix"),
        ("ipv4Gateway", "fd00::1", "other family"),
        ("ipNATs", ["10.0.0.1"], "ipNATs entry '10.0.0.1'"),
        ("ipNATs", [{"internalIP": "10.0.0.1"}], "None is not an address"),
        ("interfaceName", "tap-much-too-long-for-linux", "interface name"),
        ("node", "", "node is ''"),
    ],
)
def test_a_bad_endpoint_says_what_is_wrong(
    field: str, value: object, complaint: str
) -> None:
    stored = msgspec.json.decode(encode_endpoint(_endpoint()))
    stored["spec"][field] = value
    with pytest.raises(Invalid, match=complaint):
        parse_endpoint(msgspec.json.encode(stored))


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "Deny", "ipVersion": 4},
        {"action": "Allow", "ipVersion": 5},
        {"action": "Allow", "ipVersion": 4, "protocol": "GOPHER"},
        {"action": "Allow", "ipVersion": 4, "source": {"selector": "role == 'db'"}},
        {"action": "Allow", "ipVersion": 4, "source": {"notNets": ["10.0.0.0/8"]}},
        {"action": "Allow", "ipVersion": 4, "http": {"methods": ["GET"]}},
        {"action": "Allow", "ipVersion": 4, "source": {"ports": [22]}},
        {"action": "Allow", "ipVersion": 4, "destination": {"ports": [22]}},
    ],
)
def test_p01_a_rule_that_cannot_be_enforced_is_refused(rule: object) -> None:
    stored = msgspec.json.decode(encode_policy(Policy(group=GroupId("g"), name="n")))
    stored["spec"]["ingress"] = [rule]
    with pytest.raises(Invalid, match="ingress rule 0"):
        parse_policy(msgspec.json.encode(stored))


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"\xff", b'{"kind": "Pod"}'])
def test_p41_what_is_no_resource_is_invalid_and_nothing_worse(value: bytes) -> None:
    for parse in (parse_endpoint, parse_policy, parse_bgp_peer, parse_node):
        with pytest.raises(Invalid):
            parse(value)


@pytest.mark.parametrize(
    "value", ["fe80::1%a\nport=0", "fe80::1%eth0", 1, True, None, []]
)
def test_an_address_is_a_text_without_a_scope(value: object) -> None:
    for parse in (parse_address, parse_prefix, parse_interface):
        with pytest.raises(Invalid):
            parse(value)


PARSERS: dict[str, tuple[Callable[[bytes], object], st.SearchStrategy[bytes]]] = {
    "endpoint": (parse_endpoint, endpoints().map(encode_endpoint)),
    "subnet": (
        lambda value: parse_subnet(SubnetId("s"), value),
        subnets().map(encode_subnet),
    ),
    "policy": (parse_policy, policies.map(encode_policy)),
    "address group": (parse_address_group, address_groups.map(encode_address_group)),
    "log": (lambda value: parse_log(LogId("log"), value), logs.map(encode_log)),
    "cloud's settings": (
        parse_cloud_settings,
        st.just(CloudSettings(translate_sources=True)).map(encode_cloud_settings),
    ),
    "node": (parse_node, nodes.map(encode_node)),
    "peer": (parse_bgp_peer, peers.map(encode_bgp_peer)),
    "BGP settings": (
        parse_bgp_configuration,
        st.builds(BgpConfiguration).map(encode_bgp_configuration),
    ),
}


@pytest.mark.parametrize("kind", PARSERS)
@settings(max_examples=10, deadline=None)  # an example is a thousand parses
@given(data=st.data())
def test_p41_any_value_in_any_field_gives_a_record_or_invalid(
    kind: str, data: st.DataObject
) -> None:
    parse, documents = PARSERS[kind]
    body = msgspec.json.decode(data.draw(documents))
    # Every corner at every place: drawn at random, some pairs never met.
    for path, value in product(places(body), [*CORNERS, data.draw(values)]):
        stored = json.dumps(substituted(body, path, value)).encode()
        try:
            record = parse(stored)
        except Invalid:
            continue
        assert well_typed(record, type(record)), record


def _endpoint(network_name: str = "net") -> Endpoint:
    return Endpoint(
        host=HostName("host-1"),
        device=DeviceId("device"),
        port=PortId("port"),
        interface=InterfaceName("tapport"),
        mac=Mac("fa:16:3e:00:00:01"),
        network=NetworkId("network"),
        project=ProjectId("project"),
        addresses=(IPv4Address("10.0.0.1"),),
        groups=frozenset([GroupId("g")]),
        group_names=((GroupId("g"), "before"),),
        network_name=network_name,
    )


@pytest.mark.parametrize("extra", ["", ',"project_id":null', ',"project_id":""'])
def test_p47_a_subnet_without_a_project_is_nobodys(extra: str) -> None:
    value = '{"network_id":"net","cidr":"10.0.0.0/24"' + extra + "}"
    assert parse_subnet(SubnetId("s"), value.encode()).project is None


def test_p47_a_project_or_a_grant_that_is_none_is_refused() -> None:
    value = b'{"network_id":"net","cidr":"10.0.0.0/24","project_id":7}'
    with pytest.raises(Invalid, match="project_id"):
        parse_subnet(SubnetId("s"), value)


@given(st.text(alphabet="-a/ \n", min_size=1, max_size=8))
def test_the_key_of_an_endpoint_tells_device_and_port(device: str) -> None:
    """Tenants write the device, dashes at its ends included."""
    port = PortId("0a-1b-2c")
    for host in ("h1", "h-1", "a--b"):
        key = Keys().endpoint(HostName(host), DeviceId(device), port)
        assert Keys().parse_endpoint(key) == (device, port)
