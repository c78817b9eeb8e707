"""What an agent says of its ports and of itself."""

import json
from dataclasses import replace

import pytest
from tests.endpoints import HOST, endpoint
from tests.kernel.netns import eventually
from tests.unit.hosts import world

from calico.agent.heartbeat import Heartbeat
from calico.agent.keeper import Keeper
from calico.agent.statuses import StatusWriter, statuses
from calico.config import AgentSettings
from calico.datastore.memory import MemoryStore
from calico.datastore.store import Result, Snapshot, Temporary, Transaction
from calico.model.ids import InterfaceName, PortId
from calico.model.keys import Keys
from calico.model.world import Rejected
from calico.plan.items import Route
from calico.system.fake_kernel import FakeKernel

KEYS = Keys()
PREFIX = KEYS.port_statuses(HOST)
A, B, C = endpoint(2), endpoint(3), endpoint(4)


class CountingStore(MemoryStore):
    """A store that counts transactions, and is away on request."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0
        self.away = False

    def transaction(self, transaction: Transaction) -> Result:
        if self.away:
            raise Temporary("away")
        self.transactions += 1
        return super().transaction(transaction)


def test_s20_a_status_says_what_became_of_the_data_path() -> None:
    kernel = FakeKernel([A.interface, B.interface])
    kernel.refuse = lambda item: (
        isinstance(item, Route) and item.interface == B.interface
    )
    bad = replace(endpoint(5), interface=InterfaceName("eth0"))
    keeper = Keeper(kernel, AgentSettings(host=HOST))
    _, delta = keeper.compare(world(A, B, C, bad), (), resync=True)
    broken_key = KEYS.endpoint(HOST, C.device, PortId("broken"))
    whose = (C.device, PortId("broken"))
    rejected = Rejected(key=broken_key, reason="no JSON", port=whose)
    found = statuses(HOST, KEYS, keeper.apply(delta), (rejected,))
    said = {
        KEYS.parse_port_status(key)[2]: json.loads(value)["status"]
        for key, value in found.items()
    }
    assert said == {
        A.port: "up",
        B.port: "error",
        C.port: "down",
        bad.port: "error",
        "broken": "error",
    }


def wanted(number: int, status: bytes = b"up") -> dict[str, bytes]:
    return {
        KEYS.port_status(HOST, e.device, e.port): status
        for e in map(endpoint, range(number))
    }


def test_p23_a_hundred_statuses_are_one_transaction() -> None:
    store = CountingStore()
    writer = StatusWriter(store, KEYS, HOST)
    writer.write(wanted(100))
    assert store.transactions == 1
    assert len(store.get_prefix(PREFIX).items) == 100
    writer.write(wanted(100))
    assert store.transactions == 1, "nothing changed, nothing written"


def test_statuses_of_ports_that_went_are_removed_also_an_earlier_agents() -> None:
    store = CountingStore()
    StatusWriter(store, KEYS, HOST).write(wanted(3))
    StatusWriter(store, KEYS, HOST).write(wanted(1))
    assert set(store.get_prefix(PREFIX).items) == set(wanted(1))


def test_what_was_lost_in_an_outage_is_written_after_it() -> None:
    store = CountingStore()
    writer = StatusWriter(store, KEYS, HOST)
    writer.write(wanted(2, b"down"))
    store.away = True
    with pytest.raises(Temporary):
        writer.write(wanted(2))
    store.away = False
    writer.write(wanted(2))
    found = store.get_prefix(PREFIX).items.values()
    assert {item.value for item in found} == {b"up"}


@pytest.mark.parametrize("stray", ["stray", "device/endpoint/port\udcff"])
def test_keys_of_others_among_the_statuses_are_left_alone(stray: str) -> None:
    store = CountingStore()
    store.put(PREFIX + stray, b"theirs")
    StatusWriter(store, KEYS, HOST).write(wanted(2))
    StatusWriter(store, KEYS, HOST).write(wanted(1))
    assert set(store.get_prefix(PREFIX).items) == {PREFIX + stray, *wanted(1)}


class SurprisingStore(MemoryStore):
    """A store that fails once in a way that no store should."""

    surprised = False

    def _surprise(self) -> None:
        if not self.surprised:
            self.surprised = True
            raise ValueError("what is this?")

    def get_prefix(self, prefix: str) -> Snapshot:
        self._surprise()
        return super().get_prefix(prefix)

    def lease_grant(self, ttl: int) -> int:
        self._surprise()
        return super().lease_grant(ttl)


def test_statuses_are_written_after_whatever_went_wrong() -> None:
    store = SurprisingStore()
    writer = StatusWriter(store, KEYS, HOST)
    writer.start()
    writer.offer(wanted(2), resync=False)
    eventually(lambda: store.surprised)  # and not by this test
    eventually(lambda: len(store.get_prefix(PREFIX).items) == 2)
    writer.stop(5)


def test_p31_a_heart_beats_after_whatever_went_wrong() -> None:
    store = SurprisingStore()
    beat = Heartbeat(store, KEYS.host_status(HOST), interval=0.01, ttl=30)
    beat.start()
    eventually(lambda: store.get(KEYS.host_status(HOST)))
    beat.stop()


def test_p31_a_heartbeat_is_leased_and_renewed() -> None:
    store = MemoryStore()
    key = KEYS.host_status(HOST)
    beat = Heartbeat(store, key, interval=10, ttl=30, clock=lambda: 5.0)
    beat.beat()
    item = store.get(key)
    assert item is not None
    assert item.lease
    assert json.loads(item.value)["first_update"] is True
    beat.beat()
    again = store.get(key)
    assert again is not None
    assert again.lease == item.lease
    assert json.loads(again.value)["first_update"] is False


def test_p31_a_lost_lease_is_replaced() -> None:
    store = MemoryStore()
    key = KEYS.host_status(HOST)
    beat = Heartbeat(store, key, interval=10, ttl=30)
    beat.beat()
    item = store.get(key)
    assert item is not None
    store.lease_revoke(item.lease)
    assert store.get(key) is None
    beat.beat()
    assert store.get(key) is not None
