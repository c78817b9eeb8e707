"""The selector language of the Calico v3 model: which labels a thing must have."""

from collections.abc import Mapping
from typing import Protocol


class Selector(Protocol):
    """A condition on labels; its text is canonical, and parses to the same."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""


class _Everything:
    def matches(self, labels: Mapping[str, str]) -> bool:
        """Select whatever it is."""
        del labels
        return True

    def __str__(self) -> str:
        return "all()"


EVERYTHING: Selector = _Everything()
