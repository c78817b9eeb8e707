"""The addresses that a remote stands for, in portions, so that a change is small."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from calico.model.ids import Prefix, is_single
from calico.plan.policy import Named

_FEW, _MANY = 512, 64  # addresses of a remote that is in one portion; else portions


class Portions:
    """The addresses of remotes in portions, so that one that comes concerns few.

    Networks are a portion of their own: they are merged with each other.
    """

    def __init__(self) -> None:
        self._known: dict[Named, _Divided] = {}

    def divide(
        self, remote: Named, prefixes: frozenset[Prefix]
    ) -> Mapping[int, frozenset[Prefix]]:
        """Return a remote's addresses by the number of their portion; none is empty."""
        count = _MANY if len(prefixes) > _FEW else 1
        known = self._known.get(remote)
        if known is None or known.count != count:
            known = _Divided(count=count)
        if known.prefixes is not prefixes:
            moved: dict[int, set[Prefix]] = defaultdict(set)
            for prefix in known.prefixes ^ prefixes:
                moved[_portion(prefix, count)].add(prefix)
            changed = {
                number: known.portions.get(number, frozenset()) ^ some
                for number, some in moved.items()
            }
            portions = {**known.portions, **changed}
            known = _Divided(
                count=count,
                prefixes=prefixes,
                portions={n: some for n, some in portions.items() if some},
            )
        self._known[remote] = known
        return known.portions

    def keep_only(self, remotes: set[Named]) -> None:
        """Forget all other remotes."""
        self._known = {r: known for r, known in self._known.items() if r in remotes}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Divided:
    count: int
    prefixes: frozenset[Prefix] = frozenset()
    portions: Mapping[int, frozenset[Prefix]] = field(default_factory=dict)


def _portion(prefix: Prefix, count: int) -> int:
    return int(prefix.network_address) % count if is_single(prefix) else -1
