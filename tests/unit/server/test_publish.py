"""Publication against the strict store in memory, failing where a test says."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import pytest

from calico.datastore.memory import MemoryStore
from calico.model.ids import (
    DeviceId,
    GroupId,
    HostName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    tap_name,
)
from calico.model.keys import Keys
from calico.model.records import Endpoint
from calico.server.publish import Publication

KEYS = Keys()
PORT = PortId("0b9de9b4-0a30-4d3b-a5a8-8e2a5a3f0001")
ENDPOINT = Endpoint(
    host=HostName("h1"),
    device=DeviceId("instance"),
    port=PORT,
    interface=tap_name(PORT),
    mac=Mac("fa:16:3e:00:00:01"),
    network=NetworkId("net"),
    project=ProjectId("project"),
    addresses=(ip_address("10.0.0.2"),),
    groups=frozenset([GroupId("sg")]),
)


def as_wanted(_ids: Sequence[str]) -> Mapping[str, Endpoint]:
    return {PORT: ENDPOINT}


@pytest.mark.parametrize(
    "value", [b'{"endpoint":"\xff"}', b"[" * 100_000, b"[]", b'{"endpoint":5}']
)
def test_p41_a_record_that_cannot_be_read_is_replaced(value: bytes) -> None:
    store = MemoryStore()
    store.put(KEYS.published_port(PORT), value)
    Publication(store, KEYS).ports([PORT], as_wanted)
    assert store.get(KEYS.endpoint(ENDPOINT.host, ENDPOINT.device, PORT)) is not None
    record = store.get(KEYS.published_port(PORT))
    assert record is not None
    assert record.value != value
