"""Network namespaces of a lab: made, configured and deleted in batches of `ip`.

One `ip -batch` for each namespace costs a few milliseconds, whatever it does; one `ip`
for each link or address would cost a second for a default lab.
"""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from calico.lab.processes import kill_inhabitants

_DIRECTORY = Path("/run/netns")


class LabFailed(Exception):  # noqa: N818 - says what happened
    """A lab cannot be made or used; the message is a sentence for the operator."""


def existing(prefix: str) -> list[str]:
    """Return the names of all namespaces that begin with `prefix`, sorted."""
    if not _DIRECTORY.exists():
        return []
    return sorted(f.name for f in _DIRECTORY.iterdir() if f.name.startswith(prefix))


def create(names: Sequence[str]) -> None:
    """Make namespaces with loopback up. LabFailed where the kernel refuses."""
    ip_batch([f"netns add {name}" for name in names])
    for name in names:
        ip_batch(["link set lo up"], netns=name)


def delete(names: Sequence[str]) -> None:
    """Kill all that lives in the namespaces, and delete those that exist."""
    kill_inhabitants(names)
    present = [name for name in names if (_DIRECTORY / name).exists()]
    ip_batch([f"netns delete {name}" for name in present])


def ip_batch(commands: Sequence[str], netns: str | None = None) -> None:
    """Run `ip` commands, in a namespace if one is named; LabFailed says what failed."""
    if not commands:
        return
    where = ["-n", netns] if netns else []
    result = subprocess.run(
        ["ip", *where, "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        reason = result.stderr.strip().replace("\n", "; ")
        raise LabFailed(f"cannot set up {netns or 'network namespaces'}: {reason}")


def write_sysctls(netns: str, values: Mapping[str, str]) -> None:
    """Write kernel settings (dotted names) of a namespace; LabFailed if one fails."""
    settings = [f"{name}={value}" for name, value in values.items()]
    result = run(netns, ["sysctl", "-q", "-w", *settings])
    if result.returncode:
        raise LabFailed(f"cannot set sysctls in {netns}: {result.stderr.strip()}")


def run(
    netns: str, argv: Iterable[str], timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a program in a namespace and return its outcome, output captured as text."""
    return subprocess.run(
        ["ip", "netns", "exec", netns, *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
