"""etcd away, workers killed: no API call fails, and nothing that was said is lost."""

from tests.neutron.conftest import Cloud
from tests.neutron.waiting import eventually


def is_published(cloud: Cloud, port: dict[str, str]) -> bool:
    return cloud.store.get(cloud.endpoint_key(port)) is not None


def test_p20_what_is_said_while_etcd_is_down_is_published_when_it_is_back(
    cloud: Cloud,
) -> None:
    network = cloud.network("10.31.0.0/24")
    kept, removed = cloud.instance_port(network), cloud.instance_port(network)
    eventually(lambda: is_published(cloud, removed), "the port is published")

    cloud.etcd.stop()
    try:
        created = cloud.instance_port(network)
        cloud.api.delete(f"ports/{removed['id']}")
        assert cloud.api.get(f"ports/{created['id']}")["id"] == created["id"]
        assert created["id"] in cloud.journal()
        assert removed["id"] in cloud.journal()
    finally:
        cloud.etcd.start()

    eventually(lambda: is_published(cloud, created), "the new port is published")
    eventually(lambda: not is_published(cloud, removed), "the old port is withdrawn")
    eventually(lambda: not cloud.journal(), "the journal is empty")
    assert is_published(cloud, kept)


def test_p20_a_killed_api_worker_leaves_its_changes_to_the_elected_worker(
    cloud: Cloud,
) -> None:
    network = cloud.network("10.32.0.0/24")
    cloud.etcd.stop()
    try:
        port = cloud.instance_port(network)
        cloud.neutron.kill("api")  # kill -9, all its threads with it
    finally:
        cloud.etcd.start()
    try:
        eventually(lambda: is_published(cloud, port), "the port is published")
        eventually(lambda: not cloud.journal(), "the journal is empty")
    finally:
        cloud.neutron.start_api()
        cloud.neutron.wait_ready()


def test_p41_one_row_that_cannot_be_published_does_not_hold_up_others(
    cloud: Cloud,
) -> None:
    network = cloud.network("10.33.0.0/24")
    port = cloud.instance_port(network)
    eventually(lambda: is_published(cloud, port), "the port is published")
    (ip,) = port["fixed_ips"]
    # What no API call can bring about, but a broken database may.
    cloud.database.sql(
        f"UPDATE neutron.ports SET mac_address='x' WHERE id='{port['id']}'"  # noqa: S608 - an id of Neutron's
    )
    cloud.api.put(f"ports/{port['id']}", port={"name": "touched"})
    other = cloud.instance_port(network)
    eventually(lambda: is_published(cloud, other), "the other port is published")
    eventually(lambda: not cloud.journal(), "the journal is empty")
    assert ip["ip_address"]
