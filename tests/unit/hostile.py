"""Documents in which somebody wrote anything anywhere: what parsers have to stand."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import reduce
from operator import getitem
from types import UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=80)
Path = tuple[str | int, ...]
CORNERS: list[Any] = [
    *(None, True, False, 0, -1, 4, 4.0, 4.5, 10**18, 2**63),
    *("", "x", "80", "1:2", "10.0.0.1", "10.0.0.1/33", "slaac", "a\nb"),
    *("fe80::1%a\nport=0", [], {}, [[]], [{}], {"a": []}, ["x"], {"annotations": []}),
]
values = st.recursive(
    st.sampled_from(CORNERS),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(names, v, max_size=2),
)


def places(body: object, path: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value, the whole of it too."""
    yield path
    inner = body.items() if isinstance(body, dict) else ()
    for step, part in enumerate(body) if isinstance(body, list) else inner:
        yield from places(part, (*path, step))


def substituted(body: Any, path: Path, value: object) -> Any:
    if not path:
        return value
    changed = deepcopy(body)
    holder = reduce(getitem, path[:-1], changed)
    # An annotation of ours is JSON in a text: a bad one is bad inside.
    inside = path[:2] == ("metadata", "annotations") and len(path) == 3
    is_text = inside and not isinstance(value, str | None)
    holder[path[-1]] = json.dumps(value) if is_text else value
    return changed


def well_typed(value: object, hint: Any) -> bool:
    """Tell whether a value is of the type that a record declares."""
    if isinstance(hint, NewType):
        return well_typed(value, hint.__supertype__)
    if get_origin(hint) in {Union, UnionType}:
        return any(well_typed(value, one) for one in get_args(hint))
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(hint) in {tuple, frozenset}:
        return isinstance(value, get_origin(hint)) and all(
            any(well_typed(one, arg) for arg in get_args(hint) if arg is not ...)
            for one in value
        )
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, hint):
        hints = get_type_hints(hint)
        return all(
            well_typed(getattr(value, f.name), hints[f.name]) for f in fields(hint)
        )
    return type(value) is hint
