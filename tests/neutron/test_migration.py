"""What Nova asks of Neutron when an instance moves, and what hosts are told of it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import Api, ApiError
from tests.neutron.waiting import eventually

from calico.model.codec import parse_endpoint
from calico.model.ids import DeviceId, HostName, PortId

Port = dict[str, Any]

PREPARED = {"h1": ("h2", None), "h2": (None, "h1")}  # host: leaving to, arriving from
ACTIVATED = {"h1": ("h2", None), "h2": (None, None)}


@pytest.fixture
def port(cloud: Cloud) -> Iterator[Port]:
    """Give a port on h1, which reports it as up."""
    with ExitStack() as stack:
        network = cloud.network("10.77.0.0/24")
        stack.callback(cloud.api.delete, f"networks/{network['id']}")
        made = cloud.instance_port(network)
        stack.callback(cloud.api.delete, f"ports/{made['id']}")
        eventually(lambda: roles(cloud, made) == {"h1": (None, None)}, "published")
        cloud.report(made)
        eventually(lambda: cloud.status(made) == "ACTIVE", "the port is active")
        yield made


def roles(cloud: Cloud, port: Port) -> dict[str, tuple[str | None, str | None]]:
    """Return the hosts with an endpoint of a port: where each says it goes or came."""
    values = cloud.store.get_prefix(cloud.keys.endpoints).items.values()
    found = [parse_endpoint(item.value) for item in values]
    return {
        str(e.host): (e.leaving_to, e.arriving_from)
        for e in found
        if e.port == port["id"]
    }


def await_roles(
    cloud: Cloud, port: Port, wanted: Mapping[str, tuple[str | None, str | None]]
) -> None:
    eventually(
        lambda: roles(cloud, port) == wanted,
        f"{wanted} is published",
        timeout=2.5,  # sooner than the elected worker looks for what was left
    )


def migration(cloud: Cloud, port: Port, host: str = "h2") -> Any:
    key = cloud.keys.migration(
        HostName(host), DeviceId(port["device_id"]), PortId(port["id"])
    )
    item = cloud.store.get(key)
    return item and json.loads(item.value)["spec"]


def members(cloud: Cloud, port: Port) -> dict[str, int]:
    found = cloud.store.get_prefix(cloud.keys.members).items
    return {k: i.mod_revision for k, i in found.items() if k.endswith(port["id"])}


def bind(cloud: Cloud, port: Port, host: str) -> Any:
    path = f"ports/{port['id']}/bindings"
    return nova(cloud).call("POST", path, {"binding": {"host": host}})["binding"]


def activate(cloud: Cloud, port: Port, host: str) -> None:
    nova(cloud).call("PUT", f"{binding(port, host)}/activate")


def nova(cloud: Cloud) -> Api:
    """Return the API as Nova uses it."""
    return replace(cloud.api, roles="service")


def binding(port: Port, host: str) -> str:
    return f"ports/{port['id']}/bindings/{host}"


def test_p38_novas_sequence_prepares_activates_and_only_then_forgets(
    cloud: Cloud, port: Port
) -> None:
    before = members(cloud, port)
    inactive = bind(cloud, port, "h2")
    assert inactive["vif_type"] == "tap"
    assert inactive["status"] == "INACTIVE"
    # The same on every host: the guest's neighbour cache goes with it (P37).
    details = cloud.api.get(f"ports/{port['id']}")["binding:vif_details"]
    assert inactive["vif_details"]["mac_address"] == details["mac_address"]
    await_roles(cloud, port, PREPARED)
    spec = migration(cloud, port)
    assert spec["source"]["workloadEndpoint"]["hostname"] == "h1"
    assert spec["target"]["workloadEndpoint"]["hostname"] == "h2"
    assert cloud.status(port) == "ACTIVE"

    activate(cloud, port, "h2")
    await_roles(cloud, port, ACTIVATED)
    cloud.report(port, host="h2")
    eventually(lambda: cloud.status(port) == "ACTIVE", "active where it is now")
    assert cloud.api.get(f"ports/{port['id']}")["binding:host_id"] == "h2"

    nova(cloud).delete(binding(port, "h1"))
    await_roles(cloud, port, {"h2": (None, None)})
    assert migration(cloud, port) is None
    assert members(cloud, port) == before, "groups' members have not changed"


def test_a_migration_that_is_given_up_leaves_the_port_as_it_was(
    cloud: Cloud, port: Port
) -> None:
    bind(cloud, port, "h2")
    await_roles(cloud, port, PREPARED)
    nova(cloud).delete(binding(port, "h2"))
    await_roles(cloud, port, {"h1": (None, None)})
    assert migration(cloud, port) is None
    assert cloud.status(port) == "ACTIVE"


def test_an_instance_comes_back_by_the_same_way(cloud: Cloud, port: Port) -> None:
    for source, target in (("h1", "h2"), ("h2", "h1")):
        bind(cloud, port, target)
        activate(cloud, port, target)
        nova(cloud).delete(binding(port, source))
        await_roles(cloud, port, {target: (None, None)})


def test_what_changes_on_the_way_changes_on_both_hosts(
    cloud: Cloud, port: Port
) -> None:
    bind(cloud, port, "h2")
    group = cloud.api.post("security-groups", security_group={"name": "late"})["id"]
    cloud.api.put(f"ports/{port['id']}", port={"security_groups": [group]})

    def groups() -> list[set[str]]:
        values = cloud.store.get_prefix(cloud.keys.endpoints).items.values()
        found = [parse_endpoint(item.value) for item in values]
        return [set(e.groups) for e in found if e.port == port["id"]]

    eventually(lambda: groups() == [{group}, {group}], "both have the group")
    assert roles(cloud, port) == PREPARED


def test_a_port_on_the_way_can_be_cut_off_and_deleted(cloud: Cloud, port: Port) -> None:
    bind(cloud, port, "h2")
    await_roles(cloud, port, PREPARED)
    cloud.api.put(f"ports/{port['id']}", port={"admin_state_up": False})
    await_roles(cloud, port, {})
    assert migration(cloud, port) is None
    cloud.api.put(f"ports/{port['id']}", port={"admin_state_up": True})
    await_roles(cloud, port, PREPARED)
    with ExitStack() as stack:
        network = cloud.network("10.78.0.0/24")
        stack.callback(cloud.api.delete, f"networks/{network['id']}")
        doomed = cloud.instance_port(network)
        bind(cloud, doomed, "h2")
        await_roles(cloud, doomed, PREPARED)
        cloud.api.delete(f"ports/{doomed['id']}")
        await_roles(cloud, doomed, {})


def test_an_evacuation_moves_all_in_one_transaction(cloud: Cloud, port: Port) -> None:
    cloud.api.put(f"ports/{port['id']}", port={"binding:host_id": "h2"})
    await_roles(cloud, port, {"h2": (None, None)})
    record = cloud.store.get(cloud.keys.published_port(PortId(port["id"])))
    moved = cloud.store.get(cloud.endpoint_key(port, "h2"))
    assert record is not None
    assert moved is not None
    assert record.mod_revision == moved.mod_revision


def test_another_device_of_a_port_changes_all_keys_at_once(
    cloud: Cloud, port: Port
) -> None:
    old = cloud.endpoint_key(port)
    cloud.api.put(f"ports/{port['id']}", port={"device_id": "other"})
    new = cloud.endpoint_key(port | {"device_id": "other"})
    eventually(lambda: cloud.store.get(old) is None, "the old device's is gone")
    item = cloud.store.get(new)
    record = cloud.store.get(cloud.keys.published_port(PortId(port["id"])))
    assert item is not None
    assert record is not None
    assert item.mod_revision == record.mod_revision


def test_p19_a_host_that_never_ran_the_agent_is_no_target(
    cloud: Cloud, port: Port
) -> None:
    with pytest.raises(ApiError):
        bind(cloud, port, "stranger")
    assert roles(cloud, port) == {"h1": (None, None)}
