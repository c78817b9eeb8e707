"""A Watch against a real etcd that dies, forgets, freezes and comes back older."""

import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from tests.etcd_server import EtcdCluster, EtcdServer
from tests.kernel.netns import eventually

from calico.config import EtcdSettings
from calico.datastore.client import Client
from calico.datastore.store import DatastoreError, Put, Temporary, Transaction
from calico.datastore.watcher import Ranges, Seen, Watch


class Watched:
    """A watch of /a/ and of the key /k, and a record of every copy it notified."""

    def __init__(self, settings: EtcdSettings, silence: float) -> None:
        self.client = Client(settings)
        self.seen: list[dict[str, bytes] | None] = []
        self.watch = Watch(
            self.client,
            Ranges(prefixes=frozenset({"/a/"}), keys=frozenset({"/k"})),
            self._notify,
            silence=silence,
        )

    def _notify(self) -> None:
        self.seen.append(self.watch.items())

    def keys(self) -> Sequence[str] | None:
        items = self.watch.items()
        return None if items is None else sorted(items)

    def becomes(self, *keys: str) -> None:
        eventually(
            lambda: self.keys() == sorted(keys), timeout=20, message=f"watch of {keys}"
        )


@contextmanager
def watched(settings: EtcdSettings, silence: float = 10.0) -> Iterator[Watched]:
    it = Watched(settings, silence)
    it.watch.start()
    try:
        yield it
    finally:
        it.watch.stop()
        it.client.close()


def put(client: Client, *keys: str) -> None:
    """Put keys, each on its own, however long the store takes to be back."""

    for key in keys:
        eventually(partial(_put, client, key), message=f"put {key}")


def _put(client: Client, key: str) -> bool:
    try:
        client.put(key, b"")
    except Temporary:
        return False
    return True


def metric(server: EtcdServer, name: str, method: str) -> int:
    url = f"{server.endpoint}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own etcd
        text: str = reply.read().decode()
    pattern = rf'^{name}{{[^}}]*grpc_method="{method}"[^}}]*}} (\d+)'
    return sum(int(found) for found in re.findall(pattern, text, re.MULTILINE))


def test_a_copy_holds_prefixes_and_keys_and_follows_them() -> None:
    with EtcdServer() as server, watched(server.settings) as it:
        it.becomes()
        it.client.transaction(
            Transaction(
                writes=tuple(
                    Put(key=k, value=b"1") for k in ("/a/1", "/a/2", "/k", "/kk", "/b")
                )
            )
        )
        it.becomes("/a/1", "/a/2", "/k")
        it.client.delete("/a/1")
        it.becomes("/a/2", "/k")
        assert it.seen[-1] == {"/a/2": b"1", "/k": b"1"}


def test_a_copy_is_unknown_until_etcd_has_answered() -> None:
    with EtcdServer() as server:
        server.kill()
        with watched(server.settings) as it:
            assert it.watch.items() is None
            assert not it.watch.in_sync
            server.start()
            it.becomes()


def test_p32_an_outage_loses_nothing_and_lists_nothing_again() -> None:
    with EtcdCluster() as cluster:
        home, *others = cluster.members
        writer = Client(others[0].settings)
        with watched(home.settings) as it:
            put(writer, "/a/1", "/a/2")
            it.becomes("/a/1", "/a/2")
            home.kill()
            put(writer, "/a/3", "/k")
            writer.delete("/a/1")
            assert it.keys() == ["/a/1", "/a/2"], "unknown is not empty"
            home.start(wait=False)
            it.becomes("/a/2", "/a/3", "/k")
            assert metric(home, "grpc_server_started_total", "Range") == 0
        writer.close()


def test_p32_compaction_while_away_loses_nothing() -> None:
    with EtcdCluster() as cluster:
        home, other, _ = cluster.members
        writer = Client(other.settings)
        with watched(home.settings) as it:
            put(writer, "/a/1", "/a/2")
            it.becomes("/a/1", "/a/2")
            home.kill()
            put(writer, "/a/3", "/k")
            other.compact(writer.delete("/a/1"))
            home.start(wait=False)
            it.becomes("/a/2", "/a/3", "/k")
            put(writer, "/a/4")
            it.becomes("/a/2", "/a/3", "/a/4", "/k")
            assert {} not in it.seen[1:], "never dropped to empty"
        writer.close()


def test_p26_a_silent_member_is_left_for_another() -> None:
    with EtcdCluster() as cluster:
        settings = replace(cluster.settings, timeout=1.0)
        writer = Client(settings)
        with watched(settings, silence=1.0) as it:
            put(writer, "/a/1")
            it.becomes("/a/1")
            frozen = cluster.members[it.client.members.current]
            frozen.pause()
            put(writer, "/a/2")
            it.becomes("/a/1", "/a/2")
            frozen.resume()
        writer.close()


def test_a_member_cut_off_from_its_cluster_is_left_for_another() -> None:
    with EtcdCluster() as cluster:
        home, second, third = cluster.members
        with watched(home.settings) as it:
            it.becomes()
            second.kill()
            third.kill()
            eventually(
                lambda: metric(home, "grpc_server_handled_total", "Watch") > 0,
                timeout=20,
                message="the stream ends for want of a leader",
            )
            second.start(wait=False)
            third.start(wait=False)
            put(it.client, "/a/1")
            it.becomes("/a/1")


