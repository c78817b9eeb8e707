"""What etcd and the database differ in is found and mended, and disturbs nobody."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests import networking_calico as theirs
from tests.neutron.conftest import SETTINGS, Cloud
from tests.neutron.deployment import PROJECT, deployment
from tests.neutron.slow_relay import SlowRelay, slow_relay
from tests.neutron.waiting import eventually

from calico.datastore.store import Item
from calico.model.codec import parse_endpoint, parse_subnet
from calico.model.ids import GroupId, HostName, LogId, PortId, SubnetId
from calico.model.keys import CLUSTER_INFORMATION
from calico.model.policy_codec import parse_policy
from calico.model.records import RemoteGroup

Json = dict[str, Any]


@pytest.fixture(scope="module")
def way_to_etcd(cloud: Cloud) -> Iterator[SlowRelay]:
    """Replace the cloud's periodic workers by some that resync all the time.

    What they have to etcd is a relay, which nobody else uses.
    """
    settings: Mapping[str, Mapping[str, str]] = {
        **SETTINGS,
        "calico": {**SETTINGS["calico"], "resync_interval": "0.5"},
    }
    cloud.neutron.stop("workers")
    try:
        with (
            slow_relay(cloud.etcd.endpoint) as relay,
            deployment(cloud.database.url, relay.endpoint, settings) as other,
        ):
            other.start_workers()
            yield relay
            other.stop("workers")
    finally:
        cloud.neutron.start_workers()
        eventually(
            lambda: cloud.store.get(cloud.keys.election), "one works", timeout=60
        )


def ports_of(cloud: Cloud, network: Json, number: int) -> list[Json]:
    """Create ports, some in each call, and wait until they are published."""
    port = {
        "network_id": network["id"],
        "binding:host_id": "h1",
        "device_id": "instance",
        "device_owner": "compute:nova",
    }
    ports: list[Json] = []
    while len(ports) < number:
        ports += cloud.api.post("ports", ports=[dict(port) for _ in range(8)])
    eventually(lambda: not missing(cloud, ports), "all are published", timeout=60)
    eventually(lambda: not cloud.journal(), "the journal is empty")
    return ports


def missing(cloud: Cloud, ports: list[Json]) -> list[Json]:
    there = cloud.store.get_prefix(cloud.keys.endpoints).items
    return [port for port in ports if cloud.endpoint_key(port) not in there]


def test_p25_a_resync_neither_blocks_api_calls_nor_undoes_what_they_change(
    cloud: Cloud, way_to_etcd: SlowRelay
) -> None:
    ports = ports_of(cloud, cloud.network("10.201.0.0/24"), 24)
    way_to_etcd.stall()
    for port in ports:
        cloud.store.delete(cloud.endpoint_key(port))
    way_to_etcd.delay = 0.02
    way_to_etcd.flow()
    eventually(lambda: len(missing(cloud, ports)) < 23, "the resync mends", timeout=60)
    # It has read all of a portion, from etcd and then from the database.
    way_to_etcd.stall()
    left = sorted(missing(cloud, ports), key=lambda port: str(port["id"]))
    assert len(left) > 8, "the resync was too quick for this test"

    changed, removed, *untouched = left[5:]
    cloud.api.put(f"ports/{changed['id']}", port={"device_id": "another"})
    changed["device_id"] = "another"
    cloud.api.delete(f"ports/{removed['id']}")
    created = cloud.instance_port({"id": changed["network_id"]})
    eventually(lambda: not missing(cloud, [changed, created]), "they are published")
    assert missing(cloud, untouched) == untouched, "the resync stands where it stood"

    way_to_etcd.delay = 0.0
    way_to_etcd.flow()
    ports.remove(removed)
    eventually(lambda: not missing(cloud, ports), "all is mended", timeout=60)
    eventually(lambda: not cloud.journal(), "the journal is empty")
    assert missing(cloud, [removed]) == [removed]
    endpoints = cloud.store.get_prefix(cloud.keys.endpoints).items
    of_changed = [
        parse_endpoint(item.value).device
        for key, item in endpoints.items()
        if changed["id"].replace("-", "--") in key
    ]
    assert of_changed == ["another"]


class Foreign:
    """Two ports, their group and subnet, as networking-calico left them in etcd."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.network = cloud.network("10.202.0.0/24")
        (self.subnet,) = cloud.api.get(f"subnets?network_id={self.network['id']}")
        self.group = cloud.api.post("security-groups", security_group={"name": "web"})
        rule = {
            "security_group_id": self.group["id"],
            "direction": "ingress",
            "ethertype": "IPv4",
            "remote_group_id": self.group["id"],
        }
        cloud.api.post("security-group-rules", security_group_rule=rule)
        self.ports = [
            cloud.instance_port(self.network, security_groups=[self.group["id"]])
            for _ in range(2)
        ]
        eventually(lambda: not missing(cloud, self.ports), "they are published")
        eventually(lambda: not cloud.journal(), "the journal is empty")

    def endpoint(self, port: Json, host: str = "h1") -> str:
        (ip,) = port["fixed_ips"]
        return theirs.endpoint(
            host=host,
            device=port["device_id"],
            port=port["id"],
            mac=port["mac_address"],
            addresses={ip["ip_address"]: "10.202.0.1"},
            groups={self.group["id"]: "web"},
            project=PROJECT,
            network=self.network["id"],
        )

    def stored(self) -> dict[str, str]:
        """Return what there is of what still is."""
        keys, group = self.cloud.keys, self.group["id"]
        policy = theirs.policy(
            group,
            ingress=[theirs.rule(4, remote=group)],
            egress=[theirs.rule(6), theirs.rule(4)],
        )
        subnet = theirs.subnet(
            network=self.network["id"], cidr="10.202.0.0/24", gateway="10.202.0.1"
        )
        endpoints = {self.cloud.endpoint_key(p): self.endpoint(p) for p in self.ports}
        for key, value in endpoints.items():
            body = json.loads(value)
            body["spec"]["ports"] = [{"name": "of a newer release", "port": 80}]
            endpoints[key] = json.dumps(body)
        return endpoints | {
            keys.policy(GroupId(group)): policy,
            keys.subnet(SubnetId(self.subnet["id"])): subnet,
        }

    def stale(self) -> dict[str, str]:
        """Return what there is of what went, or moved."""
        keys, gone = self.cloud.keys, "0a0b0c0d-0000-4000-8000-000000000001"
        port = {**self.ports[0], "id": gone}
        return {
            self.cloud.endpoint_key(port): self.endpoint(port),
            self.cloud.endpoint_key(self.ports[0], "h2"): self.endpoint(
                self.ports[0], "h2"
            ),
            keys.policy(GroupId(gone)): theirs.policy(gone, ingress=[], egress=[]),
            keys.subnet(SubnetId(gone)): theirs.subnet(
                network=gone, cidr="10.203.0.0/24", gateway="10.203.0.1"
            ),
        }

    def others(self) -> dict[str, str]:
        """Return what is not Neutron's."""
        keys = self.cloud.keys
        spec: Json = {"selector": "all()", "ingress": [{"action": "Allow"}]}
        foreign = theirs.resource("NetworkPolicy", "operators", spec)
        name = "node-k8s-pod-eth0"
        return {
            f"{keys.policies}default.operators": foreign,
            keys.endpoints + name: theirs.resource("WorkloadEndpoint", name, {}),
        }

    def leave(self) -> None:
        """Have it all in etcd, and nothing of this project's."""
        store, keys = self.cloud.store, self.cloud.keys
        for port in map(PortId, (p["id"] for p in self.ports)):
            store.delete(keys.published_port(port))
        for key in store.get_prefix(keys.group_members(self.group["id"])).items:
            store.delete(key)
        store.delete(keys.adopted)
        status = keys.host_status(HostName("felix"))
        store.put(status, theirs.FELIX_STATUS.encode())
        for key, value in (self.stored() | self.stale() | self.others()).items():
            store.put(key, value.encode())


