"""S18: a port that is set down is cut off at once, both ways, and comes back."""

import time
from functools import partial
from itertools import product
from typing import Any

from calico.verify.checks.groups import WITHIN, course
from calico.verify.cloud import Site
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.flows import Flow, FlowFailed, Flows, cut, goes_on
from calico.verify.reach import PROTOCOLS, VERSIONS, Pair, attempt, both_ways, title
from calico.verify.result import Tally
from calico.verify.stage import Stage

_BACK = 10.0
_PORT = 8201


def check(stage: Stage, tally: Tally) -> None:
    """Set a port down under running exchanges, to it and from it, and up again."""
    g = stage.sites
    api = stage.cloud.api("demo1").network
    subject, others = g["g1"], (g["g2"], g["g4"])
    pairs = both_ways((subject, other) for other in others)
    with Flows() as flows:
        concerned = _begin(tally, flows, pairs)
        untouched = _begin(tally, flows, [(g["g2"], g["g4"])])
        try:
            api.update_port(subject.port, admin_state_up=False)
            since = time.monotonic()
            for flow, wrong in cut(concerned, since, WITHIN).items():
                tally.case(f"down cuts {flow.course.name}", wrong)
            for flow, wrong in goes_on(untouched).items():
                tally.case(f"down leaves {flow.course.name}", wrong)
            _nothing(tally, pairs)
            tally.case("its status is DOWN", _status(api, subject, "DOWN"))
        finally:
            api.update_port(subject.port, admin_state_up=True)
        flows.end(concerned)
    _everything(tally, pairs)
    tally.case("its status is ACTIVE again", _status(api, subject, "ACTIVE"))


def _begin(tally: Tally, flows: Flows, pairs: list[Pair]) -> list[Flow]:
    begun: list[Flow] = []

    def start(pair: Pair, kind: str, version: int) -> None:
        wanted = course(*pair, kind, (version, _PORT + pairs.index(pair)))
        try:
            begun.append(flows.begin(wanted))
        except FlowFailed as e:
            tally.case(f"{wanted.name} begins", str(e))

    kinds = list(product(pairs, ("TCP", "UDP"), VERSIONS))
    parallel([partial(start, *each) for each in kinds])
    tally.case(f"{len(kinds)} exchanges begin", None if begun else "none of them")
    return begun


def _nothing(tally: Tally, pairs: list[Pair]) -> None:
    """Count what still gets through: it must be nothing."""

    def case(pair: Pair, protocol: str, version: int) -> None:
        wrong = PROTOCOLS[protocol](pair[0].place, pair[1].address(version))
        name = f"down: {title(pair)}, IPv{version} {protocol} fails"
        tally.case(name, None if wrong else "it is answered")

    parallel([partial(case, *each) for each in product(pairs, PROTOCOLS, VERSIONS)])


def _everything(tally: Tally, pairs: list[Pair]) -> None:
    """Count what comes back once the port is up."""

    def case(pair: Pair, protocol: str, version: int) -> None:
        said: list[str | None] = []

        def works() -> bool:
            said.append(attempt(protocol, pair[0].place, pair[1].address(version)))
            return said[-1] is None

        eventually(works, _BACK)
        tally.case(f"up again: {title(pair)}, IPv{version} {protocol}", said[-1])

    parallel([partial(case, *each) for each in product(pairs, PROTOCOLS, VERSIONS)])


def _status(api: Any, site: Site, wanted: str) -> str | None:
    def found() -> bool:
        return bool(api.get_port(site.port).status == wanted)

    return None if eventually(found, _BACK) else f"not within {_BACK:g} s"
