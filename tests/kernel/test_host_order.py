"""P52: policy, then the route, then the gate, as the kernel's own monitors tell."""

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest
from tests.endpoints import HOST, endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import in_netns

from calico.agent.keeper import Keeper
from calico.config import AgentSettings
from calico.plan.items import PROTOCOL, Item, Key, Setting
from calico.reconcile.filter import FilterChange
from calico.system.kernel import Failure, Have, Kernel

A, B = endpoint(2), endpoint(3)
_NETFILTER, _NFTABLES = 12, 1 << 6
_LINK, _NEIGHBOUR, _ROUTE4, _ROUTE6 = 1, 1 << 2, 1 << 6, 1 << 10
_POLICY = ("sources4", "sources6", "macs", "in_1", "out_1")
_GATES = ("from_port", "to_port", "out_policy", "in_policy")
_KINDS = {16: "link", 24: "route", 25: "no route", 28: "neighbour"}


class Watched:
    """A kernel whose monitors are read after each call: their order is exact."""

    def __init__(self, interface: str) -> None:
        self._kernel = Kernel()
        self._interface = interface.encode()
        self._index = socket.if_nametoindex(interface)
        self.events: list[str] = []
        self._rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._rtnetlink.bind((0, _LINK | _NEIGHBOUR | _ROUTE4 | _ROUTE6))
        self._nft = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._nft.bind((0, _NFTABLES))

    def read(self, *, resync: bool) -> Have:
        return self._kernel.read(resync=resync)

    def read_settings(self, wanted: Iterable[Setting]) -> Mapping[Key, Setting]:
        return self._kernel.read_settings(wanted)

    def put(self, items: Sequence[Item]) -> list[Failure]:
        failures = self._kernel.put(items)
        self._drain()
        return failures

    def drop(self, items: Sequence[Item]) -> list[Failure]:
        failures = self._kernel.drop(items)
        self._drain()
        return failures

    def change_filter(self, change: FilterChange) -> None:
        self._kernel.change_filter(change)
        self._drain()

    def close(self) -> None:
        self._rtnetlink.close()
        self._nft.close()

    def _drain(self) -> None:
        for message in _messages(self._nft):
            if self._interface not in message:
                continue
            verb = {12: "", 14: "no "}.get(message[4], "?")
            for name in (*_POLICY, *_GATES):
                if name.encode() + b"\0" in message:
                    self.events.append(f"{verb}{name}")
        for message in _messages(self._rtnetlink):
            kind = int.from_bytes(message[4:6], "little")
            index = self._index.to_bytes(4, "little")
            if kind in {24, 25} and message[21] != PROTOCOL:
                continue  # the kernel's own, of the link-local address
            if kind in _KINDS and index in message[16:]:
                up = kind != 16 or message[24] & 1
                self.events.append(_KINDS[kind] if up else "link down")


def _messages(monitor: socket.socket) -> Iterator[bytes]:
    monitor.setblocking(False)
    while True:
        try:
            received = monitor.recv(1 << 18)
        except BlockingIOError:
            return
        position = 0
        while position < len(received):
            length = int.from_bytes(received[position : position + 4], "little")
            yield received[position : position + length]
            position += (length + 3) & ~3


@pytest.fixture
def bed() -> Iterator[HostBed]:
    with host_bed() as one:
        yield one


@pytest.mark.parametrize("first", [True, False], ids=["at boot", "later"])
def test_p52_policy_then_link_then_route_then_gate(
    bed: HostBed, *, first: bool
) -> None:
    bed.plug(A)
    if not first:
        bed.plug(B)
        bed.serve(B)
    with in_netns(bed.host):
        kernel = Watched(A.interface)
    bed.stack.callback(kernel.close)
    bed.keeper = Keeper(kernel, AgentSettings(host=HOST))
    served = (A,) if first else (A, B)
    assert bed.serve(*served).problems == ()
    events = kernel.events
    last_policy = max(i for i, e in enumerate(events) if e in _POLICY)
    routes = [i for i, e in enumerate(events) if e == "route"]
    gates = [i for i, e in enumerate(events) if e in _GATES]
    assert routes, events
    assert gates, events
    assert last_policy < events.index("link") < events.index("neighbour"), events
    assert events.index("neighbour") < routes[0], events
    assert routes[-1] < gates[0], events
    kernel.events.clear()
    bed.serve(*served[1:])
    gone = kernel.events
    assert gone.index("no from_port") < gone.index("no route"), gone
