"""A run of the suites in a lab, in one mode: what to run, and what became of it."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from calico.conformance import inapplicable, lanes, settings, suites
from calico.conformance.inapplicable import Inapplicable, Mode
from calico.conformance.judgement import Judgement, is_expected, judge
from calico.conformance.result import Outcome, Result, bare, complete
from calico.lab.build import Progress
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.lab.settings import Sections

_STEP = 50  # tests between two lines of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which tests are wanted: all, or those whose ids a pattern is found in."""

    mode: Mode
    only: str | None = None

    def __post_init__(self) -> None:
        if self.only is not None:
            re.compile(self.only)


def the_list() -> tuple[Inapplicable, ...]:
    """Return the list of tests that cannot apply, as it is kept with this package."""
    text = files("calico.conformance").joinpath("inapplicable.toml").read_text("utf-8")
    return inapplicable.load(text)


def run(lab: Lab, wish: Wish, directory: Path, progress: Progress) -> Judgement:
    """Run the tests that are wanted against a lab's API as it is; judge the results.

    Logs and settings of the suites are put into the directory.
    """
    environment = dict(lab.environment())
    aliases = settings.extensions(lab)
    with settings.operated(lab) as external:

        def tempest(lane: lanes.Lane) -> Sections:
            return settings.tempest(environment, external, aliases, lane)

        anything = lanes.Lane(name="", tests=(), cidr4="", cidr6="")
        tests = suites.listed(tempest(anything), directory / "list")
        wanted = [test for test in tests if _wants(wish, test)]
        if not wanted:
            raise LabFailed(f"no test is called anything like {wish.only!r}")
        entries = the_list()
        collected = _Collected(
            progress,
            wish.mode,
            len(wanted),
            lambda result: is_expected(wish.mode, result, entries),
        )
        suites.run(
            lanes.split(wanted, suites.names_ranges),
            tempest,
            directory,
            collected.take,
        )
    results = complete([bare(test) for test in wanted], collected.results)
    return judge(wish.mode, results, entries, whole=wish.only is None)


def in_mode(lab: Lab, mode: Mode) -> None:
    """Restart a lab's Neutron with what a mode says."""
    lab.cloud.restart_neutron(settings.neutron(mode))


def _wants(wish: Wish, test: str) -> bool:
    return wish.only is None or re.search(wish.only, bare(test)) is not None


@dataclass
class _Collected:
    """Results as the lanes give them, and now and then a line of how far it is."""

    progress: Callable[[str], None]
    mode: Mode
    wanted: int
    expected: Callable[[Result], bool]
    results: list[Result] = field(default_factory=list)
    _counts: Counter[Outcome] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = field(default_factory=time.monotonic)

    def take(self, result: Result) -> None:
        with self._lock:
            self.results.append(result)
            self._counts[result.outcome] += 1
            if result.outcome is Outcome.FAILED and not self.expected(result):
                self.progress(f"{self.mode}: {result.test} fails: {result.brief}")
            if len(self.results) % _STEP == 0:
                self.progress(self._line())

    def _line(self) -> str:
        said = ", ".join(f"{self._counts[one]} {one}" for one in Outcome)
        seconds = time.monotonic() - self._began
        return f"{self.mode}: {said}, of {self.wanted} tests, after {seconds:.0f} s"
