"""The processes of a lab: started in namespaces, recorded on disk, stopped by group.

A lab outlives the command that made it, so who runs what is on disk, a file for each
process; a process is known by its id together with its start time, since ids are used
again. Each leads a session, and so a process group, of its own: its children go with
it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

_POLL = 0.02  # seconds between looks at processes that are going

# Those that this process started and has to reap, whichever object started them.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of a lab. `started` is /proc's start time, in clock ticks."""

    name: str
    pid: int
    started: int
    argv: tuple[str, ...]
    log: Path
    netns: str | None = None

    @property
    def running(self) -> bool:
        """Tell whether it lives still; a zombie does not."""
        return start_time(self.pid) == self.started


@dataclass(slots=True)
class Processes:
    """All the processes of one lab; `directory` holds their records."""

    directory: Path

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        netns: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program, detached, and record it under `name`.

        `log` gets its output, appended. `env` is added to this process's environment.
        Raises FileNotFoundError where the program is missing.
        """
        command = [*(["ip", "netns", "exec", netns] if netns else []), *argv]
        log.parent.mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        _CHILDREN[child.pid] = child
        process = Process(
            name=name,
            pid=child.pid,
            started=start_time(child.pid) or 0,
            argv=tuple(argv),
            log=log,
            netns=netns,
        )
        self._file(name).write_bytes(msgspec.json.encode(process, enc_hook=str))
        return process

    def find(self, name: str) -> Process | None:
        """Return what was started under `name` and not stopped since, dead or alive."""
        try:
            return _read(self._file(name))
        except FileNotFoundError:
            return None

    def running(self, name: str) -> bool:
        """Tell whether the process called `name` lives."""
        self._reap()
        process = self.find(name)
        return process is not None and process.running

    def recorded(self) -> list[Process]:
        """Return all recorded processes, dead or alive, sorted by name."""
        self._reap()
        files = sorted(self.directory.glob("*.json")) if self.directory.exists() else []
        return [_read(file) for file in files]

    def stop(self, *names: str, grace: float = 5.0) -> None:
        """End the processes called so, with their groups, and forget them."""
        self._end([p for p in map(self.find, names) if p], grace)

    def stop_all(self, grace: float = 1.0) -> None:
        """End all recorded processes at once; SIGKILL for what outlives the grace."""
        self._end(self.recorded(), grace)

    def _end(self, processes: list[Process], grace: float) -> None:
        alive = [p for p in processes if p.running]
        led = {p.pid for p in alive}
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for process in alive if patience else ():
                _kill(os.killpg, process.pid, number)
            alive = self._wait(alive, patience)
        # What outlives its leader, for a moment, may still hold the leader's port.
        # On a busy machine that may be long, and no longer than this.
        deadline = time.monotonic() + 5.0
        while (left := led & _living_groups()) and time.monotonic() < deadline + 5.0:
            for group in left if time.monotonic() > deadline else ():
                _kill(os.killpg, group, signal.SIGKILL)
            time.sleep(_POLL)
        for process in processes:
            # A leader may be gone while threads of it still end.
            child = _CHILDREN.pop(process.pid, None)
            if child and process not in alive:
                child.wait()
            self._file(process.name).unlink(missing_ok=True)

    def _wait(self, processes: list[Process], patience: float) -> list[Process]:
        """Return those that still run when patience (seconds) is exhausted."""
        deadline = time.monotonic() + patience
        while True:
            self._reap()
            processes = [p for p in processes if p.running]
            if not processes or time.monotonic() >= deadline:
                return processes
            time.sleep(_POLL)

    def _reap(self) -> None:
        for pid, child in list(_CHILDREN.items()):
            if child.poll() is not None:
                _CHILDREN.pop(pid, None)

    def _file(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def parent(pid: int) -> int | None:
    """Return the id of a process's parent; None if the process is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """Return what proc(5) says of a process, from its state on; None for a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything: count the fields behind it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def _living_groups() -> set[int]:
    """Return the ids of all process groups with a member that is no zombie."""
    groups = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group, *_ = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            groups.add(int(group))
    return groups


def kill_inhabitants(namespaces: Iterable[str]) -> None:
    """Kill every process that lives in one of the named network namespaces.

    It is how daemons go that detached themselves from what started them.
    """
    wanted = set()
    for name in namespaces:
        file = Path("/run/netns") / name
        if file.exists():
            wanted.add((file.stat().st_dev, file.stat().st_ino))
    while wanted and (pids := _inhabitants(wanted)):
        for pid in pids:
            _kill(os.kill, pid, signal.SIGKILL)
        time.sleep(_POLL)


def _inhabitants(wanted: set[tuple[int, int]]) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            found = (entry / "ns/net").stat()
        except OSError:
            continue  # gone meanwhile, or a zombie
        if (found.st_dev, found.st_ino) in wanted:
            pids.append(int(entry.name))
    return pids


def _kill(how: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    try:
        how(pid, number)
    except ProcessLookupError:
        return  # it went by itself


def _read(file: Path) -> Process:
    return msgspec.json.decode(
        file.read_bytes(), type=Process, dec_hook=lambda kind, value: kind(value)
    )
