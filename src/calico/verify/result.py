"""What a run of the verifier finds: cases, failures, and the verdict they amount to.

A statement is never given the benefit of the doubt: without a single case that ran it
does not hold, and one that nobody has written a check for says so.
"""

import threading
from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What is said about a statement; the values are the JSON's."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One case that went wrong, and what was seen instead."""

    case: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one statement.

    `checked` is False where no check exists or where it was not asked for.
    """

    id: str
    title: str
    checked: bool
    cases: int = 0
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Return the verdict; nothing tried is a failure, not a success."""
        if not self.checked:
            return Verdict.NOT_CHECKED
        if self.failures or not self.cases:
            return Verdict.FAILS
        return Verdict.HOLDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run: where, how long, and each statement's result in order."""

    cloud: str
    seconds: float
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no statement fails."""
        return all(result.verdict is not Verdict.FAILS for result in self.results)


@dataclass(slots=True)
class Tally:
    """Counts the cases of one statement while they run, from any thread."""

    cases: int = 0
    failures: list[Failure] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def case(self, what: str, wrong: str | None) -> None:
        """Count a case; `wrong` is the evidence if it failed, else None."""
        with self._lock:
            self.cases += 1
            if wrong is not None:
                self.failures.append(Failure(case=what, evidence=wrong))

    def result(self, statement: tuple[str, str], seconds: float) -> Result:
        """Return what the cases amount to for a statement (id, title)."""
        with self._lock:
            failures = self.failures or (
                [] if self.cases else [Failure(case="any", evidence="no case was run")]
            )
            return Result(
                id=statement[0],
                title=statement[1],
                checked=True,
                cases=self.cases,
                failures=tuple(failures),
                seconds=seconds,
            )
