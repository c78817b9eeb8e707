"""Operators' policies as Calico writes them: read right, or refused with the place."""

import json
from ipaddress import ip_network

import pytest

from calico.model.ids import HostName, Invalid
from calico.model.keys import (
    GLOBAL_POLICIES,
    Keys,
    global_policy,
    shown_policy_name,
    stored_policy_name,
)
from calico.model.operator import (
    Action,
    End,
    Failsafe,
    FailsafePort,
    GlobalPolicy,
    HostEndpoint,
    NetworkSet,
    OperatorRule,
)
from calico.model.operator_codec import (
    encode_global_policy,
    encode_network_set,
    parse_failsafe,
    parse_global_network_set,
    parse_global_policy,
    parse_host_endpoint,
    parse_network_set,
)
from calico.model.policy_codec import encode_address_group
from calico.model.records import AddressGroup, PortRange
from calico.model.selector_parser import parse_selector


def policy_of(**spec: object) -> GlobalPolicy:
    return parse_global_policy(
        json.dumps(
            {
                "kind": "GlobalNetworkPolicy",
                "metadata": {"name": "default.guard"},
                "spec": spec,
            }
        ).encode()
    )


def rule_of(**body: object) -> OperatorRule:
    policy = policy_of(ingress=[{"action": "Allow", **body}])
    assert policy.ingress is not None
    (rule,) = policy.ingress
    return rule


ALLOW = {"action": "Allow"}


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({}, (True, False)),
        ({"ingress": [ALLOW]}, (True, False)),
        ({"egress": [ALLOW]}, (False, True)),
        ({"ingress": [ALLOW], "egress": [ALLOW]}, (True, True)),
        ({"types": [], "egress": [ALLOW]}, (False, True)),
        ({"types": ["Egress"]}, (False, True)),
        ({"types": ["Ingress", "Egress"]}, (True, True)),
    ],
)
def test_the_directions_of_a_policy_are_calicos(
    spec: dict[str, object], directions: tuple[bool, bool]
) -> None:
    policy = policy_of(**spec)
    assert (policy.ingress is not None, policy.egress is not None) == directions


@pytest.mark.parametrize(
    ("written", "version", "protocol"),
    [
        ({"protocol": "ICMP"}, 4, 1),
        ({"protocol": "icmpv6"}, 6, 58),
        ({"protocol": 1}, None, 1),
        ({"protocol": "TCP"}, None, 6),
        ({"protocol": "UDPLite", "ipVersion": 6}, 6, 136),
        ({"ipVersion": 4}, 4, None),
    ],
)
def test_a_protocol_by_name_or_number_is_understood(
    written: dict[str, object], version: int | None, protocol: int | None
) -> None:
    rule = rule_of(**written)
    assert (rule.version, rule.protocol) == (version, protocol)


def test_ports_are_numbers_texts_and_ranges() -> None:
    end = rule_of(
        protocol="TCP", destination={"ports": [22, "80", "1000:2000"], "notPorts": [1]}
    ).destination
    found = [(each.first, each.last) for each in end.ports or ()]
    assert found == [(22, 22), (80, 80), (1000, 2000)]
    assert end.not_ports == (PortRange(first=1, last=1),)


def test_empty_is_any_and_all_is_only_what_is_known() -> None:
    empty = rule_of(source={"nets": [], "selector": "", "ports": []}).source
    assert empty == End()
    assert str(rule_of(source={"selector": "all()"}).source.selector) == "all()"


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ({"namespaceSelector": "all()"}, "has(projectcalico.org/namespace)"),
        ({"namespaceSelector": " global( )"}, "!has(projectcalico.org/namespace)"),
        (
            {"namespaceSelector": "all()", "selector": "has(a)"},
            "has(projectcalico.org/namespace) && has(a)",
        ),
        ({"namespaceSelector": "", "selector": "has(a)"}, "has(a)"),
    ],
)
def test_a_namespace_selector_is_a_condition_on_the_namespaces_label(
    written: dict[str, object], means: str
) -> None:
    assert str(policy_of(**written).selector) == means
    assert str(rule_of(destination=written).destination.selector) == means


def ingress(**body: object) -> dict[str, object]:
    return {"ingress": [ALLOW, ALLOW, {"action": "Deny", **body}]}


