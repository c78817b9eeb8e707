"""The connectivity contract holds in a lab: one run of the verifier, statement by
statement.

CALICO_TEST_VERDICTS names the JSON of a run that was just made, to save another. That
the verifier can see a broken cloud is shown by its probes' own tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calico.lab.lab import Lab

Verdicts = dict[str, dict[str, Any]]
# Where no verdicts are given, the first test waits for a whole run of the verifier, and
# the tests of single hosts run beside it.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Verdicts:
    """Return the verdicts of a run of `calico verify`."""
    given = os.environ.get("CALICO_TEST_VERDICTS")
    if given:
        return _read(Path(given))
    lab: Lab = request.getfixturevalue("lab")
    file = tmp_path_factory.mktemp("verify") / "verdicts.json"
    command = [sys.executable, "-m", "calico", "verify", "--lab", lab.name]
    run = subprocess.run(
        [*command, "--output", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert file.exists(), run.stdout + run.stderr
    found = _read(file)
    assert run.returncode == int(any(s["failures"] for s in found.values()))
    return found


def _read(file: Path) -> Verdicts:
    return {s["id"]: s for s in json.loads(file.read_text())["statements"]}


def holds(verdicts: Verdicts, statement: str) -> None:
    found = verdicts[statement]
    assert found["failures"] == []
    assert found["verdict"] == "holds"
    assert found["cases"] > 0


def test_s01_instances_of_a_network_reach_each_other(verdicts: Verdicts) -> None:
    holds(verdicts, "S1")


def test_s02_hops_are_visible(verdicts: Verdicts) -> None:
    holds(verdicts, "S2")


def test_s03_there_is_no_layer_2_between_instances(verdicts: Verdicts) -> None:
    holds(verdicts, "S3")


def test_s04_the_api_tells_the_truth(verdicts: Verdicts) -> None:
    holds(verdicts, "S4")


def test_s05_anycast_instances_are_all_used_and_not_missed(verdicts: Verdicts) -> None:
    holds(verdicts, "S5")


def test_s07_different_networks_are_alike(verdicts: Verdicts) -> None:
    holds(verdicts, "S7")


def test_s08_nothing_is_isolated_by_default(verdicts: Verdicts) -> None:
    holds(verdicts, "S8")


def test_s09_addresses_are_the_instances_own(verdicts: Verdicts) -> None:
    holds(verdicts, "S9")


def test_s11_provider_networks_reach_outside(verdicts: Verdicts) -> None:
    holds(verdicts, "S11")


def test_s12_tenant_networks_behind_a_router_are_as_any_other(
    verdicts: Verdicts,
) -> None:
    holds(verdicts, "S12")


def test_s13_floating_ips_lead_where_they_should_and_stop_at_once(
    verdicts: Verdicts,
) -> None:
    holds(verdicts, "S13")


def test_s14_the_network_decides_the_address(verdicts: Verdicts) -> None:
    holds(verdicts, "S14")


def test_s15_many_networks_are_as_good_as_one(verdicts: Verdicts) -> None:
    holds(verdicts, "S15")


def test_s16_security_groups_hold_for_running_exchanges_too(
    verdicts: Verdicts,
) -> None:
    holds(verdicts, "S16")


def test_s17_an_instance_speaks_as_itself_only(verdicts: Verdicts) -> None:
    holds(verdicts, "S17")


def test_s18_a_port_set_down_is_cut_off_and_comes_back(verdicts: Verdicts) -> None:
    holds(verdicts, "S18")


def test_s19_leases_say_what_neutron_says(verdicts: Verdicts) -> None:
    holds(verdicts, "S19")


def test_s20_status_follows_reality(verdicts: Verdicts) -> None:
    holds(verdicts, "S20")


def test_s21_both_ways_of_turning_it_on_work(verdicts: Verdicts) -> None:
    holds(verdicts, "S21")


def test_s10_the_address_space_is_guarded(verdicts: Verdicts) -> None:
    holds(verdicts, "S10")


@pytest.mark.parametrize("statement", ["S6"])
def test_what_is_not_covered_is_not_called_passed(
    verdicts: Verdicts, statement: str
) -> None:
    assert verdicts[statement]["verdict"] == "not checked"
    assert verdicts[statement]["cases"] == 0
