"""What must change to get from what there is to what is wanted. Pure and generic."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff(Generic[K, V]):
    """What to put (new, or with another value than now) and what to drop.

    A key is never in both: an applier that has to remove an old value before it can put
    the new one finds the old one in `replaced`.
    """

    put: Mapping[K, V]
    drop: Mapping[K, V]
    replaced: Mapping[K, V]

    def __bool__(self) -> bool:
        return bool(self.put or self.drop)


def diff(want: Mapping[K, V], have: Mapping[K, V]) -> Diff[K, V]:
    """Return the changes that turn `have` into `want`, and nothing else."""
    put = {key: value for key, value in want.items() if have.get(key) != value}
    return Diff(
        put=put,
        drop={key: value for key, value in have.items() if key not in want},
        replaced={key: have[key] for key in put if key in have},
    )
