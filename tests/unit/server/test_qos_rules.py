"""Neutron's QoS policies become a port's limits; its own policy goes first."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.server.test_translate import NOTHING, port

from calico.model.qos import Bandwidth, PacketRate, Qos
from calico.server import translate
from calico.server.qos_rules import limits, policy_of
from calico.server.translate import Surroundings

EGRESS = {
    "id": "r1",
    "type": "bandwidth_limit",
    "direction": "egress",
    "max_kbps": 1000,
    "max_burst_kbps": 300,
}
MARK = {"id": "r2", "type": "dscp_marking", "dscp_mark": 26}


def test_p16_all_kinds_of_rules_become_limits() -> None:
    ingress = EGRESS | {"direction": "ingress", "max_burst_kbps": 0}
    packets = {
        "id": "r3",
        "type": "packet_rate_limit",
        "direction": "ingress",
        "max_kpps": 2,
        "max_burst_kpps": 1,
    }
    found, omitted = limits([EGRESS, ingress, MARK, packets])
    assert omitted == []
    assert found == Qos(
        egress=Bandwidth(rate=1_000_000, burst=300_000),
        ingress=Bandwidth(rate=1_000_000, burst=800_000),
        ingress_packets=PacketRate(rate=2000, burst=1000),
        dscp=26,
    )


def test_a_rule_that_no_host_enforces_is_left_out_and_told() -> None:
    minimum = {"id": "r4", "type": "minimum_bandwidth", "min_kbps": 7}
    found, omitted = limits([minimum, MARK, EGRESS | {"max_burst_kbps": 10**9}])
    assert found == Qos(dscp=26)
    assert [(rule["id"], reason) for rule, reason in omitted] == [
        ("r4", "minimum_bandwidth rules are not enforced"),
        ("r1", "burst of 1000000000000 bits at 1000000 bit/s"),
    ]


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({}, None),
        ({"qos_policy_id": "own"}, "own"),
        ({"qos_network_policy_id": "net"}, "net"),
        ({"qos_policy_id": "own", "qos_network_policy_id": "net"}, "own"),
        ({"qos_network_policy_id": "net", "device_owner": "network:x"}, None),
        ({"qos_policy_id": "own", "device_owner": "neutron:x"}, "own"),
        ({"qos_network_policy_id": "net", "device_owner": ""}, "net"),
    ],
    ids=["none", "own", "network", "both", "neutrons", "neutrons-own", "no-owner"],
)
def test_a_ports_own_policy_goes_before_its_networks(
    changes: dict[str, Any], policy: str | None
) -> None:
    assert policy_of(port(**changes)) == policy


def test_an_endpoint_has_the_limits_of_its_policy() -> None:
    around = Surroundings(
        subnets={},
        networks={},
        group_names={},
        qos_rules={"own": [MARK], "net": [EGRESS]},
    )
    found, omitted = translate.endpoint(port(qos_policy_id="own"), around)
    assert (found.qos, omitted) == (Qos(dscp=26), [])
    assert translate.endpoint(port(), around)[0].qos == Qos()
    assert translate.endpoint(port(), NOTHING)[0].qos == Qos()


@pytest.mark.parametrize("own", [True, False])
def test_p16_a_floating_ip_is_limited_by_its_policy_in_bandwidth(*, own: bool) -> None:
    wanted = port()
    (fixed,) = wanted["fixed_ips"]
    floating = {
        "fixed_ip_address": fixed["ip_address"],
        "floating_ip_address": "192.0.2.5",
        "qos_policy_id": "p" if own else None,
        "qos_network_policy_id": "p",
    }
    around = replace(
        NOTHING,
        floating={wanted["id"]: [floating]},
        qos_rules={"p": [MARK, EGRESS]},
    )
    endpoint, omitted = translate.endpoint(wanted, around)
    (nat,) = endpoint.nats
    assert nat.qos == Qos(egress=Bandwidth(rate=1_000_000, burst=300_000))
    assert endpoint.qos == Qos()
    told = ["QoS rule r2 left out: floating IPs are limited in bandwidth alone"]
    assert [*map(str, omitted)] == (told if own else [])
