"""What tells the log of packets: which ports' events, and how many a second.

A port that is logged is an element in a set for each kind of event. The rules that ask
the sets are `plan.ruleset`'s; the chains here only tell, and return: whatever the limit
does, the verdict is that of who jumped here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from calico.model.ids import InterfaceName
from calico.model.logs import Event
from calico.plan.antispoof import Element
from calico.plan.ruleset import LOG_GROUP, LOGGED_ACCEPTS, LOGGED_DROPS, Chain, Rule

PREFIX = "group"
"""The first part of what the kernel says with each packet: `group/in/drop`."""

_SETS = {Event.ACCEPT: LOGGED_ACCEPTS, Event.DROP: LOGGED_DROPS}


@dataclass(frozen=True, slots=True)
class LogLimit:
    """How many events of a kind a host logs: a second, and more at once."""

    rate: int = 100
    burst: int = 25


def limit_chains(limit: LogLimit) -> Iterator[Chain]:
    """Yield the chains that tell of a packet, for each direction and event."""
    for way in ("in", "out"):
        for event in ("accept", "drop"):
            line = (
                f"limit rate {limit.rate}/second burst {limit.burst} packets "
                f'log prefix "{PREFIX}/{way}/{event}" group {LOG_GROUP}'
            )
            rule = Rule(line, "told, not decided")
            yield Chain(f"log_{way}_{event}", (rule,))


def logged_elements(
    interface: InterfaceName, events: Iterable[Event]
) -> Iterator[Element]:
    """Yield the elements of a port whose `events` are logged."""
    for event in events:
        yield Element("inet", _SETS[event], f'"{interface}"')
