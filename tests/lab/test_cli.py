"""The lab's commands: what they say, and what they say when something is wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.kernel.netns import eventually

from calico.lab import build
from calico.lab.lab import Lab, Plan
from calico.lab.namespaces import LabFailed, existing
from calico.lab.paths import LabPaths, lab_paths

_NOBODY = 65534


def calico(
    *argv: str, environment: Mapping[str, str] | None = None, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calico", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **(environment or {})},
        user=user,
    )


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a failed command said: exactly one line, and no traceback."""
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.splitlines()
    return line


def test_without_root_a_sentence_says_so(tmp_path: Path) -> None:
    if not os.access(sys.executable, os.X_OK) or os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    tmp_path.chmod(0o777)
    result = calico(
        "lab",
        "up",
        "noroot",
        environment={"CALICO_LAB_ROOT": str(tmp_path)},
        user=_NOBODY,
    )

    assert "needs root" in sentence(result)
    assert existing("calico-noroot-") == []


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    # A PATH with all that is needed but etcd.
    for name in build.programs():
        if name != "etcd":
            (tmp_path / name).symlink_to("/bin/true")
    result = calico("lab", "up", "nopath", environment={"PATH": str(tmp_path)})

    assert sentence(result).endswith("apt-get install etcd-server")
    assert "etcd" in sentence(result)


@pytest.mark.parametrize("command", ["up", "down", "status", "env"])
@pytest.mark.parametrize("name", ["", "Lab", "a-b", "../x", "a" * 21])
def test_a_name_that_cannot_be_one_is_refused(
    tmp_path: Path, command: str, name: str
) -> None:
    result = calico(
        "lab", command, name, environment={"CALICO_LAB_ROOT": str(tmp_path)}
    )

    assert "cannot be a lab's name" in sentence(result)


@pytest.mark.parametrize("name", ["", ".", "..", "{}/away", "a/../../away"])
def test_down_deletes_nothing_but_labs(tmp_path: Path, name: str) -> None:
    files = [tmp_path / place / "kept" for place in ("away", "labs", "labs/a")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    root = {"CALICO_LAB_ROOT": f"{tmp_path}/labs"}
    result = calico("lab", "down", name.format(tmp_path), environment=root)

    assert all(file.exists() for file in files)
    assert "cannot be a lab's name" in sentence(result)


def test_a_directory_outside_of_the_labs_is_never_razed(tmp_path: Path) -> None:
    for state in (tmp_path, tmp_path / "labs", tmp_path / "labs/a/b"):
        state.mkdir(parents=True, exist_ok=True)
        with pytest.raises(LabFailed, match="no lab's"):
            build._raze(LabPaths(f"t{os.getpid()}z", state))
        assert state.exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--racks", "0"),
        ("--hosts-per-rack", "65"),
        ("--racks", "33"),
        ("--etcd-members", "0"),
    ],
)
def test_a_size_that_cannot_be_is_refused(options: Sequence[str]) -> None:
    assert " to " in sentence(calico("lab", "up", "sized", *options))


def test_settings_for_neutron_that_are_none_are_refused(tmp_path: Path) -> None:
    settings = tmp_path / "neutron.conf"
    settings.write_text("core_plugin = ml2\n")
    said = sentence(calico("lab", "up", "set", "--neutron-conf", str(settings)))
    assert "settings for Neutron" in said
    assert "core_plugin" in said


@pytest.mark.parametrize("command", ["down", "status", "env"])
def test_a_lab_that_is_not_there_is_named(command: str) -> None:
    assert "there is no lab called 'absent'" in sentence(
        calico("lab", command, "absent")
    )


def test_what_a_crash_left_is_taken_down(tmp_path: Path) -> None:
    name = f"t{os.getpid()}x"
    subprocess.run(["ip", "netns", "add", f"calico-{name}-tor-1"], check=True)
    root = {"CALICO_LAB_ROOT": str(tmp_path)}
    (tmp_path / name / "logs").mkdir(parents=True)

    assert "already" in sentence(calico("lab", "up", name, environment=root))
    assert calico("lab", "down", name, environment=root).returncode == 0
    assert existing(f"calico-{name}-") == []
    assert list(tmp_path.iterdir()) == []


def test_a_lab_half_made_goes_with_the_terminal(tmp_path: Path) -> None:
    name = f"t{os.getpid()}h"
    root = {"CALICO_LAB_ROOT": str(tmp_path)}
    ours, theirs = os.openpty()
    # Unlike a session of Python's own, it has the terminal that it will be without.
    command = ["setsid", "--ctty", sys.executable, "-m", "calico", "lab", "up", name]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **root},
    )
    try:
        os.close(theirs)
        eventually(lambda: existing(f"calico-{name}-tor-1"), 30)
        os.close(ours)
        process.wait(60)
        assert existing(f"calico-{name}-") == []
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        calico("lab", "down", name, environment=root)


def test_a_lab_that_another_command_works_on_is_left_alone() -> None:
    name = f"t{os.getpid()}y"
    with build.locked(lab_paths(name)):
        assert "another command" in sentence(calico("lab", "up", name))


