"""The client against a real etcd: what a Store promises, and what goes wrong."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.etcd_server import EtcdCluster, EtcdServer, make_certificates
from tests.kernel.netns import eventually

from calico.datastore.client import Client
from calico.datastore.memory import MemoryStore
from calico.datastore.store import (
    MAX_OPERATIONS,
    Broken,
    Compare,
    Delete,
    LeaseLost,
    Put,
    Temporary,
    Transaction,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture(params=["etcd", "memory"])
def store(
    request: pytest.FixtureRequest, shared: EtcdServer
) -> Iterator[Client | MemoryStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    client = Client(shared.settings)
    yield client
    for key in client.get_prefix("").items:
        client.delete(key)
    client.close()


def recovered(client: Client, key: str = "/k") -> bool:
    try:
        client.get(key)
    except Temporary:
        return False
    return True


def test_what_was_put_is_read(store: Client | MemoryStore) -> None:
    first = store.put("/a/1", b"x")
    second = store.put("/a/1", b"y")
    item = store.get("/a/1")
    assert item is not None
    assert (item.value, item.create_revision, item.mod_revision) == (
        b"y",
        first,
        second,
    )
    store.delete("/a/1")
    assert store.get("/a/1") is None


def test_a_prefix_is_its_keys_and_no_others(store: Client | MemoryStore) -> None:
    for key in ("/a", "/a/1", "/a/ü", "/a0", "/b/1"):
        store.put(key, b"")
    assert set(store.get_prefix("/a/").items) == {"/a/1", "/a/ü"}
    assert set(store.get_prefix("").items) == {"/a", "/a/1", "/a/ü", "/a0", "/b/1"}


def test_a_transaction_happens_wholly_or_not_at_all(
    store: Client | MemoryStore,
) -> None:
    store.put("/a", b"old")
    read = store.get("/a")
    writes = (Put(key="/a", value=b"new"), Put(key="/b", value=b"new"))
    mine = Transaction(compares=(Compare.unchanged("/a", read),), writes=writes)
    assert store.transaction(mine).succeeded
    assert not store.transaction(mine).succeeded, "the key has changed since"
    items = store.get_prefix("/").items
    assert {i.mod_revision for i in items.values()} == {items["/a"].mod_revision}

    both = Transaction(
        compares=(Compare.absent("/c"),),
        writes=(Delete(key="/a"), Put(key="/c", value=b"")),
    )
    assert store.transaction(both).succeeded
    assert not store.transaction(both).succeeded
    assert set(store.get_prefix("/").items) == {"/b", "/c"}


def test_a_transaction_may_be_as_large_as_etcd_allows(
    store: Client | MemoryStore,
) -> None:
    writes = tuple(Put(key=f"/{n}", value=b"") for n in range(MAX_OPERATIONS))
    assert store.transaction(Transaction(writes=writes)).succeeded
    with pytest.raises(ValueError, match="at most"):
        Transaction(writes=(*writes, Delete(key="/more")))
    with pytest.raises(ValueError, match="twice"):
        Transaction(writes=(writes[0], Delete(key="/0")))


def test_p56_a_write_fenced_by_a_lost_lock_does_not_happen(
    store: Client | MemoryStore,
) -> None:
    lease = store.lease_grant(60)
    store.put("/lock", b"me", lease)
    held = store.get("/lock")
    assert held is not None
    fence = Compare(key="/lock", create_revision=held.create_revision)
    write = Transaction(compares=(fence,), writes=(Put(key="/w", value=b""),))
    store.put("/lock", b"me", lease)
    assert store.transaction(write).succeeded, "renewing a lock keeps it"
    # Even one of the same name that took the lock since is another holder.
    store.lease_revoke(lease)
    store.put("/lock", b"me", store.lease_grant(60))
    assert not store.transaction(write).succeeded


def test_a_lost_lease_says_so(store: Client | MemoryStore) -> None:
    lease = store.lease_grant(60)
    assert store.lease_keepalive(lease) == 60
    store.put("/l", b"", lease)
    store.lease_revoke(lease)
    assert store.get("/l") is None
    assert store.lease_keepalive(lease) == 0
    store.lease_revoke(lease)
    with pytest.raises(LeaseLost):
        store.put("/l", b"", lease)


def test_a_lease_not_kept_alive_ends(shared: EtcdServer) -> None:
    client = Client(shared.settings)
    lease = client.lease_grant(1)
    client.put("/l", b"", lease)
    eventually(lambda: client.get("/l") is None, message="the key goes")
    assert client.lease_keepalive(lease) == 0
    client.close()


def test_a_large_range_is_read_whole(shared: EtcdServer) -> None:
    client = Client(shared.settings)
    for n in range(6):
        client.put(f"/large/{n}", b"x" * 1_000_000)
    assert len(client.get_prefix("/large/").items) == 6
    client.close()


def test_p20_an_outage_is_temporary_and_ends() -> None:
    with EtcdServer() as server:
        client = Client(server.settings)
        client.put("/k", b"1")
        server.kill()
        with pytest.raises(Temporary, match=r"get /k.*127\.0\.0\.1"):
            client.get("/k")
        server.start()
        eventually(lambda: recovered(client), message="the client is back")
        client.close()


def test_p26_any_member_will_do() -> None:
    with EtcdCluster() as cluster:
        client = Client(replace(cluster.settings, timeout=1.0))
        client.put("/k", b"1")
        first, second, _ = cluster.members
        first.kill()
        # A call may meet the cluster while it elects; that is temporary.
        eventually(lambda: recovered(client), message="another member answers")
        assert client.members.current != 0
        first.start()
        for _ in range(2):
            # A frozen member keeps its connections, and answers nothing.
            frozen = cluster.members[client.members.current]
            frozen.pause()
            eventually(lambda: recovered(client), message="another member answers")
            frozen.resume()
        assert second.etcdctl("get", "/k", "--print-value-only").stdout == "1\n"
        client.close()


def test_p26_unreachable_members_are_passed_over_from_the_start() -> None:
    with EtcdServer() as server:
        dead = EtcdServer("dead")
        endpoints = (dead.endpoint, *server.settings.endpoints)
        client = Client(replace(server.settings, endpoints=endpoints))
        client.put("/k", b"1")
        client.close()
        dead.close()


def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with EtcdServer(certificates=make_certificates(tmp_path)) as server:
        client = Client(server.settings)
        client.put("/k", b"1")
        client.close()
        stranger = make_certificates(other)
        wrong_authority = Client(replace(server.settings, ca=stranger.ca))
        with pytest.raises(Broken, match="CERTIFICATE_VERIFY_FAILED"):
            wrong_authority.get("/k")
        wrong_authority.close()
        no_certificate = Client(replace(server.settings, cert=None, key=None))
        with pytest.raises((Temporary, Broken)):
            no_certificate.get("/k")
        no_certificate.close()
        no_file = Client(replace(server.settings, ca=tmp_path / "none"))
        with pytest.raises(Broken, match="none: No such file"):
            no_file.get("/k")


def test_an_endpoint_that_is_no_url_is_broken(shared: EtcdServer) -> None:
    client = Client(replace(shared.settings, endpoints=("etcd.example:2379",)))
    with pytest.raises(Broken, match=r"etcd\.example:2379 is not http"):
        client.get("/k")


def test_a_user_sees_what_its_role_allows_and_outlives_its_token() -> None:
    with EtcdServer() as server:
        settings = replace(server.settings, user="host", password="secret")
        client = Client(settings)
        client.put("/calico/k", b"1")  # authentication is not enabled yet
        server.enable_auth({"host": "secret"})
        assert client.get("/calico/k") is not None
        with pytest.raises(Broken, match="permission denied"):
            client.get("/else")
        server.kill()  # forgets its tokens
        server.start()
        eventually(lambda: recovered(client, "/calico/k"), message="a new token")
        client.close()
        for bad in (replace(settings, password="wrong"), server.settings):
            client = Client(bad)
            with pytest.raises(Broken):
                client.get("/calico/k")
            client.close()


FORK = """
import os, sys
from calico.config import EtcdSettings
from calico.datastore.client import Client
client = Client(EtcdSettings(endpoints=(sys.argv[1],)))
pids = []
for n in range(2):
    pid = os.fork()
    if pid == 0:
        client.put(f"/forked/{n}", b"")
        os._exit(0)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
"""


def test_a_client_made_before_a_fork_serves_after_it(shared: EtcdServer) -> None:
    subprocess.run(
        [sys.executable, "-c", FORK, shared.endpoint], check=True, timeout=60
    )
    client = Client(shared.settings)
    assert len(client.get_prefix("/forked/").items) == 2
    client.close()


def test_the_memory_store_fails_on_request_and_prints_itself() -> None:
    store = MemoryStore()
    store.put("/a", b"1")
    store.fail(Temporary("asked for"))
    with pytest.raises(Temporary):
        store.put("/a", b"2")
    assert str(store) == "/a = b'1'"
