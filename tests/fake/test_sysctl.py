"""Settings read back and written, in a tree that stands for /proc/sys."""

from pathlib import Path

import pytest

from calico.model.ids import HostName
from calico.model.world import World
from calico.plan.host import HostFacts, plan_host
from calico.plan.items import Setting, key_of
from calico.reconcile.diff import diff
from calico.reconcile.problem import Problem
from calico.system.sysctl import read_settings, write_setting


def make(root: Path, path: str, value: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")
    return file


def settle(root: Path, *wanted: Setting) -> list[Problem]:
    """Make the settings as they are wanted, as a pass does."""
    want = {key_of(setting): setting for setting in wanted}
    lacking = diff(want, read_settings(wanted, root)).put.values()
    return [problem for one in lacking if (problem := write_setting(one, root))]


def limits() -> list[Setting]:
    """Return the plan's limits of the neighbour tables."""
    plan = plan_host(World(host=HostName("h")), HostFacts())
    settings = [item for item in plan.state.values() if isinstance(item, Setting)]
    return [setting for setting in settings if "gc_thresh" in setting.path]


def test_p50_a_low_neighbour_limit_is_raised_and_a_higher_one_is_kept(
    tmp_path: Path,
) -> None:
    for limit in limits():
        make(tmp_path, limit.path, "1024")
    high = make(tmp_path, "net/ipv4/neigh/default/gc_thresh3", "1000000")
    assert settle(tmp_path, *limits()) == []
    found = {one.path: int((tmp_path / one.path).read_text()) for one in limits()}
    assert found.pop("net/ipv4/neigh/default/gc_thresh3") == 1000000
    assert len(found) == 5
    assert min(found.values()) == 16384
    assert high.read_text() == "1000000\n", "not even written"


def test_p50_limits_that_the_kernel_lacks_are_passed_over(tmp_path: Path) -> None:
    assert settle(tmp_path, *limits()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_must_be_there_and_is_not_is_a_problem(tmp_path: Path) -> None:
    (problem,) = settle(tmp_path, Setting("net/ipv4/ip_forward", "1"))
    assert "net/ipv4/ip_forward" in str(problem)


@pytest.mark.parametrize("before", ["0", "2"])
def test_a_setting_is_written_where_it_differs(tmp_path: Path, before: str) -> None:
    file = make(tmp_path, "net/ipv4/ip_forward", before)
    assert settle(tmp_path, Setting("net/ipv4/ip_forward", "1")) == []
    assert file.read_text() == "1"
