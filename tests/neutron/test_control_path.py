"""What a real Neutron's API calls leave in a real etcd."""

import json
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import ApiError
from tests.neutron.waiting import eventually

from calico.model.codec import parse_endpoint, parse_subnet
from calico.model.ids import GroupId, SubnetId
from calico.model.policy_codec import parse_address_group, parse_policy
from calico.model.records import RemoteAddressGroup, RemoteGroup


def published(cloud: Cloud, key: str) -> bytes:
    """Wait for a key and return its value."""
    eventually(lambda: cloud.store.get(key), f"{key} is in etcd")
    item = cloud.store.get(key)
    return item.value if item else b""


def gone(cloud: Cloud, key: str) -> None:
    eventually(lambda: cloud.store.get(key) is None, f"{key} is gone")


def test_a_bound_port_is_published_and_withdrawn(cloud: Cloud) -> None:
    network = cloud.network("10.11.0.0/24")
    port = cloud.instance_port(network)
    assert port["binding:vif_type"] == "tap"
    assert port["binding:vif_details"]["connectivity"] == "l3"
    assert port["binding:vif_details"]["mac_address"] == "fe" + port["mac_address"][2:]

    endpoint = parse_endpoint(published(cloud, cloud.endpoint_key(port)))
    assert [str(a) for a in endpoint.addresses] == [
        ip["ip_address"] for ip in port["fixed_ips"]
    ]
    assert str(endpoint.gateway4) == "10.11.0.1"

    cloud.api.delete(f"ports/{port['id']}")
    gone(cloud, cloud.endpoint_key(port))
    gone(cloud, cloud.keys.published_port(port["id"]))
    members = cloud.store.get_prefix(cloud.keys.members).items
    assert not [key for key in members if port["id"] in key]


def test_a_port_without_a_host_or_for_other_hardware_is_not_bound(cloud: Cloud) -> None:
    network = cloud.network("10.12.0.0/24")
    unbound = cloud.instance_port(network, **{"binding:host_id": ""})
    assert unbound["binding:vif_type"] == "unbound"
    direct = cloud.instance_port(network, **{"binding:vnic_type": "direct"})
    assert direct["binding:vif_type"] == "binding_failed"
    assert "VNIC type direct is not supported" in cloud.neutron.log("api")


def test_p04_a_port_that_is_admin_down_is_withdrawn_and_comes_back(
    cloud: Cloud,
) -> None:
    port = cloud.instance_port(cloud.network("10.13.0.0/24"))
    published(cloud, cloud.endpoint_key(port))
    cloud.api.put(f"ports/{port['id']}", port={"admin_state_up": False})
    gone(cloud, cloud.endpoint_key(port))
    cloud.api.put(f"ports/{port['id']}", port={"admin_state_up": True})
    published(cloud, cloud.endpoint_key(port))


def test_a_port_that_moves_or_changes_hands_leaves_nothing_behind(
    cloud: Cloud,
) -> None:
    port = cloud.instance_port(cloud.network("10.14.0.0/24"))
    published(cloud, cloud.endpoint_key(port))
    cloud.api.put(f"ports/{port['id']}", port={"binding:host_id": "h2"})
    published(cloud, cloud.endpoint_key(port, "h2"))
    assert cloud.store.get(cloud.endpoint_key(port, "h1")) is None
    cloud.api.put(f"ports/{port['id']}", port={"binding:host_id": "", "device_id": ""})
    gone(cloud, cloud.endpoint_key(port, "h2"))


def test_p13_a_subnet_follows_its_changes_and_its_networks(cloud: Cloud) -> None:
    network = cloud.network("10.15.0.0/24")
    (subnet,) = cloud.api.get(f"subnets?network_id={network['id']}")
    key = cloud.keys.subnet(SubnetId(subnet["id"]))
    port = cloud.instance_port(network)
    published(cloud, cloud.endpoint_key(port))
    changes = {
        "dns_nameservers": ["10.15.0.53"],
        "gateway_ip": None,
        "host_routes": [{"destination": "10.0.0.0/8", "nexthop": "10.15.0.9"}],
    }
    cloud.api.put(f"subnets/{subnet['id']}", subnet=changes)
    cloud.api.put(f"networks/{network['id']}", network={"mtu": 1400})

    def now() -> Any:
        return parse_subnet(SubnetId(subnet["id"]), published(cloud, key))

    eventually(lambda: now().mtu == 1400, "the MTU is in the subnet")
    assert [str(a) for a in now().dns_servers] == ["10.15.0.53"]
    assert now().gateway is None
    assert str(now().host_routes[0].nexthop) == "10.15.0.9"

    def gateway() -> object:
        return parse_endpoint(published(cloud, cloud.endpoint_key(port))).gateway4

    eventually(lambda: gateway() is None, "the endpoint has no gateway either")
    cloud.api.delete(f"ports/{port['id']}")
    cloud.api.delete(f"subnets/{subnet['id']}")
    gone(cloud, key)


