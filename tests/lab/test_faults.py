"""What an operator's bad day does to a running cloud, seen from the instances."""

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pytest
from tests.kernel.netns import eventually
from tests.lab.networks import address

from calico.lab import namespaces
from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.model.ids import HostName
from calico.model.keys import Keys
from calico.system.dnsmasq import Dnsmasq

HOST = "host-1-1"
KEYS = Keys()


@dataclass(frozen=True)
class Pair:
    """Two instances in different racks, and the network that ports may be made on."""

    near: Instance
    far: Instance
    network: str


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[Pair]:
    api = lab.connection("demo1").network
    tag = uuid.uuid4().hex[:6]
    third = int(tag[:2], 16)
    network = api.create_network(name=f"faults-{tag}")
    made: list[Instance] = []
    try:
        for version, cidr in ((4, f"10.71.{third}.0/24"), (6, f"fd71:{third:x}::/64")):
            modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
            api.create_subnet(
                network_id=network.id,
                ip_version=version,
                cidr=cidr,
                **(modes if version == 6 else {}),
            )
        for name, host in ((f"near{tag}", HOST), (f"far{tag}", "host-2-1")):
            made.append(lab.create_instance(name, network=network.id, host=host))
        yield Pair(near=made[0], far=made[1], network=network.id)
    finally:
        for instance in made:
            lab.delete_instance(instance.name)
        api.delete_network(network.id)


