"""S11: instances on provider networks, to and from the outside as themselves."""

import ipaddress
import socket
from contextlib import ExitStack
from functools import partial
from itertools import permutations

from calico.verify.checks.adjacency import check_frames, check_neighbours, check_ospf
from calico.verify.checks.flat import Ends, Watch, exchange
from calico.verify.checks.hops import trace_all
from calico.verify.cloud import Address, Site
from calico.verify.probes.capture import Capture
from calico.verify.probes.echo import PORT
from calico.verify.probes.trace import judge, trace
from calico.verify.reach import Pair, reach
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """What S1-S3 say among them, and the outside both ways, without NAT."""
    sites = stage.on("PQ")
    pairs: list[Pair] = list(permutations(sites, 2))
    reach(tally, pairs)
    trace_all(tally, [pair for pair in pairs if pair[0].network == pair[1].network])
    check_neighbours(stage, tally, pairs)
    own = stage.on("P")
    check_frames(stage, tally, [(own[0], other) for other in own[1:]])
    check_ospf(tally, own)
    check_outside(stage, tally, sites)


def check_outside(stage: Stage, tally: Tally, sites: list[Site]) -> None:
    """Exchange packets with the outside, captured there and in the instance."""
    topology = stage.cloud.topology
    nodes = [*(host.name for host in topology.hosts), *topology.routers]
    with ExitStack() as stack:
        between = {n: stack.enter_context(Capture(stage.cloud.place(n))) for n in nodes}
        for site in sites:
            for address in topology.outside_addresses:
                _both_ways(stage, tally, (site, address), between)


def _both_ways(
    stage: Stage,
    tally: Tally,
    ends: tuple[Site, Address],
    between: dict[str, Capture],
) -> None:
    site, outer = ends
    outside = stage.cloud.place(stage.cloud.topology.outside)
    own = site.address(outer.version)
    passes = ((site.host.name,), stage.cloud.topology.routers)
    with Capture(site.place, site.interface) as near, Capture(outside) as far:
        out = exchange(Ends(site.place, own, outer), Watch(near, far, between, passes))
        for name, wrong in out.items():
            tally.case(f"{site.short} to {outer}, {name}", wrong)
        # The outside may speak from another of its addresses: any but a changed one.
        source = outside.inside(partial(_source, own))
        back = exchange(Ends(outside, source, own), Watch(far, near, between, passes))
        for name, wrong in back.items():
            tally.case(f"outside to {site.short}, IPv{own.version} {name}", wrong)
    path = trace(site.place, (outer, PORT))
    tally.case(f"{site.short} to {outer}, trace", judge(path))


def _source(target: Address) -> Address:
    """Return the address that a stack speaks to a target from."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(target), PORT))
        return ipaddress.ip_address(sock.getsockname()[0])
