"""The lab's fabric alone: real routers in namespaces, and nothing left of them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.kernel.netns import eventually

from calico.lab import fabric, namespaces, routers
from calico.lab.paths import LabPaths
from calico.lab.processes import Processes
from calico.lab.routers import WELCOME
from calico.lab.topology import (
    INTERNET_WEB4,
    INTERNET_WEB6,
    BgpMode,
    Topology,
    design,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short: the path of a UNIX socket has 107 characters at most.
    path = Path(tempfile.mkdtemp(prefix="ct-lab-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def fabric_of(topology: Topology, name: str, directory: Path) -> Iterator[LabPaths]:
    paths = LabPaths(name, directory / name)
    processes = Processes(paths.processes)
    try:
        fabric.build_control(paths)
        fabric.build(paths, topology)
        for router in topology.routers:
            routers.start(paths, processes, topology, router)
        yield paths
    finally:
        processes.stop_all(grace=0)
        namespaces.delete(namespaces.existing(f"calico-{name}-"))


def lab_name(suffix: str = "") -> str:
    return f"t{os.getpid()}{suffix}"


def reaches(paths: LabPaths, node: str, *addresses: object) -> bool:
    return all(
        namespaces.run(
            paths.netns(node), ["ping", "-n", "-c1", "-W1", str(address)]
        ).returncode
        == 0
        for address in addresses
    )


@pytest.mark.parametrize("bgp", BgpMode)
def test_every_rack_reaches_the_internet_and_the_other_racks(
    bgp: BgpMode, directory: Path
) -> None:
    topology = design(2, 2, bgp)
    other = topology.node("tor-2")
    with fabric_of(topology, lab_name(), directory) as paths:
        for tor in ("tor-1", "tor-2"):
            eventually(partial(reaches, paths, tor, INTERNET_WEB4, INTERNET_WEB6), 30)
        eventually(
            lambda: reaches(paths, "tor-1", other.loopback4, other.loopback6), 30
        )
        page = namespaces.run(
            paths.netns("tor-1"), ["busybox", "wget", "-qO-", f"http://{INTERNET_WEB4}"]
        )
        assert page.stdout == WELCOME


def test_management_leads_nowhere_but_to_the_control_node(directory: Path) -> None:
    topology = design(1, 2, BgpMode.TOR)
    with fabric_of(topology, lab_name(), directory) as paths:
        host = paths.netns("host-1-1")
        control = paths.netns("control")
        assert (
            namespaces.run(host, ["ping", "-c1", "-W2", "100.64.0.1"]).returncode == 0
        )
        # The control node has neither a default route nor one into the fabric, and
        # a host does not forward what comes from there.
        route = namespaces.run(control, ["ip", "route", "get", str(INTERNET_WEB4)])
        assert route.returncode != 0
        forwarding = namespaces.run(
            host, ["sysctl", "-n", "net.ipv4.conf.mgmt.forwarding"]
        )
        assert forwarding.stdout.strip() == "0"


def test_two_fabrics_live_side_by_side(directory: Path) -> None:
    topology = design(1, 1, BgpMode.TOR)
    before = _root_links()
    with (
        fabric_of(topology, lab_name("a"), directory) as first,
        fabric_of(topology, lab_name("b"), directory) as second,
    ):
        for paths in (first, second):
            eventually(
                partial(reaches, paths, "tor-1", INTERNET_WEB4, INTERNET_WEB6), 30
            )
        assert _root_links() == before  # nothing on the machine's own network


def _root_links() -> str:
    return subprocess.run(
        ["ip", "-brief", "link"], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "moment",
    [
        "starting the cloud",
        "building the fabric",
        "starting the hosts",
        "starting Keystone",
    ],
)
def test_ctrl_c_leaves_no_namespace_process_or_file(
    moment: str, directory: Path
) -> None:
    name = lab_name("c")
    # A session of its own, so that the signal meets it as a terminal's would: all of
    # the foreground group.
    command = subprocess.Popen(
        [sys.executable, "-m", "calico", "lab", "up", name],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "CALICO_LAB_ROOT": str(directory)},
        start_new_session=True,
    )
    assert command.stderr
    with command.stderr:
        for line in command.stderr:
            if moment in line:
                os.killpg(command.pid, signal.SIGINT)
                break
        said = command.stderr.read()
    assert command.wait(60) == 1, said
    assert "Traceback" not in said

    assert namespaces.existing(f"calico-{name}-") == []
    assert not (directory / name).exists()
    assert not (directory / f".{name}.lock").exists()
    assert _processes_naming(directory / name) == []


def _processes_naming(path: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(path) in line:
            found.append(line)
    return found
