"""What neutron.conf says for the whole cloud reaches the hosts."""

from tests.neutron.conftest import Cloud
from tests.neutron.waiting import eventually

from calico.model.cloud_settings import CloudSettings, parse_cloud_settings


def test_s13_hosts_are_told_whether_sources_are_translated(cloud: Cloud) -> None:
    def told() -> CloudSettings | None:
        item = cloud.store.get(cloud.keys.settings)
        return parse_cloud_settings(item.value) if item else None

    wanted = CloudSettings(translate_sources=True)
    eventually(lambda: told() == wanted, "the elected worker wrote the settings")