RULE = "spec.ingress[2]"


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"tier": "security"}, "spec.tier: not supported: 'default' is the only"),
        ({"doNotTrack": True}, "spec.doNotTrack: not supported: policies see"),
        ({"preDNAT": True}, "spec.preDNAT: not supported: policies see packets after"),
        ({"applyOnForward": True}, "spec.applyOnForward: not supported: policies hold"),
        ({"serviceAccountSelector": "has(a)"}, "spec.serviceAccountSelector: not supp"),
        ({"namespaceSelector": "has(a)"}, "spec.namespaceSelector: not supported: nam"),
        ({"stagedAction": "Set"}, "spec.stagedAction: unknown field"),
        ({"order": "10"}, "spec.order: '10' is not a number"),
        ({"order": 10**400}, "spec.order: too great a number"),
        ({"order": True}, "spec.order: True is not a number"),
        ({"types": ["Both"]}, "spec.types[0]: 'Both' is neither Ingress nor Egress"),
        ({"selector": "a = 'b'"}, "spec.selector: character 3: found '=', expected =="),
        ({"selector": ["a"]}, "spec.selector: ['a'] is not a text"),
        ({"ingress": ALLOW}, "spec.ingress: {'action': 'Allow'} is not a list"),
        ({"egress": ["Allow"]}, "spec.egress[0]: 'Allow' is not an object"),
        (
            {"types": ["Egress"], "ingress": [ALLOW]},
            "spec.ingress: there are rules, but spec.types does not name Ingress",
        ),
        (ingress(action="Reject"), f"{RULE}.action: 'Reject' is none of Allow, Deny"),
        (ingress(action=None), f"{RULE}.action: None is none of Allow, Deny"),
        (ingress(http={"methods": ["GET"]}), f"{RULE}.http: not supported: hosts look"),
        (ingress(Protocol="TCP"), f"{RULE}.Protocol: unknown field"),
        (ingress(protocol="GOPHER"), f"{RULE}.protocol: 'GOPHER' is neither a number"),
        (ingress(protocol=256), f"{RULE}.protocol: 256 is neither a number"),
        (ingress(protocol=True), f"{RULE}.protocol: True is neither a number"),
        (ingress(ipVersion=5), f"{RULE}: IP version 5"),
        (ingress(ipVersion="4"), f"{RULE}.ipVersion: '4' is not a whole number"),
        (ingress(protocol="ICMP", ipVersion=6), f"{RULE}: protocol 1 is not of IPv6"),
        (ingress(icmp={"type": 8}), f"{RULE}: an ICMP type needs the protocol ICMP"),
        (ingress(icmp={"code": 0}), f"{RULE}.icmp: a code without a type"),
        (
            ingress(protocol="ICMP", notICMP={"type": 256}),
            f"{RULE}.notICMP: ICMP type or code 256",
        ),
        (
            ingress(source={"serviceAccounts": {"names": ["a"]}}),
            f"{RULE}.source.serviceAccounts: not supported: OpenStack has no",
        ),
        (
            ingress(destination={"services": {"name": "dns"}}),
            f"{RULE}.destination.services: not supported: OpenStack has no",
        ),
        (
            ingress(destination={"domains": ["example.com"]}),
            f"{RULE}.destination.domains: not supported: hosts do not look at names",
        ),
        (
            ingress(source={"namespaceSelector": "kind == 'x'"}),
            f"{RULE}.source.namespaceSelector: not supported: namespaces have no",
        ),
        (
            ingress(source={"nets": ["10.0.0.0/8", "ten"]}),
            f"{RULE}.source.nets[1]: 'ten' is not a prefix",
        ),
        (
            ingress(ipVersion=4, source={"notNets": ["fd00::/8"]}),
            f"{RULE}: fd00::/8 is not IPv4",
        ),
        (
            ingress(protocol="TCP", destination={"ports": [80, "http"]}),
            f"{RULE}.destination.ports[1]: 'http': only numbers and 'first:last'",
        ),
        (
            ingress(protocol="TCP", destination={"notPorts": ["2:1"]}),
            f"{RULE}.destination.notPorts[0]: ports 2:1",
        ),
        (
            ingress(protocol="TCP", source={"ports": [True]}),
            f"{RULE}.source.ports[0]: True is no port",
        ),
        (
            ingress(protocol="TCP", source={"ports": ["1:"]}),
            f"{RULE}.source.ports[0]: '1:': only numbers and",
        ),
        (ingress(destination={"ports": [80]}), f"{RULE}: ports need the protocol TCP"),
        (
            ingress(source={"notSelector": "has("}),
            f"{RULE}.source.notSelector: character 5: found the end",
        ),
    ],
)
def test_p01_what_hosts_cannot_enforce_is_refused_with_its_place(
    spec: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Invalid) as caught:
        policy_of(**spec)
    assert str(caught.value).startswith(complaint)


