"""The agent's process on a host with a real etcd: start, stop, death, repair."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.endpoints import HOST, endpoint
from tests.kernel.agent_host import KEYS, AgentHost, agent_host
from tests.kernel.data_path import rows
from tests.kernel.netns import eventually, in_netns

A, B, C = endpoint(2), endpoint(3), endpoint(4)


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with agent_host() as one:
        yield one


def daemons(host: AgentHost) -> dict[str, str]:
    """Return the daemons' pid files; one that was started anew has another."""
    files = sorted((host.folder / "run").glob("*.pid"))
    return {file.name: file.read_text() for file in files}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_p40_an_agents_end_and_start_lose_no_packet(
    host: AgentHost, number: signal.Signals
) -> None:
    a, _ = host.bed.plug(A), host.bed.plug(B)
    host.publish(A, B)
    host.start()
    host.await_statuses({A.port: "up", B.port: "up"})
    eventually(lambda: "bird.pid" in daemons(host))
    before = daemons(host)
    pings = [
        a.popen(["ping", "-ni0.02", address], stdout=subprocess.PIPE)
        for address in map(str, B.addresses)
    ]
    host.end(number)
    host.start()
    host.bed.plug(C)
    host.publish(C)
    host.await_statuses({A.port: "up", B.port: "up", C.port: "up"})
    for ping in pings:
        ping.send_signal(signal.SIGINT)
        assert " 0% packet loss" in ping.communicate(timeout=10)[0]
    assert daemons(host) == before, "BIRD and the DHCP daemons were taken over"


def test_p40_settings_are_reloaded_in_place(host: AgentHost) -> None:
    a, _ = host.bed.plug(A), host.bed.plug(B)
    host.publish(A, B)
    agent = host.start()
    host.await_statuses({A.port: "up", B.port: "up"})
    ping = a.popen(["ping", "-ni0.02", "10.65.0.3"], stdout=subprocess.PIPE)
    text = host.settings.read_text()
    host.settings.write_text('log_level = "debug"\nresync_interval = 1\n' + text)
    agent.send_signal(signal.SIGHUP)
    eventually(lambda: "settings reloaded" in host.log)
    host.settings.write_text('resync_interval = "often"\n' + text)
    agent.send_signal(signal.SIGHUP)
    eventually(lambda: "settings not reloaded" in host.log)
    ping.send_signal(signal.SIGINT)
    assert " 0% packet loss" in ping.communicate(timeout=10)[0]
    assert agent.poll() is None


def test_a_host_converges_at_start_after_its_agent_was_down(host: AgentHost) -> None:
    a, b = host.bed.plug(A), host.bed.plug(B)
    host.publish(A, B)
    host.start()
    host.await_statuses({A.port: "up", B.port: "up"})
    host.end(signal.SIGKILL)
    host.withdraw(A)
    host.bed.plug(C)
    host.publish(C)
    assert a.pings("10.65.0.3"), "the data path outlives the agent"
    host.start()
    host.await_statuses({B.port: "up", C.port: "up"})
    assert b.pings("10.65.0.4")
    assert not a.pings("10.65.0.3")
    routes = rows(host.bed.host, "route", "show", "proto", "111")
    assert {route["dst"] for route in routes} == {"10.65.0.3", "10.65.0.4"}


def test_s20_a_port_is_down_until_its_tap_is_there_and_again_after(
    host: AgentHost,
) -> None:
    host.publish(A)
    host.start()
    host.await_statuses({A.port: "down"})
    host.bed.plug(A)
    host.await_statuses({A.port: "up"})
    host.bed.host.ip("link", "del", A.interface)
    host.await_statuses({A.port: "down"})
    host.withdraw(A)
    host.await_statuses({})


def test_p41_a_bad_object_is_reported_and_disturbs_no_other(host: AgentHost) -> None:
    a, _ = host.bed.plug(A), host.bed.plug(B)
    bad = KEYS.endpoint(HOST, C.device, C.port)
    host.etcdctl("put", bad, "{no json")
    host.publish(A, B)
    host.start()
    host.await_statuses({A.port: "up", B.port: "up", C.port: "error"})
    assert a.pings("10.65.0.3")
    assert "stored object set aside" in host.log
    metrics = host.bed.host.run(
        [sys.executable, "-c", FETCH_METRICS, "http://127.0.0.1:9091/metrics"]
    ).stdout
    assert "calico_agent_rejected_objects 1.0" in metrics
    host.publish(C)
    host.await_statuses({A.port: "up", B.port: "up", C.port: "down"})
    eventually(lambda: "problem gone" in host.log)


FETCH_METRICS = (
    "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
)


def test_p41_a_key_that_is_no_text_stops_no_status(host: AgentHost) -> None:
    host.etcdctl("put", KEYS.port_statuses(HOST) + "device/endpoint/port\udcff", "up")
    host.bed.plug(A)
    host.publish(A)
    host.start()
    key = KEYS.port_status(HOST, A.device, A.port)
    eventually(lambda: "up" in host.etcdctl("get", "--print-value-only", key))
    host.withdraw(A)
    eventually(lambda: host.etcdctl("get", "--print-value-only", key) == "")


def test_tampering_with_the_filter_is_repaired_without_waiting_for_a_resync(
    host: AgentHost,
) -> None:
    host.bed.plug(A)
    host.publish(A)
    host.start()
    host.await_statuses({A.port: "up"})
    for damage in (
        ["delete", "table", "inet", "calico"],
        ["flush", "set", "inet", "calico", "sources4"],
    ):
        host.bed.host.run(["nft", *damage])
        eventually(
            lambda: "10.65.0.2" in filter_of(host),
            message=lambda: host.log[-2000:],
        )


