"""A daemon of the host that outlives the agent, and is adopted by the next one.

A program is started in a session of its own, with a pid file that names its start time,
so that a pid that the kernel gave to somebody else is never taken for it. Nothing here
signals a process whose start time and command are not the recorded ones.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from calico.reconcile.problem import Problem

_FIRST_DELAY = 1.0  # seconds between the first two starts of a program that dies
_LAST_DELAY = 30.0  # the longest such delay; one that lived longer counts as healthy
_LOG_LIMIT = 1 << 20  # bytes; of a larger log the end is set aside


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its pid and its start time in clock ticks since boot.

    The pair names one process between two boots; a pid alone does not.
    """

    pid: int
    started: int


class Daemon:
    """One long-running program, kept running in the foreground mode that it has.

    `name` names its files in `run_dir`: `NAME.pid` and `NAME.log`, which gets its
    output. `command` is a binary, not a script, that stays in the foreground. `clock`
    is monotonic, in seconds. `start_flags` are asked for at each start, and are
    appended to the command; a running process may have had others.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        run_dir: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        start_flags: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = run_dir / f"{name}.log"
        self._run_dir = run_dir
        self._pid_file = run_dir / f"{name}.pid"
        self._clock = clock
        self._start_flags = start_flags
        self._delay = 0.0
        self._started_at: float | None = None
        self._seen_at = 0.0  # when it was last found running
        self._child: int | None = None  # what we started and have to reap

    def ensure(self) -> list[Problem]:
        """Start the program if it does not run; restart it if its command changed.

        Returns nothing when it runs; else why not. One that dies again and again is
        started after growing delays: the problem then says when.
        """
        self.trim_log()
        if self.running():
            return []
        if self._other_command():
            self.stop()
        wait = self._wait()
        if wait > 0:
            return [self._problem(f"it ended; next start in {wait:.0f} s", "keep")]
        try:
            self._start()
        except FileNotFoundError:
            return [self._problem(f"no program {self.command[0]} found", "start")]
        except OSError as e:
            return [self._problem(e.strerror or str(e), "start")]
        return []

    def running(self) -> bool:
        """Return whether the program runs with the command that is wanted now."""
        return self.identity() is not None and not self._other_command()

    def identity(self) -> Identity | None:
        """Return the process that is ours, with whatever arguments; None if none is.

        Falls back on a search when the pid file is lost, if the command itself names
        our directory: nobody else has such a command.
        """
        self._reap()
        recorded = self._recorded()
        if recorded is not None and self._is_ours(recorded):
            self._seen_at = self._clock()
            return recorded
        if not any(str(self._run_dir) in part for part in self.command):
            return None
        found = next((i for i in _processes() if self._is_command_of(i)), None)
        if found is not None:
            self._seen_at = self._clock()
            self._record(found)
        return found

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to our process; return False if there is none."""
        identity = self.identity()
        if identity is None:
            return False
        with _opened(identity) as descriptor:
            if descriptor is None:
                return False
            signal.pidfd_send_signal(descriptor, number)
        return True

    def stop(self, patience: float = 5.0) -> None:
        """End the program: SIGTERM, and SIGKILL after `patience` seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            identity = self.identity()
            if identity is None or not self.signal(number):
                break
            _await_end(identity, patience)
            self._reap()
        self._pid_file.unlink(missing_ok=True)

    def trim_log(self) -> None:
        """Empty a log that has grown long, its end kept as `NAME.log.1`.

        Also while the program runs: a daemon runs for years, and what it logs may be
        what instances send. It appends, and so goes on at the start of the file.
        """
        with suppress(FileNotFoundError), self.log.open("r+b") as log:
            if log.seek(0, os.SEEK_END) <= _LOG_LIMIT:
                return
            log.seek(-_LOG_LIMIT, os.SEEK_END)
            with suppress(OSError):  # no space: all the more reason
                self.log.with_suffix(".log.1").write_bytes(log.read(_LOG_LIMIT))
            log.truncate(0)

    def log_tail(self, lines: int = 3) -> str:
        """Return the last lines that the program wrote, in one line."""
        with suppress(OSError):
            text = self.log.read_bytes()[-4096:].decode(errors="replace")
            return "; ".join(text.strip().splitlines()[-lines:])
        return ""

    def _start(self) -> None:
        self._run_dir.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._child = pid = os.posix_spawnp(
            self.command[0],
            (*self.command, *self._start_flags()),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o640),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT),  # Python ignores SIGPIPE
        )
        self._started_at = self._clock()
        _await_exec(pid)
        started = _start_time(pid)
        if started is not None:
            self._record(Identity(pid, started))

    def _reap(self) -> None:
        """Take the exit status of a child that ended, so that no zombie stays."""
        if self._child is None:
            return
        try:
            ended = os.waitpid(self._child, os.WNOHANG)[0] != 0
        except ChildProcessError:
            ended = True
        if ended:
            self._child = None

    def _wait(self) -> float:
        """Return how long to wait before the next start, and set the next delay."""
        if self._started_at is None:
            return 0.0
        if self._seen_at - self._started_at > _LAST_DELAY:
            self._delay = 0.0
            return 0.0
        wait = self._delay - (self._clock() - self._started_at)
        if wait > 0:
            return wait
        self._delay = min(max(2 * self._delay, _FIRST_DELAY), _LAST_DELAY)
        return 0.0

    def _recorded(self) -> Identity | None:
        with suppress(OSError, ValueError):
            pid, started = self._pid_file.read_text().split()
            return Identity(int(pid), int(started))
        return None

    def _record(self, identity: Identity) -> None:
        new = self._pid_file.with_suffix(".pid.new")
        new.write_text(f"{identity.pid} {identity.started}\n")
        new.replace(self._pid_file)

    def _is_ours(self, identity: Identity) -> bool:
        if _start_time(identity.pid) != identity.started:
            return False
        return _program(_command(identity.pid)) == _program(self.command)

    def _other_command(self) -> bool:
        identity = self.identity()
        return identity is not None and not self._is_command_of(identity)

    def _is_command_of(self, identity: Identity) -> bool:
        return _command(identity.pid)[: len(self.command)] == self.command

    def _problem(self, reply: str, wish: str) -> Problem:
        tail = self.log_tail()
        return Problem(
            f"daemon {self.name}", wish, f"{reply} ({tail})" if tail else reply
        )


def _program(command: tuple[str, ...]) -> str:
    return Path(command[0]).name if command else ""


def _command(pid: int) -> tuple[str, ...]:
    """Return a process's arguments; nothing for one that has ended."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return tuple(text.split("\0")[:-1])
    return ()


def _start_time(pid: int) -> int | None:
    """Return a live process's start time (field 22 of stat, proc(5)); else None."""
    with suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()  # the name may hold anything
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def _await_exec(pid: int) -> None:
    """Return once a spawned process shows its arguments, or has ended.

    The kernel lets the spawner go on as soon as exec has given up the old memory, some
    time before the new program's arguments are laid out and can be read.
    """
    while _start_time(pid) is not None and not _command(pid):
        os.sched_yield()


def _processes() -> Iterator[Identity]:
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are enough, and cheaper
        if entry.isdigit():
            started = _start_time(int(entry))
            if started is not None:
                yield Identity(int(entry), started)


@contextmanager
def _opened(identity: Identity) -> Iterator[int | None]:
    """Yield a descriptor of the process itself, which a reused pid can not fool."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        same = _start_time(identity.pid) == identity.started
        yield descriptor if same else None
    finally:
        os.close(descriptor)


def _await_end(identity: Identity, patience: float) -> None:
    deadline = time.monotonic() + patience
    while _start_time(identity.pid) == identity.started:
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