def test_what_asks_for_nothing_is_passed_over() -> None:
    policy = policy_of(
        tier="default",
        order=10,
        doNotTrack=False,
        preDNAT=False,
        applyOnForward=False,
        serviceAccountSelector="",
        performanceHints=["AssumeNeededOnEveryNode"],
        ingress=[
            {
                "action": "Log",
                "metadata": {"annotations": {"why": "to see"}},
                "source": {"services": None, "serviceAccounts": {}},
            }
        ],
    )
    assert policy == GlobalPolicy(
        name="guard", order=10, ingress=(OperatorRule(action=Action.LOG),)
    )


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("guard", "default.guard"),
        ("a.b", "default.a.b"),
        ("knp.default.x", "knp.default.x"),
        ("ossg.default.x", "ossg.default.x"),
    ],
)
def test_policies_are_stored_under_calicos_names(name: str, stored: str) -> None:
    assert stored_policy_name(name) == stored
    assert shown_policy_name(stored) == name
    assert global_policy(name) == GLOBAL_POLICIES + stored
    body = json.loads(encode_global_policy(GlobalPolicy(name=name, ingress=())))
    assert body["metadata"]["name"] == stored


def test_a_policy_stored_without_its_tier_is_read_too() -> None:
    value = encode_global_policy(GlobalPolicy(name="guard", ingress=()))
    bare = value.replace(b'"default.guard"', b'"guard"')
    assert bare != value
    assert parse_global_policy(bare) == parse_global_policy(value)


@pytest.mark.parametrize("name", ["", "A", "a_b", ".a", "a-", "a" * 254, "a\nb"])
def test_a_name_that_the_model_has_not_is_refused(name: str) -> None:
    for make in (GlobalPolicy, NetworkSet):
        with pytest.raises(Invalid, match="name"):
            make(name=name)


def host_endpoint_of(**spec: object) -> HostEndpoint:
    return parse_host_endpoint(
        json.dumps(
            {"kind": "HostEndpoint", "metadata": {"name": "host1"}, "spec": spec}
        ).encode()
    )


def test_a_host_endpoint_is_one_interface_or_all() -> None:
    assert host_endpoint_of(node="h", interfaceName="eth0").interface == "eth0"
    all_of_them = host_endpoint_of(
        node="h", interfaceName="*", profiles=["projectcalico-default-allow"]
    )
    assert all_of_them == HostEndpoint(
        name="host1", host=HostName("h"), default_allow=True
    )


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"interfaceName": "*"}, "spec.node: missing"),
        ({"node": "h", "expectedIPs": ["10.0.0.1"]}, "spec.interfaceName: missing"),
        ({"node": "h", "interfaceName": "lo"}, "spec.interfaceName: not supported"),
        ({"node": "h", "interfaceName": "tapvpn"}, "spec.interfaceName: not supported"),
        ({"node": "h", "interfaceName": "a b"}, "'a b' is no name of an interface"),
        (
            {"node": "h", "interfaceName": "*", "expectedIPs": ["10.0.0.1", "x"]},
            "spec.expectedIPs[1]: 'x' is not an address",
        ),
        (
            {"node": "h", "interfaceName": "*", "profiles": ["kns.default"]},
            "spec.profiles: not supported, but for [projectcalico-default-allow]",
        ),
        (
            {"node": "h", "interfaceName": "*", "ports": [{"name": "ssh"}]},
            "spec.ports: not supported: ports have no names here",
        ),
    ],
)
def test_p01_a_host_endpoint_that_is_more_than_hosts_do_is_refused(
    spec: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Invalid) as caught:
        host_endpoint_of(**spec)
    assert str(caught.value).startswith(complaint)


