"""Publication against a real etcd: races, moves, and ports with very many keys."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv6Network, ip_address

import pytest
from tests.etcd_server import EtcdServer

from calico.datastore.client import Client
from calico.model.codec import parse_endpoint
from calico.model.ids import (
    AddressGroupId,
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
from calico.model.policy_codec import encode_address_group, encode_policy
from calico.model.records import AddressGroup, Endpoint, Policy
from calico.server.publish import (
    LARGEST_REQUEST,
    Endpoints,
    Form,
    Publication,
    Unpublishable,
)

PORT = PortId("0b9de9b4-0a30-4d3b-a5a8-8e2a5a3f0001")
KEYS = Keys("race")  # a region of its own: other tests use the same etcd

Read = Callable[[Sequence[str]], Mapping[str, Endpoints]]


def endpoint(
    host: str = "h1", groups: Sequence[str] = ("sg",), mac: str = "fa:16:3e:00:00:01"
) -> Endpoint:
    return Endpoint(
        host=HostName(host),
        device=DeviceId("instance"),
        port=PORT,
        interface=tap_name(PORT),
        mac=Mac(mac),
        network=NetworkId("net"),
        project=ProjectId("project"),
        addresses=(ip_address("10.0.0.2"),),
        groups=frozenset(GroupId(g) for g in groups),
    )


@pytest.fixture
def store(etcd: EtcdServer) -> Iterator[Client]:
    store = Client(etcd.settings)
    yield store
    for prefix in (
        KEYS.endpoints,
        KEYS.members,
        KEYS.published_ports,
        KEYS.policies,
        KEYS.address_groups,
    ):
        for key in store.get_prefix(prefix).items:
            store.delete(key)
    store.close()


@pytest.fixture
def publication(store: Client) -> Publication:
    return Publication(store, KEYS)


def just(found: Endpoint | None) -> Read:
    return lambda _ids: {PORT: (found,)} if found else {}


def keys_of_port(store: Client) -> set[str]:
    return {
        key
        for prefix in (KEYS.endpoints, KEYS.members, KEYS.published_ports)
        for key in store.get_prefix(prefix).items
    }


def test_p56_a_slow_publisher_cannot_undo_a_newer_publication(
    store: Client, publication: Publication
) -> None:
    readings = [endpoint(mac="fa:16:3e:00:00:0a"), endpoint(mac="fa:16:3e:00:00:0b")]

    def overtaken(_ids: Sequence[str]) -> Mapping[str, Endpoints]:
        reading = readings.pop(0)
        if readings:  # between the slow one's reading and its writing
            Publication(store, KEYS).ports([PORT], just(readings[0]))
        return {PORT: (reading,)}

    publication.ports([PORT], overtaken)

    item = store.get(KEYS.endpoint(HostName("h1"), DeviceId("instance"), PORT))
    assert item is not None
    assert parse_endpoint(item.value).mac == "fa:16:3e:00:00:0b"
    assert readings == []


def test_p56_a_slow_publisher_cannot_bring_a_deleted_port_back(
    store: Client, publication: Publication
) -> None:
    publication.ports([PORT], just(endpoint()))
    readings: list[dict[str, Endpoints]] = [{PORT: (endpoint(groups=["x"]),)}, {}]

    def overtaken(_ids: Sequence[str]) -> Mapping[str, Endpoints]:
        reading = readings.pop(0)
        if readings:
            Publication(store, KEYS).ports([PORT], just(None))
        return reading

    publication.ports([PORT], overtaken)

    assert keys_of_port(store) == set()


def test_p56_a_slow_publisher_cannot_undo_a_newer_policy(
    store: Client, publication: Publication
) -> None:
    readings = [
        Policy(group=GroupId("sg"), name="old"),
        Policy(group=GroupId("sg"), name="new"),
    ]

    def form(read: Callable[[], Policy]) -> Form:
        key = KEYS.policy(GroupId("sg"))
        return Form(key, lambda old: encode_policy(read(), KEYS, old))

    def overtaken() -> Policy:
        reading = readings.pop(0)
        if readings:
            newest = readings[0]
            Publication(store, KEYS).object(form(lambda: newest))
        return reading

    publication.object(form(overtaken))

    item = store.get(KEYS.policy(GroupId("sg")))
    assert item is not None
    assert b"new" in item.value


def test_a_port_that_moves_leaves_its_old_host_in_the_same_transaction(
    store: Client, publication: Publication
) -> None:
    publication.ports([PORT], just(endpoint("h1", ["a", "b"])))
    publication.ports([PORT], just(endpoint("h2", ["b", "c"])))

    items = store.get_prefix(KEYS.endpoints).items
    assert list(items) == [KEYS.endpoint(HostName("h2"), DeviceId("instance"), PORT)]
    (moved,) = items.values()
    record = store.get(KEYS.published_port(PORT))
    assert record is not None
    assert record.mod_revision == moved.mod_revision
    groups = {KEYS.parse_member(k)[0] for k in store.get_prefix(KEYS.members).items}
    assert groups == {"b", "c"}


def test_p21_publishing_a_port_again_writes_nothing_that_hosts_watch(
    store: Client, publication: Publication
) -> None:
    publication.ports([PORT], just(endpoint()))
    before = {
        k: i.mod_revision
        for prefix in (KEYS.endpoints, KEYS.members)
        for k, i in store.get_prefix(prefix).items.items()
    }
    publication.ports([PORT], just(endpoint()))
    after = {
        k: i.mod_revision
        for prefix in (KEYS.endpoints, KEYS.members)
        for k, i in store.get_prefix(prefix).items.items()
    }
    assert before == after
    assert before


def test_p41_what_etcd_takes_is_published_and_more_is_refused_with_its_size(
    store: Client, publication: Publication
) -> None:
    def form(count: int) -> Form:
        key = KEYS.address_group(AddressGroupId("ag"))
        return Form(key, lambda old: encode_address_group(entries(count), KEYS, old))

    def entries(count: int) -> AddressGroup:
        first = int(ip_address("2001:db8:1111:2222:3333:4444:5555:0"))
        prefixes = tuple(IPv6Network((first + n, 128)) for n in range(count))
        return AddressGroup(id=AddressGroupId("ag"), name="", prefixes=prefixes)

    publication.object(form(33_000))
    item = store.get(KEYS.address_group(AddressGroupId("ag")))
    assert item is not None
    assert 0.9 * LARGEST_REQUEST < len(item.value) < LARGEST_REQUEST
    with pytest.raises(Unpublishable, match=r"networksets/.*/osag.ag: \d+ bytes"):
        publication.object(form(40_000))


def test_a_port_of_more_keys_than_a_transaction_takes_is_published_and_withdrawn(
    store: Client, publication: Publication
) -> None:
    many = [f"group{n}" for n in range(300)]
    publication.ports([PORT], just(endpoint("h1", many)))
    assert len(store.get_prefix(KEYS.members).items) == 300
    publication.ports([PORT], just(endpoint("h2", many[:5])))
    assert len(store.get_prefix(KEYS.members).items) == 5
    assert len(store.get_prefix(KEYS.endpoints).items) == 1
    publication.ports([PORT], just(endpoint("h2", many)))
    publication.ports([PORT], just(None))
    assert keys_of_port(store) == set()
