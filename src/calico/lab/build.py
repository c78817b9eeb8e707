"""Making a lab, and taking one down: whole, or whatever there is of it.

Fabric and cloud start at the same time; hosts and their agents follow as soon as etcd
serves. Whatever fails, and Ctrl-C, takes down all that was made until then.
"""

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from calico.lab import environment, fabric, guest, namespaces, routers
from calico.lab.hosts import bgp_resources, configure_host
from calico.lab.lab import Lab, Plan
from calico.lab.namespaces import LabFailed
from calico.lab.paths import CONTROL, NAMESPACE_PREFIX, LabPaths, lab_paths, root
from calico.lab.processes import Processes, kill_inhabitants

_PROGRAMS = {
    "ip": "iproute2",
    "sysctl": "procps",
    "bird": "bird2",
    "birdc": "bird2",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "radvd": "radvd",
    "dhcpcd": "dhcpcd-base",
    "unshare": "util-linux",
    "etcd": "etcd-server",
    "mariadbd": "mariadb-server-core",
    "busybox": "busybox",
    "ping": "iputils-ping",
}
_CONVERGENCE_TIMEOUT = 60.0
_POLL = 0.2
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Progress = Callable[[str], None]


def programs() -> frozenset[str]:
    """Return the names of the programs that a lab runs."""
    return frozenset(_PROGRAMS)


def check_machine() -> None:
    """Raise LabFailed, in a sentence, where this machine cannot carry a lab."""
    check_root()
    environment.prepare()
    missing = [name for name in _PROGRAMS if not shutil.which(name)]
    if missing:
        packages = " ".join(sorted({_PROGRAMS[name] for name in missing}))
        raise LabFailed(
            f"a lab needs {', '.join(missing)}; on Debian: apt-get install {packages}"
        )


def check_root() -> None:
    """Raise LabFailed for anyone but root: namespaces are root's."""
    if os.geteuid() != 0:
        raise LabFailed("a lab is made of network namespaces, which needs root")


def up(plan: Plan, progress: Progress) -> Lab:
    """Make a lab and wait until it serves.

    Raises LabFailed (name in use, machine not fit, a server that does not start) or
    whatever interrupted it, with nothing left behind.
    """
    check_machine()
    _ = plan.topology  # Impossible, before anything is made
    paths = lab_paths(plan.name)
    with locked(paths):
        if paths.state.exists() or _namespaces(plan.name):
            raise LabFailed(
                f"there is a lab called {plan.name!r} already; "
                f"`calico lab down {plan.name}` takes it down"
            )
        lab = Lab(plan=plan, paths=paths)
        construction = _Construction(lab, progress)
        with terminated_by_exception():
            try:
                _record(lab)
                construction.build()
                paths.complete.touch()
            except BaseException:
                with undisturbed():
                    say(progress, f"taking lab {plan.name} down again")
                    construction.abandon()
                raise
        return lab


def _quiet(_: str) -> None:
    """Take a progress line and say nothing."""


def down(name: str, progress: Progress = _quiet) -> None:
    """Take a lab down, or what a crash left of it; LabFailed if there is nothing."""
    check_root()
    paths = lab_paths(name)
    with locked(paths):
        if not (paths.state.exists() or _namespaces(name)):
            raise LabFailed(f"there is no lab called {name!r}")
        with undisturbed():
            say(progress, f"taking lab {name} down")
            _raze(paths)