def test_p30_an_idle_watch_reads_nothing() -> None:
    with EtcdServer() as server, watched(server.settings, silence=0.3) as it:
        it.becomes()
        put(it.client, "/a/1")
        it.becomes("/a/1")
        ranges = metric(server, "grpc_server_started_total", "Range")
        signs = metric(server, "grpc_server_msg_sent_total", "Watch")
        eventually(
            lambda: metric(server, "grpc_server_msg_sent_total", "Watch") > signs + 8,
            message="signs of life",
        )
        assert metric(server, "grpc_server_started_total", "Range") == ranges
        assert metric(server, "grpc_server_started_total", "Watch") == 1


def test_a_restored_older_cluster_is_listed_anew() -> None:
    for token in ("restored", "etcd-cluster"):  # another cluster id, and the same
        with EtcdServer() as server, watched(server.settings) as it:
            put(it.client, "/a/1")
            older = server.snapshot()
            put(it.client, "/a/2", "/k")
            it.becomes("/a/1", "/a/2", "/k")
            server.restore(older, token=token)
            it.becomes("/a/1")
            put(it.client, "/a/3")
            it.becomes("/a/1", "/a/3")


def test_an_idle_watch_moves_on_and_survives_compaction() -> None:
    flags = ("--experimental-watch-progress-notify-interval=100ms",)
    with EtcdServer(flags=flags) as server, watched(server.settings) as it:
        put(it.client, "/a/1")
        it.becomes("/a/1")
        last = [it.client.put("/else", b"") for _ in range(20)][-1]
        follower = it.watch._ranges[1].follower
        eventually(
            lambda: getattr(follower.request, "revision", 0) > last,
            message="progress without events",
        )


def test_a_watch_outlives_its_token() -> None:
    with EtcdServer() as server:
        server.enable_auth({"host": "secret"})
        settings = replace(server.settings, user="host", password="secret")
        client = Client(settings)
        watch = Watch(client, Ranges(prefixes=frozenset({"/calico/"})), lambda: None)
        watch.start()
        eventually(lambda: watch.items() == {}, message="in sync")
        server.kill()
        server.start()

        def arrived() -> bool:
            try:
                client.put("/calico/1", b"")
            except DatastoreError:
                return False
            return watch.items() == {"/calico/1": b""}

        eventually(arrived, timeout=20, message="the watch goes on")
        watch.stop()
        client.close()


def test_a_notify_that_fails_does_not_end_the_watch() -> None:
    failures = 2

    def notify() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("not mine")

    with EtcdServer() as server:
        client = Client(server.settings)
        watch = Watch(client, Ranges(prefixes=frozenset({"/a/"})), notify)
        watch.start()
        eventually(lambda: watch.items() == {}, message="in sync")
        put(client, "/a/1", "/a/2")
        eventually(lambda: len(watch.items() or {}) == 2, message="both keys")
        watch.stop()
        client.close()


def test_p29_what_was_seen_decides_what_else_is_followed() -> None:
    def more(seen: Seen) -> Ranges:
        names = {value.decode() for value in seen.get("/a/", {}).values()}
        names |= {value.decode() for value in seen.get("/key", {}).values()}
        return Ranges(
            prefixes=frozenset(n for n in names if n.endswith("/")),
            keys=frozenset(n for n in names if not n.endswith("/")),
        )

    copies: list[dict[str, bytes] | None] = []
    with EtcdServer() as server:
        client = Client(server.settings)
        for key, value in (
            ("/a/1", b"/key"),
            ("/key", b"/deep/"),
            ("/deep/1", b"x"),
            ("/other", b"x"),
        ):
            client.put(key, value)
        watch = Watch(
            client,
            Ranges(prefixes=frozenset({"/a/"})),
            lambda: copies.append(watch.items()),
            more=more,
        )
        watch.start()
        eventually(lambda: sorted(watch.items() or ()) == ["/a/1", "/deep/1", "/key"])
        client.put("/deep/2", b"x")
        eventually(lambda: "/deep/2" in (watch.items() or ()), message="followed")
        client.put("/a/1", b"/other")
        eventually(lambda: sorted(watch.items() or ()) == ["/a/1", "/other"])
        client.put("/deep/3", b"x")  # of no interest any more
        client.put("/other", b"y")
        eventually(lambda: (watch.items() or {}).get("/other") == b"y")
        watch.stop()
        client.close()
    assert {"/a/1": b"/key", "/key": b"/deep/"} not in copies, "never half of it"
    assert {"/a/1": b"/other"} not in copies, "never half of it"
    assert not any("/deep/3" in (copy or ()) for copy in copies)


def shows(watch: Watch, wanted: dict[str, bytes]) -> bool:
    return watch.items() == wanted


def test_ranges_within_each_other_are_followed_side_by_side() -> None:
    def more(seen: Seen) -> Ranges:
        # A host's own ports are followed always, all ports now and then.
        wide = b"wide" in seen.get("/a/own/", {}).values()
        return Ranges(prefixes=frozenset({"/a/"} if wide else ()))

    with EtcdServer() as server:
        client = Client(server.settings)
        client.put("/a/own/1", b"")
        client.put("/a/other", b"")
        own = Ranges(prefixes=frozenset({"/a/own/"}), keys=frozenset({"/a/own/1"}))
        watch = Watch(client, own, lambda: None, more=more)
        watch.start()
        try:
            for value, expected in (
                (b"", ["/a/own/1"]),
                (b"wide", ["/a/other", "/a/own/1"]),
                (b"", ["/a/own/1"]),
                (b"wide", ["/a/other", "/a/own/1"]),
            ):
                client.put("/a/own/1", value)
                wanted = dict.fromkeys(expected, b"") | {"/a/own/1": value}
                eventually(partial(shows, watch, wanted), message=str(wanted))
            client.delete("/a/own/1")
            eventually(partial(shows, watch, {}), message="deleted in all of them")
        finally:
            watch.stop()
            client.close()
