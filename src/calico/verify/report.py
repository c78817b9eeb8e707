"""A report as JSON and as rows of a table. Pure."""

from calico.verify.result import Report, Result

COLUMNS = ("statement", "title", "cases", "verdict", "evidence")
_SHOWN = 3  # failures in the table; the JSON has all


def as_json(report: Report) -> dict[str, object]:
    """Return what the verifier's JSON says."""
    return {
        "cloud": report.cloud,
        "holds": report.holds,
        "seconds": round(report.seconds, 1),
        "statements": [_statement(result) for result in report.results],
        "notes": list(report.notes),
    }


def as_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """Return a row of COLUMNS for each statement."""
    return [
        (
            result.id,
            result.title,
            str(result.cases) if result.checked else "",
            result.verdict.value,
            _evidence(result),
        )
        for result in report.results
    ]


def _statement(result: Result) -> dict[str, object]:
    return {
        "id": result.id,
        "title": result.title,
        "verdict": result.verdict.value,
        "cases": result.cases,
        "failures": [
            {"case": failure.case, "evidence": failure.evidence}
            for failure in result.failures
        ],
        "seconds": round(result.seconds, 1),
    }


def _evidence(result: Result) -> str:
    lines = [f"{f.case}: {f.evidence}" for f in result.failures[:_SHOWN]]
    if len(result.failures) > _SHOWN:
        lines.append(f"and {len(result.failures) - _SHOWN} more")
    return "\n".join(lines)
