"""Files of resources, in the form that calicoctl takes, to what is to be stored.

All that is wrong in all files is told at once, each with file, document and field.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from calico.model.fields import Field, Members
from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.model.operator_codec import encode_document
from calico.model.resource import API_VERSION, Resource, parse
from calico.model.selector_parser import BadSelector
from calico.operator import yaml_text
from calico.operator.kinds import Kind, Record, find_kind

_TOP = {"apiVersion", "kind", "metadata", "spec"}
# What other tools print of a resource that they read; it is not theirs to set.
_PRINTED = {"uid", "creationTimestamp", "resourceVersion", "generation"}
_METADATA = {"name", "namespace", "labels", "annotations", *_PRINTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A resource in a file: where, of which kind and name, and what it says."""

    place: str
    kind: Kind
    name: str
    resource: Resource
    record: Record

    def __str__(self) -> str:
        return f"{self.kind.name} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong at a place; `pointer` are lines that show where in a text."""

    place: str
    reason: str
    pointer: str = ""

    def __str__(self) -> str:
        lines = (f"    {line}" for line in self.pointer.splitlines())
        return "\n".join((f"{self.place}: {self.reason}", *lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of some files: what can be used, and what cannot."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def read(sources: Iterable[tuple[str, str]], keys: Keys | None = None) -> Reading:
    """Return what is in files, given as name and text.

    `keys` say which namespace is this cloud's; without, any of OpenStack's will do.
    """
    documents: dict[str, Document] = {}
    problems: list[Problem] = []
    for source, text in sources:
        for found in _read_source(source, text, keys):
            if isinstance(found, Problem):
                problems.append(found)
                continue
            first = documents.setdefault(str(found), found)
            if first is not found:
                reason = f"{found} is in {first.place} already"
                problems.append(Problem(place=found.place, reason=reason))
    return Reading(documents=tuple(documents.values()), problems=tuple(problems))


def _read_source(
    source: str, text: str, keys: Keys | None
) -> Iterator[Document | Problem]:
    try:
        bodies = yaml_text.read_all(text)
    except Invalid as e:
        yield Problem(place=source, reason=str(e))
        return
    places = [
        (f"{source}, document {number}" if len(bodies) > 1 else source, body)
        for number, body in enumerate(bodies, 1)
        if body is not None
    ]
    if not places:
        yield Problem(place=source, reason="there is nothing in it")
    for place, body in places:
        for inner_place, inner in _listed(place, body):
            try:
                yield _read_document(inner_place, inner, keys)
            except Invalid as e:
                yield Problem(place=inner_place, reason=str(e), pointer=_pointer(e))


def _listed(place: str, body: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is in a list, or in a `List` of resources; else the thing itself."""
    listed = body
    if isinstance(body, dict) and str(body.get("kind")).endswith("List"):
        listed = body.get("items")
    if not isinstance(listed, list):
        yield place, body
        return
    for number, each in enumerate(listed):
        yield f"{place}, items[{number}]", each


def _read_document(place: str, body: Any, keys: Keys | None) -> Document:
    top = Field("", body).members(_TOP, {}) if isinstance(body, dict) else None
    if top is None:
        raise Invalid(f"{body!r} is not a resource")
    version = top["apiVersion"].text()
    if version != API_VERSION:
        raise Invalid(f"apiVersion: {version!r} is not {API_VERSION}")
    kind = find_kind(top["kind"].text())
    metadata = top["metadata"].members(_METADATA, {})
    name = kind.shown_name(metadata["name"].text())
    kind.check_owner(name)
    body = {
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": _namespace(kind, metadata, keys),
            "labels": metadata["labels"].value,
            "annotations": metadata["annotations"].value,
        },
        "spec": top["spec"].value or {},
    }
    try:
        resource = parse(msgspec.json.encode(body), kind.name)
    except (TypeError, RecursionError) as e:
        raise Invalid(f"it cannot be said in JSON: {e}") from e
    record = kind.parse(encode_document(resource))
    return Document(place=place, kind=kind, name=name, resource=resource, record=record)


def _namespace(kind: Kind, metadata: Members, keys: Keys | None) -> str | None:
    field = metadata["namespace"]
    written, own = field.text(), kind.namespace(keys or Keys())
    if own is None and written:
        raise field.refused(f"a {kind.name} has none")
    if own is None or not written or written == own:
        return own
    if keys is None and written.startswith(f"{own}-region-"):
        return written
    raise field.refused(f"{written!r} is not {own!r}, the only one here")


def _pointer(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BadSelector):
            return cause.pointer
        cause = cause.__cause__
    return ""
