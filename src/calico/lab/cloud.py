"""The cloud of a lab: etcd, MariaDB, Keystone, Neutron and metadata, as one.

Each is a process of its own in one namespace; this module knows the order they need
each other in, and what a program on the machine is told to reach them.
"""

import http.client
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from calico.lab import keystone, metadata, neutron, relay
from calico.lab.database import Database, Progress, cache, copy_prepared
from calico.lab.etcd import EtcdCluster
from calico.lab.keystone import Keystone
from calico.lab.neutron import Neutron
from calico.lab.paths import CONTROL, LabPaths
from calico.lab.processes import Processes
from calico.lab.servers import ServerFailed, Servers
from calico.lab.topology import CONTROL_ADDRESS
from calico.lab.uwsgi import Application

if TYPE_CHECKING:
    from openstack.connection import Connection

_RELAY = "relay"
_SECOND_RELAY = "relay-second"
_TURNS = 50  # requests, after which each worker has surely had one
_PATIENCE = 120.0  # seconds for a server to answer first, on a busy machine


def _quiet(_: str) -> None:
    """Take a progress line and say nothing."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """The servers of a lab's cloud, running or not, in the control node's namespace.

    It can be made again, with the same values, by any program: what was chosen at the
    start is in the control node's directory.
    """

    paths: LabPaths
    processes: Processes
    etcd_members: int = 1
    neutron_conf: str = ""  # a settings file's text that wins over the lab's
    address: str = str(CONTROL_ADDRESS)  # where the hosts reach the datastore
    _connections: dict[str, "Connection"] = field(default_factory=dict, repr=False)

    def start(self, progress: Progress = _quiet) -> None:
        """Start every server and wait until all serve; ServerFailed says which not."""
        self._database().directory.mkdir(parents=True, exist_ok=True)
        self._start_relay(_RELAY, self._ports_file, 2)
        self.etcd.start()
        database = self._database()
        if not database.tables.exists():
            progress("copying the cloud's database")
            copy_prepared(database.tables, cache(), _fill, progress)
        progress("starting MariaDB and etcd")
        database.start(keystone.catalogue(self._keystone().url, self._neutron().url))
        database.wait_ready()
        progress("starting Keystone and Neutron")
        metadata.start(self._servers, self.paths.control / metadata.NAME)
        self._keystone().start()
        self._neutron().start()
        self.wait_ready()

    def stop(self) -> None:
        """Stop every server; settings and data stay, and `start` goes on with them."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._servers.stop(
            neutron.API, neutron.WORKERS, keystone.NAME, metadata.NAME, _RELAY
        )
        self._database().stop()
        self.etcd.stop()

    def wait_ready(self) -> None:
        """Wait until every server serves, and every API worker without surprises."""
        waits = (self.etcd.wait_ready, self._await_keystone, self._await_neutron)
        with ThreadPoolExecutor(len(waits)) as pool:
            done = wait([pool.submit(each) for each in waits]).done
        for each in done:
            each.result()

    def restart_neutron(self, overrides: str = "") -> None:
        """Stop all of Neutron, start it again and wait until it serves.

        `overrides` is a settings file's text that wins over the lab's and over what the
        lab was made with, until the next start.
        """
        now = self._neutron()
        now.stop()
        now.overridden(overrides).start()
        self._await_neutron()

    @contextmanager
    def second_neutron(self, overrides: str) -> Iterator[str]:
        """Run one more API on the same database, with other settings; give its URL.

        `overrides` is a settings file's text. Meanwhile the background workers are of
        those settings too, and the first's stand still: what works is the second's.
        """
        directory = self.paths.control / neutron.SECOND
        directory.mkdir(parents=True, exist_ok=True)
        try:
            port = self._start_relay(_SECOND_RELAY, directory / "ports.json", 1)[0]
            second = replace(
                self._neutron().overridden(overrides),
                directory=directory,
                port=port,
                api=neutron.SECOND,
                workers=neutron.SECOND_WORKERS,
                api_workers=1,
            )
            self._neutron().stop_workers()
            second.start()
            self._await_api(second)
            yield second.url
        finally:
            self._servers.stop(neutron.SECOND, neutron.SECOND_WORKERS, _SECOND_RELAY)
            self._neutron().start_workers()

    @property
    def etcd(self) -> EtcdCluster:
        """Return the datastore, whose members start and stop one by one as well."""
        return EtcdCluster(
            servers=self._servers,
            directory=self.paths.control / "etcd",
            address=self.address,
            count=self.etcd_members,
        )

    @property
    def etcd_endpoints(self) -> tuple[str, ...]:
        """Return the datastore's URLs, as the hosts and Neutron reach it."""
        return self.etcd.endpoints

    def environment(self, project: str = keystone.ADMIN) -> dict[str, str]:
        """Return what `openstack` needs to act as the user of a project.

        Projects are `admin`, `demo1` and `demo2`, and `service`, whose user may what
        Nova may; KeyError for another.
        """
        users = {name: name for name in (keystone.ADMIN, *keystone.PROJECTS)}
        user = (users | {keystone.SERVICE_PROJECT: keystone.SERVICE_USER})[project]
        return {
            "OS_AUTH_URL": self._keystone().url,
            "OS_IDENTITY_API_VERSION": "3",
            "OS_USERNAME": user,
            "OS_PASSWORD": keystone.password(user),
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_REGION_NAME": keystone.REGION,
            "OS_INTERFACE": "public",
        }

    def connection(self, project: str = keystone.ADMIN) -> "Connection":
        """Return a connection as the user of a project; the same one each time."""
        if project not in self._connections:
            from openstack.connection import Connection  # noqa: PLC0415 - a slow import

            settings = self.environment(project)
            self._connections[project] = Connection(
                auth={
                    "auth_url": settings["OS_AUTH_URL"],
                    "username": settings["OS_USERNAME"],
                    "password": settings["OS_PASSWORD"],
                    "project_name": settings["OS_PROJECT_NAME"],
                    "user_domain_id": "default",
                    "project_domain_id": "default",
                },
                region_name=keystone.REGION,
                interface="public",
                identity_api_version="3",
            )
        return self._connections[project]

    @property
    def ports(self) -> tuple[int, int]:
        """Return Keystone's and Neutron's ports; ServerFailed where it has none yet."""
        found = relay.read_ports(self._ports_file)
        if not found:
            raise ServerFailed("the cloud was never started: it has no ports yet")
        return found[0], found[1]

    @property
    def _ports_file(self) -> Path:
        return self.paths.control / "ports.json"

    @property
    def _servers(self) -> Servers:
        return Servers(
            processes=self.processes,
            netns=self.paths.netns(CONTROL),
            logs=self.paths.logs,
        )

    def _database(self) -> Database:
        return Database(servers=self._servers, directory=self.paths.control / "mariadb")

    def _keystone(self) -> Keystone:
        return Keystone(
            servers=self._servers,
            database=self._database(),
            directory=self.paths.control / "keystone",
            port=self.ports[0],
        )

    def _neutron(self) -> Neutron:
        return Neutron(
            servers=self._servers,
            database=self._database(),
            directory=self.paths.control / "neutron",
            port=self.ports[1],
            keystone_url=self._keystone().url,
            etcd=self.etcd_endpoints,
            overrides=self.neutron_conf,
        )

    def _start_relay(self, name: str, file: Path, count: int) -> tuple[int, ...]:
        """Open the ports first of all: the servers are told them."""
        if not self.processes.running(name):
            wanted = relay.read_ports(file) or (0,) * count
            file.unlink(missing_ok=True)
            program = [sys.executable, "-m", "calico.lab.relay"]
            program += [self.paths.netns(CONTROL), str(file), *map(str, wanted)]
            self._servers.start_outside(name, program)
        self._servers.await_ready(name, file.exists)
        return relay.read_ports(file)

    def _await_keystone(self) -> None:
        self._servers.await_ready(
            keystone.NAME, partial(_answers, self._keystone().url), _PATIENCE
        )

    def _await_neutron(self) -> None:
        """Wait until Neutron serves: every worker of its API has answered."""
        self._await_keystone()
        self._await_api(self._neutron())
        self._servers.await_ready(neutron.WORKERS, lambda: True)

    def _await_api(self, api: Neutron) -> None:
        """Wait until each of an API's workers has answered a request.

        Neutron reads its policies at a worker's first request, and others that come
        meanwhile are refused for want of a rule: a false 403. So each worker gets a
        first request from here.
        """
        self._servers.await_ready(api.api, partial(_answers, api.url), _PATIENCE)
        networks = f"{api.url}/v2.0/networks"
        for ask in (
            partial(_answers, networks, str(self.connection().auth_token)),
            partial(_makes, networks, str(self.connection("demo1").auth_token)),
        ):
            warm = partial(_warm, api.application, ask)
            self._servers.await_ready(api.api, warm, _PATIENCE)


