"""What became of one test, and of all that were to run. Pure.

A suite skips or fails a whole class at once, in its set-up, and then says nothing of
the class's tests. Here each test has a result of its own, so that they can be counted.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_ATTRIBUTES = re.compile(r"\[[^]]*\]")  # [id-...,smoke] behind a test's name
_FIXTURE = re.compile(r"(setUpClass|tearDownClass) \((.+)\)")
_SET_UP = "setUpClass"


class Outcome(StrEnum):
    """How a test ended, as its suite says."""

    PASSED = "passed"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A test's end; `detail` is a skip's reason, or a failure's traceback."""

    test: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0

    @property
    def brief(self) -> str:
        """Return the last line of the detail, which says most."""
        lines = [line for line in self.detail.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


def bare(test: str) -> str:
    """Return a test's id without the attributes that its suite puts behind it."""
    return _ATTRIBUTES.sub("", test)


def class_of(test: str) -> str:
    """Return the id of a test's class."""
    return test.rpartition(".")[0]


def module_of(test: str) -> str:
    """Return the name of a test's module."""
    return class_of(class_of(test))


def complete(listed: Collection[str], said: Iterable[Result]) -> tuple[Result, ...]:
    """Return a result for each listed test, sorted; a test without one has failed.

    `listed` and the results' ids are bare. A failure of a class's end stands beside its
    tests, under an id of its own.
    """
    own: dict[str, Result] = {}
    whole: dict[str, Result] = {}
    ends: list[Result] = []
    for result in said:
        fixture = _FIXTURE.fullmatch(result.test)
        if fixture is None:
            own[result.test] = result
        elif fixture[1] == _SET_UP:
            whole[fixture[2]] = result
        elif result.outcome is Outcome.FAILED:
            ends.append(_renamed(result, f"{fixture[2]}.{fixture[1]}"))
    found = [own.get(test) or _of_class(test, whole) for test in listed]
    return tuple(sorted([*found, *ends], key=lambda result: result.test))


def _of_class(test: str, whole: Mapping[str, Result]) -> Result:
    result = whole.get(class_of(test))
    if result is None or result.outcome is Outcome.PASSED:
        return Result(test=test, outcome=Outcome.FAILED, detail="it did not run")
    return _renamed(result, test)


def _renamed(result: Result, test: str) -> Result:
    return Result(test=test, outcome=result.outcome, detail=result.detail)
