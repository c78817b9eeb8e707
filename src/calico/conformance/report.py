"""What runs have shown, as JSON and as the page of the documentation. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from calico.conformance.inapplicable import Inapplicable, Mode
from calico.conformance.judgement import SUITES, Judgement
from calico.conformance.result import Outcome, Result

_INTRODUCTION = """\
# Conformance

What OpenStack's own API test suites say of Neutron with `core_plugin = calico`: written
by `make conformance`, which makes a lab of two hosts, runs them in it, and fails where
a test fails, or is skipped, that is not in
[the list](../src/calico/conformance/inapplicable.toml) with its reason; and where one
that is in it passes.

They run twice: with `overlapping_subnets = refuse`, which is the default, and `audit`.
The suites prove the API, not the network; for that there is
[`calico verify`](verify.md).

```console
# make conformance
# make conformance ARGS='--mode audit --only test_quotas'      a part, this page stays
# make conformance ARGS=--keep                                 the lab stays up
```
"""
_SUITES_TABLE = """
| suite | mode | tests | passed | skipped by the suite | cannot pass | failed |
|---|---|---|---|---|---|---|
"""
_SKIPPED = """
## What the suites skip

Because the API does not offer what these tests are about.
"""
_REFUSED = """
## What is refused

These run, and the API refuses what they ask for.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many tests of a suite ended how, in a mode."""

    passed: int
    skipped: int
    cannot: int
    failed: int

    @property
    def tests(self) -> int:
        """Return how many there are."""
        return self.passed + self.skipped + self.cannot + self.failed


def counts(judgement: Judgement, suite: str) -> Counts:
    """Count the tests of a suite."""
    listed = [result for found in judgement.cannot.values() for result in found]
    skipped = [result for result in listed if result.outcome is Outcome.SKIPPED]
    every = len(_of(listed, suite))
    return Counts(
        passed=len(_of(judgement.passed, suite)),
        skipped=len(_of(skipped, suite)),
        cannot=every - len(_of(skipped, suite)),
        failed=len(_of(judgement.failures, suite)),
    )


def as_page(judgements: Sequence[Judgement], versions: Mapping[str, str]) -> str:
    """Return the page of whole runs; `versions` are of the packages that were run."""
    named = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
    rows = "".join(
        _row(f"`{suite}`", judgement.mode, *_cells(counts(judgement, suite)))
        for suite in SUITES
        for judgement in judgements
    )
    entries = _entries(judgements)
    skipped = "".join(_reason(one, judgements) for one in entries if not one.fails)
    refused = "".join(_reason(one, judgements) for one in entries if one.fails)
    head = f"{_INTRODUCTION}\nLast run with {named}.\n"
    return f"{head}{_SUITES_TABLE}{rows}{_SKIPPED}{skipped}{_REFUSED}{refused}"


def as_json(
    judgements: Sequence[Judgement], versions: Mapping[str, str]
) -> dict[str, object]:
    """Return all of it: what did not pass and what was said of it, the rest by time."""
    return {
        "conforms": all(judgement.conforms for judgement in judgements),
        "versions": dict(versions),
        "runs": [_run(judgement) for judgement in judgements],
    }


def _run(judgement: Judgement) -> dict[str, object]:
    return {
        "mode": judgement.mode.value,
        "suites": {
            suite: dict(
                zip(
                    ("tests", "passed", "skipped", "cannot", "failed"),
                    _cells(counts(judgement, suite)),
                    strict=True,
                )
            )
            for suite in SUITES
        },
        "passed": {one.test: round(one.seconds, 1) for one in judgement.passed},
        "failures": [_told(result) for result in judgement.failures],
        "stale": list(judgement.stale),
        "cannot": [
            {"because": entry.because, "tests": [_told(result) for result in found]}
            for entry, found in judgement.cannot.items()
        ],
    }


def _told(result: Result) -> dict[str, str]:
    return {
        "test": result.test,
        "outcome": result.outcome.value,
        "detail": result.detail,
    }


def _cells(found: Counts) -> tuple[int, int, int, int, int]:
    return found.tests, found.passed, found.skipped, found.cannot, found.failed


def _entries(judgements: Collection[Judgement]) -> list[Inapplicable]:
    """Return the entries that any run has met, by their reasons."""
    met = {entry for judgement in judgements for entry in judgement.cannot}
    return sorted(met, key=lambda entry: entry.because)


def _reason(entry: Inapplicable, judgements: Sequence[Judgement]) -> str:
    """Return a reason, how many tests it is about, and their names in the list."""
    number = max(len(judgement.cannot.get(entry, ())) for judgement in judgements)
    only = (
        "" if set(Mode) == set(entry.modes) else f", in {', '.join(entry.modes)} only"
    )
    names = "".join(f"- `{_short(name)}`\n" for name in sorted(entry.tests))
    tests = "test" if number == 1 else "tests"
    return f"\n**{entry.because}** {number} {tests}{only}:\n\n{names}"


def _short(name: str) -> str:
    """Return a test's name without what its suite's tests all begin with."""
    for suite in SUITES:
        if name.startswith(f"{suite}."):
            return f"{suite.partition('.')[0]}: {name[len(suite) + 1 :]}"
    return name


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def _of(results: Collection[Result], suite: str) -> list[Result]:
    return [result for result in results if result.test.startswith(f"{suite}.")]
