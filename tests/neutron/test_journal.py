"""The journal's own promises, on a real database."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.neutron.deployment import deployment
from tests.neutron.mariadb import MariaDb

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def seen(database: MariaDb) -> Any:
    with deployment(database.url, "http://127.0.0.1:1", {}) as neutron:
        reply = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.neutron.journal_probe",
                str(neutron.folder / "neutron.conf"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert reply.returncode == 0, reply.stderr
    return json.loads(reply.stdout.splitlines()[-1])


def test_p20_a_change_that_is_rolled_back_leaves_no_row(seen: Any) -> None:
    assert seen["rolled back"] == 0


def test_p56_whoever_met_another_publisher_publishes_once_more(seen: Any) -> None:
    assert (seen["alone"], seen["beside another"]) == (1, 2)


def test_p41_what_cannot_be_published_stays_and_is_counted(seen: Any) -> None:
    assert seen["attempts"] == [1, 2]
