"""The cloud's database: a private MariaDB, begun from a prepared copy.

Making Keystone's and Neutron's tables takes most of a minute, copying them a second.
So they are made once, in a cache, under a name that says what they were made by:
other versions or other migrations make another one.

MariaDB listens on a Unix socket only: all that talk to it are on this machine, and
nothing is to be kept out or let in.
"""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from calico.lab.processes import Processes
from calico.lab.servers import ServerFailed, Servers

NAME = "mariadb"
# sun_path has 108 bytes with the final zero (unix(7)).
_LONGEST_SOCKET = 107
_MAKERS = ("neutron", "neutron-lib", "keystone", "alembic", "sqlalchemy", "oslo.db")
# What changes the tables besides the packages: our migrations, and how we fill them.
_RECIPES = ("database.py", "keystone.py", "neutron.py", "tenants.py")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A MariaDB server whose data and socket are in `directory`."""

    servers: Servers
    directory: Path

    @property
    def tables(self) -> Path:
        """Return the data directory."""
        return self.directory / "tables"

    @property
    def socket(self) -> Path:
        """Return the socket that it serves on."""
        return self.directory / "sql"

    def url(self, name: str) -> str:
        """Return where the database called `name` is, as SQLAlchemy spells it."""
        query = f"unix_socket={self.socket}&charset=utf8mb4"
        return f"mysql+pymysql://root@localhost/{name}?{query}"

    def start(self, statements: str = "") -> None:
        """Start the server; `statements`, one a line, run before it serves."""
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise ServerFailed(
                f"{NAME}: {self.socket} is too long for the name of a socket: "
                "choose a shorter directory"
            )
        first = self.directory / "first.sql"
        first.write_text(statements)
        self.servers.start(NAME, self._command(first))

    def wait_ready(self) -> None:
        """Wait until it serves."""
        self.servers.await_ready(NAME, self._greets)

    def stop(self) -> None:
        """Stop it; the data stays."""
        self.servers.stop(NAME)

    def _greets(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            try:
                client.connect(str(self.socket))
                return bool(client.recv(1))
            except OSError:
                return False

    def _command(self, first: Path) -> list[str]:
        return [
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={self.tables}",
            f"--socket={self.socket}",
            f"--pid-file={self.directory / 'pid'}",
            f"--init-file={first}",
            "--skip-networking",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--character-set-server=utf8mb4",
            "--max-connections=300",
            # A lab's data lives as long as the lab: no flush for each commit, and a
            # small log, since the log is most of what is copied.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=128M",
            "--innodb-fast-shutdown=1",
        ]


def cache() -> Path:
    """Return where prepared tables are kept; CALICO_LAB_CACHE overrides it."""
    return Path(os.environ.get("CALICO_LAB_CACHE", "/var/cache/calico-lab"))


def copy_prepared(
    tables: Path, folder: Path, fill: Callable[[Database], None], progress: Progress
) -> None:
    """Copy prepared tables to a new directory; `fill` makes them where there are none.

    `folder` keeps them. Of several labs that start at once, one makes them and the
    others wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared = folder / f"tables-{fingerprint()}"
    with _locked(folder / "lock", progress):
        if not prepared.exists():
            progress("preparing the cloud's database, once (about a minute)")
            _prepare(prepared, fill)
        # The copy appears whole or not at all, whatever ends this process.
        fresh = tables.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        run("cp", "-a", "--reflink=auto", str(prepared), str(fresh))
    fresh.rename(tables)


def fingerprint() -> str:
    """Return a name for the tables that the installed software would make."""
    digest = hashlib.sha256()
    for maker in _MAKERS:
        digest.update(f"{maker}={metadata.version(maker)}\n".encode())
    digest.update(run("mariadbd", "--version"))
    for file in _recipes():
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _recipes() -> list[Path]:
    """Return the files that say, besides the packages, what the tables hold."""
    lab = Path(__file__).parent
    return [
        *sorted((lab.parent / "server/db").rglob("*.py")),
        *(lab / name for name in _RECIPES),
    ]


def _prepare(prepared: Path, fill: Callable[[Database], None]) -> None:
    """Make and fill a database in a directory of its own, then give it its name."""
    building = prepared.parent / "building"
    processes = Processes(building / "processes")
    _discard(building, processes)  # what a killed one left
    servers = Servers(processes=processes, netns=None, logs=building / "logs")
    database = Database(servers=servers, directory=building)
    try:
        building.mkdir()
        _install(database.tables)
        database.start("CREATE DATABASE keystone;\nCREATE DATABASE neutron;\n")
        database.wait_ready()
        fill(database)
        database.stop()
        for old in prepared.parent.glob("tables-*"):
            shutil.rmtree(old)  # made by other versions: nobody copies it now
        database.tables.rename(prepared)
    finally:
        _discard(building, processes)


def _discard(building: Path, processes: Processes) -> None:
    processes.stop_all()
    shutil.rmtree(building, ignore_errors=True)


def _install(tables: Path) -> None:
    run(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={tables}",
        "--user=root",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--innodb-log-file-size=16M",
    )


@contextmanager
def _locked(file: Path, progress: Progress) -> Iterator[None]:
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for the cloud's database that another lab prepares")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str, env: dict[str, str] | None = None) -> bytes:
    """Run a program to its end; ServerFailed, with what it said, if it fails."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except FileNotFoundError as e:
        raise ServerFailed(f"there is no program {command[0]}") from e
    if done.returncode:
        said = done.stdout.decode(errors="replace").splitlines()[-15:]
        raise ServerFailed(
            f"{' '.join(command)} failed ({done.returncode}):\n  " + "\n  ".join(said)
        )
    return done.stdout
