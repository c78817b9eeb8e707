"""Neutron's logging API: what it says is in etcd, and no more than that."""

import json
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import PROJECT, ApiError
from tests.neutron.waiting import eventually

from calico.model.ids import LogId


def create(cloud: Cloud, **more: Any) -> dict[str, Any]:
    body = {"resource_type": "security_group", "name": "watch"} | more
    created: dict[str, Any] = cloud.api.post("log/logs", log=body)
    return created


def update(cloud: Cloud, log: dict[str, Any], **changes: Any) -> None:
    cloud.api.put(f"log/logs/{log['id']}", log=changes)


def known(cloud: Cloud) -> set[str]:
    """Return the ids of the logs that Neutron has."""
    return {log["id"] for log in cloud.api.get("log/logs")}


def stored(cloud: Cloud, log: dict[str, Any]) -> dict[str, Any] | None:
    item = cloud.store.get(cloud.keys.log(LogId(log["id"])))
    found: dict[str, Any] | None = json.loads(item.value) if item else None
    return found


def awaits(cloud: Cloud, log: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    eventually(
        lambda: stored(cloud, log) == wanted,
        f"log {log['id']} is {wanted}, not {stored(cloud, log)}",
    )


def awaits_some(cloud: Cloud, log: dict[str, Any]) -> None:
    eventually(lambda: stored(cloud, log), f"log {log['id']} is published")


def group_and_port(cloud: Cloud, number: int) -> tuple[str, str]:
    network = cloud.network(f"10.81.{number}.0/24")
    group = cloud.api.post("security-groups", security_group={"name": "logged"})
    port = cloud.instance_port(network, security_groups=[group["id"]])
    return group["id"], port["id"]


def test_a_log_of_a_port_and_group_is_published_as_it_is(cloud: Cloud) -> None:
    group, port = group_and_port(cloud, 1)
    log = create(cloud, resource_id=group, target_id=port, event="DROP")
    published = {
        "project": PROJECT,
        "resource": group,
        "target": port,
        "event": "DROP",
        "name": "watch",
    }
    awaits(cloud, log, published)
    cloud.api.delete(f"log/logs/{log['id']}")
    awaits(cloud, log, None)


def test_a_log_that_is_disabled_is_withdrawn(cloud: Cloud) -> None:
    log = create(cloud, enabled=False)
    update(cloud, log, enabled=True)
    everything = {"resource": None, "target": None, "event": "ALL", "project": PROJECT}
    awaits(cloud, log, everything | {"name": "watch"})
    update(cloud, log, enabled=False)
    awaits(cloud, log, None)
    update(cloud, log, enabled=True, name="again")
    awaits(cloud, log, everything | {"name": "again"})
    cloud.api.delete(f"log/logs/{log['id']}")


def test_p18_a_log_that_is_only_renamed_is_published_anew(cloud: Cloud) -> None:
    log = create(cloud)
    awaits_some(cloud, log)
    update(cloud, log, name="new")
    eventually(lambda: (stored(cloud, log) or {}).get("name") == "new", "it is renamed")
    cloud.api.delete(f"log/logs/{log['id']}")


def test_a_log_goes_with_the_group_or_the_port_that_it_names(cloud: Cloud) -> None:
    group, port = group_and_port(cloud, 2)
    of_group, of_port = create(cloud, resource_id=group), create(cloud, target_id=port)
    awaits_some(cloud, of_group)
    awaits_some(cloud, of_port)
    cloud.api.delete(f"ports/{port}")
    cloud.api.delete(f"security-groups/{group}")
    for log in (of_group, of_port):
        awaits(cloud, log, None)
    assert not {of_group["id"], of_port["id"]} & known(cloud)


def test_security_groups_are_what_can_be_logged(cloud: Cloud) -> None:
    assert cloud.api.get("log/loggable-resources") == [{"type": "security_group"}]
    _, port = group_and_port(cloud, 3)
    before = known(cloud)
    other = cloud.api.post("security-groups", security_group={"name": "other"})["id"]
    for status, refused in (
        (400, {"resource_type": "snat"}),
        (400, {"event": "REJECT"}),
        (404, {"resource_id": PROJECT}),
        (404, {"target_id": PROJECT}),
        (400, {"resource_id": other, "target_id": port}),
    ):
        with pytest.raises(ApiError, match=f"^{status}: "):
            create(cloud, **refused)
    assert known(cloud) == before
    cloud.api.delete(f"ports/{port}")
