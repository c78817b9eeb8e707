"""A lab's cloud by itself: the servers, their relay, and the prepared database."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import requests
from tests.kernel.netns import Netns, eventually

from calico.lab import namespaces, relay
from calico.lab.cloud import Cloud
from calico.lab.database import Database, copy_prepared
from calico.lab.etcd import EtcdCluster
from calico.lab.inside import connect, enter
from calico.lab.paths import CONTROL, LabPaths
from calico.lab.processes import Processes
from calico.lab.servers import ServerFailed, Servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

ADDRESS = "192.0.2.1"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give a directory whose name leaves room for a socket's."""
    path = Path(mkdtemp(prefix="ct-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def cloud_in_a_namespace(name: str) -> Iterator[Cloud]:
    """Start a cloud in a namespace of its own and take both away afterwards."""
    state = Path(mkdtemp(prefix="ct-"))
    paths = LabPaths(f"ct{os.getpid()}{name}", state)
    processes = Processes(paths.processes)
    netns = paths.netns(CONTROL)
    try:
        namespaces.create([netns])
        namespaces.ip_batch([f"address add {ADDRESS}/32 dev lo"], netns=netns)
        cloud = Cloud(paths, processes, address=ADDRESS)
        cloud.start()
        yield cloud
    finally:
        processes.stop_all()
        namespaces.delete([netns])
        shutil.rmtree(state)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with cloud_in_a_namespace("a") as started:
        yield started


@contextmanager
def network_of(connection: Any, name: str) -> Iterator[Any]:
    network = connection.network.create_network(name=name)
    try:
        yield network
    finally:
        connection.network.delete_network(network)


def test_a_tenant_makes_networks_subnets_and_ports(cloud: Cloud) -> None:
    tenant = cloud.connection("demo1")
    with network_of(tenant, "front") as network:
        subnet = tenant.network.create_subnet(
            network_id=network.id, ip_version=4, cidr="10.65.0.0/24"
        )
        port = tenant.network.create_port(network_id=network.id)
        assert [each["subnet_id"] for each in port.fixed_ips] == [subnet.id]
        others = cloud.connection("demo2").network.networks()
        assert network.id not in [each.id for each in others]
        tenant.network.delete_port(port)


def test_the_administrator_lists_agents(cloud: Cloud) -> None:
    agents = cloud.connection("admin").network.get("/agents")
    assert agents.json() == {"agents": []}


def test_s21_core_plugin_calico_needs_nothing_else_configured(cloud: Cloud) -> None:
    settings = (cloud.paths.control / "neutron/neutron.conf").read_text()
    assert "core_plugin = calico\n" in settings
    for other in ("ml2", "mechanism_drivers", "type_drivers", "service_plugins"):
        assert other not in settings
    tenant = cloud.connection("demo1")
    with network_of(tenant, "flat") as network:
        shown = tenant.network.get(f"/networks/{network.id}").json()["network"]
        assert shown["l2_adjacency"] is False


def test_no_worker_gives_a_false_403_after_a_restart_that_keeps_all(
    cloud: Cloud,
) -> None:
    told = replace(cloud, neutron_conf="[quotas]\nquota_router = 7\n")
    with network_of(cloud.connection("demo1"), "kept") as network:
        told.restart_neutron("[quotas]\nquota_floatingip = 5\n")
        tenant = cloud.connection("demo1").network
        project = network.project_id
        quota = tenant.get(f"/quotas/{project}/default").json()["quota"]
        assert (quota["router"], quota["floatingip"]) == (7, 5), "both say something"
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda _: tenant.get("/networks"), range(64)))
        assert {reply.status_code for reply in replies} == {200}
        for reply in replies:
            assert network.id in [each["id"] for each in reply.json()["networks"]]


def test_a_second_api_runs_beside_with_other_settings(cloud: Cloud) -> None:
    admin = cloud.connection("admin")
    with (
        cloud.second_neutron("[DEFAULT]\npagination_max_limit = 1\n") as url,
        network_of(admin, "one"),
        network_of(admin, "two"),
    ):
        answer = admin.session.get(f"{url}/v2.0/networks").json()
        assert len(answer["networks"]) == 1
        assert len(list(admin.network.networks())) >= 2
        assert cloud.processes.running("neutron-second-workers")
        assert not cloud.processes.running("neutron-workers")
    assert cloud.processes.find("neutron-second-workers") is None
    assert cloud.processes.running("neutron-workers")
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_the_api_is_reachable_on_loopback_only(cloud: Cloud) -> None:
    assert addresses_of_listeners(cloud.ports) == {"0100007F"}
    links = namespaces.run(cloud.paths.netns(CONTROL), ["ip", "-o", "link"]).stdout
    assert len(links.splitlines()) == 1, "loopback alone leads nowhere"


