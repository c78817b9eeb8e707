"""What results of OpenStack's suites mean: counted, compared with the list, told."""

import io
from datetime import UTC, datetime

import pytest
import subunit  # type: ignore[import-untyped]  # carries no types

from calico.conformance import inapplicable, lanes, report, run, stream
from calico.conformance.inapplicable import Inapplicable, Mode
from calico.conformance.judgement import is_expected, judge
from calico.conformance.result import Outcome, Result, complete
from calico.model.ids import Invalid

ROOT = "tempest.api.network"
ONE, TWO = f"{ROOT}.test_a.Class.test_one", f"{ROOT}.test_a.Class.test_two"
OTHER = f"{ROOT}.test_b.Class.test_one"


def passed(test: str) -> Result:
    return Result(test=test, outcome=Outcome.PASSED)


def skipped(test: str, reason: str = "trunk extension not enabled.") -> Result:
    return Result(test=test, outcome=Outcome.SKIPPED, detail=reason)


def failed(test: str, detail: str = "Traceback\nConflict: no") -> Result:
    return Result(test=test, outcome=Outcome.FAILED, detail=detail)


def because(*tests: str, fails: bool = False, mode: Mode | None = None) -> Inapplicable:
    modes = (mode,) if mode else tuple(Mode)
    return Inapplicable(because="so", tests=tests, fails=fails, modes=modes)


# What became of each test


def test_each_test_of_a_class_that_is_skipped_is_skipped() -> None:
    said = [skipped(f"setUpClass ({ROOT}.test_a.Class)"), passed(OTHER)]
    assert complete([ONE, TWO, OTHER], said) == (
        skipped(ONE),
        skipped(TWO),
        passed(OTHER),
    )


def test_a_class_with_a_like_name_is_another() -> None:
    said = [skipped(f"setUpClass ({ROOT}.test_a.Cl)"), passed(ONE)]
    assert [r.outcome for r in complete([ONE, TWO], said)] == ["passed", "failed"]


def test_a_test_that_nobody_speaks_of_has_failed() -> None:
    assert complete([ONE], []) == (failed(ONE, "it did not run"),)


def test_a_failing_end_of_a_class_is_a_failure_of_its_own() -> None:
    said = [passed(ONE), failed(f"tearDownClass ({ROOT}.test_a.Class)")]
    assert complete([ONE], said) == (
        failed(f"{ROOT}.test_a.Class.tearDownClass"),
        passed(ONE),
    )


def test_results_come_out_of_subunit() -> None:
    source = io.BytesIO()
    writer = subunit.StreamResultToBytes(source)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    writer.status(test_id=f"{ONE}[id-1,smoke]", test_status="exists")
    for status, name, said in (
        ("success", f"{ONE}[id-1,smoke]", None),
        ("skip", TWO, ("reason", b"no trunk")),
        ("fail", OTHER, ("traceback", b"Traceback\nConflict: no\n")),
    ):
        writer.status(test_id=name, test_status="inprogress", timestamp=now)
        if said:
            file, content = said
            writer.status(
                test_id=name,
                file_name=file,
                file_bytes=content,
                eof=True,
                mime_type="text/plain; charset=utf8",
            )
        writer.status(test_id=name, test_status=status, timestamp=now)
    writer.status(test_id="x.y.began", test_status="inprogress", timestamp=now)
    source.seek(0)
    assert stream.names(source) == (f"{ONE}[id-1,smoke]",)
    source.seek(0)
    found: list[Result] = []
    stream.results(source, found.append)
    assert [(r.test, str(r.outcome), r.brief) for r in found] == [
        (ONE, "passed", ""),
        (TWO, "skipped", "no trunk"),
        (OTHER, "failed", "Conflict: no"),
        ("x.y.began", "failed", ""),
    ]


# Whether that is as it should be


@pytest.mark.parametrize("result", [skipped(ONE), failed(ONE)], ids=str)
def test_what_is_not_listed_must_pass(result: Result) -> None:
    judgement = judge(Mode.AUDIT, [result, passed(TWO)], [], whole=True)
    assert judgement.failures == (result,)
    assert not judgement.conforms


@pytest.mark.parametrize(
    "name", [ONE, f"{ROOT}.test_a.Class", f"{ROOT}.test_a"], ids=str
)
def test_a_test_is_listed_by_itself_its_class_or_its_module(name: str) -> None:
    entry = because(name)
    judgement = judge(Mode.AUDIT, [skipped(ONE), passed(OTHER)], [entry], whole=True)
    assert judgement.conforms
    assert judgement.cannot == {entry: (skipped(ONE),)}


def test_a_part_of_a_name_lists_nothing() -> None:
    judgement = judge(
        Mode.AUDIT, [skipped(ONE)], [because(f"{ROOT}.test")], whole=False
    )
    assert judgement.failures == (skipped(ONE),)


def test_a_listed_test_that_passes_makes_the_list_stale() -> None:
    judgement = judge(
        Mode.AUDIT,
        [passed(ONE), skipped(TWO)],
        [because(f"{ROOT}.test_a")],
        whole=False,
    )
    assert judgement.stale == (f"{ROOT}.test_a: {ONE} passes",)
    assert not judgement.conforms


