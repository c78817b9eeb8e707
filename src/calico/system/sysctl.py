"""Kernel settings below /proc/sys, read back before they are written."""

from collections.abc import Iterable
from pathlib import Path

from calico.plan.items import Key, Setting, key_of
from calico.reconcile.problem import Problem

_ROOT = Path("/proc/sys")


def read_settings(wanted: Iterable[Setting], root: Path = _ROOT) -> dict[Key, Setting]:
    """Return the wanted settings that hold, as they are wanted; others as they are."""
    have = {}
    for setting in wanted:
        actual = _read(setting, root)
        if actual is not None:
            have[key_of(setting)] = (
                setting if _holds(setting, actual) else _other(setting, actual)
            )
    return have


def write_setting(setting: Setting, root: Path = _ROOT) -> Problem | None:
    """Write one setting; return why it could not be, if so."""
    try:
        (root / setting.path).write_text(setting.value)
    except OSError as e:
        wish = f"write {setting.value}"
        return Problem(f"sysctl {setting.path}", wish, e.strerror or str(e))
    return None


def _read(setting: Setting, root: Path) -> str | None:
    """Return the value; the wanted one where the kernel lacks an optional setting."""
    try:
        return (root / setting.path).read_text().strip()
    except OSError:
        return setting.value if setting.optional else None


def _holds(setting: Setting, actual: str) -> bool:
    if setting.at_least and actual.isdigit():
        return int(actual) >= int(setting.value)
    return actual == setting.value


def _other(setting: Setting, actual: str) -> Setting:
    return Setting(setting.path, actual, setting.interface)
