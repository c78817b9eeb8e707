"""What a host reads of an operator's policies, and what it follows for them."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import msgspec
from tests.endpoints import HOST, endpoint

from calico.model.codec import SG_LABEL, encode_endpoint
from calico.model.groups import Groups
from calico.model.ids import AddressGroupId, DeviceId, GroupId, HostName
from calico.model.keys import (
    AGENT_DEFAULTS,
    GLOBAL_NETWORK_SETS,
    GLOBAL_POLICIES,
    HOST_ENDPOINTS,
    Keys,
    global_policy,
)
from calico.model.operator import (
    Action,
    End,
    Failsafe,
    GlobalPolicy,
    HostEndpoint,
    NetworkSet,
    OperatorRule,
)
from calico.model.operator_codec import (
    encode_global_policy,
    encode_host_endpoint,
    encode_network_set,
)
from calico.model.operator_world import OperatorWorld
from calico.model.policy_codec import AG_LABEL, encode_address_group, encode_policy
from calico.model.records import (
    AddressGroup,
    Endpoint,
    Nat,
    Policy,
    RemoteAddressGroup,
    Rule,
)
from calico.model.selector_parser import parse_selector
from calico.model.selectors import EVERYTHING, Compare, Comparison, Has, Selector
from calico.model.world import (
    WorldBuilder,
    build,
    differs_in_policy,
    group_prefixes_and_keys,
    watched_keys,
    watched_prefixes,
)

KEYS = Keys()
OTHER = HostName("host-b")
ONE, TWO = endpoint(2), endpoint(3, host=OTHER)
WEB = GroupId("web")
OFFICE = AddressGroup(
    id=AddressGroupId("office"), name="", prefixes=(ip_network("10.7.0.0/16"),)
)
PROJECT = Compare("openstack.projectcalico.org/project-id", Comparison.EQUAL, "project")


def endpoints(*some: Endpoint) -> dict[str, bytes]:
    return {KEYS.endpoint(e.host, e.device, e.port): encode_endpoint(e) for e in some}


def deny_from(selector: Selector | None, to: Selector = EVERYTHING) -> dict[str, bytes]:
    rule = OperatorRule(action=Action.DENY, source=End(selector=selector))
    policy = GlobalPolicy(name="p", order=1, selector=to, ingress=(rule,))
    return {global_policy("p"): encode_global_policy(policy)}


def host_endpoint(host: HostName = HOST) -> dict[str, bytes]:
    one = HostEndpoint(
        name=f"{host}.up", host=host, labels={"role": "host"}, addresses=(HOST_IP,)
    )
    return {HOST_ENDPOINTS + one.name: encode_host_endpoint(one)}


HOST_IP = ip_address("192.0.2.7")


def operator(items: dict[str, bytes]) -> OperatorWorld:
    return build(HOST, KEYS, items).operator


def followed(items: dict[str, bytes]) -> frozenset[str]:
    """Return what a host that has seen all that it asks for follows beyond the rest."""
    ranges = watched_prefixes(HOST, KEYS) | watched_keys(KEYS)
    more: frozenset[str] = frozenset()
    for _ in range(4):
        seen = {
            name: {k: v for k, v in items.items() if k.startswith(name)}
            for name in ranges | more
        }
        prefixes, keys = group_prefixes_and_keys(HOST, KEYS, seen)
        more = prefixes | keys
    return more


SETS = {KEYS.network_sets, GLOBAL_NETWORK_SETS}
OWN = {KEYS.policy(GroupId("open")), KEYS.project_names(ONE.project)}


def test_p29_all_ports_are_followed_only_for_rules_that_could_select_one() -> None:
    mine, other = endpoints(ONE), endpoints(TWO)
    in_group = Has(SG_LABEL + WEB)
    for policies, expected in (
        (deny_from(None), set()),
        (deny_from(Has("zone")), SETS),
        (deny_from(PROJECT), SETS | {KEYS.endpoints}),
        (deny_from(EVERYTHING), SETS | {KEYS.endpoints}),
        (deny_from(in_group), SETS | {KEYS.group_members(WEB)}),
        (deny_from(PROJECT, to=Has("role")), set()),
    ):
        items = {**mine, **other, **policies}
        assert followed(items) - OWN == expected, policies
    items = {**other, **deny_from(PROJECT), **host_endpoint(OTHER)}
    assert followed(items) == set(), "nothing here is subject to it"
    items = {**deny_from(PROJECT, to=Has("role")), **host_endpoint()}
    assert followed(items) == SETS | {KEYS.endpoints}, "the host itself is"


def test_an_address_group_is_not_followed_twice() -> None:
    rule = Rule(version=4, remote=RemoteAddressGroup(OFFICE.id), id="r")
    web = Policy(group=WEB, name="", ingress=(rule,))
    items = {
        **endpoints(replace(ONE, groups=frozenset({WEB}))),
        KEYS.policy(WEB): encode_policy(web),
    }
    key = KEYS.address_group(OFFICE.id)
    assert key in followed(items)
    assert key not in followed({**items, **deny_from(Has("zone"))})


def test_selectors_select_ports_hosts_sets_and_address_groups() -> None:
    zone = {"zone": "a"}
    for_all = NetworkSet(name="s", labels=zone, nets=(ip_network("10.8.0.0/16"),))
    of_cloud = replace(
        for_all, namespace="openstack", nets=(ip_network("10.9.0.0/16"),)
    )
    items = {
        **endpoints(ONE, TWO),
        **host_endpoint(OTHER),
        GLOBAL_NETWORK_SETS + "s": encode_network_set(for_all),
        KEYS.network_sets + "s": encode_network_set(of_cloud),
        KEYS.address_group(OFFICE.id): encode_address_group(OFFICE),
    }
    found = operator(items)

    def addresses(selector: Selector) -> set[str]:
        return set(map(str, found.prefixes(selector, Groups())))

    assert addresses(Has("zone")) == {"10.8.0.0/16", "10.9.0.0/16"}
    assert addresses(Has("role")) == {"192.0.2.7/32"}
    assert addresses(PROJECT) == {
        "10.65.0.2/32",
        "10.65.0.3/32",
        "2001:db8:65::2/128",
        "2001:db8:65::3/128",
    }
    namespace = Compare("projectcalico.org/namespace", Comparison.EQUAL, "openstack")
    assert "10.9.0.0/16" in addresses(namespace)
    assert found.host_endpoints == ()
    assert build(HOST, KEYS, items).rejected == ()


def test_p47_an_address_group_is_selected_by_its_own_label_alone() -> None:
    """Tenants fill them with any prefix: it must not become what an operator means."""
    key = KEYS.address_group(OFFICE.id)
    found = operator({key: encode_address_group(OFFICE)})
    label = AG_LABEL + OFFICE.id

    def selected(selector: Selector) -> bool:
        return bool(found.prefixes(selector, Groups()))

    assert selected(Has(label))
    for text in (
        "all()",
        "role != 'x'",
        "!has(role)",
        "role not in {'x'}",
        "has(projectcalico.org/namespace)",
        "projectcalico.org/namespace == 'openstack'",
        f"has({label}) || has(role)",
        f"!has({AG_LABEL}another)",
    ):
        assert not selected(parse_selector(text)), text


def test_a_port_has_its_labels_whatever_its_device_is_called() -> None:
    """Tenants write the device, and the name of the endpoint is made of it."""
    for device in ("-", "--", "-a", "a-", "-openstack-", "a/b", "a--b"):
        port = replace(ONE, device=DeviceId(device))
        found = operator(endpoints(port))
        assert PROJECT.matches(found.labels_of(port.port)), device


def test_a_port_is_selected_by_the_floating_ips_that_lead_to_it() -> None:
    nat = Nat(internal=ONE.addresses[0], external=ip_address("198.51.100.9"))
    found = operator(endpoints(replace(ONE, nats=(nat,))))
    assert ip_network("198.51.100.9/32") in found.prefixes(PROJECT, Groups())


def test_who_is_in_a_group_is_said_by_the_member_index() -> None:
    key = KEYS.member(WEB, ip_network("10.1.1.1/32"), ONE.port)
    world = build(HOST, KEYS, {key: b"{}"})
    in_group = Has(SG_LABEL + WEB)
    found = world.operator.prefixes(in_group, world.groups)
    assert found == {ip_network("10.1.1.1/32")}


def test_labels_that_an_operator_puts_on_a_port_do_not_count() -> None:
    # Which selectors could mean a port has to be known before all ports are.
    key, value = next(iter(endpoints(ONE).items()))
    body = msgspec.json.decode(value)
    body["metadata"]["labels"]["role"] = "web"
    found = operator({key: msgspec.json.encode(body)})
    assert "role" not in found.labels_of(ONE.port)
    assert PROJECT.matches(found.labels_of(ONE.port))
    assert found.prefixes(Has("role"), Groups()) == frozenset()


def test_p41_a_policy_that_cannot_be_read_is_set_aside_and_reported() -> None:
    bad = {
        global_policy("bad"): b'{"kind":"GlobalNetworkPolicy","spec":{"order":"1"}}',
        HOST_ENDPOINTS + "bad": b"[]",
        GLOBAL_NETWORK_SETS + "bad": b"{}",
        KEYS.network_sets + "bad": b"{",
        AGENT_DEFAULTS: b"no",
    }
    world = build(HOST, KEYS, {**endpoints(ONE), **deny_from(PROJECT), **bad})
    assert {one.key for one in world.rejected} == bad.keys()
    assert [policy.name for policy in world.operator.policies] == ["p"]
    assert world.operator.failsafe == Failsafe()
    assert world.endpoints == (ONE,)


def test_p41_what_another_host_serves_is_its_own_to_report() -> None:
    key = KEYS.endpoint(OTHER, TWO.device, TWO.port)
    world = build(HOST, KEYS, {**endpoints(ONE), key: b"[]"})
    assert world.rejected == ()


def test_a_policy_is_read_once_however_it_is_stored() -> None:
    stored = deny_from(PROJECT)
    items = {**stored, GLOBAL_POLICIES + "p": next(iter(stored.values()))}
    assert len(build(HOST, KEYS, items).operator.policies) == 1


def test_p51_what_an_operator_says_is_the_same_object_until_it_changes() -> None:
    items = {**endpoints(ONE, TWO), **deny_from(PROJECT), **host_endpoint()}
    builder = WorldBuilder(HOST, KEYS)
    first = builder.build(items, items)
    member = KEYS.member(WEB, ip_network("10.1.1.1/32"), ONE.port)
    other = builder.build(items | {member: b"{}"}, {member})
    assert other.operator is first.operator
    assert differs_in_policy(other, first)
    third = endpoint(4, host=OTHER)
    more = endpoints(third)
    now = builder.build(items | more, more)
    assert now.operator != first.operator
    assert differs_in_policy(now, first), "another host's port is policy alone"
    assert now.operator == builder.build(items | more, ()).operator
    assert not differs_in_policy(builder.build(items, endpoints(ONE)), first)