@pytest.mark.parametrize(("whole", "conforms"), [(True, False), (False, True)])
def test_a_name_of_no_test_is_stale_in_a_whole_run(
    *, whole: bool, conforms: bool
) -> None:
    judgement = judge(Mode.AUDIT, [passed(ONE)], [because(OTHER)], whole=whole)
    assert judgement.conforms is conforms


def test_an_entry_for_one_mode_says_nothing_of_the_other() -> None:
    entry = because(ONE, fails=True, mode=Mode.REFUSE)
    assert judge(Mode.REFUSE, [failed(ONE)], [entry], whole=True).conforms
    assert judge(Mode.AUDIT, [passed(ONE)], [entry], whole=True).conforms
    assert not judge(Mode.AUDIT, [failed(ONE)], [entry], whole=True).conforms


def test_a_skipped_test_is_not_excused_for_failing() -> None:
    assert not judge(Mode.AUDIT, [failed(ONE)], [because(ONE)], whole=True).conforms


def test_a_servers_fault_is_never_excused() -> None:
    fault = failed(ONE, "Traceback\ntempest...ServerFault: Got server fault\nDetails")
    entry = because(ONE, fails=True)
    assert not judge(Mode.AUDIT, [fault], [entry], whole=True).conforms


def test_progress_tells_only_of_what_is_not_listed() -> None:
    entries = [because(ONE, fails=True, mode=Mode.REFUSE)]
    assert is_expected(Mode.REFUSE, failed(ONE), entries)
    assert is_expected(Mode.REFUSE, passed(TWO), entries)
    assert not is_expected(Mode.AUDIT, failed(ONE), entries)
    assert not is_expected(Mode.REFUSE, failed(TWO), entries)


def test_a_tests_own_entry_counts_before_its_modules() -> None:
    module, own = because(f"{ROOT}.test_a"), because(TWO, fails=True)
    results = [skipped(ONE), failed(TWO)]
    assert judge(Mode.AUDIT, results, [module, own], whole=True).conforms


# The list


def test_the_list_that_is_kept_can_be_read() -> None:
    assert run.the_list()


@pytest.mark.parametrize(
    "text",
    [
        "[[cannot]]\nbecause = ''\ntests = ['a']",
        "[[cannot]]\nbecause = 'so'\ntests = []",
        "[[cannot]]\nbecause = 'so'\ntests = ['a']\nmodes = ['strict']",
        "[[cannot]]\nbecause='so'\ntests=['a']\n[[cannot]]\nbecause='so'\ntests=['a']",
        "[[must]]\nbecause = 'so'\ntests = ['a']",
        "cannot",
    ],
    ids=["no reason", "no test", "no such mode", "twice", "unknown", "no TOML"],
)
def test_a_list_of_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        inapplicable.load(text)


# What runs beside what


def test_tests_that_name_ranges_run_one_after_another() -> None:
    tests = [
        f"{ROOT}.{module}.C.test_{n}[id-{n}]" for n in range(9) for module in "abc"
    ]
    first, second = lanes.split(tests, lambda module: module[-1] in "ab")
    assert sorted(first.tests) == sorted(t for t in tests if ".c." not in t)
    assert sorted(second.tests) == sorted(t for t in tests if ".c." in t)
    assert {first.cidr4, first.cidr6}.isdisjoint({second.cidr4, second.cidr6})


def test_modules_stay_whole_and_lanes_are_even() -> None:
    sizes = {"a": 5, "b": 4, "c": 3, "d": 2}
    tests = [f"{ROOT}.{m}.C.test_{n}" for m, size in sizes.items() for n in range(size)]
    found = lanes.split(tests, lambda _: False)
    assert [len(lane.tests) for lane in found] == [7, 7]
    assert len({t.split(".")[3] for t in found[0].tests}) == 2


def test_one_test_makes_one_lane() -> None:
    assert len(lanes.split([ONE], lambda _: True)) == 1


# The page


def test_the_page_counts_what_passed_and_what_could_not() -> None:
    entry = because(ONE)
    refused = because(TWO, fails=True, mode=Mode.REFUSE)
    judgements = [
        judge(
            Mode.REFUSE,
            [skipped(ONE), failed(TWO), passed(OTHER)],
            [entry, refused],
            whole=True,
        ),
        judge(
            Mode.AUDIT,
            [skipped(ONE), passed(TWO), passed(OTHER)],
            [entry, refused],
            whole=True,
        ),
    ]
    page = report.as_page(judgements, {"tempest": "1"})
    assert "| `tempest.api.network` | refuse | 3 | 1 | 1 | 1 | 0 |" in page
    assert "| `tempest.api.network` | audit | 3 | 2 | 1 | 0 | 0 |" in page
    left_out, _, could_not = page.partition("## What is refused")
    assert "**so** 1 test:\n\n- `tempest: test_a.Class.test_one`\n" in left_out
    expected = "**so** 1 test, in refuse only:\n\n- `tempest: test_a.Class.test_two`\n"
    assert expected in could_not
    assert report.as_json(judgements, {})["conforms"] is True


def test_the_json_has_what_a_failing_test_said() -> None:
    judgement = judge(Mode.AUDIT, [failed(ONE)], [], whole=True)
    told = report.as_json([judgement], {})
    assert told["conforms"] is False
    assert "Conflict: no" in str(told["runs"])