class _Construction:
    """One `lab up`: the fabric here, the cloud in a thread beside it."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self._lab = lab
        self._progress = progress
        self._failure: BaseException | None = None
        self._cloud = threading.Thread(target=self._start_cloud, name="cloud")

    def build(self) -> None:
        lab, topology = self._lab, self._lab.topology
        fabric.build_control(lab.paths)
        self._progress("starting the cloud: etcd, database, Keystone, Neutron")
        self._cloud.start()
        hosts, routers_ = len(topology.hosts), len(topology.routers)
        self._progress(f"building the fabric: {routers_} routers, {hosts} hosts")
        fabric.build(lab.paths, topology)
        for router in topology.routers:
            routers.start(lab.paths, lab.processes, topology, router)
        self._introduce_hosts()
        self._await(lambda: not self._cloud.is_alive(), "the cloud", 600.0)
        self._progress("waiting for agents and BGP")
        self._await(self._agents_report, "every host's agent", _CONVERGENCE_TIMEOUT)
        # Neutron binds ports to hosts that it knows the agents of.
        self._await(self._agents_known, "agents in Neutron", _CONVERGENCE_TIMEOUT)
        self._await(self._sessions_up, "every BGP session", _CONVERGENCE_TIMEOUT)

    def abandon(self) -> None:
        """Take everything down; the cloud's thread fails on what it misses."""
        deadline = time.monotonic() + 30
        while self._cloud.is_alive() and time.monotonic() < deadline:
            self._lab.processes.stop_all(grace=0)
            kill_inhabitants([self._lab.paths.netns(CONTROL)])
            self._cloud.join(_POLL)
        _raze(self._lab.paths)

    def _introduce_hosts(self) -> None:
        """Write what the operator says of the hosts as soon as etcd takes it."""
        lab, topology = self._lab, self._lab.topology
        resources = bgp_resources(topology)
        self._await(lambda: self._stored(resources), "etcd", _CONVERGENCE_TIMEOUT)
        self._progress("starting the hosts' agents")
        for host in topology.hosts:
            configure_host(lab.paths, topology, host, lab.cloud.etcd_endpoints)
            lab.agent(host.name).start()

    def _stored(self, resources: dict[str, bytes]) -> bool:
        try:
            self._lab.store.put(resources)
        except LabFailed:
            return False
        return True

    def _agents_report(self) -> bool:
        lab = self._lab
        for host in lab.hosts():
            agent = lab.agent(host)
            if not agent.running:
                raise LabFailed(f"the agent of {host} ended; its log is {agent.log}")
        return lab.reporting_hosts() >= set(lab.hosts())

    def _agents_known(self) -> bool:
        agents = self._lab.cloud.connection().network.agents()
        return {agent.host for agent in agents} >= set(self._lab.hosts())

    def _sessions_up(self) -> bool:
        for node in self._lab.topology.nodes:
            up, count = self._lab.sessions(node.name)
            if up < count or not count:
                return False
        return True

    def _start_cloud(self) -> None:
        try:
            self._lab.cloud.start(self._progress)
        except BaseException as e:  # noqa: BLE001 - raised again by the main thread
            self._failure = e

    def _await(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self._check_cloud()
            if time.monotonic() > deadline:
                raise LabFailed(
                    f"{what} is not there after {timeout:.0f} s; "
                    f"logs were in {self._lab.paths.logs}"
                )
            time.sleep(_POLL)
        self._check_cloud()

    def _check_cloud(self) -> None:
        if self._failure is not None:
            raise self._failure


def _record(lab: Lab) -> None:
    for directory in (lab.paths.state, lab.paths.logs, lab.paths.instances):
        directory.mkdir(parents=True, exist_ok=True)
    lab.paths.record.write_bytes(msgspec.json.encode(lab.plan))


def _raze(paths: LabPaths) -> None:
    """Kill the lab's processes, delete its namespaces, then its directory.

    LabFailed for a directory that is no lab's: nothing else is ever deleted.
    """
    if paths.state.resolve().parent != root().resolve():
        raise LabFailed(f"{paths.state} is no lab's: it is not right below {root()}")
    paths.complete.unlink(missing_ok=True)
    Processes(paths.processes).stop_all(grace=0)
    inhabited = _namespaces(paths.name)
    namespaces.delete(inhabited)
    for netns in inhabited:
        guest.forget(netns)
    if paths.state.exists():
        shutil.rmtree(paths.state)


def _namespaces(name: str) -> list[str]:
    return namespaces.existing(f"{NAMESPACE_PREFIX}{name}-")


@contextmanager
def locked(paths: LabPaths) -> Iterator[None]:
    """Hold a lab's lock; LabFailed if another command holds it.

    The lock's file is removed with the lock, so the one that was locked may not be the
    one that is there: then it is tried again.
    """
    paths.lock.parent.mkdir(parents=True, exist_ok=True)
    refusal = f"lab {paths.name!r} is being made or taken down by another command"
    while True:
        file = _lock(paths.lock, refusal)
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == paths.lock.stat().st_ino:
                break
        os.close(file)
    try:
        yield
    finally:
        paths.lock.unlink(missing_ok=True)
        os.close(file)


@contextmanager
def verifying(paths: LabPaths) -> Iterator[None]:
    """Hold the right to verify a lab; LabFailed while another command has it."""
    refusal = f"lab {paths.name!r} is being verified by another command"
    file = _lock(paths.state / "verify.lock", refusal)
    try:
        yield
    finally:
        os.close(file)


def _lock(path: Path, refusal: str) -> int:
    """Open and lock a file and return its descriptor; LabFailed if it is locked."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise LabFailed(refusal) from None
    return file


def say(progress: Progress, text: str) -> None:
    """Tell of what cleans up, where somebody listens still; it goes on in any case.

    A terminal that is gone is an OSError, and a pipe without a reader a SystemExit of
    rich's.
    """
    with suppress(OSError, SystemExit):
        progress(text)


@contextmanager
def terminated_by_exception() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, in the main thread.

    The first of them ends it, and those that follow are ignored: they would interrupt
    what cleans up.
    """

    def interrupt(*_: object) -> None:
        for number in _INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handling(interrupt, *_INTERRUPTS):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal that can be ignored end this in the middle."""
    with _handling(signal.SIG_IGN, *_INTERRUPTS):
        yield


@contextmanager
def _handling(
    action: "Callable[..., None] | signal.Handlers", *numbers: signal.Signals
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has a say in signals
        return
    before = {number: signal.signal(number, action) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
