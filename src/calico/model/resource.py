"""The envelope that every Calico v3 resource shares: JSON, metadata, kept fields.

What a resource's spec means is the codec's business; here is only what they have in
common, and the limits that Kubernetes puts on labels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import msgspec

from calico.model.ids import Invalid

API_VERSION = "projectcalico.org/v3"
OPENSTACK = "openstack.projectcalico.org/"  # the prefix of our labels and annotations

Json = dict[str, Any]

OWN_LABELS = (
    "projectcalico.org/",
    "sg.projectcalico.org/",
    "sg-name.projectcalico.org/",
    OPENSTACK,
)
"""How the names of the labels begin that the server publishes."""

FORMER = "projectcalico.org/openstack-"
"""What earlier releases of the model put before the names of labels, not OPENSTACK."""

_KEYSTONES = tuple(
    prefix + name
    for prefix in (OPENSTACK, FORMER)
    for name in ("project-name", "project-parent-id")
)

REJECTIONS = (TypeError, ValueError, AttributeError, RecursionError)
"""What a parser raises: Invalid (a ValueError).

The others are a parser's mistake, and a whole host's networking is too much to pay for
one.
"""

_UID_SPACE = UUID("8f9d3c1e-54a1-5a1b-9c0e-7f3a5c1b2d4e")
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9_.-]")
_LABEL_LENGTH = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource taken out of its JSON: what the codec reads and writes."""

    kind: str
    name: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Json = field(default_factory=dict)
    created: str | None = None


def label_value(text: str) -> str:
    """Return the nearest legal label value (at most 63 of letters, digits, `-_.`)."""
    return _NOT_IN_LABELS.sub("_", text)[:_LABEL_LENGTH].strip("_.-")


def encode(resource: Resource, old: bytes | None = None) -> bytes:
    """Return the resource's JSON.

    `old` is the stored value that it replaces: its identity (uid, creation time) and
    whatever in it this project does not know are kept. One that cannot be read is
    replaced whole.
    """
    kept = _readable(old)
    metadata = dict(kept.get("metadata", {}))
    metadata["name"] = resource.name
    if resource.namespace is not None:
        metadata["namespace"] = resource.namespace
    metadata.setdefault(
        "uid", str(uuid5(_UID_SPACE, f"{resource.kind}/{resource.name}"))
    )
    if resource.created is not None:
        metadata.setdefault("creationTimestamp", resource.created)
    metadata["labels"] = _labels(metadata.get("labels"), resource.labels)
    metadata["annotations"] = _foreign(metadata.get("annotations")) | dict(
        resource.annotations
    )
    written = kept | {
        "kind": resource.kind,
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "spec": kept.get("spec", {}) | resource.spec,
    }
    # A field that is None here is one that the project knows and that has no value.
    written["spec"] = {k: v for k, v in written["spec"].items() if v is not None}
    return msgspec.json.encode(written, order="sorted")


def parse(value: bytes, kind: str) -> Resource:
    """Return the resource in a stored value; Invalid if it is not one of this kind."""
    body = parse_json(value)
    if body.get("kind") != kind:
        raise Invalid(f"kind is {body.get('kind')!r}, not {kind}")
    metadata, spec = body.get("metadata", {}), body.get("spec", {})
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise Invalid("metadata and spec must be objects")
    return Resource(
        kind=kind,
        name=text(metadata, "name"),
        namespace=optional_text(metadata, "namespace"),
        labels=_texts(metadata, "labels"),
        annotations=_texts(metadata, "annotations"),
        spec=spec,
    )


def decode(value: bytes | str) -> Any:
    """Return whatever a JSON text says; Invalid if it is none."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
        raise Invalid(f"not JSON: {e}") from e


def says_the_same(old: bytes | None, new: bytes) -> bool:
    """Tell whether two values are the same JSON, however each writer spells it."""
    if old is None or old == new:
        return old == new
    try:
        return bool(decode(old) == decode(new))
    except Invalid:
        return False


def parse_json(value: bytes) -> Json:
    """Return the JSON object in a stored value; Invalid if it is none."""
    body = decode(value)
    if not isinstance(body, dict):
        raise Invalid("not a JSON object")
    return body


def text(body: Json, name: str) -> str:
    """Return a text that must be there; Invalid if it is not, or is something else."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name} is {value!r}, not a text")
    return value


def optional_text(body: Json, name: str) -> str | None:
    """Return a text that may be missing; Invalid if something else is there."""
    value = body.get(name)
    if not isinstance(value, str | None):
        raise Invalid(f"{name} is {value!r}, not a text")
    return value


def items(body: Json, name: str) -> list[Any]:
    """Return a list that may be missing; Invalid if something else is there."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Invalid(f"{name} is {value!r}, not a list")
    return value


def _texts(metadata: Json, name: str) -> dict[str, str]:
    value = metadata.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(
        isinstance(v, str) for v in value.values()
    ):
        raise Invalid(f"metadata.{name} must map names to texts")
    return value


def _readable(old: bytes | None) -> Json:
    if old is None:
        return {}
    try:
        body = parse_json(old)
    except Invalid:
        return {}
    parts = [body.get("metadata", {}), body.get("spec", {})]
    return body if all(isinstance(part, dict) for part in parts) else {}


def _labels(stored: object, given: Mapping[str, str]) -> dict[str, str]:
    labels = _foreign(stored) | dict(given)
    if isinstance(stored, dict):
        # Nothing here asks Keystone; what another Neutron side learned of it stays.
        known = {k: v for k, v in stored.items() if k in _KEYSTONES and v}
        labels |= {k: v for k, v in known.items() if not labels.get(k)}
    return labels


def _foreign(stored: object) -> dict[str, str]:
    # What others put on the resource stays; ours are written anew, or P18's stale
    # labels would survive a renaming.
    if not isinstance(stored, dict):
        return {}
    return {k: v for k, v in stored.items() if not k.startswith(OWN_LABELS)}
