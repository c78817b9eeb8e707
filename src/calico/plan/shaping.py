"""Bandwidth limits as the kernel's token buckets: shaped, both ways, not policed.

What an instance is sent waits in its tap's queue. What it sends has no queue on the
host, so it takes a detour by a link that has one, its *detour*, and comes back as if
from the tap: TCP slows down by waiting and not by loss.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from calico.model.ids import InterfaceName
from calico.model.qos import Bandwidth
from calico.model.records import Endpoint
from calico.policy.evaluate import Direction

DETOUR = re.compile(r"lim[0-9a-f]{8}-[0-9a-f]{2}")
"""The names of detours: `lim` for the `tap` of a port's interface."""

_LEAST_BURST = 10_000  # octets: one jumbo frame, else it would never pass
_LEAST_QUEUE = 70_000  # octets: what a guest's TCP hands over as one, 64 KiB, fits
_PATIENCE = 20  # the queue holds a second's octets divided by this: 50 ms


@dataclass(frozen=True, slots=True)
class Shaper:
    """A limit in octets a second on what a port is sent (ingress) or sends (egress).

    `burst` are the octets that pass at once after a pause, `queue` those that may wait;
    more is dropped. A rate of 0 is read where remains of one are.
    """

    interface: InterfaceName
    direction: Direction
    rate: int
    burst: int
    queue: int


def shapers(endpoint: Endpoint) -> Iterator[Shaper]:
    """Yield the shapers of a port."""
    limits = {
        Direction.INGRESS: endpoint.qos.ingress,
        Direction.EGRESS: endpoint.qos.egress,
    }
    for direction, limit in limits.items():
        if limit:
            yield shaper(endpoint.interface, direction, limit)


def shaper(interface: InterfaceName, direction: Direction, limit: Bandwidth) -> Shaper:
    """Return what a limit comes to, in numbers that the kernel can tell again."""
    rate = max(limit.rate // 8, 1)
    burst = rounded(max(limit.burst // 8, _LEAST_BURST), rate)
    queue = max(rate // _PATIENCE, _LEAST_QUEUE)
    return Shaper(interface, direction, rate, burst, min(queue, 2**32 - 1))


def rounded(burst: int, rate: int) -> int:
    """Return the nearest burst that is told from its neighbours by the kernel.

    It reports a burst as the time that it takes, in units of 64 ns (PSCHED_SHIFT).
    """
    unit = 64 + (rate >> 21)
    return (burst + unit // 2) // unit * unit


def detour_of(interface: InterfaceName) -> InterfaceName:
    """Return the name of a tap's detour."""
    return InterfaceName("lim" + interface[3:])


def tap_of(detour: InterfaceName) -> InterfaceName:
    """Return the name of the tap that a detour is for."""
    return InterfaceName("tap" + detour[3:])
