"""What a kernel answers when it is asked for a packet's route: `ip -json route get`.

Pure: `in_lab` and `on_host` ask. The answer is the kernel's own decision, with the
source address and the interface of entry, as for the packet itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from calico.model.ids import Address
from calico.policy.evaluate import Packet

# What `ip` says in words of the kernel's errors, in ours.
_ERRORS = {
    "Network is unreachable": "there is no route",
    "No route to host": "there is no route, or one that says unreachable",
    "Permission denied": "its route says prohibit",
    "Invalid cross-device link": "the reverse path filter refuses the source",
    "Invalid argument": "the kernel refuses source or destination, or has a blackhole",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """Out of an interface. `prefix` is the route's; `others` its further next hops."""

    interface: str
    gateway: Address | None = None
    prefix: str = ""
    protocol: str = ""
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        via = f"via {self.gateway} " if self.gateway else ""
        by = f" ({self.protocol})" if self.protocol else ""
        route = f"{self.prefix or 'route'} {via}dev {self.interface}{by}"
        if self.others:
            route += f", or {' or '.join(self.others)}"
        return route


@dataclass(frozen=True, slots=True)
class Local:
    """To the node itself."""


@dataclass(frozen=True, slots=True)
class Unroutable:
    """Nowhere, and why."""

    reason: str


Route = Forwarded | Local | Unroutable


def question(
    packet: Packet, entry: str | None, *, matched: bool = False
) -> tuple[str, ...]:
    """Return the command that asks for a packet's route.

    `entry` is the interface that it comes in by; without one it is the node's own.
    `matched` asks for the route that decides, with all its next hops, instead.
    """
    command = ["ip", "-json", "route", "get"]
    command += ["fibmatch"] if matched else []
    command += [str(packet.destination)]
    command += ["from", str(packet.source), "iif", entry] if entry else []
    return tuple(command)


def read_route(answer: str, error: str, matched: str) -> Route:
    """Return the route in `ip`'s answer; `error` is what it said instead.

    `matched` is the answer about the route that decides, empty if there was none.
    """
    entry = _first(answer)
    if entry is None:
        said = error.strip().removeprefix("RTNETLINK answers: ").splitlines()
        words = said[0] if said else "the kernel says nothing"
        known = _ERRORS.get(words)
        return Unroutable(f"{known} ({words})" if known else words)
    kind = entry.get("type", "unicast")
    if kind in {"local", "anycast"}:
        return Local()
    if kind != "unicast":
        return Unroutable(f"its route says {kind}")
    gateway = _gateway(entry)
    decides = _first(matched) or {}
    return Forwarded(
        interface=str(entry["dev"]),
        gateway=ip_address(gateway) if gateway else None,
        prefix=str(decides.get("dst", "")),
        protocol=_protocol(decides),
        others=tuple(
            _way(way)
            for way in decides.get("nexthops", ())
            if (way.get("dev"), _gateway(way)) != (entry["dev"], gateway)
        ),
    )


def _first(answer: str) -> Mapping[str, Any] | None:
    try:
        entries: Sequence[Mapping[str, Any]] = json.loads(answer or "[]")
    except json.JSONDecodeError:
        return None
    return entries[0] if entries else None


def _gateway(entry: Mapping[str, Any]) -> str:
    """Return the next router's address, of another family too (RFC 5549)."""
    return str(entry.get("gateway") or entry.get("via", {}).get("host", ""))


def _protocol(entry: Mapping[str, Any]) -> str:
    name = str(entry.get("protocol", ""))
    return {"111": "calico", "": ""}.get(name, name)


def _way(way: Mapping[str, Any]) -> str:
    gateway = _gateway(way)
    return f"via {gateway} dev {way.get('dev')}" if gateway else f"dev {way.get('dev')}"
