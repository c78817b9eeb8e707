"""Both ways of turning it on, alone and beside others (S21), on one database."""

from collections.abc import Iterator

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import Deployment, deployment, migrate
from tests.neutron.mariadb import MariaDb
from tests.neutron.waiting import eventually

from calico.model.ids import HostName

ML2_BESIDE_OTHERS = {
    "DEFAULT": {
        "core_plugin": "ml2",
        # Ours is listed before the plugin that would have the last word.
        "service_plugins": "calico-l2-adjacency,segments",
    },
    "ml2": {
        "type_drivers": "local,flat,vlan",
        "project_network_types": "local",
        "mechanism_drivers": "logger,calico,openvswitch",
        "extension_drivers": "port_security",
    },
    # With the shared deployment's own, which a Neutron without it would take away.
    "ml2_type_vlan": {"network_vlan_ranges": "physnet1:100:110,physnet:100:199"},
}
ML2_ALONE = {
    "DEFAULT": {"core_plugin": "ml2"},
    "ml2": {
        "type_drivers": "local,flat",
        "project_network_types": "local",
        "mechanism_drivers": "calico",
        "extension_drivers": "port_security",
    },
}


@pytest.fixture(scope="module")
def beside(cloud: Cloud) -> Iterator[Deployment]:
    settings = ML2_BESIDE_OTHERS
    with deployment(cloud.database.url, cloud.etcd.endpoint, settings) as neutron:
        neutron.start_api()
        neutron.wait_ready()
        yield neutron


def test_s21_the_core_plugin_needs_no_other_setting(cloud: Cloud) -> None:
    port = cloud.instance_port(cloud.network("10.41.0.0/24"))
    assert port["binding:vif_details"]["bound_drivers"] == {"0": "calico"}
    eventually(lambda: cloud.store.get(cloud.endpoint_key(port)), "it is published")


def test_s21_ml2_with_the_mechanism_driver_alone_binds_and_publishes(
    cloud: Cloud,
) -> None:
    settings = ML2_ALONE
    with deployment(cloud.database.url, cloud.etcd.endpoint, settings) as neutron:
        neutron.start_api()
        neutron.wait_ready()
        other = Cloud(neutron, cloud.database, cloud.etcd, cloud.store, cloud.keys)
        network = other.network("10.42.0.0/24")
        port = other.instance_port(network)
        assert network["l2_adjacency"] is False  # S4, without being asked to
        eventually(lambda: cloud.store.get(cloud.endpoint_key(port)), "published")


def test_p19_other_drivers_keep_their_networks_and_settings(
    cloud: Cloud, beside: Deployment
) -> None:
    vlan = beside.api.post(
        "networks",
        network={
            "name": "vlan",
            "provider:network_type": "vlan",
            "provider:physical_network": "physnet",
            "provider:segmentation_id": 100,
        },
    )
    other = Cloud(beside, cloud.database, cloud.etcd, cloud.store, cloud.keys)
    subnet = beside.api.post(
        "subnets",
        subnet={"network_id": vlan["id"], "cidr": "10.43.0.0/24", "ip_version": 4},
    )
    # No Open vSwitch agent runs here, so its driver refuses, and so does this one.
    port = other.instance_port(vlan)
    assert port["binding:vif_type"] == "binding_failed"
    # ... and what is of a type that is served is bound beside it.
    ours = other.instance_port(other.network("10.44.0.0/24"))
    assert ours["binding:vif_details"]["bound_drivers"] == {"0": "calico"}
    eventually(lambda: cloud.store.get(cloud.endpoint_key(ours)), "it is published")
    eventually(lambda: not cloud.journal(), "all is published")
    assert cloud.store.get(cloud.keys.published_port(port["id"])) is None
    assert cloud.store.get(cloud.keys.subnet(subnet["id"])) is None
    # DHCP agents are this operator's choice: only the core plugin turns them off.
    aliases = {e["alias"] for e in beside.api.get("extensions")}
    assert "dhcp_agent_scheduler" in aliases


def test_p19_hosts_without_the_agent_are_left_to_other_drivers(
    cloud: Cloud, beside: Deployment
) -> None:
    # No API call makes an agent; its own would, over a message bus.
    cloud.database.sql(
        "INSERT INTO neutron.agents (id, agent_type, `binary`, topic, host,"
        " admin_state_up, created_at, started_at, heartbeat_timestamp, configurations)"
        " VALUES (UUID(), 'Open vSwitch agent', 'neutron-openvswitch-agent', 'N/A',"
        " 'ovs-host', 1, NOW(), NOW(), NOW() + INTERVAL 1 DAY,"
        ' \'{"bridge_mappings": {"both": "br-both"}}\')'
    )
    other = Cloud(beside, cloud.database, cloud.etcd, cloud.store, cloud.keys)
    flat = {"provider:network_type": "flat", "provider:physical_network": "both"}
    network = other.network("10.45.0.0/24", **flat)
    theirs = other.instance_port(network, **{"binding:host_id": "ovs-host"})
    ours = other.instance_port(network)
    nobodys = other.instance_port(network, **{"binding:host_id": "no-host"})
    assert theirs["binding:vif_details"]["bound_drivers"] == {"0": "openvswitch"}
    assert ours["binding:vif_details"]["bound_drivers"] == {"0": "calico"}
    assert nobodys["binding:vif_type"] == "binding_failed"
    assert "host no-host never ran a Calico agent" in beside.log("api")


def test_p20_a_host_whose_agent_is_silent_can_still_be_bound_to(cloud: Cloud) -> None:
    cloud.add_hosts("silent")
    cloud.store.delete(cloud.keys.host_status(HostName("silent")))
    eventually(lambda: "silent" not in cloud.agents(), "the agent is not alive")
    network = cloud.network("10.46.0.0/24")
    port = cloud.instance_port(network, **{"binding:host_id": "silent"})
    assert port["binding:vif_type"] == "tap"


def test_p10_s04_no_calico_network_claims_to_be_a_broadcast_domain(
    cloud: Cloud, beside: Deployment
) -> None:
    created = beside.api.post("networks", network={"name": "tenant"})
    provider = {
        "name": "provider",
        "provider:network_type": "flat",
        "provider:physical_network": "flat-physnet",
        "shared": True,
    }
    flat = beside.api.post("networks", network=provider)
    vlan = beside.api.post(
        "networks",
        network={
            "provider:network_type": "vlan",
            "provider:physical_network": "physnet",
            "provider:segmentation_id": 101,
        },
    )
    assert created["l2_adjacency"] is False
    assert flat["l2_adjacency"] is False
    assert vlan["l2_adjacency"] is True
    for api in (cloud.api, beside.api):
        shown = [api.get(f"networks/{n['id']}") for n in (created, flat, vlan)]
        assert [n["l2_adjacency"] for n in shown] == [False, False, True]
        listed = {n["id"]: n["l2_adjacency"] for n in api.get("networks")}
        assert [listed[n["id"]] for n in shown] == [False, False, True]


def test_s21_the_tables_come_with_neutrons_own_migration(database: MariaDb) -> None:
    # The fixture ran `neutron-db-manage upgrade heads`; nothing else made the tables.
    own = ("--subproject", "calico-openstack")
    assert "8e54c7d1ab90" in migrate(database.url, *own, "heads")
    current = database.sql(
        "SELECT version_num FROM neutron.alembic_version_calico_openstack"
    )
    assert sorted(current.split()) == ["8e54c7d1ab90", "c41d8e7b5f02"]
    migrate(database.url, *own, "check_migration")
    migrate(database.url, "upgrade", "heads")  # again changes nothing
