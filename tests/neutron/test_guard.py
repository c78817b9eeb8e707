"""What the API refuses, with what words; and that nothing of it is stored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import ApiError
from tests.neutron.waiting import eventually

from calico.model.codec import parse_endpoint
from calico.model.ids import GroupId
from calico.model.policy_codec import parse_address_group, parse_policy
from calico.model.records import Endpoint

OTHER = "22222222-2222-2222-2222-222222222222"


def refusal(call: Any) -> str:
    """Return the message of a call that is refused, as a client reads it."""
    with pytest.raises(ApiError) as raised:
        call()
    assert raised.value.status in {400, 409}
    body = json.loads(str(raised.value).partition(": ")[2])
    return str(body["NeutronError"]["message"])


def pairs(*prefixes: str) -> list[dict[str, str]]:
    return [{"ip_address": prefix} for prefix in prefixes]


def published(cloud: Cloud, port: dict[str, Any]) -> Endpoint | None:
    item = cloud.store.get(cloud.endpoint_key(port))
    return parse_endpoint(item.value) if item else None


def has_pairs(cloud: Cloud, port: dict[str, Any], *wanted: str) -> None:
    """Wait until a port is published with these pairs, and its group's members too."""

    def now() -> bool:
        endpoint = published(cloud, port)
        members = {
            str(cloud.keys.parse_member(key)[1])
            for key in cloud.store.get_prefix(cloud.keys.members).items
            if port["id"] in key
        }
        own = {ip["ip_address"] + "/32" for ip in port["fixed_ips"]}
        return (
            endpoint is not None
            and {str(p.prefix) for p in endpoint.pairs} == set(wanted)
            and members == own | set(wanted)
        )

    eventually(now, f"port {port['id']} is published with pairs {wanted}")


@pytest.fixture(scope="module")
def mine(cloud: Cloud) -> dict[str, Any]:
    network = cloud.network("10.141.0.0/24")
    cloud.network("10.142.0.0/24")
    return network


@pytest.fixture(scope="module")
def theirs(cloud: Cloud) -> dict[str, Any]:
    """Return a network of another project, with a subnet of it, that all may use."""
    network: dict[str, Any] = cloud.api.post(
        "networks", network={"project_id": OTHER, "shared": True}
    )
    subnet = {"network_id": network["id"], "cidr": "10.143.0.0/24", "ip_version": 4}
    cloud.api.post("subnets", subnet=subnet | {"project_id": OTHER})
    return network


