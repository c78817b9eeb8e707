"""Records of networking-calico are read, and ours are what its hosts need."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from tests import networking_calico as theirs
from tests.endpoints import HOST, endpoint

from calico.model.codec import encode_endpoint, parse_endpoint
from calico.model.ids import GroupId, HostName
from calico.model.keys import Keys
from calico.model.policy_codec import encode_policy, parse_policy
from calico.model.records import (
    AddressPair,
    Endpoint,
    Nat,
    Policy,
    PortRange,
    RemoteGroup,
    Rule,
)
from calico.model.world import WorldBuilder, group_prefixes_and_keys, watched_keys
from calico.policy.floating import settle
from calico.policy.ownership import confine

KEYS = Keys()
WEB = GroupId("web")
MINE = endpoint(2, groups=frozenset({WEB}))
OTHER = replace(endpoint(9, groups=frozenset({WEB})), host=HostName("host-b"))


def written(one: Endpoint, **more: Any) -> bytes:
    gateways = ("10.65.0.1", "2001:db8:65::1")
    return theirs.endpoint(
        host=one.host,
        device=one.device,
        port=one.port,
        mac=one.mac,
        addresses=dict(zip(map(str, one.addresses), gateways, strict=True)),
        groups={group: group for group in one.groups},
        project="project",
        network="net-a",
        **more,
    ).encode()


def key(one: Endpoint) -> str:
    return KEYS.endpoint(one.host, one.device, one.port)


def test_an_endpoint_of_theirs_is_read() -> None:
    value = written(MINE, pairs=["10.65.0.50"], nats={"203.0.113.7": "10.65.0.2"})
    found = parse_endpoint(value)
    assert found.addresses == MINE.addresses
    assert found.groups == {WEB}
    assert found.pairs == (AddressPair(prefix=ip_network("10.65.0.50"), mac=MINE.mac),)
    nat = Nat(internal=ip_address("10.65.0.2"), external=ip_address("203.0.113.7"))
    assert found.nats == (nat,)
    assert found.gateway4 == ip_address("10.65.0.1")
    assert found.gateway6 == ip_address("2001:db8:65::1")
    assert found.network == "net-a"


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ({}, Rule(version=4)),
        ({"protocol": "TCP", "destination": {"ports": [80]}}, (6, 80, 80)),
        ({"protocol": "UDP", "destination": {"ports": ["5:9"]}}, (17, 5, 9)),
        ({"protocol": 51}, Rule(version=4, protocol=51)),
        ({"protocol": "51"}, Rule(version=4, protocol=51)),
        (
            {"protocol": "ICMP", "icmp": {"type": 8}},
            Rule(version=4, protocol=1, icmp_type=8),
        ),
        (
            {"source": {"nets": ["10.0.0.0/8"]}},
            Rule(version=4, remote=ip_network("10.0.0.0/8")),
        ),
    ],
    ids=str,
)
def test_a_rule_of_theirs_is_read(
    spelled: dict[str, Any], meant: Rule | tuple[int, int, int]
) -> None:
    if isinstance(meant, tuple):
        protocol, first, last = meant
        ports = PortRange(first=first, last=last)
        meant = Rule(version=4, protocol=protocol, ports=ports)
    value = theirs.policy("web", ingress=[theirs.rule(4, **spelled)], egress=[])
    assert parse_policy(value.encode()).ingress == (meant,)


def test_what_hosts_of_theirs_need_is_in_our_endpoints() -> None:
    nat = Nat(internal=ip_address("10.65.0.2"), external=ip_address("203.0.113.7"))
    ours = replace(
        MINE,
        nats=(nat,),
        pairs=(AddressPair(prefix=ip_network("10.65.0.50"), mac=MINE.mac),),
        gateway4=IPv4Address("10.65.0.1"),
        gateway6=IPv6Address("2001:db8:65::1"),
        group_names=((WEB, "web"),),
        network_name="blue",
    )
    body = json.loads(encode_endpoint(ours))
    wanted = json.loads(
        written(MINE, pairs=["10.65.0.50"], nats={"203.0.113.7": "10.65.0.2"})
    )
    assert {k: body["spec"].get(k) for k in wanted["spec"]} == wanted["spec"]
    # What only Keystone knows is not there.
    known = {k: v for k, v in wanted["metadata"]["labels"].items() if v != "blue-team"}
    del known["projectcalico.org/openstack-project-parent-id"]
    labels = body["metadata"]["labels"]
    assert {k: labels.get(k) for k in known} == known
    assert (
        wanted["metadata"]["annotations"].items()
        <= body["metadata"]["annotations"].items()
    )
    assert body["metadata"]["name"] == wanted["metadata"]["name"]


def test_no_label_has_a_name_that_other_hosts_refuse_the_endpoint_for() -> None:
    name = "a group of a very long name that goes on and on and on"
    labels = json.loads(encode_endpoint(replace(MINE, group_names=((WEB, name),))))[
        "metadata"
    ]["labels"]
    assert all(len(label.split("/")[1]) <= 63 for label in labels)
    short = "a_group_of_a_very_long_name"  # as networking-calico cuts it
    assert labels[f"sg-name.projectcalico.org/openstack-{short}"] == WEB


def test_what_was_learned_of_keystone_survives_our_rewriting() -> None:
    body = json.loads(encode_endpoint(MINE, old=written(MINE)))
    labels = body["metadata"]["labels"]
    assert labels["projectcalico.org/openstack-project-name"] == "blue-team"
    assert labels["projectcalico.org/openstack-project-parent-id"] == "default"
    known = replace(MINE, project_name="red-team")
    labels = json.loads(encode_endpoint(known, old=written(MINE)))["metadata"]["labels"]
    assert labels["openstack.projectcalico.org/project-name"] == "red-team"


def policy(*ingress: dict[str, Any]) -> dict[str, bytes]:
    value = theirs.policy(WEB, ingress=ingress, egress=[])
    return {KEYS.policy(WEB): value.encode()}


def test_until_all_is_adopted_members_are_found_by_labels() -> None:
    items = policy(theirs.rule(4, remote=WEB)) | {
        key(MINE): written(MINE),
        key(OTHER): written(OTHER),
    }
    builder = WorldBuilder(HOST, KEYS)
    world = builder.build(items, items)
    everyone = {ip_network(a) for one in (MINE, OTHER) for a in one.addresses}
    assert not world.adopted
    assert world.groups.members[WEB] == everyone

    known = {
        KEYS.member(WEB, ip_network(address), OTHER.port): b"{}"
        for address in OTHER.addresses
    }
    world = builder.build(items | known, known)
    assert world.groups.members[WEB] == everyone, "in part by the index"
    items |= known | {KEYS.adopted: b"{}"}
    world = builder.build(items, [KEYS.adopted])
    assert world.adopted
    assert world.groups.members[WEB] == {ip_network(a) for a in OTHER.addresses}


def followed(items: dict[str, bytes]) -> frozenset[str]:
    """Return what a host follows in the end."""
    more: frozenset[str] = frozenset()
    for _ in range(3):
        ranges = {KEYS.host_endpoints(HOST), *watched_keys(KEYS), *more}
        seen = {
            name: {k: v for k, v in items.items() if k.startswith(name)}
            for name in ranges
        }
        prefixes, single = group_prefixes_and_keys(HOST, KEYS, seen)
        more = prefixes | single
    return more


def test_p29_all_endpoints_are_followed_only_where_members_are_missing() -> None:
    mine = {key(MINE): written(MINE)}
    by_group, by_net = policy(theirs.rule(4, remote=WEB)), policy(theirs.rule(4))
    adopted = {KEYS.adopted: b"{}"}
    assert KEYS.endpoints in followed(mine | by_group)
    assert KEYS.endpoints not in followed(mine | by_net)
    assert KEYS.endpoints not in followed(mine | by_group | adopted)


def test_p47_what_nobody_said_the_owner_of_stays_until_all_is_adopted() -> None:
    builder = WorldBuilder(HOST, KEYS)
    subnet = theirs.subnet(network="net-a", cidr="10.65.0.0/24", gateway="10.65.0.1")
    pairs = ["10.65.0.50", "172.30.0.1", "10.65.0.1"]
    items = {
        KEYS.subnets + "s4": subnet.encode(),
        key(MINE): written(MINE, pairs=pairs, nats={"203.0.113.7": "10.65.0.2"}),
    }

    def lawful(*changed: str) -> tuple[set[str], int]:
        world = builder.build(items, changed or items)
        subnets = world.subnets.values()
        confined, _ = confine(world.endpoints, subnets, adopted=world.adopted)
        (one,), _ = settle(confined, subnets, adopted=world.adopted)
        return {str(pair.prefix.network_address) for pair in one.pairs}, len(one.nats)

    assert lawful() == ({"10.65.0.50", "172.30.0.1"}, 1), "but for the gateway"
    ours = replace(parse_endpoint(items[key(MINE)]), project=MINE.project)
    items[key(MINE)] = encode_endpoint(ours)
    assert lawful(key(MINE)) == ({"10.65.0.50"}, 1), "one that is ours is judged"
    items[KEYS.adopted] = b"{}"
    assert lawful(KEYS.adopted) == (set(), 0)


def test_a_policy_of_theirs_means_the_same_once_it_is_rewritten() -> None:
    value = theirs.policy(
        WEB,
        ingress=[theirs.rule(4, remote=WEB, protocol="TCP")],
        egress=[theirs.rule(6)],
    ).encode()
    found = parse_policy(value)
    assert found == Policy(
        group=WEB,
        name="",
        ingress=(Rule(version=4, protocol=6, remote=RemoteGroup(WEB)),),
        egress=(Rule(version=6),),
    )
    assert parse_policy(encode_policy(found, KEYS, value)) == found
