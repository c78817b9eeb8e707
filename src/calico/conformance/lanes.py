"""Which tests run beside each other. Pure.

Subnets must not overlap, and many tests name ranges in their own text, the same ones.
Those run one after another, all in the first lane; the others take ranges of a pool,
and each lane has a pool of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from calico.conformance.result import bare, module_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A sequence of tests, and the ranges that its subnets are made of."""

    name: str
    tests: tuple[str, ...]  # ids with their attributes
    cidr4: str
    cidr6: str


# Apart from what tests name themselves (10/8, 192.168/16, 20/8 and more), and from each
# other: some tests take the range next to their pool, too.
_POOLS = (("172.16.0.0/16", "fd16::/48"), ("172.24.0.0/16", "fd24::/48"))


def split(
    tests: Iterable[str], names_ranges: Callable[[str], bool]
) -> tuple[Lane, ...]:
    """Return two lanes of much the same length, one where there are few tests.

    `names_ranges` tells of a module whether its tests name ranges themselves.
    """
    modules = defaultdict(list)
    for test in tests:
        modules[module_of(bare(test))].append(test)
    # Largest first, so that the small ones make the lanes even in the end.
    order = sorted(modules, key=lambda name: (-len(modules[name]), name))
    lanes: tuple[list[str], list[str]] = ([], [])
    for name in filter(names_ranges, order):
        lanes[0].extend(modules[name])
    for name in order:
        if not names_ranges(name):
            min(lanes, key=len).extend(modules[name])
    return tuple(
        Lane(name=f"lane-{number}", tests=tuple(found), cidr4=four, cidr6=six)
        for number, (found, (four, six)) in enumerate(
            zip(lanes, _POOLS, strict=True), start=1
        )
        if found
    )
