"""BIRD killed, missing, adopted; bursts of routes: what the network sees of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.bgp_hosts import (
    SUBNETS,
    RouteEvents,
    Speaker,
    host_facts,
    lan,
    node,
    speaker,
    world_of,
)
from tests.kernel.netns import Netns, eventually, in_netns

from calico.system.bird import Bird

BURST = 5000
NODES = (node(1), node(2))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Speaker, Speaker]]:
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(speaker(f"h{n}", tmp_path, host_facts(n)))
            for n in (1, 2)
        )
        stack.enter_context(lan(a, b))
        serve(a)
        serve(b)
        a.await_sessions(2)
        b.await_sessions(2)
        yield a, b


def serve(host: Speaker, subnets: tuple[str, ...] = SUBNETS) -> None:
    assert host.facts is not None
    host.serve(world_of(host.facts.host, nodes=NODES, subnets=subnets))


def pid(host: Speaker) -> int:
    identity = host.daemon().identity()
    assert identity is not None
    return identity.pid


def add_instance(host: Speaker, address: str) -> None:
    """Give the host's own namespace an instance's address, so that it answers."""
    host.netns.ip("address", "add", f"{address}/32", "dev", "lo")
    host.add_route(f"{address}/32")


def test_p49_a_killed_bird_drops_no_route_and_no_packet(
    pair: tuple[Speaker, Speaker], tmp_path: Path
) -> None:
    a, b = pair
    for number in range(1, 51):
        add_instance(a, f"10.65.0.{number}")
        b.add_route(f"10.65.1.{number}/32")
    eventually(lambda: len(a.routes()) == len(b.routes()) == 50)
    count = 60
    pings = b.netns.popen(
        ["ping", "-n", "-q", "-i", "0.1", "-c", str(count), "10.65.0.7"],
        stdout=subprocess.PIPE,
    )
    with (
        RouteEvents(a.netns, tmp_path / "events-a") as of_a,
        RouteEvents(b.netns, tmp_path / "events-b") as of_b,
    ):
        before = pid(a)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: not a.bird.running())
        serve(a)
        assert pid(a) != before
        a.await_sessions(2)
        b.await_sessions(2)
        # A route added last comes last: what went before it has been dealt with.
        a.add_route("10.65.0.99/32")
        b.await_route("10.65.0.99")
        said, _ = pings.communicate(timeout=60)
        assert f"{count} received" in said, said
        assert of_a.deleted() == []
        assert of_b.deleted() == []
    assert len(b.routes()) == 51


def test_p48_a_burst_of_routes_overruns_nothing_and_reaches_the_peer(
    pair: tuple[Speaker, Speaker],
) -> None:
    a, b = pair
    # BIRD stands still while the burst comes: all of it must fit into its buffer.
    # The kernel's periodic scan (60 s) would repair a loss, later than we wait.
    a.daemon().signal(signal.SIGSTOP)
    try:
        add_burst(a)
        assert dropped(a) == 0
    finally:
        a.daemon().signal(signal.SIGCONT)
    eventually(
        lambda: len(b.routes()) == BURST,
        timeout=30,
        message=lambda: f"{len(b.routes())} of {BURST} routes arrived",
    )
    assert "Netlink: overrun" not in a.daemon().log.read_text()


def add_burst(host: Speaker) -> None:
    lines = "".join(
        f"route add 10.65.{n // 250}.{n % 250}/32 dev taps proto 111\n"
        for n in range(BURST)
    )
    host.netns.run(["ip", "-batch", "-"], input=lines)


def dropped(host: Speaker) -> int:
    """Return how many netlink messages the kernel dropped, in BIRD's sockets."""
    with in_netns(host.netns):
        table = Path("/proc/thread-self/net/netlink").read_text().splitlines()
    column = table[0].split().index("Drops")
    owner = table[0].split().index("Pid")
    # A process's first netlink socket has its pid for its port; others are negative.
    rows = [line.split() for line in table[1:]]
    assert any(int(row[owner]) == pid(host) for row in rows), table
    return sum(int(row[column]) for row in rows)


def test_a_missing_bird_is_started_again_and_keeps_its_configuration(
    pair: tuple[Speaker, Speaker],
) -> None:
    a, b = pair
    b.add_route("10.65.1.1/32")
    a.await_route("10.65.1.1")
    a.bird.stop()
    assert not a.bird.running()
    assert "10.65.1.1" in a.routes()
    serve(a)
    a.await_sessions(2)


def test_bird_starts_with_graceful_restart_only_over_routes_of_its_own(
    pair: tuple[Speaker, Speaker],
) -> None:
    a, b = pair
    assert "-R" not in arguments(a)
    b.add_route("10.65.1.1/32")
    a.await_route("10.65.1.1")
    os.kill(pid(a), signal.SIGKILL)
    eventually(lambda: not a.bird.running())
    serve(a)
    assert "-R" in arguments(a)


def arguments(host: Speaker) -> list[str]:
    return Path(f"/proc/{pid(host)}/cmdline").read_text().split("\0")


def test_a_new_agent_adopts_the_bird_that_runs(pair: tuple[Speaker, Speaker]) -> None:
    a, _ = pair
    before = pid(a)
    second = Speaker(a.netns, a.run_dir, a.facts)
    serve(second, (*SUBNETS, "10.99.0.0/24"))
    assert pid(second) == before
    assert "10.99.0.0/24" in (a.run_dir / "bird.conf").read_text()
    second.await_sessions(2)


def test_a_file_left_by_a_killed_agent_is_not_taken_for_applied(
    pair: tuple[Speaker, Speaker],
) -> None:
    a, b = pair
    a.add_route("10.99.0.1/32")
    (a.run_dir / "bird.conf.new").write_text("half a configuration {")
    for host in (a, b):
        serve(host, (*SUBNETS, "10.99.0.0/24"))
    b.await_route("10.99.0.1")


def test_a_host_without_bird_says_so(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from typing import Self
from calico.system.bird import Bird
print(*Bird(Path({str(tmp_path)!r})).apply("router id 1.1.1.1;"))
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == (
        "BIRD: start: no program bird found; install bird2"
    )


def test_a_first_configuration_that_bird_refuses_is_a_problem(tmp_path: Path) -> None:
    with Netns("alone") as netns, in_netns(netns):
        bird = Bird(tmp_path)
        (problem,) = bird.apply("protocol nonsense {")
        assert "syntax error" in str(problem)
        assert not bird.running()
        assert bird.apply("router id 1.1.1.1; protocol device { }") == []
        try:
            (problem,) = bird.apply("protocol nonsense {")
            assert "syntax error" in str(problem)
            assert bird.running()
        finally:
            bird.stop()
