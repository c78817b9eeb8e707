"""Running OpenStack's suites: a process for each lane, one test after another in it."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from calico.conformance import stream
from calico.conformance.judgement import SUITES
from calico.conformance.lanes import Lane
from calico.conformance.result import Result, bare
from calico.lab.namespaces import LabFailed
from calico.lab.settings import Sections, write_settings

_RUNNER = "stestr.subunit_runner.run"
_RANGE = re.compile(r"""["'][0-9a-fA-F.:]+[.:][0-9a-fA-F.:]*/\d+["']""")
_GRACE = 20.0  # seconds for what a test cleans up when it is interrupted

Settings = Callable[[Lane], Sections]


def listed(settings: Sections, directory: Path) -> tuple[str, ...]:
    """Return all tests of the suites, by the ids that their runner knows them by."""
    with _runner(settings, directory, "--list") as process:
        assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
        found = stream.names(process.stdout)
    tests = [name for name in found if bare(name).startswith(tuple(map(_in, SUITES)))]
    if not tests:
        raise LabFailed(f"no test was found; {directory}/{_LOG} may say why")
    return tuple(sorted(tests))


def run(
    lanes: Sequence[Lane],
    settings: Settings,
    directory: Path,
    take: Callable[[Result], None],
) -> None:
    """Run all lanes at once; `take` is given each result, from any thread.

    Whatever interrupts it ends the lanes first.
    """
    with ThreadPoolExecutor(len(lanes)) as pool:
        running: list[subprocess.Popen[bytes]] = []
        interrupted = threading.Event()

        def follow(lane: Lane) -> None:
            place = directory / lane.name
            with _runner(settings(lane), place, "--load-list", tests=lane.tests) as one:
                running.append(one)
                if interrupted.is_set():
                    return
                assert one.stdout is not None  # noqa: S101 - a pipe, as asked for
                stream.results(one.stdout, take)

        waiting = [pool.submit(follow, lane) for lane in lanes]
        try:
            for each in waiting:
                each.result()
        except BaseException:
            interrupted.set()
            for process in running:
                _end(process)
            raise


def names_ranges(module: str) -> bool:
    """Tell whether a module of tests has addresses of subnets in its text."""
    spec = importlib.util.find_spec(module)
    return bool(
        spec and spec.origin and _RANGE.search(Path(spec.origin).read_text("utf-8"))
    )


_LOG = "runner.log"


@contextmanager
def _runner(
    settings: Sections, directory: Path, *options: str, tests: Sequence[str] = ()
) -> "Iterator[subprocess.Popen[bytes]]":
    """Start the suites' runner; it is gone when this ends."""
    write_settings(directory / "tempest.conf", settings)
    environment = os.environ | {
        "TEMPEST_CONFIG_DIR": str(directory),
        "TEMPEST_CONFIG": "tempest.conf",
        "PYTHONWARNINGS": "ignore",
        "HOME": str(directory),
    }
    with tempfile.NamedTemporaryFile("w", dir=directory) as wanted:
        wanted.write("".join(f"{test}\n" for test in tests))
        wanted.flush()
        command = [sys.executable, "-m", _RUNNER, "discover", *_place(), *options]
        command += [wanted.name] if tests else []
        with (
            (directory / _LOG).open("ab") as log,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=directory,  # where the suites leave their logs
                start_new_session=True,  # Ctrl-C is ours, and it is told in turn
            ) as process,
        ):
            try:
                yield process
            finally:
                _end(process)


def _place() -> list[str]:
    """Return where the runner finds tests: `load_tests` there asks all plugins."""
    spec = importlib.util.find_spec("tempest")
    if spec is None or spec.origin is None:
        raise LabFailed("tempest is not installed: `make setup` does it")
    package = Path(spec.origin).parent
    return ["-t", str(package.parent), str(package / "test_discover")]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a runner, and let it clean up; it may have ended already."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _in(suite: str) -> str:
    return f"{suite}."
