"""One of several workers leads; another follows when it goes. On a real etcd."""

from collections.abc import Callable, Iterator

import pytest
from tests.etcd_server import EtcdServer
from tests.neutron.waiting import eventually

from calico.datastore.client import Client
from calico.server.leadership import Leadership

KEY = "/test/leadership"


@pytest.fixture
def stand(etcd: EtcdServer) -> Iterator[Callable[[str], Leadership]]:
    stores: list[Client] = []

    def stand(name: str) -> Leadership:
        stores.append(Client(etcd.settings))
        return Leadership(stores[-1], KEY, name)

    yield stand
    for store in stores:
        store.delete(KEY)
        store.close()


def test_who_is_elected_is_told_once(etcd: EtcdServer) -> None:
    told: list[str] = []
    store = Client(etcd.settings)
    elected = Leadership(store, KEY, "first", lambda: told.append("first"))
    loser = Leadership(store, KEY, "second", lambda: told.append("second"))
    for worker in (elected, loser, elected):
        worker.step()
    assert told == ["first"]
    store.delete(KEY)
    store.close()


def test_p27_a_worker_that_stops_is_succeeded_at_once(
    stand: Callable[[str], Leadership],
) -> None:
    first, second = stand("first"), stand("second")
    first.start()
    eventually(lambda: first.leading, "the first leads")
    second.step()
    assert not second.leading
    first.stop()
    assert not first.leading
    second.step()
    assert second.leading
    second.step()  # renewed
    assert second.leading


def test_p28_a_worker_that_lost_its_key_knows(
    stand: Callable[[str], Leadership], etcd: EtcdServer
) -> None:
    first, second = stand("first"), stand("second")
    first.step()
    assert first.leading
    etcd.etcdctl("del", KEY)
    second.step()
    first.step()
    assert (first.leading, second.leading) == (False, True)