@contextmanager
def pinging(pair: Pair, version: int) -> Iterator[None]:
    """Ping fifty times a second meanwhile, and half a second more; none may be lost."""
    command = ["ping", "-n", "-i", "0.02", "-w", "60", address(pair.near, version)]
    with subprocess.Popen(
        ["ip", "netns", "exec", pair.far.netns, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as ping:
        assert ping.stdout is not None
        try:
            _read_answers(ping.stdout, 1)
            yield
            _read_answers(ping.stdout, 25)
        finally:
            # SIGINT makes it count, and ip netns exec has become it.
            ping.send_signal(signal.SIGINT)
            report = ping.stdout.read()
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", report)
    assert counts, report
    # The last one may be on its way still when the count is taken.
    assert int(counts[1]) - int(counts[2]) <= 1, report


def _read_answers(output: IO[str], count: int) -> None:
    for line in output:
        assert "nreachable" not in line
        count -= "bytes from" in line
        if count == 0:
            return
    raise AssertionError("ping ended before its answers came")


@pytest.mark.parametrize("version", [4, 6])
def test_p40_killing_an_agent_loses_no_packet_and_it_resumes(
    lab: Lab, pair: Pair, version: int
) -> None:
    agent = lab.agent(HOST)
    with pinging(pair, version):
        before = agent.pid
        agent.kill()
        wire = _bound_port(lab, pair.network, HOST)
        _plug(lab, HOST, wire)
        eventually(lambda: agent.pid not in {None, before}, timeout=30)
        served = wire.fixed_ips[0]["ip_address"]
        eventually(lambda: served in routes(lab, HOST), timeout=30)
    _unplug(lab, HOST, wire)
    lab.connection("admin").network.delete_port(wire.id)
    eventually(lambda: served not in routes(lab, HOST), timeout=30)


@pytest.mark.parametrize("version", [4, 6])
def test_p49_killing_bird_loses_no_packet_and_it_comes_back(
    lab: Lab, pair: Pair, version: int
) -> None:
    with pinging(pair, version):
        before = (lab.agent(HOST).run_dir / "bird.pid").read_text()
        lab.restart_bird(HOST)
        eventually(lambda: _recovered(lab, HOST, before), timeout=60)


def _recovered(lab: Lab, host: str, before: str) -> bool:
    """Tell whether another BIRD than `before` has its sessions, and all its routes."""
    run_dir = lab.agent(host).run_dir
    if (run_dir / "bird.pid").read_text() == before:
        return False
    up, count = lab.sessions(host)
    status = lab.run(host, ["birdc", "-s", str(run_dir / "bird.ctl"), "show", "status"])
    return 0 < count == up and "recovery" not in status.stdout


def test_p33_killing_dnsmasq_is_repaired(lab: Lab, pair: Pair) -> None:
    dnsmasq = Dnsmasq(lab.agent(HOST).run_dir)
    before = dnsmasq.pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    eventually(lambda: dnsmasq.pid() not in {None, before}, timeout=60)
    again = lab.create_instance(
        f"after{pair.near.name[4:]}", network=pair.network, host=HOST
    )
    lab.delete_instance(again.name)


def routes(lab: Lab, host: str) -> set[str]:
    listed = lab.run(host, ["ip", "-json", "-4", "route", "show", "proto", "111"])
    return {route["dst"] for route in json.loads(listed.stdout or "[]")}


def test_a_host_whose_agent_was_down_converges_at_its_start(
    lab: Lab, pair: Pair
) -> None:
    admin = lab.connection("admin").network
    agent = lab.agent(HOST)
    going = _bound_port(lab, pair.network, HOST)
    gone = going.fixed_ips[0]["ip_address"]
    _plug(lab, HOST, going)
    eventually(lambda: gone in routes(lab, HOST), timeout=30)
    agent.stop()
    assert not agent.running
    try:
        admin.delete_port(going.id)
        coming = _bound_port(lab, pair.network, HOST)
        new = coming.fixed_ips[0]["ip_address"]
        _plug(lab, HOST, coming)
        eventually(lambda: _published(lab, coming), timeout=30)
        assert gone in routes(lab, HOST)
        assert new not in routes(lab, HOST)
    finally:
        agent.start()
    eventually(lambda: new in routes(lab, HOST), timeout=30)
    eventually(lambda: gone not in routes(lab, HOST), timeout=30)
    eventually(lambda: admin.get_port(coming.id).status == "ACTIVE", timeout=30)
    _unplug(lab, HOST, going)
    _unplug(lab, HOST, coming)
    admin.delete_port(coming.id)


def test_p23_a_hundred_ports_turn_active_together(lab: Lab, pair: Pair) -> None:
    admin = lab.connection("admin").network
    ports = [_bound_port(lab, pair.network, HOST) for _ in range(100)]
    try:
        namespaces.ip_batch(
            [line for port in ports for line in _wire(port)], netns=lab.netns_of(HOST)
        )
        wanted = {port.id for port in ports}

        def active() -> set[str]:
            listed = admin.ports(network_id=pair.network, status="ACTIVE")
            return {port.id for port in listed} & wanted

        eventually(lambda: active() == wanted, timeout=60)
        writes = {
            revision
            for key, revision in lab.store.revisions(
                KEYS.port_statuses(HostName(HOST))
            ).items()
            if key.rpartition("/")[2] in wanted
        }
        # One write a port would be a hundred revisions, at one a second.
        assert len(writes) <= 20
    finally:
        namespaces.ip_batch(
            [f"link delete {_tap(port)}" for port in ports], netns=lab.netns_of(HOST)
        )
        for port in ports:
            admin.delete_port(port.id)


def test_p20_an_outage_of_etcd_fails_no_call_and_loses_nothing(
    lab: Lab, pair: Pair
) -> None:
    admin = lab.connection("admin").network
    etcd = lab.cloud.etcd
    for member in etcd.members:
        etcd.stop_member(member)
    try:
        with pinging(pair, 4):
            port = _bound_port(lab, pair.network, "host-1-2")
    finally:
        for member in etcd.members:
            etcd.start_member(member)
        etcd.wait_ready()
    try:
        eventually(lambda: _published(lab, port), timeout=60)
        eventually(lambda: _all_report(lab), timeout=60)
    finally:
        admin.delete_port(port.id)
    eventually(lambda: not _published(lab, port), timeout=30)


def _published(lab: Lab, port: Any) -> bool:
    escaped = port.id.replace("-", "--")
    return any(key.endswith(escaped) for key in lab.store.get_prefix(KEYS.endpoints))


def _all_report(lab: Lab) -> bool:
    return lab.reporting_hosts() >= set(lab.hosts())


def _bound_port(lab: Lab, network: str, host: str) -> Any:
    return lab.connection("admin").network.create_port(
        network_id=network,
        device_id=str(uuid.uuid4()),
        device_owner="compute:lab",
        binding_host_id=host,
    )


def _tap(port: Any) -> str:
    return f"tap{port.id[:11]}"


def _wire(port: Any) -> list[str]:
    peer = f"peer{port.id[:10]}"
    return [
        f"link add {_tap(port)} type veth peer name {peer}",
        f"link set {_tap(port)} up",
        f"link set {peer} up",
    ]


def _plug(lab: Lab, host: str, port: Any) -> None:
    namespaces.ip_batch(_wire(port), netns=lab.netns_of(host))


def _unplug(lab: Lab, host: str, port: Any) -> None:
    namespaces.ip_batch([f"link delete {_tap(port)}"], netns=lab.netns_of(host))