def filter_of(host: AgentHost) -> str:
    listing = ["nft", "list", "set", "inet", "calico", "sources4"]
    return host.bed.host.run(listing, check=False).stdout


def test_p31_the_agent_is_alive_also_while_nothing_changes(host: AgentHost) -> None:
    host.start()
    key = KEYS.host_status(HOST)
    beat = eventually(lambda: host.etcdctl("get", "--print-value-only", key))
    assert json.loads(beat)["first_update"] is True
    eventually(
        lambda: (
            json.loads(host.etcdctl("get", "--print-value-only", key))["uptime"]
            > json.loads(beat)["uptime"] + 1
        )
    )


def test_an_etcd_that_comes_back_is_followed_again(host: AgentHost) -> None:
    a, _ = host.bed.plug(A), host.bed.plug(B)
    host.publish(A, B)
    host.start()
    host.await_statuses({A.port: "up", B.port: "up"})
    with in_netns(host.bed.host):
        host.etcd.kill()
    assert a.pings("10.65.0.3")
    with in_netns(host.bed.host):
        host.etcd.start()
    host.withdraw(B)
    host.await_statuses({A.port: "up"})


def test_p52_an_agent_without_etcd_guards_taps_and_says_so(host: AgentHost) -> None:
    with in_netns(host.bed.host):
        host.etcd.kill()
    a, b = host.bed.plug(A), host.bed.plug(B)
    forward_without_policy(host)
    eventually(lambda: a.pings("10.65.0.3"), message="the test's own wiring")
    start_and_await_ready(host)
    assert not a.pings("10.65.0.3")
    assert not b.pings("10.65.0.2")
    assert not host.bed.host.pings("10.65.0.2")


def start_and_await_ready(host: AgentHost) -> None:
    """Start the agent as systemd does, and wait until it says that it is ready."""
    with in_netns(host.bed.host):  # to which abstract names belong
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with manager:
        manager.settimeout(10)
        manager.bind(f"\0{host.folder.name}")
        host.start({"NOTIFY_SOCKET": f"@{host.folder.name}"})
        assert manager.recv(100) == b"READY=1"


def forward_without_policy(host: AgentHost) -> None:
    """Wire two taps by hand, as nobody should."""
    host.bed.host.sysctl("net/ipv4/ip_forward", 1)
    host.bed.host.ip("addr", "add", "10.65.0.1/32", "dev", "lo")
    for one in (A, B):
        host.bed.host.ip("link", "set", one.interface, "up")
        host.bed.host.ip("route", "add", str(one.addresses[0]), "dev", one.interface)
        host.bed.host.sysctl(f"net/ipv4/conf/{one.interface}/proxy_arp", 1)
        host.bed.host.sysctl(f"net/ipv4/neigh/{one.interface}/proxy_delay", 0)


def test_p52_a_table_of_before_is_left_alone_until_etcd_was_seen(
    host: AgentHost,
) -> None:
    a, _ = host.bed.plug(A), host.bed.plug(B)
    host.publish(A, B)
    host.start()
    host.await_statuses({A.port: "up", B.port: "up"})
    host.end(signal.SIGKILL)
    with in_netns(host.bed.host):
        host.etcd.kill()
    # As another version's would be: not what this agent would make.
    host.bed.host.run(["nft", "add", "chain", "inet", "calico", "of_before"])
    start_and_await_ready(host)
    assert "10.65.0.2" in filter_of(host)
    assert a.pings("10.65.0.3")


def test_a_pass_on_request_and_what_it_would_change(host: AgentHost) -> None:
    host.bed.plug(A)
    host.publish(A)
    shown = host.bed.host.run(host.command("--dry-run")).stdout
    assert "replace table inet calico" in shown
    assert "10.65.0.2" in shown
    assert rows(host.bed.host, "route", "show", "proto", "111") == []
    assert filter_of(host) == ""
    host.bed.host.run(host.command("--once"))
    host.await_statuses({A.port: "up"})
    shown = host.bed.host.run(host.command("--dry-run")).stdout
    assert A.interface not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('host = "h"\nhots = "x"', "unknown setting hots"),
        ('host = "h"\nlog_level = "loud"', "log level 'loud'"),
        ("host = ", "agent.toml"),
    ],
)
def test_bad_settings_are_told_in_a_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    result = run_agent("--config", str(file))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def run_agent(*arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "calico", "agent", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


P51_PROBE = """
import sys
def note(event, arguments):
    if event in {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.system",
                 "os.posix_spawn"}:
        print("FORKS", event, arguments[:2], flush=True)
sys.addaudithook(note)
from calico.cli.main import main
main(sys.argv[1:], standalone_mode=False)
"""


def test_p51_the_agent_runs_no_program_for_a_change(host: AgentHost) -> None:
    for one in (A, B):
        host.bed.plug(one)
    host.publish(A, B)
    options = ("agent", "--config", str(host.settings), "--once")
    environment: dict[str, Any] = {**os.environ, "PATH": str(host.folder)}
    netns = ["/usr/sbin/ip", "netns", "exec", host.bed.host.name]
    result = subprocess.run(
        [*netns, sys.executable, "-c", P51_PROBE, *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    host.await_statuses({A.port: "up", B.port: "up"})
    ran = [line for line in result.stdout.splitlines() if line.startswith("FORKS")]
    assert all("bird" in line or "dnsmasq" in line or "radvd" in line for line in ran)
    assert "no program bird found" in result.stderr, "a daemon that is missing is told"
