"""What operators' resources the datastore holds, those that cannot be used too."""

from dataclasses import dataclass, replace
from typing import Any

from calico.datastore.store import Item, Store
from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.model.operator import GlobalPolicy
from calico.model.resource import API_VERSION, Json, parse_json
from calico.operator.kinds import POLICY, Kind, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stored resource; `record` is None where `reason` says why it cannot be used."""

    kind: Kind
    name: str
    value: bytes
    record: Record | None
    reason: str = ""

    def document(self) -> Json:
        """Return it as a file would have it; Invalid where it is no JSON object."""
        body = parse_json(self.value)
        metadata = body.get("metadata")
        kept: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind.name,
            "metadata": {"name": self.name}
            | {k: v for k, v in kept.items() if v and k != "name"},
            "spec": body.get("spec", {}),
        }


def stored(store: Store, kind: Kind, keys: Keys) -> list[Stored]:
    """Return all resources of a kind: policies as they come in turn, others by name."""
    prefix = kind.all_keys(keys)
    found: list[Stored] = []
    names: set[str] = set()
    for key, item in sorted(store.get_prefix(prefix).items.items()):
        one = _read(kind, key.removeprefix(prefix), item)
        if kind is POLICY and one.record is not None and one.record.name in names:
            # Hosts take the first: a name is a place in the order.
            reason = f"{key} has the name of another that comes before it"
            one = replace(one, record=None, reason=reason)
        if one.record is not None:
            names.add(one.record.name)
        found.append(one)
    return sorted(found, key=_turn)


def stored_one(store: Store, kind: Kind, name: str, keys: Keys) -> Stored | None:
    """Return a resource by its name; None if there is none."""
    prefix = kind.all_keys(keys)
    for key in kind.keys_of(name, keys):
        item = store.get(key)
        if item is not None:
            return _read(kind, key.removeprefix(prefix), item)
    return None


def _read(kind: Kind, stored_name: str, item: Item) -> Stored:
    name = kind.shown_name(stored_name)
    try:
        record = kind.parse(item.value)
    except Invalid as e:
        return Stored(
            kind=kind, name=name, value=item.value, record=None, reason=str(e)
        )
    return Stored(kind=kind, name=name, value=item.value, record=record)


def _turn(one: Stored) -> tuple[bool, float, str]:
    if one.kind is not POLICY:
        return (False, 0.0, one.name)
    order = one.record.order if isinstance(one.record, GlobalPolicy) else None
    return (order is None, order or 0.0, one.name)