def _fill(database: Database) -> None:
    """Make Keystone's and Neutron's tables, at once, in a database being prepared."""
    servers, directory = database.servers, database.directory
    identity = Keystone(
        servers=servers,
        database=database,
        directory=directory / "keystone",
        port=5000,  # stands in the catalogue only, until a lab puts its own
    )
    network = Neutron(
        servers=servers,
        database=database,
        directory=directory / "neutron",
        port=9696,
        keystone_url=identity.url,
        etcd=(),
    )
    with ThreadPoolExecutor(2) as pool:
        for work in [pool.submit(identity.fill), pool.submit(network.fill)]:
            work.result()


def _answers(url: str, token: str = "") -> bool:
    return _ask("GET", url, token) is not None


def _makes(networks: str, token: str) -> bool:
    """Make a network and delete it; return whether both succeeded."""
    made = _ask("POST", networks, token, b'{"network": {"name": "warming up"}}')
    if made is None:
        return False
    return (
        _ask("DELETE", f"{networks}/{json.loads(made)['network']['id']}", token) == b""
    )


def _ask(verb: str, url: str, token: str, body: bytes | None = None) -> bytes | None:
    """Return what a server answers, None if it does not or refuses."""
    headers = {"X-Auth-Token": token, "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method=verb)  # noqa: S310 - http, our own
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - likewise
            answer: bytes = reply.read()
            return answer
    except (OSError, http.client.HTTPException):
        return None


def _warm(application: Application, ask: Callable[[], bool]) -> bool:
    """Ask until every worker has answered; False if one gets no turn.

    One request at a time, since the first that a worker gets sets up what others then
    find half made: readers wrongly see nothing, and writers are wrongly refused. Only
    what is asked here counts, and only if it succeeds: a request without a token reads
    no policy. Networks, not ports: a list of ports uses the mappers of SQLAlchemy
    before anything made them (AttributeError, status 500).
    """
    before = application.served()
    for _ in range(_TURNS):
        if not ask():
            return False
        pairs = list(zip(before, application.served(), strict=False))
        if len(pairs) == application.workers and all(new > old for old, new in pairs):
            return True
    return False
