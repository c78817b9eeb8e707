"""QoS policies of a real Neutron: what they come to in etcd, and what is refused."""

import json
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import ApiError
from tests.neutron.waiting import eventually

EGRESS = {"max_kbps": 3000, "max_burst_kbps": 300, "direction": "egress"}


def controls(cloud: Cloud, port: dict[str, Any]) -> dict[str, Any] | None:
    """Return the limits in a port's endpoint; None without an endpoint."""
    item = cloud.store.get(cloud.endpoint_key(port))
    if item is None:
        return None
    found: dict[str, Any] = json.loads(item.value)["spec"].get("qosControls", {})
    return found


def await_controls(cloud: Cloud, port: dict[str, Any], wanted: dict[str, Any]) -> None:
    eventually(
        lambda: controls(cloud, port) == wanted,
        f"{wanted} for port {port['id']}",
    )


def policy(cloud: Cloud, **rules: dict[str, Any]) -> str:
    """Create a policy with rules by their type; return its id."""
    created: str = cloud.api.post("qos/policies", policy={"name": "p"})["id"]
    for kind, rule in rules.items():
        add_rule(cloud, created, kind, **rule)
    return created


def add_rule(cloud: Cloud, policy: str, kind: str, **rule: Any) -> str:
    body = {f"{kind}_rule": rule}
    reply = cloud.api.call("POST", f"qos/policies/{policy}/{kind}_rules", body)
    created: str = reply[f"{kind}_rule"]["id"]
    return created


def test_a_ports_policy_is_in_its_endpoint_and_every_change_of_it(
    cloud: Cloud,
) -> None:
    network = cloud.network("10.61.0.0/24")
    first = policy(cloud, bandwidth_limit=EGRESS, dscp_marking={"dscp_mark": 26})
    ports = [cloud.instance_port(network, qos_policy_id=first) for _ in range(2)]
    wanted = {"egressBandwidth": 3_000_000, "egressBurst": 300_000, "dscp": 26}
    for port in ports:
        await_controls(cloud, port, wanted)

    ingress = {"max_kbps": 1000, "direction": "ingress"}
    rule = add_rule(cloud, first, "bandwidth_limit", **ingress)
    packets = {"max_kpps": 5, "direction": "ingress"}
    add_rule(cloud, first, "packet_rate_limit", **packets)
    wanted |= {"ingressBandwidth": 1_000_000, "ingressBurst": 800_000}
    wanted |= {"ingressPacketRate": 5000, "ingressPacketBurst": 500}
    for port in ports:
        await_controls(cloud, port, wanted)

    path = f"qos/policies/{first}/bandwidth_limit_rules/{rule}"
    cloud.api.put(path, bandwidth_limit_rule={"max_kbps": 2000, "max_burst_kbps": 10})
    wanted |= {"ingressBandwidth": 2_000_000, "ingressBurst": 10_000}
    for port in ports:
        await_controls(cloud, port, wanted)

    cloud.api.delete(path)
    del wanted["ingressBandwidth"], wanted["ingressBurst"]
    for port in ports:
        await_controls(cloud, port, wanted)

    cloud.api.put(f"ports/{ports[0]['id']}", port={"qos_policy_id": None})
    await_controls(cloud, ports[0], {})
    assert controls(cloud, ports[1]) == wanted


def test_a_networks_policy_holds_for_ports_without_their_own(cloud: Cloud) -> None:
    of_network = policy(cloud, dscp_marking={"dscp_mark": 8})
    own = policy(cloud, dscp_marking={"dscp_mark": 16})
    network = cloud.network("10.62.0.0/24", qos_policy_id=of_network)
    plain = cloud.instance_port(network)
    special = cloud.instance_port(network, qos_policy_id=own)
    await_controls(cloud, plain, {"dscp": 8})
    await_controls(cloud, special, {"dscp": 16})

    add_rule(cloud, of_network, "bandwidth_limit", **EGRESS)
    await_controls(
        cloud,
        plain,
        {"dscp": 8, "egressBandwidth": 3_000_000, "egressBurst": 300_000},
    )
    cloud.api.put(f"networks/{network['id']}", network={"qos_policy_id": None})
    await_controls(cloud, plain, {})
    assert controls(cloud, special) == {"dscp": 16}
    cloud.api.put(f"networks/{network['id']}", network={"qos_policy_id": own})
    await_controls(cloud, plain, {"dscp": 16})
    assert "qos-policy" not in cloud.journal()


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("minimum_bandwidth", {"min_kbps": 1000, "direction": "egress"}),
        ("minimum_packet_rate", {"min_kpps": 1, "direction": "egress"}),
        ("bandwidth_limit", {"max_kbps": 0}),
        ("bandwidth_limit", {"max_kbps": 1, "max_burst_kbps": 1000}),
        ("bandwidth_limit", {"max_kbps": 10**9, "max_burst_kbps": 34_359_739}),
        ("packet_rate_limit", {"max_kpps": 1_000_001}),
    ],
    ids=["bandwidth", "packets", "nothing", "long-burst", "large-burst", "packet-rate"],
)
def test_p16_what_no_host_enforces_is_refused_where_it_would_concern_a_port(
    cloud: Cloud, unlimited: dict[str, Any], kind: str, rule: dict[str, Any]
) -> None:
    refused = {"qos_policy_id": policy(cloud, **{kind: rule})}
    port, network = f"ports/{unlimited['id']}", f"networks/{unlimited['network_id']}"
    reason = f"{kind} is not supported by"
    with pytest.raises(ApiError, match=f"{reason} port") as of_port:
        cloud.api.put(port, port=refused)
    with pytest.raises(ApiError, match=f"{reason} network") as of_network:
        cloud.api.put(network, network=refused)
    assert (of_port.value.status, of_network.value.status) == (409, 409)
    assert controls(cloud, unlimited) == {}


def test_p16_a_rule_that_no_host_enforces_is_refused_for_a_policy_in_use(
    cloud: Cloud, unlimited: dict[str, Any]
) -> None:
    used = policy(cloud, dscp_marking={"dscp_mark": 8})
    network = {"id": unlimited["network_id"]}
    port = cloud.instance_port(network, qos_policy_id=used)
    with pytest.raises(ApiError, match="minimum_bandwidth is not supported") as answer:
        add_rule(cloud, used, "minimum_bandwidth", min_kbps=7, direction="egress")
    assert answer.value.status == 409
    await_controls(cloud, port, {"dscp": 8})


def test_the_rule_types_that_neutron_offers_are_those_that_hosts_enforce(
    cloud: Cloud,
) -> None:
    offered = {kind["type"] for kind in cloud.api.get("qos/rule-types")}
    assert offered == {"bandwidth_limit", "dscp_marking", "packet_rate_limit"}


@pytest.fixture(scope="module")
def unlimited(cloud: Cloud) -> dict[str, Any]:
    """Return a port without a policy, bound to a host."""
    port = cloud.instance_port(cloud.network("10.63.0.0/24"))
    await_controls(cloud, port, {})
    return port
