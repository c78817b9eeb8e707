"""A daemon outlives its agent, is adopted by the next, and is never mistaken."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.netns import eventually

from calico.system.daemon import Daemon, Identity

SLEEP = ("sleep", "1000")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    it = Daemon("sleeper", SLEEP, tmp_path)
    yield it
    it.stop()


def identity(daemon: Daemon) -> Identity:
    found = daemon.identity()
    assert found is not None
    return found


def test_ensure_starts_once_in_a_session_of_its_own(daemon: Daemon) -> None:
    assert daemon.ensure() == []
    first = identity(daemon)
    assert daemon.ensure() == []
    assert identity(daemon) == first
    assert os.getsid(first.pid) == first.pid


def test_it_survives_the_kill_of_the_agent_and_is_adopted(tmp_path: Path) -> None:
    agent = f"""
import os, signal
from pathlib import Path
from calico.system.daemon import Daemon
assert Daemon("sleeper", {SLEEP!r}, Path({str(tmp_path)!r})).ensure() == []
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", agent], check=False, timeout=30)
    adopted = Daemon("sleeper", SLEEP, tmp_path)
    assert adopted.running()
    before = adopted.identity()
    assert adopted.ensure() == []
    assert adopted.identity() == before
    adopted.stop()
    assert not adopted.running()


def test_a_reused_pid_is_not_ours_and_is_not_killed(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP) as foreign:
        try:
            (tmp_path / "sleeper.pid").write_text(f"{foreign.pid} 1\n")
            daemon = Daemon("sleeper", SLEEP, tmp_path)
            assert not daemon.running()
            assert not daemon.signal(signal.SIGKILL)
            daemon.stop()
            assert foreign.poll() is None
        finally:
            foreign.kill()


def test_another_program_with_the_recorded_start_time_is_not_ours(
    tmp_path: Path,
) -> None:
    sleeper = Daemon("sleeper", SLEEP, tmp_path)
    assert sleeper.ensure() == []
    try:
        other = Daemon("sleeper", ("tail", "-f", "/dev/null"), tmp_path)
        assert not other.running()
        assert not other.signal(signal.SIGTERM)
        assert sleeper.running()
    finally:
        sleeper.stop()


def test_a_lost_pid_file_does_not_lose_the_process(tmp_path: Path) -> None:
    command = ("tail", "-f", "/dev/null", str(tmp_path / "x"))
    (tmp_path / "x").touch()
    daemon = Daemon("tail", command, tmp_path)
    assert daemon.ensure() == []
    before = identity(daemon)
    (tmp_path / "tail.pid").unlink()
    assert identity(Daemon("tail", command, tmp_path)) == before
    daemon.stop()
    assert daemon.identity() is None


def test_a_changed_command_restarts_it(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.ensure() == []
    before = identity(daemon)
    changed = Daemon("sleeper", ("sleep", "2000"), tmp_path)
    assert not changed.running()
    assert changed.ensure() == []
    assert identity(changed) != before
    assert changed.running()


def test_a_killed_one_comes_back(daemon: Daemon) -> None:
    assert daemon.ensure() == []
    os.kill(identity(daemon).pid, signal.SIGKILL)
    eventually(lambda: not daemon.running())
    assert daemon.ensure() == []
    assert daemon.running()


def test_one_that_dies_at_once_is_started_after_growing_delays(tmp_path: Path) -> None:
    now = 0.0
    daemon = Daemon("failing", ("ls", "/nowhere"), tmp_path, clock=lambda: now)
    starts = []
    for tick in range(160):
        now = tick / 4
        problems = daemon.ensure()
        eventually(lambda: not daemon.running())
        if not problems:
            starts.append(now)
        else:
            assert "cannot access '/nowhere'" in str(problems[0])
    assert starts == [0, 0.25, 1.25, 3.25, 7.25, 15.25, 31.25]


def test_a_dead_one_that_is_looked_at_late_is_not_taken_for_healthy(
    tmp_path: Path,
) -> None:
    now = 0.0
    daemon = Daemon("failing", ("ls", "/nowhere"), tmp_path, clock=lambda: now)
    starts = []
    for tick in range(100):
        now = tick * 2.7
        if not daemon.ensure():
            starts.append(now)
        eventually(lambda: not daemon.running())
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert min(gaps[-3:]) >= 30


def test_a_log_is_emptied_while_the_program_writes_to_it(tmp_path: Path) -> None:
    daemon = Daemon("writer", ("od", "-v", "-An", "/dev/zero"), tmp_path)
    assert daemon.ensure() == []
    try:
        eventually(lambda: daemon.log.stat().st_size > 2 << 20)
        daemon.signal(signal.SIGSTOP)
        assert daemon.ensure() == []
        assert daemon.log.stat().st_size == 0
        assert (tmp_path / "writer.log.1").stat().st_size == 1 << 20
        daemon.signal(signal.SIGCONT)
        eventually(lambda: daemon.log.stat().st_size > 0)
        assert b"\0" not in daemon.log.read_bytes()[:4096], "no hole is left"
    finally:
        daemon.stop()


def test_a_missing_program_is_a_problem_with_its_name(tmp_path: Path) -> None:
    daemon = Daemon("absent", ("no-such-program",), tmp_path)
    (problem,) = daemon.ensure()
    assert "no program no-such-program found" in str(problem)
