"""Documents go into the datastore all at once, and nobody's change is lost."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from calico.datastore.memory import MemoryStore
from calico.datastore.store import MAX_OPERATIONS, Result, Transaction
from calico.model.ids import Invalid
from calico.model.keys import GLOBAL_POLICIES, Keys
from calico.model.operator_codec import encode_document
from calico.operator import documents
from calico.operator.change import (
    Change,
    Conflict,
    commit,
    plan_apply,
    plan_delete,
)
from calico.operator.documents import Document
from calico.operator.kinds import KINDS, NETWORK_SET, POLICY, find_kind

KEYS = Keys()
THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
GUARD, BARE = GLOBAL_POLICIES + "default.guard", GLOBAL_POLICIES + "guard"


def policies(*names: str, order: int = 1) -> tuple[Document, ...]:
    reading = documents.read(
        [
            (
                "file",
                json.dumps(
                    [
                        {
                            "apiVersion": "projectcalico.org/v3",
                            "kind": "GlobalNetworkPolicy",
                            "metadata": {"name": name, "labels": {"of": str(order)}},
                            "spec": {"order": order},
                        }
                        for name in names
                    ]
                ),
            )
        ],
        KEYS,
    )
    assert reading.problems == ()
    return reading.documents


def apply(
    store: MemoryStore, *names: str, order: int = 1, now: str = THEN
) -> list[str]:
    changes = plan_apply(store, policies(*names, order=order), KEYS, now)
    commit(store, changes)
    return said(changes)


def said(changes: list[Change]) -> list[str]:
    return [f"{change.subject} {change.outcome}" for change in changes]


def body(store: MemoryStore, key: str = GUARD) -> dict[str, dict[str, object]]:
    item = store.get(key)
    assert item is not None
    found: dict[str, dict[str, object]] = json.loads(item.value)
    return found


class Crowded(MemoryStore):
    """A store in which somebody else is faster than the next transaction."""

    def __init__(self, meddle: Callable[["Crowded", Transaction], None]) -> None:
        super().__init__()
        self.meddle: Callable[[Crowded, Transaction], None] | None = meddle

    def transaction(self, transaction: Transaction) -> Result:
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle(self, transaction)
        return super().transaction(transaction)


def guard_is_seven(store: Crowded, _transaction: Transaction) -> None:
    apply(store, "guard", order=7)


def test_what_is_applied_is_created_configured_or_unchanged() -> None:
    store = MemoryStore()
    assert apply(store, "guard") == ["GlobalNetworkPolicy guard created"]
    assert apply(store, "guard") == ["GlobalNetworkPolicy guard unchanged"]
    assert apply(store, "guard", "b", order=2, now=NOW) == [
        "GlobalNetworkPolicy guard configured",
        "GlobalNetworkPolicy b created",
    ]
    guard = body(store)
    assert guard["metadata"]["name"] == "default.guard"
    assert guard["metadata"]["creationTimestamp"] == THEN
    assert guard["metadata"]["labels"] == {"of": "2"}
    assert guard["spec"] == {"order": 2}
    second = body(store, GLOBAL_POLICIES + "default.b")
    assert second["metadata"]["creationTimestamp"] == NOW


def test_what_cannot_be_read_is_written_anew() -> None:
    store = MemoryStore()
    store.put(GUARD, b"{")
    assert apply(store, "guard") == ["GlobalNetworkPolicy guard configured"]
    assert body(store)["spec"] == {"order": 1}


def test_what_somebody_stored_without_a_time_needs_no_change() -> None:
    store = MemoryStore()
    (document,) = policies("guard")
    stored = replace(document.resource, name="default.guard")
    store.put(GUARD, encode_document(stored))
    assert apply(store, "guard") == ["GlobalNetworkPolicy guard unchanged"]


def test_a_policy_stays_under_the_key_that_it_has() -> None:
    store = MemoryStore()
    store.put(BARE, b"{}")
    apply(store, "guard")
    assert store.get(GUARD) is None
    assert body(store, BARE)["metadata"]["name"] == "guard"


def test_a_policy_that_is_stored_twice_is_not_guessed_at() -> None:
    store = MemoryStore()
    store.put(BARE, b"{}")
    store.put(GUARD, b"{}")
    with pytest.raises(Invalid, match="stored twice"):
        apply(store, "guard")
    commit(store, plan_delete(store, [(POLICY, "guard")], KEYS))
    assert str(store) == ""


def test_a_change_of_somebody_elses_is_not_lost() -> None:
    store = Crowded(guard_is_seven)
    with pytest.raises(
        Conflict,
        match=r"^GlobalNetworkPolicy guard: changed by",
    ):
        apply(store, "guard", "b")
    assert body(store)["spec"] == {"order": 7}
    assert store.get(GLOBAL_POLICIES + "default.b") is None, "all or nothing"


def test_half_of_it_done_by_somebody_else_is_not_done() -> None:
    def half(store: Crowded, _transaction: Transaction) -> None:
        apply(store, "guard")

    store = Crowded(half)
    with pytest.raises(Conflict, match="GlobalNetworkPolicy guard"):
        apply(store, "guard", "b")
    assert store.get(GLOBAL_POLICIES + "default.b") is None


def test_a_policy_under_its_other_key_is_a_change_of_somebody_elses() -> None:
    def meddle(store: Crowded, _transaction: Transaction) -> None:
        store.put(BARE, b"{}")

    store = Crowded(meddle)
    with pytest.raises(Conflict):
        apply(store, "guard")
    assert store.get(GUARD) is None


def test_a_write_whose_answer_was_lost_is_no_conflict() -> None:
    def twice(store: Crowded, transaction: Transaction) -> None:
        assert store.transaction(transaction).succeeded

    store = Crowded(twice)
    assert apply(store, "guard") == ["GlobalNetworkPolicy guard created"]
    store.meddle = twice
    commit(store, plan_delete(store, [(POLICY, "guard")], KEYS))
    assert str(store) == ""


def test_more_than_a_transaction_holds_is_refused_whole() -> None:
    store = MemoryStore()
    many = [f"p{n}" for n in range(MAX_OPERATIONS // 2 + 1)]
    with pytest.raises(Invalid, match="in parts"):
        apply(store, *many)
    assert str(store) == ""
    assert len(apply(store, *many[1:])) == MAX_OPERATIONS // 2


def test_what_is_deleted_is_gone_and_what_is_not_there_is_told() -> None:
    store = MemoryStore()
    apply(store, "guard", "b")
    changes = plan_delete(store, [(POLICY, "guard"), (POLICY, "c")], KEYS)
    commit(store, changes)
    assert said(changes) == [
        "GlobalNetworkPolicy guard deleted",
        "GlobalNetworkPolicy c not there",
    ]
    assert store.get(GUARD) is None
    assert store.get(GLOBAL_POLICIES + "default.b") is not None


def test_a_delete_does_not_take_what_was_changed_meanwhile() -> None:
    store = Crowded(guard_is_seven)
    store.meddle, meddle = None, store.meddle
    apply(store, "guard")
    store.meddle = meddle
    with pytest.raises(Conflict):
        commit(store, plan_delete(store, [(POLICY, "guard")], KEYS))
    assert body(store)["spec"] == {"order": 7}


def test_what_is_neutrons_is_not_deleted() -> None:
    store = MemoryStore()
    key = KEYS.network_sets + "osag.8f2c"
    store.put(key, b"{}")
    with pytest.raises(Invalid, match="address group of Neutron's"):
        plan_delete(store, [(NETWORK_SET, "osag.8f2c")], KEYS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_found_by_its_names_in_any_case(kind: object) -> None:
    assert find_kind(getattr(kind, "name", "").upper()) is kind


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("networkpolicy", "security groups are Neutron's"),
        ("WorkloadEndpoint", "ports are Neutron's"),
        ("pod", "it is none of GlobalNetworkPolicy"),
    ],
)
def test_other_kinds_are_refused(word: str, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        find_kind(word)
