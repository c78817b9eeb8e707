"""S2: the path between instances consists of IP hops that answer."""

from collections.abc import Iterable
from functools import partial
from itertools import permutations

from calico.verify.parallel import parallel
from calico.verify.probes.echo import PORT
from calico.verify.probes.trace import judge, trace
from calico.verify.reach import VERSIONS, Pair, title
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """Trace every ordered pair of one network."""
    trace_all(tally, permutations(stage.on("A"), 2))


def trace_all(tally: Tally, pairs: Iterable[Pair], why: str = "") -> None:
    """Count a case for each pair and IP version."""
    parallel([partial(_case, tally, p, v, why) for p in pairs for v in VERSIONS])


def _case(tally: Tally, pair: Pair, version: int, why: str) -> None:
    path = trace(pair[0].place, (pair[1].address(version), PORT))
    tally.case(f"{why}{title(pair)}, IPv{version} trace", judge(path))
