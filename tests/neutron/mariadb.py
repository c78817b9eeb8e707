"""A private MariaDB for tests: its own data, a loopback port, gone with its block."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.etcd_server import free_port
from tests.neutron.waiting import eventually


class MariaDb:
    """with MariaDb() as database: ... database.url"""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ct-mariadb-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What SQLAlchemy calls the database `neutron`."""
        return self._url("neutron")

    def empty_copy(self, name: str) -> str:
        """Make another database of the tables of `neutron`; return its URL.

        What migrations filled them with is there too, nothing else.
        """
        tables = self.sql("SHOW TABLES IN neutron").split()
        shown = self.sql("".join(f"SHOW CREATE TABLE neutron.{t};\n" for t in tables))
        made = [line.split("\t")[1].replace("\\n", " ") for line in shown.splitlines()]
        filled = [
            f"INSERT INTO {table} SELECT * FROM neutron.{table}"  # noqa: S608 - Neutron's names
            for table in tables
            if table.startswith("alembic") or table == "securitygroupdefaultrules"
        ]
        first = [f"CREATE DATABASE {name}", f"USE {name}", "SET foreign_key_checks = 0"]
        self.sql(";\n".join([*first, *made, *filled]))
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self._port}/{name}?charset=utf8mb4"

    @property
    def _socket(self) -> str:
        return str(self._folder / "socket")

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def sql(self, statement: str) -> str:
        """Run a statement as root; return what it prints, tab separated."""
        reply = subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={self._socket}", "-N", "-B"],
            input=statement,
            text=True,
            capture_output=True,
            check=True,
        )
        return reply.stdout

    def _start(self) -> None:
        data = self._folder / "data"
        common = ["--no-defaults", f"--datadir={data}", "--user=root"]
        subprocess.run(
            [
                "mariadb-install-db",
                *common,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            capture_output=True,
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "mariadbd",
                    *common,
                    f"--socket={self._socket}",
                    "--bind-address=127.0.0.1",
                    f"--port={self._port}",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--skip-log-bin",
                    "--character-set-server=utf8mb4",
                    "--max-connections=300",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, "MariaDB answers")
        self.sql("CREATE DATABASE neutron")

    def _answers(self) -> bool:
        try:
            return self.sql("SELECT 1") == "1\n"
        except subprocess.CalledProcessError:
            return False
