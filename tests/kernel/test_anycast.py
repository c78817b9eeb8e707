"""S5: one address on two ports of a host, with flows that are seen to go to either."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import pytest
from tests.endpoints import endpoint
from tests.kernel.bgp_hosts import host_facts, lan, node, speaker, world_of
from tests.kernel.data_path import HostBed, host_bed, pair
from tests.kernel.netns import in_netns

from calico.model.records import Endpoint

SHARED = {4: "10.77.0.9", 6: "2001:db8:77::9"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
FLOWS = 40  # none of them at one of two: once in 10^12 runs
PORT = 4711
QUIET = 0.5  # seconds in which nothing more comes
CLIENT = endpoint(5)


def member(number: int) -> Endpoint:
    one = endpoint(number)
    return replace(
        one, pairs=(pair("10.77.0.9/32", one), pair("2001:db8:77::9/128", one))
    )


A, B, C = member(2), member(3), member(4)


@pytest.fixture
def bed() -> Iterator[HostBed]:
    with host_bed() as one:
        for each in (A, B, C):
            guest = one.plug(each)
            for address in SHARED.values():
                nodad = ["nodad"] if ":" in address else []
                guest.ip("addr", "add", address, "dev", "lo", *nodad)
        one.plug(CLIENT)
        yield one


@dataclass(frozen=True, slots=True)
class Flows:
    """Sockets of a client, and of those that have the shared address."""

    clients: tuple[socket.socket, ...]
    servers: dict[str, socket.socket]

    def served(self) -> list[str]:
        """Send something in each flow; return by whom it was received, "" by none."""
        for number, client in enumerate(self.clients):
            client.send(bytes([number]))
        where = [""] * len(self.clients)
        with DefaultSelector() as ready:
            for name, server in self.servers.items():
                ready.register(server, EVENT_READ, name)
            while "" in where and (events := ready.select(QUIET)):
                for key, _ in events:
                    (number,) = self.servers[key.data].recv(1)
                    where[number] = key.data
        return where


@contextmanager
def flows(bed: HostBed, version: int) -> Iterator[Flows]:
    with ExitStack() as stack:

        def open_in(one: Endpoint) -> socket.socket:
            with in_netns(bed.guests[one.port]):
                made = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
            return stack.enter_context(made)

        servers = {str(one.interface): open_in(one) for one in (A, B, C)}
        for server in servers.values():
            server.bind((SHARED[version], PORT))
        clients = [open_in(CLIENT) for _ in range(FLOWS)]
        for client in clients:
            client.connect((SHARED[version], PORT))
        yield Flows(tuple(clients), servers)


@pytest.mark.parametrize("version", [4, 6])
def test_s05_flows_are_spread_over_the_ports_of_a_host_and_stay(
    bed: HostBed, version: int
) -> None:
    assert bed.serve(A, B, CLIENT).problems == ()
    assert bed.changes(A, B, CLIENT) == []
    with flows(bed, version) as some:
        first = some.served()
        assert Counter(first).keys() == {A.interface, B.interface}
        assert some.served() == first, "each flow stays where it began"
        assert bed.serve(A, B, C, CLIENT).problems == ()
        assert bed.changes(A, B, C, CLIENT) == []
        assert Counter(some.served()).keys() == {e.interface for e in (A, B, C)}
        assert bed.serve(B, CLIENT).problems == ()
        assert bed.changes(B, CLIENT) == []
        assert set(some.served()) == {B.interface}, "the others went"
        assert bed.serve(A, B, CLIENT).problems == ()
        assert some.served() == first


def test_s05_a_link_that_is_down_or_gone_leaves_the_traffic_to_the_others(
    bed: HostBed,
) -> None:
    bed.serve(A, B, CLIENT)
    with flows(bed, 4) as four, flows(bed, 6) as six:
        bed.host.ip("link", "set", A.interface, "down")
        assert set(four.served()) == set(six.served()) == {B.interface}, "no pass yet"
        assert len([c for c in bed.changes(A, B, CLIENT) if "Multipath" in c]) == 2
        assert bed.serve(A, B, CLIENT).problems == ()
        assert bed.changes(A, B, CLIENT) == []
        for some in (four, six):
            assert set(some.served()) == {A.interface, B.interface}
        bed.host.ip("link", "del", A.interface)
        assert set(six.served()) == {B.interface}, "no pass yet"
        outcome = bed.serve(A, B, CLIENT)
        assert outcome.problems == ()
        assert outcome.plan.absent == (A,)
        assert set(four.served()) == set(six.served()) == {B.interface}
        assert bed.changes(A, B, CLIENT) == []


def test_s05_an_address_of_several_ports_is_announced_like_any_other(
    tmp_path: Path,
) -> None:
    with (
        speaker("h1", tmp_path, host_facts(1)) as one,
        speaker("h2", tmp_path, host_facts(2)) as two,
        lan(one, two),
    ):
        for host in (one, two):
            assert host.facts is not None
            host.serve(world_of(host.facts.host, nodes=[node(1), node(2)]))
        for host in (one, two):
            host.await_sessions(2)
        ways: dict[str, list[str]] = {"10.65.0.9": [], "fd65::9": []}
        for number in (1, 2):
            one.netns.ip("link", "add", f"t{number}", "type", "bridge")
            one.netns.ip("link", "set", f"t{number}", "up")
            one.netns.ip("addr", "add", f"fe80::{number}/64", "dev", f"t{number}")
            ways["10.65.0.9"] += ["nexthop", "dev", f"t{number}"]
            ways["fd65::9"] += ["nexthop", "via", f"fe80::9{number}"]
            ways["fd65::9"] += ["dev", f"t{number}"]
        for address, way in ways.items():
            mark = ["metric", "1"] if ":" in address else ["scope", "link"]
            one.netns.ip("route", "add", address, *mark, "proto", "111", *way)
        assert two.await_route("10.65.0.9")["gateway"] == "172.30.0.1"
        assert two.await_route("fd65::9", 6)["gateway"] == "fd00::1"
        for address in ways:
            one.netns.ip("route", "del", address, "proto", "111")
        two.await_no_route("10.65.0.9")
        two.await_no_route("fd65::9", 6)
