"""S7 and S8: instances of different networks are as near to each other as of one."""

from itertools import permutations
from typing import Any

from calico.verify.checks.adjacency import check_frames, check_neighbours, check_ospf
from calico.verify.checks.hops import trace_all
from calico.verify.cloud import CloudError, Site
from calico.verify.reach import Pair, reach
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """S7: what S1, S2 and S3 say, for every kind of pair of different networks."""
    pairs = different(stage.on("ABCPQ"))
    kinds = {_kind(stage, pair) for pair in pairs}
    for kind in _KINDS:
        tally.case(f"tried: {kind}", None if kind in kinds else "no such pair")
    reach(tally, pairs)
    some = _one_of_each(stage, pairs)
    trace_all(tally, some)
    check_neighbours(stage, tally, pairs)
    check_frames(stage, tally, some)
    first = {stage.net_of(s).plan.key: s for s in reversed(stage.on("ABPQ"))}
    check_ospf(tally, list(first.values()))


_KINDS = (
    "provider with provider",
    "provider with tenant",
    "tenant with tenant of one project",
    "tenant with tenant of another project",
)


def check_without_router(stage: Stage, tally: Tally) -> None:
    """S8: no router is attached to the networks, and still they reach each other."""
    api = stage.cloud.api("admin").network
    for key in "ABC":
        ports = list(api.ports(network_id=stage.nets[key].id))
        attached = [p.id for p in ports if p.device_owner.startswith("network:router")]
        wrong = f"router ports {attached}" if attached else None
        tally.case(f"network {key} is attached to no router", wrong)
    count = _routers(api)
    if count:
        stage.notes.append(f"S8 was tried with {count} routers in the deployment")
    why = "" if count else "no router at all: "
    pairs = different(stage.on("ABC"))
    reach(tally, pairs, why)
    trace_all(tally, _one_of_each(stage, pairs), why)


def different(sites: list[Site]) -> list[Pair]:
    """Return the ordered pairs that are of different networks."""
    return [(a, b) for a, b in permutations(sites, 2) if a.network != b.network]


def _routers(api: Any) -> int:
    reply = api.get("/routers")
    # Without a router plugin the API does not know the word.
    if reply.status_code == 404:
        return 0
    if reply.status_code != 200:
        raise CloudError(f"how many routers? {reply.status_code}: {reply.text[:200]}")
    return len(reply.json()["routers"])


def _kind(stage: Stage, pair: Pair) -> str:
    one, other = (stage.net_of(site).plan for site in pair)
    if one.provider and other.provider:
        return "provider with provider"
    if one.provider or other.provider:
        return "provider with tenant"
    same = "one" if one.project == other.project else "another"
    return f"tenant with tenant of {same} project"


def _one_of_each(stage: Stage, pairs: list[Pair]) -> list[Pair]:
    """Return a pair of each kind and placement."""
    chosen: dict[tuple[str, bool, bool], Pair] = {}
    for one, other in pairs:
        same = (one.host == other.host, one.host.rack == other.host.rack)
        chosen.setdefault((_kind(stage, (one, other)), *same), (one, other))
    return list(chosen.values())
