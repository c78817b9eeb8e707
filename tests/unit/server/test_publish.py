"""Publication against the strict store in memory, failing where a test says."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

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
from calico.server.publish import Endpoints, Publication

KEYS = Keys()
Read = Callable[[Sequence[str]], Mapping[str, Endpoints]]
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


NAMED = replace(ENDPOINT, fqdn="web.cloud.example", aliases=("web.blue.example",))


# On the way from h1 to h2: prepared, and activated.
TO = HostName("h2")
PREPARED = (
    replace(ENDPOINT, leaving_to=TO),
    replace(ENDPOINT, host=TO, arriving_from=ENDPOINT.host),
)
ACTIVATED = (replace(ENDPOINT, host=TO), replace(ENDPOINT, leaving_to=TO))


def as_wanted(_ids: Sequence[str]) -> Mapping[str, Endpoints]:
    return {PORT: (ENDPOINT,)}


def just(*endpoints: Endpoint) -> Read:
    return lambda _ids: {PORT: endpoints} if endpoints else {}


def published(*endpoints: Endpoint) -> str:
    """Return what the store holds where nothing was ever interrupted."""
    store = MemoryStore()
    Publication(store, KEYS).ports([PORT], just(*endpoints))
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
    "nothing": (),
    "one group": (ENDPOINT,),
    "many groups": (MANY,),
    "other groups": (replace(MANY, groups=frozenset([GroupId("x"), GroupId("sg7")])),),
    "on the way": PREPARED,
    "named": (NAMED,),
    "another's": (replace(NAMED, project=ProjectId("a/b")),),
}


@pytest.mark.parametrize("after", STATES.values(), ids=STATES)
@pytest.mark.parametrize("calls", range(9))
@pytest.mark.parametrize(
    "interrupted", [(), (ENDPOINT,), PREPARED], ids=["withdraw", "shrink", "prepare"]
)
def test_p20_what_was_interrupted_leaves_no_key_behind(
    interrupted: Endpoints, calls: int, after: Endpoints
) -> None:
    store = MemoryStore()
    publication = Publication(store, KEYS)
    publication.ports([PORT], just(MANY))
    store.fail(*[None] * calls, Temporary("etcd is away"))
    with suppress(Temporary):
        publication.ports([PORT], just(*interrupted))
    for _ in range(2):  # the first of them may be the one that is interrupted
        with suppress(Temporary):
            publication.ports([PORT], just(*after))
    assert str(store) == published(*after)


ORDER = [(ENDPOINT,), PREPARED, ACTIVATED, (ACTIVATED[0],)]


@pytest.mark.parametrize("order", list(permutations(ORDER)))
def test_each_step_of_a_migration_leads_to_the_same_from_any_other(
    order: tuple[Endpoints, ...],
) -> None:
    store = MemoryStore()
    for endpoints in order:
        before = store.get_prefix(KEYS.members).items
        Publication(store, KEYS).ports([PORT], just(*endpoints))
        after = store.get_prefix(KEYS.members).items
        assert str(store) == published(*endpoints)
        assert before in ({}, after), "the member index does not change"


def test_names_are_one_key_that_comes_moves_and_goes_with_the_port() -> None:
    store = MemoryStore()
    publication = Publication(store, KEYS)
    other = ProjectId("other")
    for wanted, project in (
        (NAMED, NAMED.project),
        (replace(NAMED, project=other), other),
        (replace(NAMED, host=TO), NAMED.project),
        (ENDPOINT, None),
        (NAMED, NAMED.project),
        (None, None),
    ):
        publication.ports([PORT], just(*filter(None, [wanted])))
        found = store.get_prefix(KEYS.names).items
        assert list(found) == ([KEYS.port_names(project, PORT)] if project else [])
        for item in found.values():
            assert json.loads(item.value) == {
                "names": ["web.cloud.example", "web.blue.example"],
                "addresses": ["10.0.0.2"],
            }


def test_a_name_that_stays_is_not_written_again() -> None:
    store = MemoryStore()
    publication = Publication(store, KEYS)
    key = KEYS.port_names(NAMED.project, PORT)
    publication.ports([PORT], just(NAMED))
    before = store.get(key)
    publication.ports([PORT], just(replace(NAMED, groups=frozenset())))
    assert store.get(key) == before, "hosts hear nothing"


def test_a_migration_is_published_for_other_readers_of_the_model() -> None:
    store = MemoryStore()
    for endpoints in (PREPARED, ACTIVATED):
        Publication(store, KEYS).ports([PORT], just(*endpoints))
        item = store.get(KEYS.migration(TO, ENDPOINT.device, PORT))
        assert item is not None
        spec = json.loads(item.value)["spec"]
        assert spec["source"]["workloadEndpoint"] == {
            "hostname": "h1",
            "orchestratorID": "openstack",
            "workloadID": "instance",
            "endpointID": PORT,
        }
        assert spec["target"]["workloadEndpoint"]["hostname"] == "h2"
    Publication(store, KEYS).ports([PORT], just(ACTIVATED[0]))
    assert store.get(KEYS.migration(TO, ENDPOINT.device, PORT)) is None
