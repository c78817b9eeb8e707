"""Attempts to send as somebody else, and where they arrive."""

import secrets
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from calico.verify.cloud import Address, Site
from calico.verify.networks import Net
from calico.verify.parallel import eventually
from calico.verify.probes.capture import Capture
from calico.verify.probes.frames import mark_of, transmit
from calico.verify.probes.shots import ICMP6, UDP, Shot, frame
from calico.verify.result import Tally
from calico.verify.stage import Stage

PROJECT = "demo1"
_EFFECT = 10.0
_WAIT, _SHORT = (1.0, 0.4), (0.2, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A packet from a source and a MAC, and whether it may arrive."""

    name: str
    mac: str
    source: Address
    arrives: bool = False
    ports: tuple[int, int] = (9, 9)
    icmp: int | None = None

    def frame(self, target: Site, gateway: str, marker: bytes) -> bytes:
        """Return it as a frame to one instance."""
        version = self.source.version
        shot = Shot(
            source=self.source,
            destination=target.address(version),
            protocol=UDP if self.icmp is None else ICMP6,
            number=self.ports[0],
            port=self.ports[1],
            icmp=(self.icmp or 0, 0),
            hop_limit=255,
            payload=marker,
        )
        return frame(shot, self.mac, gateway)


@dataclass(frozen=True, slots=True)
class Field:
    """Who tries, and at whom: one on its host and one in another rack, if there is."""

    stage: Stage
    tally: Tally
    spoofer: Site
    targets: tuple[Site, ...]

    @property
    def net(self) -> Net:
        """The network of all of them."""
        return self.stage.net_of(self.spoofer)

    def update(self, **details: Any) -> None:
        """Change the spoofer's port."""
        api = self.stage.cloud.api(PROJECT).network
        api.update_port(self.spoofer.port, **details)


def judge(field: Field, why: str, attempts: Sequence[Attempt]) -> None:
    """Make all attempts at every target, and count what arrived and what did not.

    What may arrive is what proves that a capture would have seen the rest.
    """
    seen = send(field, attempts)
    missing = [a for a in attempts if a.arrives and len(seen[a]) < len(field.targets)]
    if missing:  # a busy machine is not a broken network
        seen |= send(field, missing)
    for each in attempts:
        for target in field.targets:
            got = target in seen[each]
            wrong = "it arrived" if got else "it did not arrive"
            case = f"{why}{each.name}, to {target.short}"
            field.tally.case(case, None if got is each.arrives else wrong)


def send(
    field: Field, attempts: Iterable[Attempt], wait: tuple[float, float] = _WAIT
) -> dict[Attempt, set[Site]]:
    """Make attempts; return at which targets each was seen.

    `wait` are the seconds for what may arrive, and then for what may not.
    """
    spoofer, attempts = field.spoofer, list(attempts)
    gateway = field.stage.host_mac(spoofer)
    mark = secrets.token_hex(8).encode()
    with ExitStack() as stack:
        captures = {
            t: stack.enter_context(Capture(t.place, t.interface)) for t in field.targets
        }
        frames = [
            each.frame(target, gateway, mark_of(mark, each.name))
            for each in attempts
            for target in field.targets
        ]
        transmit(spoofer.place, spoofer.interface, frames)

        def seen() -> dict[Attempt, set[Site]]:
            return {
                each: {
                    t for t, c in captures.items() if c.marked(mark_of(mark, each.name))
                }
                for each in attempts
            }

        everywhere = len(captures)

        def all_there() -> bool:
            return all(len(f) == everywhere for a, f in seen().items() if a.arrives)

        eventually(all_there, wait[0], 0.05)
        eventually(lambda: False, wait[1])
        return seen()


def settled(field: Field, attempts: Iterable[Attempt]) -> bool:
    """Wait until attempts have the outcome that they should have."""
    attempts = list(attempts)

    def as_wished() -> bool:
        found = send(field, attempts, _SHORT)
        return all(bool(seen) is a.arrives for a, seen in found.items())

    return eventually(as_wished, _EFFECT)