def addresses_of_listeners(ports: tuple[int, ...]) -> set[str]:
    """Return the addresses, as /proc/net/tcp writes them, listened on at any port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and int(port, 16) in ports:
                found.add(address)
    return found


def test_the_openstack_command_works_with_the_environment(cloud: Cloud) -> None:
    done = subprocess.run(
        [f"{sys.prefix}/bin/openstack", "network", "list", "-f", "value"],
        env={**os.environ, **cloud.environment("demo1")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_project_has_no_environment(cloud: Cloud) -> None:
    with pytest.raises(KeyError):
        cloud.environment("demo3")


def test_two_clouds_side_by_side_then_one_stops_and_starts_again(cloud: Cloud) -> None:
    with cloud_in_a_namespace("b") as other:
        assert not set(other.ports) & set(cloud.ports)
        token = str(cloud.connection("admin").auth_token)
        url = str(other.connection("admin").network.get_endpoint())
        assert str(other.ports[1]) in url, "the catalogue names its own cloud's port"
        reply = requests.get(
            f"{url}/v2.0/networks", headers={"X-Auth-Token": token}, timeout=30
        )
        assert reply.status_code == 401, "a token is good in its own cloud only"
        network = other.connection("demo1").network.create_network(name="kept")
        ports = other.ports
        other.stop()
        assert other.processes.recorded() == []
        assert inhabitants(other.paths.netns(CONTROL)) == ""
        other.start()
        assert other.ports == ports
        assert other.connection("demo1").network.get_network(network.id)


def inhabitants(netns: str) -> str:
    """Return the ids of the processes in a namespace."""
    found = subprocess.run(
        ["ip", "netns", "pids", netns], capture_output=True, text=True, check=True
    )
    return found.stdout


def test_two_of_three_etcd_members_go_on_and_the_third_comes_back(
    tmp_path: Path,
) -> None:
    processes = Processes(tmp_path / "processes")
    with Netns("etcd") as netns:
        servers = Servers(processes=processes, netns=netns.name, logs=tmp_path)
        cluster = EtcdCluster(
            servers=servers, directory=tmp_path / "etcd", address="127.0.0.1", count=3
        )
        try:
            cluster.start()
            cluster.wait_ready()
            assert len(set(cluster.endpoints)) == 3
            cluster.stop_member("etcd-1")
            assert not cluster.healthy("etcd-1")
            eventually(lambda: cluster.healthy("etcd-2"), message="no leader")
            cluster.start_member("etcd-1")
            cluster.wait_ready()
        finally:
            processes.stop_all()


def test_a_server_that_ends_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "processes")
    servers = Servers(processes=processes, netns=None, logs=tmp_path)
    servers.start("clock", ["sh", "-c", "echo the spring is broken; exit 3"])
    with pytest.raises(ServerFailed, match=r"(?s)clock.*spring is broken"):
        servers.await_ready("clock", lambda: False)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "processes")
    servers = Servers(processes=processes, netns=None, logs=tmp_path)
    with pytest.raises(ServerFailed, match="no-such-program"):
        servers.start("clock", ["no-such-program"])


def test_a_directory_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "processes")
    servers = Servers(processes=processes, netns=None, logs=tmp_path)
    database = Database(servers=servers, directory=tmp_path / ("d" * 100))
    with pytest.raises(ServerFailed, match="too long"):
        database.start()


def test_a_preparation_that_fails_leaves_nothing_behind(short_path: Path) -> None:
    seen: list[Processes] = []

    def fail(database: Database) -> None:
        seen.append(database.servers.processes)
        assert database.servers.processes.running("mariadb")
        raise ServerFailed("no")

    cache = short_path / "cache"
    with pytest.raises(ServerFailed):
        copy_prepared(short_path / "tables", cache, fail, lambda _: None)
    assert [file.name for file in cache.iterdir()] == ["lock"]
    assert seen[0].recorded() == []
    assert not (short_path / "tables").exists()


def test_tables_are_prepared_once_and_copied(short_path: Path) -> None:
    filled: list[Database] = []
    for copy in ("one", "two"):
        copy_prepared(
            short_path / copy, short_path / "cache", filled.append, lambda _: None
        )
        assert (short_path / copy / "neutron").is_dir()
    assert len(filled) == 1


def test_a_relay_takes_another_port_and_carries_both_ways(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "processes")
    servers = Servers(processes=processes, netns=None, logs=tmp_path)
    file = tmp_path / "ports.json"
    with Netns("relay") as netns, socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = str(taken.getsockname()[1])
        program = [sys.executable, "-m", "calico.lab.relay", netns.name]
        try:
            servers.start_outside("relay", [*program, str(file), wanted])
            servers.await_ready("relay", file.exists)
            (port,) = relay.read_ports(file)
            assert str(port) != wanted
            assert through_the_relay(netns.name, port, b"x" * 300_000) == b"X" * 300_000
        finally:
            processes.stop_all()


def through_the_relay(netns: str, port: int, sent: bytes) -> bytes:
    """Send through a relay to a server inside that answers in capitals at the end."""
    server = listener_inside(netns, port)

    def answer() -> None:
        client, _ = server.accept()
        with client, client.makefile("rb") as source:
            client.sendall(source.read().upper())

    thread = threading.Thread(target=answer)
    thread.start()
    with server, socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as reply:
            received = reply.read()
        thread.join()
    return received


def listener_inside(netns: str, port: int) -> socket.socket:
    made: list[socket.socket] = []

    def inside() -> None:
        enter(netns)
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    return made[0]


def test_a_connection_inside_a_namespace_that_is_not_there_fails() -> None:
    with pytest.raises(OSError, match="no-such"):
        connect("no-such", ("127.0.0.1", 1), 1)
