"""The cloud's settings in etcd are neutron.conf's, whatever was there."""

from itertools import permutations

import pytest

from calico.datastore.memory import MemoryStore
from calico.model.cloud_settings import CloudSettings, parse_cloud_settings
from calico.model.keys import Keys
from calico.server.cloud_settings import publish_cloud_settings

KEYS = Keys()
ON, OFF = CloudSettings(translate_sources=True), CloudSettings()


@pytest.mark.parametrize("order", list(permutations([ON, OFF, ON])))
@pytest.mark.parametrize("before", [None, b"{nonsense"], ids=["nothing", "nonsense"])
def test_s13_what_is_set_is_there_and_the_defaults_are_nothing(
    order: tuple[CloudSettings, ...], before: bytes | None
) -> None:
    store = MemoryStore()
    if before is not None:
        store.put(KEYS.settings, before)
    for settings in order:
        publish_cloud_settings(store, KEYS, settings)
        item = store.get(KEYS.settings)
        assert (item is None) == (settings == OFF)
        assert item is None or parse_cloud_settings(item.value) == settings


def test_nothing_is_written_where_nothing_changed() -> None:
    store = MemoryStore()
    for settings in (ON, OFF):
        publish_cloud_settings(store, KEYS, settings)
        store.put("/marker", b"")
        marked = store.get("/marker")
        publish_cloud_settings(store, KEYS, settings)
        store.put("/marker", b"")
        after = store.get("/marker")
        assert marked
        assert after
        assert after.mod_revision == marked.mod_revision + 1