@pytest.fixture
def port(cloud: Cloud, mine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    port = cloud.instance_port(mine, name="web")
    yield port
    cloud.api.delete(f"ports/{port['id']}")


FOREIGN = {
    "another project's address": "10.143.0.77",
    "another project's subnet": "10.143.0.0/24",
    "its own gateway": "10.141.0.1",
    "another subnet's gateway": "10.143.0.1",
    "everything": "0.0.0.0/0",
    "two subnets at once": "10.140.0.0/14",
    "a host's": "10.0.0.9",
    "IPv6 of nobody": "2001:db8:9::9",
    "what is allowed to no more than that": "192.0.0.0/16",
}


@pytest.mark.parametrize("prefix", FOREIGN.values(), ids=FOREIGN)
def test_p47_a_pair_that_is_not_the_projects_is_refused(
    cloud: Cloud,
    mine: dict[str, Any],
    theirs: dict[str, Any],  # noqa: ARG001 - it is there
    port: dict[str, Any],
    prefix: str,
) -> None:
    change = {"allowed_address_pairs": pairs("10.141.0.50", prefix), "name": "new"}
    text = refusal(lambda: cloud.api.put(f"ports/{port['id']}", port=change))
    assert port["id"] in text
    assert prefix in text
    assert "gateway" in text or "not within the project's own subnets" in text
    now = cloud.api.get(f"ports/{port['id']}")
    assert (now["name"], now["allowed_address_pairs"]) == ("web", [])

    before = cloud.api.get("ports")
    bad = {"network_id": mine["id"], "allowed_address_pairs": pairs(prefix)}
    assert prefix in refusal(lambda: cloud.api.post("ports", port=bad))
    good = {"network_id": mine["id"]}
    bulk = [good, bad]
    assert prefix in refusal(lambda: cloud.api.post("ports", ports=bulk))
    assert cloud.api.get("ports") == before


@pytest.mark.parametrize(
    "owner", ["", "compute:x", "neutron:LOADBALANCERV2", "trunk:subport"]
)
def test_p53_no_device_owner_excuses_a_pair(
    cloud: Cloud, mine: dict[str, Any], owner: str
) -> None:
    asked = {
        "network_id": mine["id"],
        "device_owner": owner,
        "allowed_address_pairs": pairs("0.0.0.0/0"),
    }
    assert "0.0.0.0/0" in refusal(lambda: cloud.api.post("ports", port=asked))


def test_p53_a_port_does_not_keep_the_excuse_of_its_former_owner(
    cloud: Cloud, mine: dict[str, Any]
) -> None:
    owner = {"device_owner": "network:mine", "binding:host_id": ""}
    excused = cloud.instance_port(mine, **owner)
    assert not excused["port_security_enabled"], "as Neutron does for such owners"
    change = {"device_owner": "compute:nova", "binding:host_id": "h1"}
    path = f"ports/{excused['id']}"
    text = refusal(lambda: cloud.api.put(path, port=dict(change)))
    assert excused["id"] in text
    assert "port_security_enabled" in text
    assert cloud.api.get(path)["device_owner"] == "network:mine"

    cloud.api.put(path, port=change | {"port_security_enabled": True})
    endpoint = eventually(lambda: published(cloud, excused), "the port is published")
    assert endpoint is not None
    assert endpoint.port_security
    # Who may lift it may do so; he only has to say it.
    cloud.api.put(path, port={"port_security_enabled": False})
    cloud.api.put(path, port={"name": "trusted"})
    cloud.api.delete(path)


def test_p47_the_projects_own_space_may_be_paired(
    cloud: Cloud,
    theirs: dict[str, Any],
    port: dict[str, Any],
) -> None:
    vip = cloud.api.post("ports", port={"network_id": theirs["id"]})
    reserved = vip["fixed_ips"][0]["ip_address"]
    own = port["fixed_ips"][0]["ip_address"]
    wanted = pairs(
        "10.141.0.50", "10.142.0.0/24", reserved, own, "192.0.2.9", "198.51.100.0/25"
    )
    cloud.api.put(f"ports/{port['id']}", port={"allowed_address_pairs": wanted})
    has_pairs(
        cloud,
        port,
        "10.141.0.50/32",
        "10.142.0.0/24",
        f"{reserved}/32",
        f"{own}/32",
        "192.0.2.9/32",
        "198.51.100.0/25",
    )
    endpoint = published(cloud, port)
    assert endpoint is not None
    assert {str(prefix) for prefix in endpoint.granted} == {
        f"{reserved}/32",
        f"{own}/32",
        "192.0.2.9/32",
        "198.51.100.0/25",
    }
    cloud.api.delete(f"ports/{vip['id']}")


def test_p47_what_is_allowed_to_one_project_is_not_anothers(
    cloud: Cloud, theirs: dict[str, Any]
) -> None:
    asked = {
        "network_id": theirs["id"],
        "project_id": OTHER,
        "allowed_address_pairs": pairs("198.51.100.9"),
    }
    assert "198.51.100.9" in refusal(lambda: cloud.api.post("ports", port=asked))
    asked["allowed_address_pairs"] = pairs("192.0.2.9")
    cloud.api.delete(f"ports/{cloud.api.post('ports', port=asked)['id']}")


def test_p47_a_pair_goes_with_its_ground_and_comes_back_with_it(
    cloud: Cloud, theirs: dict[str, Any], port: dict[str, Any]
) -> None:
    address = {"fixed_ips": [{"ip_address": "10.143.0.88"}]}
    vip = {"network_id": theirs["id"]} | address
    first = cloud.api.post("ports", port=dict(vip))
    network = cloud.network("10.144.0.0/24")
    (subnet,) = cloud.api.get(f"subnets?network_id={network['id']}")
    wanted = pairs("10.143.0.88/32", "10.144.0.0/25")
    cloud.api.put(f"ports/{port['id']}", port={"allowed_address_pairs": wanted})
    has_pairs(cloud, port, "10.143.0.88/32", "10.144.0.0/25")

    cloud.api.delete(f"ports/{first['id']}")
    has_pairs(cloud, port, "10.144.0.0/25")
    cloud.api.delete(f"subnets/{subnet['id']}")
    has_pairs(cloud, port)
    # What was stored before is in the way of nothing.
    cloud.api.put(f"ports/{port['id']}", port={"name": "still usable"})
    second = cloud.api.post("ports", port=dict(vip))
    has_pairs(cloud, port, "10.143.0.88/32")
    moved = {"fixed_ips": [{"ip_address": "10.143.0.89"}]}
    cloud.api.put(f"ports/{second['id']}", port=moved)
    has_pairs(cloud, port)
    cloud.api.delete(f"ports/{second['id']}")
    cloud.api.put(f"ports/{port['id']}", port={"allowed_address_pairs": []})


def test_p47_an_address_that_becomes_a_gateway_is_no_pair_any_more(
    cloud: Cloud, port: dict[str, Any]
) -> None:
    network = cloud.api.post("networks", network={})
    asked = {
        "network_id": network["id"],
        "cidr": "10.145.0.0/24",
        "ip_version": 4,
        "allocation_pools": [{"start": "10.145.0.2", "end": "10.145.0.9"}],
    }
    subnet = cloud.api.post("subnets", subnet=asked)
    wanted = {"allowed_address_pairs": pairs("10.145.0.254")}
    cloud.api.put(f"ports/{port['id']}", port=wanted)
    has_pairs(cloud, port, "10.145.0.254/32")
    cloud.api.put(f"subnets/{subnet['id']}", subnet={"gateway_ip": "10.145.0.254"})
    has_pairs(cloud, port)
    cloud.api.put(f"ports/{port['id']}", port={"allowed_address_pairs": []})


def test_p47_networks_of_other_drivers_are_let_be_and_own_nothing_here(
    cloud: Cloud, port: dict[str, Any]
) -> None:
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}
    network = cloud.network("10.146.0.0/24", **vlan)
    asked = {"network_id": network["id"], "allowed_address_pairs": pairs("0.0.0.0/0")}
    free = cloud.api.post("ports", port=asked)
    assert [p["ip_address"] for p in free["allowed_address_pairs"]] == ["0.0.0.0/0"]
    for prefix in ("10.146.0.0/25", free["fixed_ips"][0]["ip_address"]):
        change = {"allowed_address_pairs": pairs(prefix)}
        assert prefix in refusal(
            lambda change=change: cloud.api.put(f"ports/{port['id']}", port=change)
        )


