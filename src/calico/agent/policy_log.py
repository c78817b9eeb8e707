"""The policy log: a line for each packet that a rule was asked to tell of.

A thread of its own reads what the kernel tells, so that neither a flood of packets nor
a slow disk holds up a pass; how many there can be, the rules' limit says. It knows the
host by the last world that the loop has shown it: one frozen value, swapped.
"""

import os
import select
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from calico.agent.policy_lines import Fields, Ports, fields_of, ports_of
from calico.model.world import World
from calico.obs import Metrics
from calico.plan.ruleset import LOG_GROUP
from calico.system.nflog import Nflog

log = structlog.get_logger()

_PAUSE = 10.0  # seconds until the next try, where the kernel or the group is not free


class PolicyLog:
    """Reads the log group in its own thread, and writes lines; `start` it once.

    Lines go to the file at `path`, or to the agent's own log without one. Made and
    started in the network namespace that it listens in. Where it cannot listen it tries
    again after `pause` seconds.
    """

    def __init__(
        self, metrics: Metrics, path: Path | None, pause: float = _PAUSE
    ) -> None:
        self._metrics = metrics
        self._pause = pause
        self._ports: Ports = {}
        self._lines = Lines(path)
        self._listening = threading.Event()
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(
            target=self._run, name="policy-log", daemon=True
        )

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        os.write(self._waker, b"x")
        self._thread.join()
        self._lines.close()
        os.close(self._wake)
        os.close(self._waker)

    def wait_listening(self, timeout: float) -> bool:
        """Tell whether it listens, once it does or `timeout` seconds have passed."""
        return self._listening.wait(timeout)

    def follow(self, world: World) -> None:
        """Take the host to be as `world` says from now on; from any thread."""
        self._ports = ports_of(world)

    def reopen(self, path: Path | None) -> None:
        """Write to this file from now on, opened anew; from any thread."""
        self._lines.reopen(path)

    def _run(self) -> None:
        told = ""
        while True:
            try:
                reader = Nflog(LOG_GROUP)
            except OSError as e:
                if (reason := str(e)) != told:
                    log.warning("policy log does not listen", reason=reason)
                told = reason
            else:
                told = ""
                if self._follow_reader(reader):
                    return
            if select.select([self._wake], [], [], self._pause)[0]:
                return

    def _follow_reader(self, reader: Nflog) -> bool:
        """Write what comes; return whether it is the end, or only the reader's."""
        self._listening.set()
        try:
            while True:
                ready = select.select([reader.fileno(), self._wake], [], [])[0]
                if self._wake in ready:
                    return True
                self._take(reader)
        except OSError as e:
            log.warning("policy log interrupted", reason=str(e))
            return False
        finally:
            self._listening.clear()
            reader.close()

    def _take(self, reader: Nflog) -> None:
        before = reader.lost
        packets = reader.receive()
        if lost := reader.lost - before:
            self._metrics.policy_log_lost.inc(lost)
            log.warning("policy log lost events", lost=lost)
        for packet in packets:
            self._metrics.policy_log_events.inc()
            fields = fields_of(packet, self._ports)
            if fields and not self._lines.write(fields):
                self._metrics.policy_log_lost.inc()


class Lines:
    """Appends lines of JSON to a file, or tells the agent's own log without one.

    The file is opened when the first line comes, so `reopen` is no more than a wish.
    """

    def __init__(self, path: Path | None) -> None:
        self._wanted = _Wish(path)
        self._granted: _Wish | None = None
        self._file: BinaryIO | None = None
        self._told = False

    def reopen(self, path: Path | None) -> None:
        """Write to this file from now on, opened anew; from any thread."""
        self._wanted = _Wish(path)

    def write(self, fields: Fields) -> bool:
        """Append a line; return whether that was possible. Says so when it was not."""
        if self._granted is not (wish := self._wanted):
            self.close()
            self._granted = wish
        if wish.path is None:
            log.info("policy", **fields)
            return True
        try:
            self._append(wish.path, fields)
        except OSError as e:
            if not self._told:
                log.warning(
                    "policy log not written", file=str(wish.path), reason=str(e)
                )
            self._told = True
            return False
        self._told = False
        return True

    def _append(self, path: Path, fields: Fields) -> None:
        if self._file is None:
            self._file = path.open("ab", buffering=0)
        line = {"timestamp": datetime.now(UTC).isoformat(), **fields}
        self._file.write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """One wish to write to a file: the same path again means to open it anew."""

    path: Path | None