def test_a_name_in_use_is_refused_and_the_lab_stays(lab: Lab) -> None:
    assert f"a lab called '{lab.name}' already" in sentence(
        calico("lab", "up", lab.name)
    )
    assert Lab.load(lab.name).complete


def test_lists_are_json_where_asked(lab: Lab) -> None:
    labs = json.loads(calico("lab", "list", "--json").stdout)
    assert {"name": lab.name, "state": "up"}.items() <= next(
        entry for entry in labs if entry["name"] == lab.name
    ).items()

    status = json.loads(calico("lab", "status", lab.name, "--json").stdout)
    agents = {n["name"]: n["agent"] for n in status["nodes"] if n["kind"] == "host"}
    assert agents == dict.fromkeys(lab.hosts(), "alive")
    assert all(n["sessions_up"] == n["sessions"] > 0 for n in status["nodes"])
    assert status["dead"] == []

    listing = calico("lab", "instance", "list", "--lab", lab.name, "--json")
    assert isinstance(json.loads(listing.stdout), list)


def test_exec_runs_in_a_node_and_passes_its_exit_code(lab: Lab) -> None:
    result = calico(
        "lab",
        "exec",
        "tor-1",
        "--lab",
        lab.name,
        "--",
        "sh",
        "-c",
        "ip -br link; exit 7",
    )

    assert result.returncode == 7
    assert "to-spine-1" in result.stdout
    unknown = calico("lab", "exec", "nowhere", "--lab", lab.name, "--", "true")
    assert "neither a node nor an instance 'nowhere'" in sentence(unknown)


def test_env_is_for_a_shell_and_reaches_the_api_on_loopback(lab: Lab) -> None:
    printed = calico("lab", "env", lab.name).stdout
    variables = json.loads(calico("lab", "env", lab.name, "--json").stdout)

    assert f"export OS_AUTH_URL={variables['OS_AUTH_URL']}" in printed
    assert variables["OS_AUTH_URL"].startswith("http://127.0.0.1:")


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(lab: Lab) -> None:
    nowhere = "http://192.0.2.1:9"
    proxied = {"http_proxy": nowhere, "https_proxy": nowhere, "NO_PROXY": "example.org"}
    of_lab = ("--lab", lab.name)
    asked = calico(
        *("lab", "instance", "create", "wish", *of_lab, "--network", "nowhere"),
        environment=proxied,
    )
    assert "no network 'nowhere'" in sentence(asked)

    printed = calico("lab", "env", lab.name, "--json", environment=proxied).stdout
    for name in ("no_proxy", "NO_PROXY"):
        direct = json.loads(printed)[name].split(",")
        assert {"example.org", "127.0.0.1", "localhost"} <= set(direct)


def test_the_programs_of_root_are_found_without_its_path(lab: Lab) -> None:
    command = ("exec", "tor-1", "--lab", lab.name, "--", "sysctl", "-n")
    result = calico(
        *("lab", *command, "net.ipv4.ip_forward"), environment={"PATH": "/usr/bin:/bin"}
    )
    assert (result.returncode, result.stdout) == (0, "1\n")


def test_a_lab_whose_servers_died_is_told_of_in_sentences(lab: Lab) -> None:
    dead = ["etcd-1", "neutron-api"]
    try:
        for name in dead:
            process = lab.processes.find(name)
            assert process is not None
            os.killpg(process.pid, signal.SIGKILL)
        eventually(lambda: not any(map(lab.processes.running, dead)))

        status = calico("lab", "status", lab.name, "--json")
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)["dead"] == dead
        assert "unknown" in {
            node["agent"] for node in json.loads(status.stdout)["nodes"]
        }
        labs = json.loads(calico("lab", "list", "--json").stdout)
        states = {entry["name"]: entry["state"] for entry in labs}
        assert states[lab.name] == "impaired"
        of_lab = ("--lab", lab.name)
        asked = calico("lab", "instance", "create", "wish", *of_lab, "--network", "any")
        assert "the lab's API does not answer" in sentence(asked)
        verified = calico("verify", *of_lab)
        assert verified.returncode == 2
        assert "Traceback" not in verified.stderr
        assert "cannot begin" in verified.stderr
    finally:
        lab.cloud.start()


def test_after_a_reboot_a_lab_is_not_called_up(tmp_path: Path) -> None:
    name = f"t{os.getpid()}r"
    paths = LabPaths(name, tmp_path / name)
    made = Lab(plan=Plan(name=name), paths=paths)
    build._record(made)
    made.processes.spawn("it", ["true"], log=paths.logs / "it")
    eventually(lambda: not made.processes.running("it"))
    paths.complete.touch()
    root = {"CALICO_LAB_ROOT": str(tmp_path)}

    (entry,) = json.loads(calico("lab", "list", "--json", environment=root).stdout)
    assert entry["state"] == "dead"


def test_what_is_to_be_done_next_is_said_of_the_lab_that_was_made() -> None:
    for name in ("default", "red"):
        said = subprocess.run(
            ["make", "--no-print-directory", "next-steps", f"LAB={name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = [line for line in said.splitlines() if "calico lab" in line]
        assert len(lines) == 7
        assert "@" not in said
        assert all((" red" in line) == (name == "red") for line in lines)
