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


def test_p56_whoever_met_another_publisher_leaves_a_row_to_publish_once_more(
    seen: Any,
) -> None:
    # The row outlives whatever becomes of the second publication.
    assert (seen["alone"], seen["beside another"]) == (0, 1)


@pytest.mark.parametrize("error", ["LookupError", "Unpublishable", "Broken"])
def test_p41_what_cannot_be_published_stays_and_is_counted(
    seen: Any, error: str
) -> None:
    assert seen["attempts"][error] == [1, 2]


def test_p41_only_an_etcd_that_does_not_answer_ends_a_pass(seen: Any) -> None:
    assert seen["raised"] == ["Temporary", "nothing"]


def test_p41_one_port_that_cannot_be_published_holds_up_none_of_its_batch(
    seen: Any,
) -> None:
    assert seen["batch"] == {"published": ["1", "3"], "left": ["2"]}
