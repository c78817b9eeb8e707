"""All tests as two processes: what one of them finds counts, and both clean up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kernel.netns import eventually

SCRIPT = Path(__file__).parents[2] / "packaging" / "run-tests"
PASSES = "def test_it(): pass\n"
FAILS = "def test_it(): assert False, 'so it is'\n"
HANGS = """
import pathlib, time, pytest

@pytest.fixture
def thing():
    made = pathlib.Path(__file__).with_suffix(".made")
    made.touch()
    yield
    made.unlink()

def test_it(thing): time.sleep(60)
"""


def start(place: Path, kernel: str, unit: str) -> "subprocess.Popen[str]":
    for tier, text in (("kernel", kernel), ("unit", unit)):
        directory = place / "tests" / tier
        directory.mkdir(parents=True)
        (directory / f"test_{tier}.py").write_text(text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.Popen(
        [sys.executable, SCRIPT, "-p", "no:cacheprovider"],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("kernel", "unit", "code"),
    [(PASSES, PASSES, 0), (FAILS, PASSES, 1), (PASSES, FAILS, 1)],
)
def test_it_fails_where_one_of_the_two_does(
    tmp_path: Path, kernel: str, unit: str, code: int
) -> None:
    process = start(tmp_path, kernel, unit)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == code, said
    assert said.count("1 passed") + said.count("1 failed") == 2
    assert ("so it is" in said) == bool(code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_both_take_down_what_they_set_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, HANGS, HANGS)
    made = [tmp_path / f"tests/{t}/test_{t}.made" for t in ("kernel", "unit")]
    eventually(lambda: all(path.exists() for path in made), 60, "both tests run")
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2, said
    assert not [path for path in made if path.exists()]
