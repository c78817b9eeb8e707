"""Operators' records survive the way into JSON and back, and stand any JSON."""

import json
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.hostile import CORNERS, places, substituted, values, well_typed

from calico.model.ids import HostName, Invalid
from calico.model.operator import (
    Action,
    End,
    GlobalPolicy,
    HostEndpoint,
    Icmp,
    NetworkSet,
    OperatorRule,
)
from calico.model.operator_codec import (
    encode_global_policy,
    encode_host_endpoint,
    encode_network_set,
    parse_failsafe,
    parse_global_network_set,
    parse_global_policy,
    parse_host_endpoint,
    parse_network_set,
)
from calico.model.records import ICMP, PORT_PROTOCOLS, PortRange
from calico.model.selector_parser import parse_selector

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,9}[a-z0-9])?", fullmatch=True)
labels = st.dictionaries(st.sampled_from(["role", "example.com/rack"]), st.text())
octets = st.integers(0, 255)
addresses = st.ip_addresses()
selectors = st.sampled_from(
    ["all()", "global()", "has(a)", "a == 'x' && !(b in {'y', 'z'} || has(c))"]
).map(parse_selector)
ports = st.tuples(octets, octets).map(
    lambda ends: PortRange(first=min(ends), last=max(ends))
)
icmps = st.builds(Icmp, type=octets, code=st.none() | octets)


def nets_of(version: Literal[4, 6] | None) -> st.SearchStrategy[Any]:
    drawn = st.ip_addresses(v=version) if version else addresses
    return st.builds(
        lambda address, gap: ip_network((address, max(0, 32 - gap)), strict=False),
        drawn,
        st.integers(0, 32),
    )


def tuples(of: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(of, min_size=least, max_size=2).map(tuple)


@st.composite
def ends(draw: st.DrawFn, version: Literal[4, 6] | None, *, with_ports: bool) -> End:
    nets = nets_of(version)
    return End(
        nets=draw(st.none() | tuples(nets, 1)),
        not_nets=draw(tuples(nets)),
        selector=draw(st.none() | selectors),
        not_selector=draw(st.none() | selectors),
        ports=draw(st.none() | tuples(ports, 1)) if with_ports else None,
        not_ports=draw(tuples(ports)) if with_ports else (),
    )


@st.composite
def rules(draw: st.DrawFn) -> OperatorRule:
    versions: list[Literal[4, 6] | None] = [None, 4, 6]
    version = draw(st.sampled_from(versions))
    own = [ICMP[version]] if version else list(ICMP.values())
    known = st.sampled_from([None, 0, 6, 17, 132, 136, *own])
    protocol = draw(known | octets.filter(lambda n: n not in ICMP.values()))
    with_ports = protocol in PORT_PROTOCOLS
    has_types = protocol in ICMP.values()
    return OperatorRule(
        action=draw(st.sampled_from(Action)),
        version=version,
        protocol=protocol,
        not_protocol=draw(st.none() | octets),
        icmp=draw(st.none() | icmps) if has_types else None,
        not_icmp=draw(st.none() | icmps) if has_types else None,
        source=draw(ends(version, with_ports=with_ports)),
        destination=draw(ends(version, with_ports=with_ports)),
    )


@st.composite
def policies(draw: st.DrawFn) -> GlobalPolicy:
    ingress = draw(st.none() | tuples(rules()))
    egress = draw(tuples(rules()) if ingress is None else st.none() | tuples(rules()))
    return GlobalPolicy(
        # A name that has the tier's before it is the same without.
        name=draw(names.filter(lambda name: not name.startswith("default."))),
        order=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        selector=draw(selectors),
        ingress=ingress,
        egress=egress,
    )


network_sets = st.builds(
    NetworkSet,
    name=names,
    namespace=st.just("openstack"),
    labels=labels.map(lambda it: {**it, "projectcalico.org/namespace": "openstack"}),
    nets=tuples(nets_of(None)),
)
global_network_sets = st.builds(
    NetworkSet, name=names, labels=labels, nets=tuples(nets_of(None))
)
host_endpoints = st.builds(
    HostEndpoint,
    name=names,
    host=st.text(min_size=1).map(HostName),
    interface=st.none() | st.sampled_from(["eth0", "bond0.100", "br-ex"]),
    addresses=tuples(addresses),
    labels=labels,
    default_allow=st.booleans(),
)


@given(policies())
def test_a_policy_survives_the_round_trip(policy: GlobalPolicy) -> None:
    assert parse_global_policy(encode_global_policy(policy)) == policy


@given(network_sets)
def test_a_network_set_survives_the_round_trip(network_set: NetworkSet) -> None:
    assert parse_network_set(encode_network_set(network_set)) == network_set


@given(global_network_sets)
def test_a_global_network_set_survives_the_round_trip(found: NetworkSet) -> None:
    assert parse_global_network_set(encode_network_set(found)) == found


@given(host_endpoints)
def test_a_host_endpoint_survives_the_round_trip(endpoint: HostEndpoint) -> None:
    assert parse_host_endpoint(encode_host_endpoint(endpoint)) == endpoint


PARSERS: dict[str, tuple[Callable[[bytes], object], st.SearchStrategy[bytes]]] = {
    "policy": (parse_global_policy, policies().map(encode_global_policy)),
    "network set": (parse_network_set, network_sets.map(encode_network_set)),
    "global set": (
        parse_global_network_set,
        global_network_sets.map(encode_network_set),
    ),
    "host endpoint": (parse_host_endpoint, host_endpoints.map(encode_host_endpoint)),
    "failsafe": (
        parse_failsafe,
        st.just(
            b'{"kind": "FelixConfiguration", "metadata": {"name": "default"}, "spec":'
            b' {"failsafeInboundHostPorts": [{"protocol": "tcp", "port": 22,'
            b' "net": "::/0"}]}}'
        ),
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
    for path in places(body):
        for value in [*CORNERS, data.draw(values)]:
            stored = json.dumps(substituted(body, path, value)).encode()
            try:
                record = parse(stored)
            except Invalid:
                continue
            assert well_typed(record, type(record)), record
