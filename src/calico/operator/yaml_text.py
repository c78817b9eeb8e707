"""YAML as this project reads and writes it: YAML 1.2's few types, not 1.1's many.

In YAML 1.1 `ports: [20:25]` is the number 1225, `no` is false, a date is no text, and
of two members of one name the second wins. None of it belongs in what opens doors.
"""

import json
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import yaml

from calico.model.ids import Invalid

# Each of these is something else than text in 1.1 too, so that a text which looks so is
# put in quotes by the writer.
_RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?", "-+0123456789"),
)


class _Loader(yaml.SafeLoader):
    """Reads the types above, and refuses an object with two members of one name."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - yaml's own name

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as it is called
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                reason = f"the name {name!r} is not a text"
            elif name in seen:
                reason = f"{name!r} is there twice"
            else:
                seen.add(name)
                continue
            raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def read_all(text: str) -> list[Any]:
    """Return the documents of a YAML or JSON text; Invalid says in which line not."""
    try:
        if text.lstrip()[:1] in {"{", "["}:
            with suppress(json.JSONDecodeError):  # YAML may begin so too
                return [_read_json(text)]
        return list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Invalid(f"{where}{e.problem}") from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise Invalid(" ".join(str(e).split())) from e


def write(document: object) -> str:
    """Return a document as YAML; `read_all` gives it back."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_members, parse_constant=_refuse_constant)


def _members(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"{twice!r} is there twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise Invalid(f"{name} is no number")
