"""Runs dnsmasq: one process a host, which outlives the agent and is adopted by it.

A port, or an option of a subnet, costs it a SIGHUP (P33). What it reads at its start
only (a new address range), and leases that it must forget (an address that has another
holder now, P34), take a new process. That starts beside the old one, which goes when it
is ready: both may listen, as their sockets share the ports, so no request is lost. No
lease is lost either: all of them follow from the hosts file.
"""

import json
import os
import signal
import socket
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calico.model.ids import Address
from calico.plan.dhcp_ports import mac_settings
from calico.plan.dnsmasq import BRIDGE, DhcpState, Holder
from calico.reconcile.problem import Problem
from calico.system.daemon import Daemon

_SLOTS = ("dnsmasq-a", "dnsmasq-b")
_PATIENCE = 5.0  # seconds for a new process to open its sockets
_USER = "nobody"  # it parses what instances send
_GRACE = 0.2  # seconds before one that does not seem to run is taken for dead
_DRAIN = 5.0  # seconds at most for the old process to answer what it was asked
_POLL = 0.01
_SETTINGS = """\
# Written by the agent; changes are lost.
port=0
no-resolv
no-hosts
no-ping
user={user}
bind-dynamic
interface=tap*
interface={bridge}
bridge-interface={bridge},tap*
dhcp-authoritative
dhcp-ignore=tag:!known
dhcp-match=set:ipxe,175
dhcp-duid=0,63:61:6c:69:63:6f
dhcp-lease-max=100000
leasefile-ro
log-facility=-
quiet-dhcp
quiet-dhcp6
quiet-ra
dhcp-hostsfile={hosts}
dhcp-optsfile={options}
"""


@dataclass(frozen=True, slots=True)
class _Started:
    """What a running process was started for: its ranges, and who held an address."""

    ranges: tuple[str, ...]
    holders: Mapping[str, str]


