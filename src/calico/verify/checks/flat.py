"""S9: addresses stay what they are, end to end: no NAT, no tunnel."""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from calico.verify.cloud import Address, Place
from calico.verify.layout import EXAMPLE_HOSTS
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.capture import Capture, Frame
from calico.verify.probes.echo import PORT, ask_datagram, ask_stream
from calico.verify.probes.nat import translations
from calico.verify.probes.ping import ping
from calico.verify.reach import VERSIONS, Pair, both_ways, title
from calico.verify.result import Tally
from calico.verify.stage import Stage

_TAP = "tap"  # what a host's end of an instance's interface begins with
_CARRIED = {1, 6, 17, 58}  # ICMP, TCP, UDP, ICMPv6: anything else is a tunnel

Passes = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of an exchange: where it starts, and both addresses."""

    place: Place
    source: Address
    target: Address


@dataclass(frozen=True, slots=True)
class Watch:
    """Captures at both ends, and of all interfaces on the way.

    `passes` are the nodes that packets must be seen to pass, one of each group: what
    cannot be seen on the way is hidden in a tunnel.
    """

    here: Capture
    there: Capture
    between: dict[str, Capture]
    passes: Passes = ()


def check(stage: Stage, tally: Tally) -> None:
    """Follow marked packets between networks, through all of the fabric."""
    a, p = stage.on("A"), stage.on("P")
    pairs = [(a[0], p[0]), (a[0], a[1]), (a[0], a[3]), (a[3], p[0])]
    if not stage.ranges.taken:
        for pair in ((a[0], EXAMPLE_HOSTS["a1"]), (p[0], EXAMPLE_HOSTS["p1"])):
            wrong = None if pair[0].address(4) == pair[1] else str(pair[0].addresses)
            tally.case(f"the example's {pair[1]}", wrong)
    with ExitStack() as stack:
        topology = stage.cloud.topology
        names = [*(host.name for host in topology.hosts), *topology.routers]
        between = {n: stack.enter_context(Capture(stage.cloud.place(n))) for n in names}
        follow = [
            partial(_follow, tally, pair, version, (between, _passes(stage, pair)))
            for pair in both_ways(pairs)
            for version in VERSIONS
        ]
        for each in follow:
            each()
    parallel(
        [partial(_table, stage, tally, h.name) for h in stage.cloud.topology.hosts]
    )


def _passes(stage: Stage, pair: Pair) -> Passes:
    """Return what a packet of a pair passes: two hosts, and a router between racks."""
    one, other = pair
    if one.host == other.host:
        return ()
    hosts = ((one.host.name,), (other.host.name,))
    if one.host.rack == other.host.rack:
        return hosts
    return (*hosts, stage.cloud.topology.routers)


def _follow(
    tally: Tally, pair: Pair, version: int, way: tuple[dict[str, Capture], Passes]
) -> None:
    one, other = pair
    ends = Ends(one.place, one.address(version), other.address(version))
    with (
        Capture(one.place, one.interface) as here,
        Capture(other.place, other.interface) as there,
    ):
        for name, wrong in exchange(ends, Watch(here, there, *way)).items():
            tally.case(f"{title(pair)}, IPv{version} {name}", wrong)


def exchange(ends: Ends, watch: Watch) -> dict[str, str | None]:
    """Exchange marked packets; return what is wrong with them, by protocol."""
    found: dict[str, str | None] = {}
    for name, ask in (("UDP", ask_datagram), ("TCP", ask_stream)):
        marker = secrets.token_hex(8).encode()
        seen = ask(ends.place, (ends.target, PORT), marker)
        if isinstance(seen, str):
            found[name] = seen
        elif seen.address != str(ends.source):
            found[name] = f"{ends.source} arrives as {seen.address}"
        else:
            found[name] = _judge(ends, watch, marker)
    marker = secrets.token_hex(8).encode()
    wrong = ping(ends.place, ends.target, marker=marker)
    found["ICMP"] = wrong or _judge(ends, watch, marker)
    return found


def _judge(ends: Ends, watch: Watch, marker: bytes) -> str | None:
    for where, capture in (("source", watch.here), ("target", watch.there)):
        if not eventually(partial(capture.marked, marker), 1.0, 0.01):
            return f"the {where}'s capture has no such packet"
    captures = {"source": watch.here, "target": watch.there, **watch.between}
    wrong = [
        f"{name}: {frame}"
        for name, capture in captures.items()
        for frame in capture.marked(marker)
        if not _plain(frame, ends)
    ]
    if wrong:
        return "; ".join(wrong[:3])
    for group in watch.passes:
        if not eventually(partial(_passed, ends, watch, group, marker), 1.0, 0.01):
            return (
                f"no such packet on a wire of {' or '.join(group)}: a tunnel hides it"
            )
    return None


def _passed(ends: Ends, watch: Watch, nodes: Sequence[str], marker: bytes) -> bool:
    """Whether a packet went through one of these nodes as itself, beyond its taps."""
    return any(
        frame.addresses() == (ends.source, ends.target)
        and not frame.interface.startswith(_TAP)
        for node in nodes
        for frame in watch.between[node].marked(marker)
    )


def _plain(frame: Frame, ends: Ends) -> bool:
    """Whether the outermost header is the exchange's own, in either direction."""
    forth = (ends.source, ends.target)
    return frame.addresses() in (forth, forth[::-1]) and frame.protocol() in _CARRIED


def _table(stage: Stage, tally: Tally, host: str) -> None:
    # A cloud may have floating IPs, and those of an earlier run be remembered.
    own = {str(a) for site in stage.on("AP") for a in site.addresses}
    found = [
        line
        for line in translations(stage.cloud.place(host))
        if own & {word.rpartition("=")[2] for word in line.split()}
    ]
    tally.case(f"no NAT entry on {host}", "; ".join(found[:3]) or None)
