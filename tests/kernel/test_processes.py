"""The lab's processes: known by pid and start time, ended with their children."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.kernel.netns import eventually

from calico.lab.processes import Process, Processes, start_time
from calico.lab.supervisor import PAUSE, pid_of, supervised


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path / "processes")
    yield made
    made.stop_all(grace=0)


def spawn(processes: Processes, script: str) -> Process:
    log = processes.directory.parent / "log"
    return processes.spawn("it", ["sh", "-c", script], log=log)


def test_another_object_finds_and_stops_a_process(processes: Processes) -> None:
    started = spawn(processes, "exec sleep 100")
    other = Processes(processes.directory)

    assert other.find("it") == started
    assert other.running("it")
    other.stop("it")
    assert not other.running("it")
    assert other.recorded() == []


def test_children_end_with_their_parent(processes: Processes) -> None:
    started = spawn(processes, "sleep 100 & echo $!; wait")
    child = eventually(lambda: int(started.log.read_text() or 0))
    processes.stop("it")

    eventually(lambda: start_time(child) is None)


def test_what_ignores_sigterm_is_killed(processes: Processes) -> None:
    started = spawn(processes, "trap '' TERM; echo ready; while :; do sleep 1; done")
    eventually(lambda: "ready" in started.log.read_text())
    processes.stop("it", grace=0.1)

    assert not started.running


def test_a_child_that_ignores_sigterm_does_not_outlive_its_parent(
    processes: Processes,
) -> None:
    stubborn = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done'"
    started = spawn(processes, f"{stubborn} & wait")
    child = eventually(lambda: int(started.log.read_text() or 0))
    processes.stop("it")

    assert start_time(child) is None


def test_a_pid_that_somebody_else_has_now_is_left_alone(processes: Processes) -> None:
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as stranger:
        try:
            record = spawn(processes, "exit")
            entry = {
                "name": "it",
                "pid": stranger.pid,
                "started": record.started - 1,
                "argv": [],
                "log": str(record.log),
                "netns": None,
            }
            (processes.directory / "it.json").write_bytes(msgspec.json.encode(entry))

            assert not processes.running("it")
            processes.stop("it")
            assert stranger.poll() is None
        finally:
            os.kill(stranger.pid, signal.SIGKILL)


def test_a_missing_program_is_an_error_at_once(processes: Processes) -> None:
    with pytest.raises(FileNotFoundError):
        processes.spawn("it", ["no-such-program"], log=processes.directory / "log")
    assert processes.recorded() == []


def test_stop_waits_for_what_outlives_its_leader(processes: Processes) -> None:
    # A server's worker that ends later than its master still holds the port.
    started = spawn(processes, "(trap '' TERM; sleep 1) & trap 'exit 0' TERM; wait")
    eventually(lambda: len(members(started.pid)) > 1)
    processes.stop("it")
    assert members(started.pid) == []


def test_what_is_supervised_may_take_its_time_to_end(processes: Processes) -> None:
    file, log = (processes.directory.parent / name for name in ("pid", "log"))
    script = (
        "trap 'sleep 0.3; echo bye; exit' TERM; echo ready; while :; do sleep 0.1; done"
    )
    processes.spawn("it", supervised(["sh", "-c", script], file), log=log)
    eventually(lambda: "ready" in log.read_text())
    processes.stop("it")
    assert log.read_text().split()[-1] == "bye"


def test_what_is_supervised_does_not_come_back_in_a_pause(processes: Processes) -> None:
    file, log = (processes.directory.parent / name for name in ("pid", "log"))
    command = supervised(["sh", "-c", "echo here"], file)
    leader = processes.spawn("it", command, log=log)
    eventually(lambda: "here" in log.read_text())
    processes.stop("it")
    assert members(leader.pid) == []


def test_what_is_supervised_and_killed_comes_back(processes: Processes) -> None:
    file, log = (processes.directory.parent / name for name in ("pid", "log"))
    leader = processes.spawn("it", supervised(["sleep", "100"], file), log=log)
    first = eventually(lambda: pid_of(leader.pid, file))
    os.kill(first, signal.SIGKILL)
    eventually(lambda: pid_of(leader.pid, file) not in {None, first}, PAUSE + 2)
    processes.stop("it")
    assert members(leader.pid) == []
    assert pid_of(leader.pid, file) is None


def members(group: int) -> list[str]:
    """Return the processes of a group that are no zombies."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-g", str(group)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    return [line for line in listed if "Z" not in line]
