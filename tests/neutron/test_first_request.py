"""What a fresh API worker answers before anything else was asked of it."""

from tests.neutron.conftest import Cloud
from tests.neutron.deployment import deployment


def test_the_first_request_of_a_worker_may_list_ports(cloud: Cloud) -> None:
    with deployment(cloud.database.url, cloud.etcd.endpoint, {}) as fresh:
        fresh.start_api()
        fresh.wait_ready()
        assert isinstance(fresh.api.get("ports"), list)
