"""The monitor tells of what concerns the host, and of nothing else."""

from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from tests.kernel.netns import Netns, in_netns

from calico.system.monitor import Monitor

TAP, DETOUR, LANES = "tap00000002-02", "lim00000002-02", "calico-lanes"


@pytest.fixture
def host() -> Iterator[Netns]:
    with Netns("host") as netns:
        for name in (TAP, DETOUR, LANES, "up0"):
            netns.ip("link", "add", name, "type", "bridge")
        yield netns


@pytest.fixture
def told(host: Netns) -> Iterator["SimpleQueue[None]"]:
    events: SimpleQueue[None] = SimpleQueue()
    with in_netns(host):
        monitor = Monitor(lambda: events.put(None))
        monitor.start()
    yield events
    monitor.stop()


@pytest.mark.parametrize("address", ["192.0.2.1/24", "2001:db8::1/64"])
def test_an_address_of_the_host_that_comes_or_goes_is_told(
    host: Netns, told: "SimpleQueue[None]", address: str
) -> None:
    for verb in ("add", "del"):
        host.ip("address", verb, address, "dev", "up0")
        told.get(timeout=5)


def test_an_address_of_a_tap_is_not_told(
    host: Netns, told: "SimpleQueue[None]"
) -> None:
    for number in range(9):
        host.ip("address", "add", f"192.0.2.{number}/32", "dev", TAP)
    host.ip("address", "add", "198.51.100.1/32", "dev", "up0")
    told.get(timeout=5)
    assert told.empty()


@pytest.mark.parametrize("link", [DETOUR, LANES])
def test_a_link_with_queues_of_ours_that_somebody_removes_is_told(
    host: Netns, told: "SimpleQueue[None]", link: str
) -> None:
    host.ip("link", "del", link)
    told.get(timeout=5)
