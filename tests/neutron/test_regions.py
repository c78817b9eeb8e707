"""Two Neutrons with databases of their own on one etcd: neither meets the other."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import deployment
from tests.neutron.waiting import eventually

from calico.datastore.store import Item
from calico.model.ids import GroupId, HostName, LogId
from calico.model.keys import Keys
from calico.model.world import build

SETTINGS = {"calico": {"region": "two", "resync_interval": "0.5"}}


@pytest.fixture(scope="module")
def two(cloud: Cloud) -> Iterator[Cloud]:
    """Return another region, with the name of a host that `cloud` has too."""
    url = cloud.database.empty_copy("two")
    with deployment(url, cloud.etcd.endpoint, SETTINGS) as neutron:
        neutron.start_api()
        neutron.start_workers()
        neutron.wait_ready()
        one = replace(cloud, neutron=neutron, keys=Keys("two"))
        one.add_hosts("h1")
        yield one


def everything(cloud: Cloud) -> dict[str, Item]:
    """Return all that a region's Neutron published."""
    keys = cloud.keys
    prefixes = (
        keys.endpoints,
        keys.policies,
        keys.subnets,
        keys.members,
        keys.published_ports,
    )
    return {
        key: item
        for prefix in prefixes
        for key, item in cloud.store.get_prefix(prefix).items.items()
    }


def resynced(cloud: Cloud) -> None:
    """Wait until a region's Neutron has gone through all that is its own once more."""
    stale = cloud.keys.log(LogId("stale"))
    cloud.store.put(stale, b"{}")
    eventually(lambda: cloud.store.get(stale) is None, "a resync", timeout=120)


def port_in_group(cloud: Cloud, cidr: str) -> tuple[dict[str, Any], GroupId]:
    """Return a published port and its group, whose members may reach each other."""
    group = cloud.api.post("security-groups", security_group={"name": "web"})
    rule = {
        "security_group_id": group["id"],
        "direction": "ingress",
        "remote_group_id": group["id"],
    }
    cloud.api.post("security-group-rules", security_group_rule=rule)
    port = cloud.instance_port(cloud.network(cidr), security_groups=[group["id"]])
    eventually(lambda: cloud.store.get(cloud.endpoint_key(port)), "it is published")
    return port, GroupId(group["id"])


def test_regions_on_one_etcd_have_nothing_of_each_other(
    cloud: Cloud, two: Cloud
) -> None:
    first, _ = port_in_group(cloud, "10.204.0.0/24")
    second, group = port_in_group(two, "10.205.0.0/24")
    eventually(lambda: not cloud.journal(), "all of the first is published")
    before = everything(cloud)
    resynced(two)
    assert everything(cloud) == before, "the other's resync is none of its business"
    assert two.store.get(two.keys.adopted)

    there, here = everything(two), everything(cloud)
    assert two.endpoint_key(second) in there
    assert not any(second["id"] in key.replace("--", "-") for key in here)
    assert not any(first["id"] in key.replace("--", "-") for key in there)
    members = [key for key in there if key.startswith(two.keys.group_members(group))]
    assert len(members) == 1

    # The same host name in both: each region's agent serves its own.
    stored = cloud.store.get_prefix("/calico/").items
    items = {key: item.value for key, item in stored.items()}
    for keys, own, other in (
        (cloud.keys, first, second),
        (two.keys, second, first),
    ):
        world = build(HostName("h1"), keys, items)
        ports = {endpoint.port for endpoint in world.endpoints}
        assert own["id"] in ports
        assert other["id"] not in ports
        assert other["network_id"] not in {s.network for s in world.subnets.values()}
    assert ip_network("10.204.0.0/24") in world.elsewhere, "for BGP: they share a space"

    # A host's word counts in its own region.
    two.report(second)
    cloud.report(second)
    eventually(lambda: two.status(second) == "ACTIVE", "it is up")
    elections = {cloud.keys.election, two.keys.election}
    assert len(elections) == 2
    assert all(map(cloud.store.get, elections))
