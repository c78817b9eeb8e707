"""Serve a host's ports in the kernel: ratios between ways and sizes, not times.

python benchmarks/host_apply.py [--ports N]   (root; in a namespace of its own)
"""

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network

from calico.agent.keeper import Keeper
from calico.config import AgentSettings
from calico.model.ids import (
    DeviceId,
    HostName,
    InterfaceName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    tap_name,
)
from calico.model.records import AddressPair, Endpoint
from calico.model.world import World
from calico.plan.antispoof import Element
from calico.plan.items import PROTOCOL, Item, Route
from calico.reconcile.diff import Diff
from calico.reconcile.filter import FilterChange
from calico.system.kernel import Kernel

HOST = HostName("bench")
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def endpoint(number: int) -> Endpoint:
    """Return port `number`, dual stack."""
    port = PortId(f"{number:011x}-bench")
    return Endpoint(
        host=HOST,
        device=DeviceId(f"d{number}"),
        port=port,
        interface=tap_name(port),
        mac=Mac(f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}"),
        network=NetworkId("n"),
        project=ProjectId("p"),
        addresses=(
            ip_address("10.65.0.0") + number,
            ip_address("2001:db8::") + number,
        ),
    )


@contextmanager
def own_namespace(taps: Sequence[InterfaceName]) -> Iterator[None]:
    """Move this process into a new network namespace with these taps."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        sys.exit("a new network namespace takes root")
    lines = [f"link add {tap} type veth peer name p{tap[3:]}" for tap in taps]
    batch = "\n".join(lines).encode()
    subprocess.run(["ip", "-batch", "-"], input=batch, check=True)
    yield


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the seconds that one run of `work` takes, the best of `times`."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def routes(tap: InterfaceName, second: int, number: int) -> list[Item]:
    """Return `number` routes through one tap."""
    first = ip_address(f"10.{second}.0.0")
    return [Route(ip_network(f"{first + i}/32"), tap) for i in range(number)]


def compare_writing(kernel: Kernel, tap: InterfaceName, number: int) -> None:
    """Print how batches compare with one message a time, and with a fork a time."""
    batched = seconds(lambda: kernel.put(routes(tap, 100, number)))
    single = seconds(lambda: [kernel.put([r]) for r in routes(tap, 101, number)])
    forks = 50
    proto = ("proto", str(PROTOCOL))

    def fork() -> None:
        for i in range(forks):
            route = ("route", "add", f"10.102.0.{i}/32", "dev", tap)
            subprocess.run(["ip", *route, *proto], check=True)

    forked = seconds(fork) / forks * number
    row("routes: batched", batched, batched)
    row("routes: one a time", single, batched)
    row("routes: `ip` forked for each", forked, batched)


def compare_filter(kernel: Kernel, number: int) -> None:
    """Print how one transaction compares with one a change, and with forks."""

    def elements(second: int) -> dict[Element, str]:
        key = '"tapx" . fa:16:3e:00:00:01 . 10.{}.{}.{}'
        return {
            Element("inet", "sources4", key.format(second, i >> 8, i & 255)): ""
            for i in range(number)
        }

    def put(part: Mapping[Element, str]) -> None:
        kernel.change_filter(
            FilterChange(elements=Diff(put=part, drop={}, replaced={}))
        )

    one = seconds(lambda: put(elements(100)))

    def singly() -> None:
        for element in elements(101):
            put({element: ""})

    each = seconds(singly)
    forks = 20

    def fork() -> None:
        for i in range(forks):
            key = f'{{ "tapx" . fa:16:3e:00:00:01 . 10.102.0.{i} }}'
            command = ["nft", "add", "element", "inet", "calico", "sources4", key]
            subprocess.run(command, check=True)

    row("elements: one transaction", one, one)
    row("elements: one a transaction", each, one)
    row("elements: `nft` forked for each", seconds(fork) / forks * number, one)


def compare_passes(keeper: Keeper, endpoints: Sequence[Endpoint]) -> None:
    """Print what passes cost: the first, one without changes, one with one."""

    def make_pass(some: Sequence[Endpoint], *, resync: bool = False) -> None:
        world = World(host=HOST, endpoints=tuple(some))
        _, delta = keeper.compare(world, (), resync=resync)
        outcome = keeper.apply(delta)
        assert not outcome.problems, outcome.problems[:3]

    first = seconds(lambda: make_pass(endpoints))
    idle = seconds(lambda: make_pass(endpoints), 3)
    pair = AddressPair(prefix=ip_network("10.99.0.1/32"), mac=endpoints[0].mac)
    paired = replace(endpoints[0], pairs=(pair,), granted=(pair.prefix,))
    changed = [paired, *endpoints[1:]]
    one = seconds(lambda: make_pass(changed))
    listed = seconds(lambda: make_pass(changed, resync=True), 3)
    row(f"pass: the first, {len(endpoints)} ports", first, first)
    row("pass: one address more", one, first)
    row("pass: nothing to do", idle, first)
    row("pass: resync, nothing to do", listed, first)


def row(name: str, took: float, reference: float) -> None:
    """Print one figure and its ratio."""
    print(f"{name:34} {took * 1000:9.1f} ms   {took / reference:8.2f}")


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=int, default=500)
    number = parser.parse_args().ports
    endpoints = [endpoint(i + 1) for i in range(number)]
    with own_namespace([e.interface for e in endpoints]):
        kernel = Kernel()
        compare_passes(Keeper(kernel, AgentSettings(host=HOST)), endpoints)
        compare_writing(kernel, endpoints[0].interface, 2000)
        compare_filter(kernel, 2000)


if __name__ == "__main__":
    main()
