"""A run of the verifier: set up, check, take away, whatever happens."""

import time
from collections.abc import Collection

from calico.lab.build import say, undisturbed
from calico.verify.cloud import Cloud, CloudError
from calico.verify.result import Failure, Report, Result, Tally
from calico.verify.stage import Stage, Tell
from calico.verify.statements import STATEMENTS, Statement


def verify(cloud: Cloud, chosen: Collection[str], tell: Tell) -> Report:
    """Check the chosen statements (ids) and return what was found.

    Everything that was set up is gone afterwards, after Ctrl-C too. Errors in a check
    or in its set-up are failures of the statement, not exceptions. CloudError where
    nothing could begin.
    """
    start = time.monotonic()
    results: dict[str, Result] = {}
    with Stage(cloud, tell) as stage:
        try:
            tell("setting up")
            _open(stage)
            checked = [s for s in STATEMENTS if s.check and s.id in chosen]
            if any("M" in s.needs for s in checked):
                stage.many.begin()
            for statement in sorted(checked, key=lambda s: s.last):
                results[statement.id] = _run(stage, statement)
                if "M" in statement.needs:
                    stage.dismiss_many()
        finally:
            with undisturbed():
                say(tell, "cleaning up")
                stage.sweep()
    return Report(
        cloud=cloud.name,
        seconds=time.monotonic() - start,
        results=tuple(results.get(s.id, _not_checked(s)) for s in STATEMENTS),
        notes=tuple(dict.fromkeys(stage.notes)),
    )


def _open(stage: Stage) -> None:
    try:
        stage.open()
    except Exception as e:
        raise CloudError(f"the verifier cannot begin: {e}") from e


def _run(stage: Stage, statement: Statement) -> Result:
    tally, start = Tally(), time.monotonic()
    phase = "set-up"
    try:
        stage.need(statement.needs)
        stage.tell(f"{statement.id}: {statement.title}")
        phase = "check"
        assert statement.check is not None  # noqa: S101 - the caller chose those
        statement.check(stage, tally)
    except Exception as e:  # noqa: BLE001 - whatever it is, nothing has been proved
        tally.failures.append(Failure(case=phase, evidence=f"{type(e).__name__}: {e}"))
    named = (statement.id, statement.title)
    return tally.result(named, time.monotonic() - start)


def _not_checked(statement: Statement) -> Result:
    return Result(id=statement.id, title=statement.title, checked=False)
