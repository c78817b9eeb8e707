"""The list of tests that cannot apply to a routed network, and why. Pure.

A TOML file of entries, each a reason with the tests that it is about:

    [[cannot]]
    because = "there are no VLANs"
    tests = ["neutron_tempest_plugin.api.test_trunk"]

A test is named by its id, or its class's, or its module's. `fails = true` says that the
suite does not skip them by itself; `modes` that they cannot in these alone.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from calico.conformance.result import Outcome, Result
from calico.model.ids import Invalid


class Mode(StrEnum):
    """What the API does where two subnets would overlap: `overlapping_subnets`."""

    REFUSE = "refuse"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inapplicable:
    """Tests that cannot apply, by what their ids begin with, and the reason."""

    because: str
    tests: tuple[str, ...]
    fails: bool = False
    modes: tuple[Mode, ...] = (Mode.REFUSE, Mode.AUDIT)

    def __post_init__(self) -> None:
        if not self.because.strip():
            raise Invalid(f"no reason is given for {', '.join(self.tests)}")
        if not (self.tests and self.modes):
            raise Invalid(f"{self.because!r} is about no test, or in no mode")

    @property
    def outcome(self) -> Outcome:
        """Return how the tests end."""
        return Outcome.FAILED if self.fails else Outcome.SKIPPED

    def names(self, test: str) -> str | None:
        """Return which of its names means a test, None if none does."""
        for name in self.tests:
            if test == name or test.startswith(f"{name}."):
                return name
        return None

    def explains(self, result: Result) -> bool:
        """Tell whether a test's end is what the entry says.

        A server's fault (500) is never what it should be.
        """
        return (
            result.outcome is self.outcome and "Got server fault" not in result.detail
        )


def load(text: str) -> tuple[Inapplicable, ...]:
    """Return the entries of a TOML file; Invalid for what is none."""
    try:
        found = msgspec.convert(
            tomllib.loads(text), dict[str, list[Inapplicable]], strict=True
        )
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise Invalid(f"the list of inapplicable tests: {e}") from e
    entries = tuple(found.pop("cannot", ()))
    if found:
        raise Invalid(f"the list of inapplicable tests: what is {min(found)!r}?")
    _refuse_twice(name for entry in entries for name in entry.tests)
    return entries


def _refuse_twice(names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise Invalid(f"the list of inapplicable tests: {name} is there twice")
        seen.add(name)
