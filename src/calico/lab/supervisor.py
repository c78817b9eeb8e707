"""Restarting what ends, as systemd does for a production host (`Restart=always`).

A shell, since there is one for each host, and an interpreter for each would cost more
memory than some agents do. It leads the process group that `Processes` signals, and so
gets SIGTERM together with what it watches over.
"""

from collections.abc import Sequence
from pathlib import Path

from calico.lab.processes import parent

PAUSE = 1  # seconds, RestartSec of packaging/calico-agent.service

# A program that is started while the signal arrives has not got it: it is told again.
_SCRIPT = f"""\
file=$1
shift
stopping=
trap 'stopping=yes' TERM
while [ ! "$stopping" ]; do
    "$@" &
    echo $! >"$file"
    [ ! "$stopping" ] || kill $!
    wait $!
    [ "$stopping" ] || sleep {PAUSE}
done
wait
"""


def supervised(argv: Sequence[str], pid_file: Path) -> list[str]:
    """Return the command that runs another, again whenever it ends, until SIGTERM.

    `pid_file` gets the id of the one that runs at present.
    """
    return ["sh", "-c", _SCRIPT, "sh", str(pid_file), *argv]


def pid_of(supervisor: int, pid_file: Path) -> int | None:
    """Return the id of what a supervisor (by id) runs at present; None between two."""
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    # A pid that somebody else has now has another parent.
    return pid if parent(pid) == supervisor else None
