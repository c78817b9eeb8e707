"""Whether a run's results are those that the list of inapplicable tests says. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from calico.conformance.inapplicable import Inapplicable, Mode
from calico.conformance.result import Outcome, Result

SUITES = ("tempest.api.network", "neutron_tempest_plugin.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One run: what passed, what could not, and all that should not have been.

    `cannot` has the results of tests that are listed, by the entry. `failures` are
    those that fail, or are skipped, and are not listed; `stale` are names of the list
    that mean a test which passed, or no test at all.
    """

    mode: Mode
    passed: tuple[Result, ...]
    cannot: Mapping[Inapplicable, tuple[Result, ...]]
    failures: tuple[Result, ...]
    stale: tuple[str, ...]

    @property
    def conforms(self) -> bool:
        """Tell whether all is as it should be."""
        return not (self.failures or self.stale)


def judge(
    mode: Mode,
    results: Collection[Result],
    entries: Iterable[Inapplicable],
    *,
    whole: bool,
) -> Judgement:
    """Compare results with the list; a `whole` run has all tests that there are."""
    passed, failures, stale, met = [], [], set(), set()
    cannot: dict[Inapplicable, list[Result]] = {}
    applying = [entry for entry in entries if mode in entry.modes]
    for result in results:
        entry, name = _entry(applying, result.test)
        met.add(name)
        if result.outcome is Outcome.PASSED:
            passed.append(result)
            if name:
                stale.add(f"{name}: {result.test} passes")
        elif entry and entry.explains(result):
            cannot.setdefault(entry, []).append(result)
        else:
            failures.append(result)
    if whole:
        names = {name for entry in applying for name in entry.tests}
        stale |= {f"{name}: there is no such test" for name in names - met}
    return Judgement(
        mode=mode,
        passed=tuple(passed),
        cannot={entry: tuple(found) for entry, found in cannot.items()},
        failures=tuple(failures),
        stale=tuple(sorted(stale)),
    )


def is_expected(mode: Mode, result: Result, entries: Iterable[Inapplicable]) -> bool:
    """Tell whether a result is as it should be, by itself."""
    if result.outcome is Outcome.PASSED:
        return True
    entry, _ = _entry([entry for entry in entries if mode in entry.modes], result.test)
    return entry is not None and entry.explains(result)


def _entry(
    entries: Iterable[Inapplicable], test: str
) -> tuple[Inapplicable | None, str | None]:
    """Return the entry that a test is listed in, and the name that means it.

    The longest of several: a test's own before its class's.
    """
    named = [(name, entry) for entry in entries if (name := entry.names(test))]
    if not named:
        return None, None
    name, entry = max(named, key=lambda pair: len(pair[0]))
    return entry, name
