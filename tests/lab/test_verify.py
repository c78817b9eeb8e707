"""`calico verify` on a real lab: verdicts, exit codes, and nothing left behind."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.kernel.netns import eventually

from calico.lab import build
from calico.lab.lab import Lab
from calico.verify.inside import NamespacePlace
from calico.verify.probes.echo import Responder

PREFIX = "verify-"


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "calico", "verify", *argv]


def verify(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*argv), capture_output=True, text=True, check=False, timeout=240
    )


def left(lab: Lab) -> list[str]:
    """Return the names of what a run has, or has left, in the cloud."""
    api = lab.connection("admin").network
    found = [*api.networks(), *api.ports(), *api.security_groups()]
    names = [each.name or "" for each in found] + [i.name for i in lab.instances()]
    return [name for name in names if name.startswith(PREFIX)]


def test_chosen_statements_hold_and_nothing_is_left(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = verify(
        *("--lab", lab.name, "--only", "s1, S20", "--json", "--output", str(file))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    body = json.loads(done.stdout)
    assert json.loads(file.read_text()) == body
    verdicts = {s["id"]: s["verdict"] for s in body["statements"]}
    assert len(verdicts) == 21
    assert {verdicts.pop("S1"), verdicts.pop("S20")} == {"holds"}
    assert set(verdicts.values()) == {"not checked"}
    assert body["statements"][0]["cases"] == 72
    assert left(lab) == []


def test_a_broken_cloud_fails_and_nothing_is_left(lab: Lab) -> None:
    # One rack's router forwards no more: what it carried does not arrive.
    lab.run("tor-1", ["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])
    try:
        done = verify("--lab", lab.name, "--only", "S1", "--json")
    finally:
        lab.run("tor-1", ["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])
    assert done.returncode == 1, done.stderr
    first = json.loads(done.stdout)["statements"][0]
    assert (first["id"], first["verdict"]) == ("S1", "fails")
    assert all("IPv6" in failure["case"] for failure in first["failures"])
    assert not any("same host" in failure["case"] for failure in first["failures"])
    assert left(lab) == []


def test_ctrl_c_leaves_nothing(lab: Lab) -> None:
    process = subprocess.Popen(
        command("--lab", lab.name, "--only", "S1"), stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: left(lab), 30, "it begins to make things")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Aborted" in said
    assert left(lab) == []


def test_an_impatient_ctrl_c_leaves_nothing(lab: Lab) -> None:
    process = subprocess.Popen(
        command("--lab", lab.name, "--only", "S1"), stderr=subprocess.DEVNULL
    )
    try:
        # Its threads make instances: they must neither go on nor be left in the middle.
        eventually(lab.instances, 30, "it begins to make instances")
        eventually(lambda: _ended_by(process, signal.SIGINT), 120)
    finally:
        process.kill()
    assert left(lab) == []


def _ended_by(process: "subprocess.Popen[bytes]", number: signal.Signals) -> bool:
    """Send one more signal to a process that runs still; tell whether it has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(number)
    return process.poll() is not None


def test_no_lab_and_no_such_statement_are_errors_of_use() -> None:
    for argv, word in (
        (["--lab", "nosuch"], "no lab called 'nosuch'"),
        (["--only", "S1,S99"], "S1 to S21"),
    ):
        done = verify(*argv)
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_one_verifier_at_a_time(lab: Lab) -> None:
    with build.verifying(lab.paths):
        done = verify("--lab", lab.name)
    assert done.returncode == 2
    assert "being verified by another command" in done.stderr


def test_a_port_that_is_taken_is_named(lab: Lab) -> None:
    outside = NamespacePlace("internet", lab.netns_of("internet"))
    with Responder() as responder:
        responder.serve(outside)
        done = verify("--lab", lab.name)
    assert done.returncode == 2
    assert "port 7047 of internet" in done.stderr
    assert "Traceback" not in done.stderr
    assert left(lab) == []
