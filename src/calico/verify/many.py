"""The many networks of S15, made and deleted behind the checks.

To make a hundred networks and to delete them takes Neutron most of a minute of CPU, and
the checks that come before and after wait for packets rather than compute.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from calico.verify import layout
from calico.verify.background import Background
from calico.verify.layout import NetPlan, SitePlan
from calico.verify.networks import Net

_BATCH = 10  # networks that are made by one request
_CHOSEN = (0, layout.MANY // 2, layout.MANY - 1)  # those with instances
MANY_PLANS = tuple(
    # The others are there to be many, and half their subnets do for that.
    NetPlan(
        key=layout.many_key(number),
        project="demo1",
        versions=(4, 6) if number in _CHOSEN else (4,),
    )
    for number in range(layout.MANY)
)
MANY_SITES = tuple(
    SitePlan(key=f"m{n + 1}", net=MANY_PLANS[number].key, project="demo1", where=n)
    for n, number in enumerate(_CHOSEN)
)


@dataclass
class Many:
    """The making of the many networks: `make` gives one batch of them a request."""

    background: Background
    make: Callable[[Sequence[NetPlan]], list[Net]]
    _made: list[Future[list[Net]]] = field(default_factory=list)

    def begin(self) -> None:
        """Start to make them; again is harmless."""
        if not self._made:
            starts = range(0, len(MANY_PLANS), _BATCH)
            batches = [MANY_PLANS[at : at + _BATCH] for at in starts]
            self._made = [
                self.background.begin(partial(self.make, batch)) for batch in batches
            ]

    def wait(self) -> list[Net]:
        """Return all of them, made by now if need be; raises what making one did."""
        self.begin()
        return [net for batch in self._made for net in batch.result()]
