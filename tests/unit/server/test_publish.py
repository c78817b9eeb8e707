"""Publication against the strict store in memory, failing where a test says."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import pytest

from calico.datastore.memory import MemoryStore
from calico.datastore.store import Temporary
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
Read = Callable[[Sequence[str]], Mapping[str, Endpoint]]
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


# Too many keys for one transaction, and for two.
MANY = replace(ENDPOINT, groups=frozenset(GroupId(f"sg{n}") for n in range(300)))


def as_wanted(_ids: Sequence[str]) -> Mapping[str, Endpoint]:
    return {PORT: ENDPOINT}


def just(endpoint: Endpoint | None) -> Read:
    return lambda _ids: {PORT: endpoint} if endpoint else {}


def published(endpoint: Endpoint | None) -> str:
    """Return what the store holds where nothing was ever interrupted."""
    store = MemoryStore()
    Publication(store, KEYS).ports([PORT], just(endpoint))
    return str(store)


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


STATES = {
    "nothing": None,
    "one group": ENDPOINT,
    "many groups": MANY,
    "other groups": replace(MANY, groups=frozenset([GroupId("x"), GroupId("sg7")])),
}


@pytest.mark.parametrize("after", STATES.values(), ids=STATES)
@pytest.mark.parametrize("calls", range(9))
@pytest.mark.parametrize("interrupted", [None, ENDPOINT], ids=["withdraw", "shrink"])
def test_p20_what_was_interrupted_leaves_no_key_behind(
    interrupted: Endpoint | None, calls: int, after: Endpoint | None
) -> None:
    store = MemoryStore()
    publication = Publication(store, KEYS)
    publication.ports([PORT], just(MANY))
    store.fail(*[None] * calls, Temporary("etcd is away"))
    with suppress(Temporary):
        publication.ports([PORT], just(interrupted))
    for _ in range(2):  # the first of them may be the one that is interrupted
        with suppress(Temporary):
            publication.ports([PORT], just(after))
    assert str(store) == published(after)