def items(cloud: Cloud, keys: Mapping[str, Any]) -> dict[str, Item | None]:
    return {key: cloud.store.get(key) for key in keys}


def await_resync(cloud: Cloud) -> None:
    """Return when a resync has gone through everything: it ends with logs."""
    stale = cloud.keys.log(LogId("stale"))
    cloud.store.put(stale, b"{}")
    eventually(lambda: cloud.store.get(stale) is None, "a resync", timeout=120)


def test_what_networking_calico_left_is_adopted_in_place(
    cloud: Cloud, way_to_etcd: SlowRelay
) -> None:
    foreign = Foreign(cloud)
    way_to_etcd.stall()  # nobody looks until all is there
    foreign.leave()
    before = items(cloud, foreign.stored())
    others = items(cloud, foreign.others())
    cluster = cloud.store.get(CLUSTER_INFORMATION)
    way_to_etcd.flow()
    eventually(
        lambda: cloud.store.get(cloud.keys.adopted), "it is adopted", timeout=120
    )

    after = items(cloud, before)
    for key, item in after.items():
        old = before[key]
        assert item, key
        assert old, key
        assert item.create_revision == old.create_revision, "it never went away"
    assert not any(items(cloud, foreign.stale()).values())
    assert items(cloud, others) == others
    assert cloud.store.get(CLUSTER_INFORMATION) == cluster
    eventually(lambda: "felix" in cloud.agents(), "hosts with Felix are known")

    for port in foreign.ports:
        item = after[cloud.endpoint_key(port)]
        assert item
        body = json.loads(item.value)
        assert body["spec"]["ports"], "what this project does not know stays"
        assert body["metadata"]["creationTimestamp"] == theirs.CREATED
        labels = body["metadata"]["labels"]
        assert labels["projectcalico.org/openstack-project-name"] == "blue-team"
        assert parse_endpoint(item.value).project == PROJECT
        (ip,) = port["fixed_ips"]
        name = f"{ip['ip_address']}_32/{port['id']}"
        member = cloud.keys.group_members(foreign.group["id"]) + name
        assert cloud.store.get(member) is not None
    policy = after[cloud.keys.policy(foreign.group["id"])]
    assert policy
    remotes = [rule.remote for rule in parse_policy(policy.value).ingress]
    assert remotes == [RemoteGroup(foreign.group["id"])]
    subnet = after[cloud.keys.subnet(foreign.subnet["id"])]
    assert subnet
    assert parse_subnet(foreign.subnet["id"], subnet.value).project == PROJECT

    await_resync(cloud)
    assert items(cloud, after) == after, "nothing is written again"
    for key in others:
        cloud.store.delete(key)


def test_p19_a_resync_publishes_nothing_of_other_drivers(
    cloud: Cloud, way_to_etcd: SlowRelay
) -> None:
    way_to_etcd.flow()
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}
    network = cloud.network("10.206.0.0/24", **vlan)
    port = cloud.instance_port(network)
    (subnet,) = cloud.api.get(f"subnets?network_id={network['id']}")
    await_resync(cloud)
    assert cloud.store.get(cloud.keys.subnet(subnet["id"])) is None
    assert cloud.store.get(cloud.keys.published_port(port["id"])) is None
    assert missing(cloud, [port]) == [port]