class Dnsmasq:
    """The dnsmasq of a host; its files are in `run_dir`."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._hosts = run_dir / "dnsmasq.hosts"
        self._options = run_dir / "dnsmasq.options"
        self._daemons = {slot: self._daemon(slot) for slot in _SLOTS}
        self._failed: set[str] = set()  # slots whose last start came to nothing

    def apply(self, state: DhcpState) -> list[Problem]:
        """Make dnsmasq serve `state`: by nothing, a SIGHUP, or a new process.

        Returns what could not be served, and why. Starts it where it does not run.
        """
        problems = [
            Problem(r.subject, r.wish, r.reason, lasting=True) for r in state.refused
        ]
        try:
            return problems + self._apply(state)
        except OSError as e:
            return [*problems, Problem("dnsmasq", "write its files", str(e))]

    def pid(self) -> int | None:
        """Return the id of the process that serves; None if there is none."""
        slot = self._current()
        identity = self._daemons[slot].identity() if slot else None
        return identity.pid if identity else None

    def stop(self) -> None:
        """End the service."""
        for slot in _SLOTS:
            self._end(slot)

    def _daemon(self, slot: str) -> Daemon:
        command = (
            "dnsmasq",
            "--keep-in-foreground",
            f"--conf-file={self._run_dir / slot}.conf",
            f"--pid-file={self._run_dir / slot}.ready",
        )
        return Daemon(slot, command, self._run_dir)

    def _apply(self, state: DhcpState) -> list[Problem]:
        self._run_dir.mkdir(parents=True, exist_ok=True)
        for daemon in self._daemons.values():
            daemon.trim_log()
        closed = _closed(self._run_dir)
        if closed:
            reply = f"user {_USER} cannot search {closed}"
            return [Problem("dnsmasq", "read its files", reply)]
        changed = [
            _write(self._hosts, state.hosts),
            _write(self._options, state.options),
        ]
        slot = self._current()
        if slot is None:
            return self._start(_SLOTS[0], state) if state.ranges else []
        started = self._started(slot)
        if started is None or not _serves(started, state):
            return self._replace(slot, state)
        self._remember(slot, started.ranges, started.holders, state)
        if any(changed):
            self._daemons[slot].signal(signal.SIGHUP)
        return self._retire(slot)

    def _current(self) -> str | None:
        """Return the slot of the process that serves; the newest, should two run."""
        running = [
            slot
            for slot in _SLOTS
            if self._record(slot).exists() and self._daemons[slot].running()
        ]
        return max(running, key=self._ready_since, default=None)

    def _ready_since(self, slot: str) -> float:
        try:
            return (self._run_dir / f"{slot}.ready").stat().st_mtime
        except FileNotFoundError:
            return 0.0  # it was starting when the agent went

    def _replace(self, old: str, state: DhcpState) -> list[Problem]:
        """Start a process beside the one that runs, and then end that one."""
        new = next(slot for slot in _SLOTS if slot != old)
        self._end(new)
        if new not in self._failed:
            self._daemons[new] = self._daemon(new)  # it did not die: start at once
        problems = self._start(new, state)
        if problems:
            return problems
        # What reached the old one alone, before the new one listened, waits in its
        # queue: it looks at signals first.
        self._drain(old)
        return self._retire(new)

    def _drain(self, slot: str) -> None:
        identity = self._daemons[slot].identity()
        deadline = time.monotonic() + _DRAIN
        while identity and time.monotonic() < deadline and _is_asked(identity.pid):
            time.sleep(_POLL)

    def _retire(self, keep: str) -> list[Problem]:
        for slot in _SLOTS:
            if slot != keep and self._record(slot).exists():
                self._end(slot)
        return []

    def _end(self, slot: str) -> None:
        self._daemons[slot].stop()
        self._record(slot).unlink(missing_ok=True)

    def _record(self, slot: str) -> Path:
        return self._run_dir / f"{slot}.json"

    def _start(self, slot: str, state: DhcpState) -> list[Problem]:
        daemon = self._daemons[slot]
        ready = self._run_dir / f"{slot}.ready"
        ready.unlink(missing_ok=True)
        settings = _SETTINGS.format(
            user=_USER, bridge=BRIDGE, hosts=self._hosts, options=self._options
        )
        ranges = "".join(f"{line}\n" for line in state.ranges)
        _write(self._run_dir / f"{slot}.conf", settings + mac_settings() + ranges)
        self._remember(slot, state.ranges, {}, state)
        self._failed.add(slot)
        problems = daemon.ensure()
        if problems:
            return problems
        begun = time.monotonic()
        while (waited := time.monotonic() - begun) < _PATIENCE:
            if ready.exists():
                self._failed.discard(slot)
                return []
            # Right after exec a process has no arguments yet to know it by.
            if waited > _GRACE and not daemon.running():
                break
            time.sleep(_POLL)
        return [Problem("dnsmasq", "start", daemon.log_tail() or "it does not answer")]

    def _started(self, slot: str) -> _Started | None:
        try:
            stored = json.loads(self._record(slot).read_bytes())
            return _Started(tuple(stored["ranges"]), dict(stored["holders"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # lost: nothing is known of the process, so replace it

    def _remember(
        self,
        slot: str,
        ranges: tuple[str, ...],
        held: Mapping[str, str],
        state: DhcpState,
    ) -> None:
        holders = {**held, **_present(state.holders)}
        record = {"ranges": ranges, "holders": holders}
        _write(self._record(slot), json.dumps(record))


def _is_asked(pid: int) -> bool:
    """Tell whether datagrams wait in a process's sockets (proc(5), /proc/net/udp)."""
    with suppress(FileNotFoundError):  # it ended
        waiting = {
            fields[9]  # the socket's inode
            for table in ("udp", "udp6")
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            if not (fields := line.split())[4].endswith(":00000000")  # sent:received
        }
        return any(
            fd.readlink().name.removeprefix("socket:[").rstrip("]") in waiting
            for fd in Path(f"/proc/{pid}/fd").iterdir()
        )
    return False


def _serves(started: _Started, state: DhcpState) -> bool:
    """Return whether a process can serve a state after re-reading its files."""
    if not set(state.ranges) <= set(started.ranges):
        return False
    return all(
        started.holders.get(address, holder) == holder
        for address, holder in _present(state.holders).items()
    )


def _present(holders: Mapping[Address, Holder]) -> dict[str, str]:
    """Return what tells a holder of an address from its next one.

    dnsmasq knows who leased an IPv4 address by the MAC, an IPv6 address by the DUID.
    A guest that is built anew has another DUID, but its tap is new as well, so the
    tap's index stands for it. One without a tap cannot have leased anything yet.
    """
    found = {}
    for address, holder in holders.items():
        if address.version == 4:
            found[str(address)] = str(holder.mac)
            continue
        with suppress(OSError):
            index = socket.if_nametoindex(holder.interface)
            found[str(address)] = f"{holder.mac} {index}"
    return found


def _closed(directory: Path) -> Path | None:
    """Return a directory on the way to the files that others cannot search."""
    way = (directory, *directory.resolve().parents)
    return next((d for d in way if not d.stat().st_mode & stat.S_IXOTH), None)


def _write(path: Path, text: str) -> bool:
    """Replace a file at once, readable by the daemon's user; tell if it changed."""
    with suppress(FileNotFoundError):
        if path.read_text() == text:
            return False
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    draft.chmod(0o644)
    os.replace(draft, path)  # noqa: PTH105 - as atomic as Path.replace
    return True
