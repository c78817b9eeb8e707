"""The objects under one prefix, of which one that changes costs itself alone."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_T = TypeVar("_T")
_V = TypeVar("_V")


class AnyShelf(Protocol):
    """The objects under one prefix."""

    prefix: str

    def take(self, key: str, value: bytes | None) -> None:
        """Take what is under a key now; None if nothing. Raises what is wrong."""


class Shelf(Generic[_T, _V]):
    """The objects under one prefix, and what they come to in a world."""

    def __init__(
        self,
        prefix: str,
        parse: Callable[[str, bytes], _T],
        gather: Callable[[list[_T]], _V],
    ) -> None:
        self.prefix = prefix
        self._parse = parse
        self._gather = gather
        self._found: dict[str, _T] = {}
        self._value: _V | None = None

    def take(self, key: str, value: bytes | None) -> None:
        """Take what is under a key now; None if nothing. Raises what is wrong."""
        self._found.pop(key, None)
        self._value = None
        if value is not None:
            self._found[key] = self._parse(key.removeprefix(self.prefix), value)

    @property
    def value(self) -> _V:
        """Return what the objects come to, in the order of their keys."""
        if self._value is None:
            self._value = self._gather([one for _, one in sorted(self._found.items())])
        return self._value
