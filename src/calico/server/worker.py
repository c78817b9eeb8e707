"""The driver's worker in `neutron-periodic-workers`: one of all of them is elected.

It retries what API workers could not publish, turns hosts' reports into port status and
their heartbeats into agents. Each of the three has a thread, so that none waits for
another (P31). The election saves work and nothing depends on it: each step is a
comparison of two stores that a second worker could do at the same time, and each write
to etcd carries its own compare (P56).
"""

import os
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
from neutron_lib import worker
from oslo_log import log

from calico.datastore.client import Client
from calico.datastore.store import Compare, DatastoreError, Put, Store, Transaction
from calico.datastore.watcher import Ranges, Watch
from calico.model.keys import CLUSTER_INFORMATION, Keys
from calico.server import agents, status
from calico.server.cloud_settings import publish_cloud_settings
from calico.server.leadership import Leadership
from calico.server.options import ServerSettings
from calico.server.publisher import Backlog

LOG = log.getLogger(__name__)

RETRY_INTERVAL = 2.0  # seconds between looks at the journal
RETRY_AGE = timedelta(seconds=3)  # what an API worker may take before it is helped
STATUS_INTERVAL = 5.0  # seconds between passes where no host reports anything
AGENTS_INTERVAL = 15.0  # well below Neutron's agent_down_time


class CalicoWorker(worker.BaseWorker):
    """A process of its own; connects only once it runs, so after fork."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(worker_process_count=1, desc="calico worker")
        self._settings = settings
        self._duties: Duties | None = None

    def start(self, *args: Any, **more: Any) -> None:
        """Begin to stand for election, and to work when elected."""
        super().start(*args, **more)
        self._duties = Duties(self._settings)
        self._duties.start()

    def stop(self) -> None:
        """End all threads; another worker is elected at once."""
        if self._duties is not None:
            self._duties.stop()
            self._duties = None

    def wait(self) -> None:
        """Return when the worker has been stopped."""
        if self._duties is not None:
            self._duties.wait()

    def reset(self) -> None:
        """Go on: settings are read at the start only."""


class Duties:
    """The worker's threads and what they share."""

    def __init__(self, settings: ServerSettings) -> None:
        self._keys = Keys(settings.region)
        self._cloud = settings.cloud
        self._client = Client(settings.etcd)
        identity = f"{socket.gethostname()}:{os.getpid()}"
        # What was heard before the election was left to whoever was leading then.
        self._election = Leadership(
            self._client, self._keys.election, identity, self._heard
        )
        self._backlog = Backlog(self._client, self._keys)
        self._watch = Watch(
            self._client, Ranges(prefixes=frozenset({self._keys.hosts})), self._heard
        )
        self._loops = [
            Loop("journal", RETRY_INTERVAL, self._if_elected(self._retry)),
            Loop("status", STATUS_INTERVAL, self._if_elected(self._status)),
            Loop("agents", AGENTS_INTERVAL, self._if_elected(self._agents)),
        ]

    def start(self) -> None:
        """Start everything; nothing here waits for etcd."""
        self._election.start()
        self._watch.start()
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Stop everything and give up the election."""
        for loop in self._loops:
            loop.stop()
        self._watch.stop()
        self._election.stop()
        self._client.close()

    def wait(self) -> None:
        """Return when the loops have ended."""
        for loop in self._loops:
            loop.wait()

    def _heard(self) -> None:
        for loop in self._loops[1:]:
            loop.hint()

    def _if_elected(self, step: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            if self._election.leading:
                step()

        return guarded

    def _retry(self) -> None:
        if done := self._backlog.work_off(age=RETRY_AGE):
            LOG.info("Published %d changes that were left in the journal", done)

    def _status(self) -> None:
        items = self._watch.items()
        if items is not None:  # unknown is not empty
            status.apply(status.reports(self._keys, items))

    def _agents(self) -> None:
        announce_ready(self._client)
        publish_cloud_settings(self._client, self._keys, self._cloud)
        items = self._watch.items()
        if items is not None:
            agents.apply(agents.alive(self._keys, items))


class Loop:
    """Runs a step at an interval, and sooner after a hint; outlives its failures."""

    def __init__(self, name: str, interval: float, step: Callable[[], None]) -> None:
        self._name = name
        self._interval = interval
        self._step = step
        self._hinted = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"calico-{name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hint(self) -> None:
        """Have the step run soon."""
        self._hinted.set()

    def stop(self) -> None:
        """End the thread after the step that it is in."""
        self._stopped.set()
        self._hinted.set()

    def wait(self) -> None:
        """Return when the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._hinted.clear()
            try:
                self._step()
            except DatastoreError as e:
                LOG.warning("Calico %s: %s", self._name, e)
            except Exception:  # the thread's edge: a dead one nobody would notice
                LOG.exception("Calico %s failed, will try again", self._name)
            self._hinted.wait(self._interval)


def announce_ready(store: Store) -> None:
    """Say that the datastore may be used, where nobody has said anything (no more).

    It is what other tools of the Calico model look for; an operator's own words stay.
    """
    if store.get(CLUSTER_INFORMATION) is not None:
        return
    body = {
        "kind": "ClusterInformation",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"},
        "spec": {"clusterType": "openstack", "datastoreReady": True},
    }
    store.transaction(
        Transaction(
            compares=(Compare.absent(CLUSTER_INFORMATION),),
            writes=(Put(key=CLUSTER_INFORMATION, value=msgspec.json.encode(body)),),
        )
    )
