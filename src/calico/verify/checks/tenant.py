"""S12: a tenant's network behind a router to an external one is as any other."""

from collections.abc import Sequence
from functools import partial
from itertools import product

from calico.verify import tenancy
from calico.verify.checks.adjacency import check_frames, check_neighbours
from calico.verify.checks.hops import trace_all
from calico.verify.checks.provider import check_outside
from calico.verify.parallel import parallel
from calico.verify.probes.echo import PORT
from calico.verify.probes.trace import trace
from calico.verify.reach import VERSIONS, Pair, both_ways, reach, title
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """Compare paths before and after there is a router; then S1-S3 and the outside."""
    t, p = stage.on(tenancy.INSIDE), stage.on("P")
    pairs: list[Pair] = both_ways([(t[0], t[1]), (t[0], t[2]), (t[0], p[1])])
    before = _lengths(pairs)
    router = tenancy.attach(stage)
    after = _lengths(pairs)
    for (pair, version), hops in before.items():
        now = after[pair, version]
        wrong = None if now == hops else f"{hops} hops without it, {now} with it"
        tally.case(f"{title(pair)}, IPv{version}: the router is no hop", wrong)
    _states(stage, tally, router)
    reach(tally, pairs)
    trace_all(tally, pairs)
    check_neighbours(stage, tally, pairs)
    check_frames(stage, tally, [(t[0], other) for other in t[1:]])
    check_outside(stage, tally, [t[0], t[2]])


def _lengths(pairs: Sequence[Pair]) -> dict[tuple[Pair, int], int]:
    """Return how many hops there are between pairs, by IP version."""
    keys = list(product(pairs, VERSIONS))
    paths = parallel(
        [
            partial(trace, pair[0].place, (pair[1].address(version), PORT))
            for pair, version in keys
        ]
    )
    return {key: len(path.hops) for key, path in zip(keys, paths, strict=True)}


def _states(stage: Stage, tally: Tally, router: str) -> None:
    api = stage.cloud.api("admin").network
    found = {"the router": api.get_router(router).status}
    for port in api.ports(device_id=router):
        found[f"its {port.device_owner} {port.id[:8]}"] = port.status
    for name, status in found.items():
        wrong = None if status == "ACTIVE" else str(status)
        tally.case(f"{name} is ACTIVE", wrong)
    wrong = None if len(found) == 1 + 1 + 2 else f"there are {sorted(found)}"
    tally.case("it has a gateway and two interfaces", wrong)
