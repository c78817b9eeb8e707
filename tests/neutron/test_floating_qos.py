"""QoS policies of floating IPs of a real Neutron: in etcd, and what is refused."""

from dataclasses import dataclass
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import ApiError
from tests.neutron.test_qos import EGRESS, add_rule, policy
from tests.neutron.waiting import eventually

from calico.model.codec import parse_endpoint
from calico.model.qos import UNLIMITED, Qos, bandwidth

SLOW = Qos(egress=bandwidth(3_000_000, 300_000))
DSCP = {"dscp_mark": 8}


@dataclass(frozen=True)
class Site:
    """An external network, and a port behind it that may have floating IPs."""

    cloud: Cloud
    public: dict[str, Any]
    port: dict[str, Any]

    def floating(self, **more: Any) -> dict[str, Any]:
        wanted = {"floating_network_id": self.public["id"], "port_id": self.port["id"]}
        made: dict[str, Any] = self.cloud.api.post(
            "floatingips", floatingip=wanted | more
        )
        return made

    def change(self, floating: dict[str, Any], policy: str | None) -> dict[str, Any]:
        body = {"qos_policy_id": policy}
        return self.cloud.api.put(f"floatingips/{floating['id']}", floatingip=body)

    def limits(self) -> list[Qos]:
        """Return the limits of the port's floating IPs, as its host reads them."""
        item = self.cloud.store.get(self.cloud.endpoint_key(self.port))
        return [nat.qos for nat in parse_endpoint(item.value).nats] if item else []

    def await_limits(self, *wanted: Qos) -> None:
        eventually(
            lambda: self.limits() == [*wanted],
            f"{wanted}, not {self.limits()}",
        )


@pytest.fixture(scope="module")
def site(cloud: Cloud) -> Site:
    public = cloud.network("172.30.0.0/24", **{"router:external": True})
    network = cloud.network("10.64.0.0/24")
    gateway = {"external_gateway_info": {"network_id": public["id"]}}
    router = cloud.api.post("routers", router=gateway)
    (subnet,) = cloud.api.get(f"subnets?network_id={network['id']}")
    path = f"routers/{router['id']}/add_router_interface"
    cloud.api.call("PUT", path, {"subnet_id": subnet["id"]})
    return Site(cloud, public, cloud.instance_port(network))


def test_p16_a_floating_ips_policy_is_in_its_ports_endpoint_with_every_change(
    site: Site,
) -> None:
    aliases = {each["alias"] for each in site.cloud.api.get("extensions")}
    assert {"qos-fip", "qos-fip-network-policy"} <= aliases
    assert "qos-gateway-ip" not in aliases
    cloud, own = site.cloud, policy(site.cloud, bandwidth_limit=EGRESS)
    floating = site.floating(qos_policy_id=own)
    assert floating["qos_policy_id"] == own
    site.await_limits(SLOW)

    ingress = {"max_kbps": 1000, "direction": "ingress"}
    rule = add_rule(cloud, own, "bandwidth_limit", **ingress)
    site.await_limits(Qos(egress=SLOW.egress, ingress=bandwidth(1_000_000)))
    cloud.api.delete(f"qos/policies/{own}/bandwidth_limit_rules/{rule}")
    site.await_limits(SLOW)

    assert site.change(floating, None)["qos_policy_id"] is None
    site.await_limits(UNLIMITED)


def test_p16_an_external_networks_policy_holds_for_floating_ips_without_their_own(
    site: Site,
) -> None:
    cloud = site.cloud
    of_network = policy(
        cloud, bandwidth_limit=EGRESS | {"max_kbps": 1000}, dscp_marking=DSCP
    )
    network = f"networks/{site.public['id']}"
    floating = cloud.api.get(f"floatingips?port_id={site.port['id']}")[0]
    cloud.api.put(network, network={"qos_policy_id": of_network})
    slower = Qos(egress=bandwidth(1_000_000, 300_000))
    site.await_limits(slower)
    shown = cloud.api.get(f"floatingips/{floating['id']}")
    assert shown["qos_network_policy_id"] == of_network

    site.change(floating, policy(cloud, bandwidth_limit=EGRESS))
    site.await_limits(SLOW)
    site.change(floating, None)
    site.await_limits(slower)
    ingress = {"max_kbps": 1000, "direction": "ingress"}
    add_rule(cloud, of_network, "bandwidth_limit", **ingress)
    site.await_limits(Qos(egress=slower.egress, ingress=bandwidth(1_000_000)))
    cloud.api.put(network, network={"qos_policy_id": None})
    site.await_limits(UNLIMITED)


def test_p16_what_no_host_enforces_for_a_floating_ip_is_refused(site: Site) -> None:
    cloud = site.cloud
    marking = policy(cloud, bandwidth_limit=EGRESS, dscp_marking=DSCP)
    refused = "dscp_marking is not supported by floating IP"
    before = len(cloud.api.get("floatingips"))
    with pytest.raises(ApiError, match=refused) as of_new:
        site.floating(port_id=None, qos_policy_id=marking)
    assert len(cloud.api.get("floatingips")) == before
    floating = site.floating(port_id=None)
    with pytest.raises(ApiError, match=refused) as of_old:
        site.change(floating, marking)
    used = policy(cloud, bandwidth_limit=EGRESS)
    site.change(floating, used)
    with pytest.raises(ApiError, match="packet_rate_limit is not") as of_rule:
        add_rule(cloud, used, "packet_rate_limit", max_kpps=5)
    slow = {"max_kbps": 1, "max_burst_kbps": 1000, "direction": "ingress"}
    with pytest.raises(ApiError, match="bandwidth_limit is not") as of_numbers:
        add_rule(cloud, used, "bandwidth_limit", **slow)
    answers = (of_new, of_old, of_rule, of_numbers)
    assert {answer.value.status for answer in answers} == {409}
    shown = cloud.api.get(f"floatingips/{floating['id']}")
    assert shown["qos_policy_id"] == used
    gateway = {"network_id": site.public["id"], "qos_policy_id": used}
    with pytest.raises(ApiError, match="qos_policy_id") as of_gateway:
        cloud.api.post("routers", router={"external_gateway_info": gateway})
    assert of_gateway.value.status == 400


def test_p16_a_floating_ip_that_forwards_ports_has_no_policy(site: Site) -> None:
    cloud, own = site.cloud, policy(site.cloud, bandwidth_limit=EGRESS)
    port = cloud.instance_port(
        {"id": site.port["network_id"]}, device_owner="compute:nova"
    )
    wanted = {
        "protocol": "tcp",
        "external_port": 80,
        "internal_port": 80,
        "internal_port_id": port["id"],
        "internal_ip_address": port["fixed_ips"][0]["ip_address"],
    }

    def forward(floating: dict[str, Any]) -> None:
        path = f"floatingips/{floating['id']}/port_forwardings"
        cloud.api.call("POST", path, {"port_forwarding": wanted})

    limited, free = (site.floating(port_id=None, qos_policy_id=p) for p in (own, None))
    with pytest.raises(ApiError, match="forwards single ports") as of_limited:
        forward(limited)
    forward(free)
    with pytest.raises(ApiError, match="forwards single ports") as of_forwarding:
        site.change(free, own)
    assert {of_limited.value.status, of_forwarding.value.status} == {409}