def test_sets_have_a_namespace_or_not_by_their_kind() -> None:
    within = encode_network_set(NetworkSet(name="a", namespace="openstack"))
    without = encode_network_set(NetworkSet(name="a"))
    with pytest.raises(Invalid, match="kind"):
        parse_global_network_set(within)
    with pytest.raises(Invalid, match=r"metadata\.namespace: missing"):
        parse_network_set(without.replace(b"GlobalNetworkSet", b"NetworkSet"))
    with pytest.raises(Invalid, match="a GlobalNetworkSet has none"):
        parse_global_network_set(within.replace(b"NetworkSet", b"GlobalNetworkSet"))


def test_an_address_group_can_be_selected() -> None:
    group = AddressGroup(id="g", name="n", prefixes=(ip_network("10.0.0.0/8"),))  # type: ignore[arg-type] # NewType
    found = parse_network_set(encode_address_group(group))
    assert (found.name, found.nets) == ("osag.g", group.prefixes)
    assert parse_selector("has(ag.projectcalico.org/openstack-g)").matches(found.labels)
    assert parse_selector("has(projectcalico.org/namespace)").matches(found.labels)


def test_address_groups_are_apart_from_operators_sets() -> None:
    keys = Keys()
    assert keys.address_groups == keys.network_sets + "osag."


def test_of_what_is_replaced_only_identity_and_annotations_stay() -> None:
    old = {
        "kind": "GlobalNetworkPolicy",
        "metadata": {
            "name": "default.guard",
            "uid": "first",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"gone": ""},
            "annotations": {"example.com/owner": "me"},
            "resourceVersion": "7",
        },
        "spec": {"doNotTrack": True, "egress": [{"action": "Deny"}], "new": 1},
    }
    policy = GlobalPolicy(name="guard", ingress=())
    stored = encode_global_policy(policy, old=json.dumps(old).encode())
    assert parse_global_policy(stored) == policy
    assert json.loads(stored)["metadata"] == {
        "name": "default.guard",
        "uid": "first",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {},
        "annotations": {"example.com/owner": "me"},
    }


@pytest.mark.parametrize("old", [b"", b"{", b"[]", b'{"metadata": 7}'])
def test_what_cannot_be_read_is_replaced_whole(old: bytes) -> None:
    policy = GlobalPolicy(name="guard", ingress=())
    assert encode_global_policy(policy, old=old) == encode_global_policy(policy)


def failsafe_of(**spec: object) -> Failsafe:
    body = {"kind": "FelixConfiguration", "metadata": {"name": "default"}, "spec": spec}
    return parse_failsafe(json.dumps(body).encode())


def ports_of(ports: tuple[FailsafePort, ...]) -> set[tuple[int, int]]:
    return {(each.protocol, each.port) for each in ports}


CLUSTER = {(6, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667)}


@pytest.mark.parametrize("found", [parse_failsafe(None), failsafe_of(logSeverity="x")])
def test_without_a_word_the_failsafe_ports_are_calicos(found: Failsafe) -> None:
    assert ports_of(found.inbound) == CLUSTER | {(6, 22), (17, 68)}
    assert ports_of(found.outbound) == CLUSTER | {(17, 53), (17, 67)}


def test_failsafe_ports_are_what_is_written() -> None:
    found = failsafe_of(
        failsafeInboundHostPorts=[
            {"port": 2222},
            {"protocol": "UDP", "port": 68, "net": "10.0.0.0/8"},
        ],
        failsafeOutboundHostPorts=[],
    )
    assert found == Failsafe(
        inbound=(
            FailsafePort(protocol=6, port=2222),
            FailsafePort(protocol=17, port=68, net=ip_network("10.0.0.0/8")),
        ),
        outbound=(),
    )


@pytest.mark.parametrize(
    ("port", "complaint"),
    [
        ({}, r"Ports\[0\]\.port: missing"),
        ({"port": 70000}, r"Ports\[0\]: port 70000"),
        ({"port": 1, "protocol": "ICMP"}, r"Ports\[0\]: protocol 1 has no ports"),
        ({"port": 1, "net": "x"}, r"Ports\[0\]\.net: 'x' is not a prefix"),
        ({"port": 1, "host": "x"}, r"Ports\[0\]\.host: unknown field"),
    ],
)
def test_a_bad_failsafe_port_is_refused(port: object, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        failsafe_of(failsafeInboundHostPorts=[port])