@pytest.mark.parametrize("mode", ["slaac", "dhcpv6-stateless"])
def test_s19_bound_ports_follow_a_subnet_that_gives_addresses_by_itself(
    cloud: Cloud, mode: str
) -> None:
    network = cloud.network("10.20.0.0/24")
    port = cloud.instance_port(network)
    published(cloud, cloud.endpoint_key(port))
    subnet = {
        "network_id": network["id"],
        "cidr": "2001:db8:20::/64",
        "ip_version": 6,
        "ipv6_ra_mode": mode,
        "ipv6_address_mode": mode,
    }

    def addresses() -> list[str]:
        endpoint = parse_endpoint(published(cloud, cloud.endpoint_key(port)))
        return [str(address) for address in endpoint.addresses]

    def in_neutron() -> list[str]:
        ips = cloud.api.get(f"ports/{port['id']}")["fixed_ips"]
        return [ip["ip_address"] for ip in ips]

    before = in_neutron()
    subnet = cloud.api.post("subnets", subnet=subnet)
    assert len(in_neutron()) == 2
    eventually(lambda: addresses() == in_neutron(), "the new address is published")
    cloud.api.delete(f"subnets/{subnet['id']}")
    assert in_neutron() == before
    eventually(lambda: addresses() == before, "the address is withdrawn")
    cloud.api.delete(f"ports/{port['id']}")
    cloud.api.delete(f"networks/{network['id']}")


def test_p01_groups_and_address_groups_are_published_completely(cloud: Cloud) -> None:
    addresses = {"name": "office", "addresses": ["192.0.2.0/24"]}
    office = cloud.api.post("address-groups", address_group=addresses)
    group = cloud.api.post(
        "security-groups", security_group={"name": "web", "stateful": False}
    )
    rule = {
        "security_group_id": group["id"],
        "direction": "ingress",
        "protocol": "TCP",
        "port_range_min": 80,
        "port_range_max": 81,
        "remote_address_group_id": office["id"],
    }
    rule = cloud.api.post("security-group-rules", security_group_rule=rule)
    key = cloud.keys.policy(GroupId(group["id"]))

    def remotes() -> list[Any]:
        return [r.remote for r in parse_policy(published(cloud, key)).ingress]

    wanted = [RemoteAddressGroup(office["id"])]
    eventually(lambda: remotes() == wanted, "the rule is published")
    assert not parse_policy(published(cloud, key)).stateful

    more = {"addresses": ["2001:db8::/32"]}
    cloud.api.call("PUT", f"address-groups/{office['id']}/add_addresses", more)
    office_key = cloud.keys.address_group(office["id"])
    eventually(
        lambda: len(parse_address_group(published(cloud, office_key)).prefixes) == 2,
        "the new address is published",
    )

    cloud.api.delete(f"security-group-rules/{rule['id']}")
    eventually(lambda: remotes() == [], "the rule is withdrawn")
    cloud.api.delete(f"security-groups/{group['id']}")
    cloud.api.delete(f"address-groups/{office['id']}")
    gone(cloud, key)
    gone(cloud, office_key)


def test_resources_say_when_they_were_made(cloud: Cloud) -> None:
    office = cloud.api.post("address-groups", address_group={"name": "office"})
    group = cloud.api.post("security-groups", security_group={"name": "web"})
    port = cloud.instance_port(cloud.network("10.29.0.0/24"))
    made = {
        cloud.keys.address_group(office["id"]): office,
        cloud.keys.policy(GroupId(group["id"])): group,
        cloud.endpoint_key(port): port,
    }
    for key, resource in made.items():
        metadata = json.loads(published(cloud, key))["metadata"]
        assert metadata["creationTimestamp"] == resource["created_at"]


