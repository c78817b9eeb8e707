"""Limits that no linter has: sizes, and what must not be in the tree."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for folder in ("src", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if not path.name.endswith("_pb2.py")
)
MOCKS = re.compile(r"mock\.patch|Magic[M]ock|monkey[p]atch|sys\.modules\[")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_keeps_to_the_house_style(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 500
    long = {
        f.name: length
        for f in functions(ast.parse(text))
        if (length := (f.end_lineno or 0) - f.lineno + 1) > 50
    }
    assert long == {}
    assert MOCKS.findall(text) == [], "p44: tests meet the real thing, not a mock of it"


def test_the_lock_has_hashes_and_names_no_place() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    requirements = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in r for r in requirements)