def test_p54_a_dhcp_option_with_a_control_character_is_refused(
    cloud: Cloud, port: dict[str, Any]
) -> None:
    # Neutron itself lets these through.
    for name, value in (("router", "10.0.0.1\ndhcp-script=/x"), ("mtu", "14\x0100")):
        options = {"extra_dhcp_opts": [{"opt_name": name, "opt_value": value}]}
        text = refusal(
            lambda options=options: cloud.api.put(f"ports/{port['id']}", port=options)
        )
        assert name in text
        assert "control character" in text
    assert cloud.api.get(f"ports/{port['id']}")["extra_dhcp_opts"] == []


@pytest.fixture
def group(cloud: Cloud) -> Iterator[str]:
    group = cloud.api.post("security-groups", security_group={"name": "guarded"})
    yield group["id"]
    cloud.api.delete(f"security-groups/{group['id']}")


PORTS = {"port_range_min": 1, "port_range_max": 2}
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "ports of DCCP": {"protocol": "dccp", **PORTS},
    "ports of UDPLITE": {"protocol": "UDPLITE", **PORTS},
    "ports of a number": {"protocol": "33", **PORTS},
}


@pytest.mark.parametrize("rule", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_p01_p55_a_rule_that_cannot_be_enforced_is_refused(
    cloud: Cloud, group: str, rule: dict[str, Any]
) -> None:
    bad = {"security_group_id": group, "direction": "ingress"} | rule
    before = cloud.api.get(f"security-groups/{group}")["security_group_rules"]
    text = refusal(
        lambda: cloud.api.post("security-group-rules", security_group_rule=dict(bad))
    )
    assert f"(ingress IPv4 {rule['protocol'].lower()} 1:2)" in text
    assert "ports with protocol" in text
    good = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    bulk = [good, bad]
    refusal(
        lambda: cloud.api.post("security-group-rules", security_group_rules=bulk),
    )
    template = {"direction": "ingress"} | rule
    body = {"default_security_group_rule": template}
    refusal(lambda: cloud.api.call("POST", "default-security-group-rules", body))
    now = cloud.api.get(f"security-groups/{group}")["security_group_rules"]
    assert sorted(r["id"] for r in now) == sorted(r["id"] for r in before)
    assert len(cloud.api.get("default-security-group-rules")) == 4  # Neutron's own


def test_p03_p55_names_and_numbers_reach_the_policy(cloud: Cloud, group: str) -> None:
    wanted = {"AH": 51, "Icmp": 1, "132": 132, "vrrp": 112, "0": 0, "any": None}
    for protocol in wanted:
        rule = {
            "security_group_id": group,
            "direction": "ingress",
            "protocol": protocol,
            "remote_ip_prefix": "192.0.2.0/24",
        }
        cloud.api.post("security-group-rules", security_group_rule=rule)

    def protocols() -> list[int | None]:
        item = cloud.store.get(cloud.keys.policy(GroupId(group)))
        policy = parse_policy(item.value) if item else None
        return [rule.protocol for rule in policy.ingress] if policy else []

    eventually(
        lambda: sorted(map(str, protocols())) == sorted(map(str, wanted.values())),
        "all rules are published",
    )


@pytest.mark.slow
def test_an_address_group_is_never_larger_than_a_key_of_etcd(cloud: Cloud) -> None:
    group = cloud.api.post("address-groups", address_group={"name": "large"})
    cloud.database.sql(
        # As long as addresses get.
        "INSERT INTO neutron.address_associations (address_group_id, address) "  # noqa: S608 - an id of Neutron's
        f"SELECT '{group['id']}', CONCAT('2001:1db8:1111:2222:3333:4444:5555:', "
        "LOWER(HEX(seq)), '/128') FROM neutron.seq_4097_to_34094"
    )
    add = f"address-groups/{group['id']}/add_addresses"
    last = {"addresses": ["2001:db8::1/128", "2001:db8::2/128"]}
    cloud.api.call("PUT", add, last)
    more = {"addresses": ["2001:db8::3/128"]}
    text = refusal(lambda: cloud.api.call("PUT", add, more))
    assert group["id"] in text
    assert "at most 30000 addresses" in text

    def size() -> int:
        item = cloud.store.get(cloud.keys.address_group(group["id"]))
        return len(parse_address_group(item.value).prefixes) if item else 0

    eventually(lambda: size() > 1, "so large a group still fits into etcd", 60)
    rows = "FROM neutron.address_associations"
    assert cloud.database.sql(f"SELECT COUNT(*) {rows}").strip() == "30000"
    # The API would delete them one by one.
    cloud.database.sql(f"DELETE {rows}")
    cloud.api.delete(f"address-groups/{group['id']}")