def test_p01_rules_go_with_the_group_that_they_name(cloud: Cloud) -> None:
    named, naming = (
        cloud.api.post("security-groups", security_group={"name": name})
        for name in ("named", "naming")
    )
    rule = {
        "security_group_id": naming["id"],
        "direction": "ingress",
        "remote_group_id": named["id"],
    }
    cloud.api.post("security-group-rules", security_group_rule=rule)
    key = cloud.keys.policy(GroupId(naming["id"]))

    def remotes() -> list[Any]:
        return [r.remote for r in parse_policy(published(cloud, key)).ingress]

    eventually(lambda: remotes() == [RemoteGroup(named["id"])], "it is published")
    cloud.api.delete(f"security-groups/{named['id']}")
    eventually(lambda: remotes() == [], "the rule is withdrawn")
    cloud.api.delete(f"security-groups/{naming['id']}")


def test_an_address_group_that_rules_name_is_not_deleted(cloud: Cloud) -> None:
    # Else its rules would go with it, as those do that name a group.
    office = cloud.api.post("address-groups", address_group={"name": "office"})
    group = cloud.api.post("security-groups", security_group={"name": "web"})
    rule = {
        "security_group_id": group["id"],
        "direction": "ingress",
        "remote_address_group_id": office["id"],
    }
    cloud.api.post("security-group-rules", security_group_rule=rule)
    with pytest.raises(ApiError, match="409"):
        cloud.api.delete(f"address-groups/{office['id']}")
    cloud.api.delete(f"security-groups/{group['id']}")
    cloud.api.delete(f"address-groups/{office['id']}")


def test_p18_renaming_a_group_or_a_network_renews_the_labels(cloud: Cloud) -> None:
    network = cloud.network("10.16.0.0/24")
    group = cloud.api.post("security-groups", security_group={"name": "old"})
    port = cloud.instance_port(network, security_groups=[group["id"]])

    def labels() -> dict[str, str]:
        value = published(cloud, cloud.endpoint_key(port))
        found: dict[str, str] = json.loads(value)["metadata"]["labels"]
        return found

    assert labels()["sg-name.projectcalico.org/openstack-old"] == group["id"]
    cloud.api.put(f"security-groups/{group['id']}", security_group={"name": "new"})
    eventually(
        lambda: labels().get("sg-name.projectcalico.org/openstack-new") == group["id"],
        "the group's new name is a label",
    )
    cloud.api.put(f"networks/{network['id']}", network={"name": "renamed"})
    eventually(
        lambda: labels()["openstack.projectcalico.org/network-name"] == "renamed",
        "the network's new name is a label",
    )
    assert "sg-name.projectcalico.org/openstack-old" not in labels()


def test_p21_creating_a_port_never_rewrites_a_policy(cloud: Cloud) -> None:
    network = cloud.network("10.17.0.0/24")
    first = cloud.instance_port(network)
    published(cloud, cloud.endpoint_key(first))
    eventually(lambda: not cloud.journal(), "all is published")

    def revisions() -> dict[str, int]:
        items = cloud.store.get_prefix(cloud.keys.policies).items
        return {key: item.mod_revision for key, item in items.items()}

    before = revisions()
    ports = [cloud.instance_port(network) for _ in range(3)]
    for port in ports:
        published(cloud, cloud.endpoint_key(port))
    cloud.api.delete(f"ports/{first['id']}")
    gone(cloud, cloud.endpoint_key(first))
    assert revisions() == before
    assert len(before) > 0


def test_p22_an_api_call_waits_for_no_answer_of_etcd(cloud: Cloud) -> None:
    network = cloud.network("10.18.0.0/24")
    cloud.etcd.pause()  # connections stay open, no request is answered
    try:
        # A call that waited for one answer would wait until etcd_timeout, which is
        # longer than this client's patience.
        port = cloud.instance_port(network)
    finally:
        cloud.etcd.resume()
    published(cloud, cloud.endpoint_key(port))


def test_router_ports_are_active_and_not_published(cloud: Cloud) -> None:
    network = cloud.network("10.19.0.0/24")
    owner = {"device_owner": "network:router_interface", "binding:host_id": ""}
    port = cloud.instance_port(network, **owner)
    assert cloud.status(port) == "ACTIVE"
    eventually(lambda: not cloud.journal(), "all is published")
    assert cloud.store.get(cloud.keys.published_port(port["id"])) is None
