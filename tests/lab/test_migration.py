"""Instances that move to another host: with their connections, and without a trace."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.kernel.netns import eventually, in_netns
from tests.lab.networks import dual_stack

from calico.lab import inside
from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed

SOURCE, TARGET, THIRD = "host-1-1", "host-2-2", "host-1-2"
PORT = 8080


@dataclass(frozen=True, slots=True)
class Pair:
    """An instance that moves, and one that speaks to it; both have both families."""

    mover: Instance
    peer: Instance


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[Pair]:
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        network = dual_stack(api, cleanup, f"m{os.getpid()}", 209)
        made = []
        # The peer is nearer to the source than to the target: its ToR sees a way of one
        # hop, which yields, and one through the spine.
        for role, host in (("mover", SOURCE), ("peer", THIRD)):
            name = f"{role}{os.getpid()}"
            made.append(lab.create_instance(name, network=network, host=host))
            cleanup.callback(lab.delete_instance, name)
        yield Pair(*made)


def pings(instance: Instance, address: str) -> bool:
    argv = ["ping", "-n", "-c", "1", "-W", "1", address]
    return instance.run(argv).returncode == 0


def routes(lab: Lab, host: str, instance: Instance) -> list[str]:
    """Return a host's own routes to the addresses of an instance."""
    found = []
    for family in ("-4", "-6"):
        argv = ["ip", "-j", family, "route", "show", "proto", "111"]
        listed = json.loads(lab.run(host, argv).stdout or "[]")
        found += [row["dst"] for row in listed if row["dst"] in instance.addresses]
    return sorted(found)


def test_a_live_migration_costs_some_packets_and_no_connection(
    lab: Lab, pair: Pair
) -> None:
    mover, peer = pair.mover, pair.peer
    with ExitStack() as sockets:
        with in_netns(mover.netns):
            server = sockets.enter_context(socket.create_server(("0.0.0.0", PORT)))
        client = inside.connect(peer.netns, (mover.addresses[0], PORT), 10.0)
        sockets.enter_context(client)
        served = sockets.enter_context(server.accept()[0])
        command = ["lab", "instance", "migrate", mover.name, "--to", TARGET]
        options = ["--lab", lab.name, "--measure-from", peer.name, "--json"]
        said = subprocess.run(
            [sys.executable, "-m", "calico", *command, *options],
            capture_output=True,
            check=True,
        ).stdout
        served.settimeout(10)
        client.sendall(b"still there?")
        assert served.recv(64) == b"still there?"
    report = json.loads(said)
    assert f"is reached on {TARGET}" in {step["what"] for step in report["steps"]}
    # Some tens in truth; so many are lost where a session restarts.
    assert report["loss"]["lost"] < 1000
    assert lab.instance(mover.name).host == TARGET
    assert routes(lab, TARGET, mover) == sorted(mover.addresses)
    eventually(lambda: routes(lab, SOURCE, mover) == [])
    links = lab.run(SOURCE, ["ip", "-br", "link"]).stdout
    assert mover.tap not in links
    assert all(pings(peer, address) for address in mover.addresses)
    assert all(pings(mover, address) for address in peer.addresses)


def test_a_silent_guest_is_found_once_its_binding_is_activated(
    lab: Lab, pair: Pair
) -> None:
    before = lab.instance(pair.mover.name).host
    report = lab.migrate_instance(pair.mover.name, to=THIRD, announced=False)
    assert (report.source, report.target) == (before, THIRD)
    for address in pair.mover.addresses:
        eventually(lambda address=address: pings(pair.peer, address))  # type: ignore[misc]  # a loop's value


def test_an_instance_of_a_host_that_was_lost_is_served_by_another(
    lab: Lab, pair: Pair
) -> None:
    lab.migrate_instance(pair.mover.name, to=SOURCE, warm=False)
    for address in pair.mover.addresses:
        eventually(lambda address=address: pings(pair.peer, address))  # type: ignore[misc]  # a loop's value
    assert routes(lab, THIRD, pair.mover) == []


def test_an_instance_moves_to_another_host_that_exists(lab: Lab, pair: Pair) -> None:
    host = lab.instance(pair.mover.name).host
    with pytest.raises(LabFailed, match="already"):
        lab.migrate_instance(pair.mover.name, to=host)
    with pytest.raises(LabFailed, match="no host 'host-9-9'"):
        lab.migrate_instance(pair.mover.name, to="host-9-9")
