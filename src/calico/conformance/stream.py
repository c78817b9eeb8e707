"""Results out of subunit, the protocol in which OpenStack's test runner speaks.

The one module that knows the libraries for it, which carry no types.
"""

from collections.abc import Callable, Iterator
from typing import IO, Any

import subunit  # type: ignore[import-untyped]  # carries no types
import testtools

from calico.conformance.result import Outcome, Result, bare

_OUTCOMES = {
    "success": Outcome.PASSED,
    "xfail": Outcome.PASSED,
    "skip": Outcome.SKIPPED,
}
_LISTED = "exists"
_SAID = ("reason", "traceback")  # of what a test attaches, what says why


def names(source: IO[bytes]) -> tuple[str, ...]:
    """Return the ids that a runner lists, as it wants them given back."""
    return tuple(test["id"] for test in _tests(source) if test["status"] == _LISTED)


def results(source: IO[bytes], take: Callable[[Result], None]) -> None:
    """Give each result as it comes, until the stream ends."""

    def each(test: Any) -> None:
        if test["status"] != _LISTED:  # a runner lists what it is about to run
            take(_result(test))

    _read(source, each)


def _result(test: Any) -> Result:
    # What began and never ended has no outcome of its own: it has failed.
    outcome = _OUTCOMES.get(test["status"], Outcome.FAILED)
    started, ended = test["timestamps"]
    seconds = (ended - started).total_seconds() if started and ended else 0.0
    said = [test["details"][name] for name in _SAID if name in test["details"]]
    return Result(
        test=bare(test["id"]),
        outcome=outcome,
        detail="\n".join(part.as_text() for part in said),
        seconds=seconds,
    )


def _tests(source: IO[bytes]) -> Iterator[Any]:
    found: list[Any] = []
    _read(source, found.append)
    yield from found


def _read(source: IO[bytes], take: Callable[[Any], None]) -> None:
    sink = testtools.StreamToDict(take)
    sink.startTestRun()
    subunit.ByteStreamToStreamResult(source, non_subunit_name="stdout").run(sink)
    sink.stopTestRun()
