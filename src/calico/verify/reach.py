"""Whether instances reach each other: ICMP, UDP and TCP over IPv4 and IPv6."""

from collections.abc import Callable, Iterable
from functools import partial

from calico.verify.cloud import Address, Place, Site
from calico.verify.layout import placement
from calico.verify.parallel import parallel
from calico.verify.probes.echo import PORT, ask_datagram, ask_stream
from calico.verify.probes.ping import ping
from calico.verify.result import Tally

_TRIES = 2  # a busy machine is not a broken network
VERSIONS = (4, 6)
Pair = tuple[Site, Site]


def _datagram(place: Place, target: Address) -> str | None:
    answer = ask_datagram(place, (target, PORT))
    return answer if isinstance(answer, str) else None


def _stream(place: Place, target: Address) -> str | None:
    answer = ask_stream(place, (target, PORT), within=3.0)
    return answer if isinstance(answer, str) else None


PROTOCOLS: dict[str, Callable[[Place, Address], str | None]] = {
    "ICMP": ping,
    "UDP": _datagram,
    "TCP": _stream,
}


def reach(tally: Tally, pairs: Iterable[Pair], why: str = "") -> None:
    """Count a case for each pair, protocol and IP version, all at once."""
    parallel(
        [
            partial(_case, tally, pair, (protocol, version), why)
            for pair in pairs
            for protocol in PROTOCOLS
            for version in VERSIONS
        ]
    )


def attempt(protocol: str, place: Place, target: Address) -> str | None:
    """Return what is wrong with reaching a responder, or None."""
    wrong = None
    for _ in range(_TRIES):
        wrong = PROTOCOLS[protocol](place, target)
        if wrong is None:
            return None
    return wrong


def both_ways(pairs: Iterable[Pair]) -> list[Pair]:
    """Return each pair and its reverse."""
    return [way for a, b in pairs for way in ((a, b), (b, a))]


def title(pair: Pair) -> str:
    """Return how a case names a pair."""
    return f"{pair[0].short} to {pair[1].short} ({placement(*pair)})"


def _case(tally: Tally, pair: Pair, how: tuple[str, int], why: str) -> None:
    source, target = pair
    wrong = attempt(how[0], source.place, target.address(how[1]))
    tally.case(f"{why}{title(pair)}, IPv{how[1]} {how[0]}", wrong)
