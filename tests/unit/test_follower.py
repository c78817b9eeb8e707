"""A Follower ends up with what the store holds, whatever happens to the stream."""

from hypothesis import given
from hypothesis import strategies as st

from calico.datastore.store import Item, Snapshot
from calico.datastore.sync import (
    Change,
    Changes,
    Era,
    Fetch,
    Follower,
    Lost,
    Progress,
    Resume,
)

# A transaction: several keys changed at one revision; None deletes.
TRANSACTIONS = st.lists(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.none() | st.sampled_from([b"1", b"2", b"3"]),
        min_size=1,
    ),
    max_size=8,
)
# What befalls a follower: hear `n` replies of `size` changes each, the server falling
# back `again` revisions first (duplicates); or lose the history.
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 3),  # replies
            st.integers(1, 3),  # revisions in one
            st.integers(0, 3),  # revisions heard again
        ),
        st.just("lost"),
        st.just("fetch"),
    ),
    max_size=12,
)


class History:
    """The judge: all states of a store, by revision (the first is 1, empty)."""

    def __init__(self, transactions: list[dict[str, bytes | None]]) -> None:
        self.transactions = transactions
        self.states: dict[int, dict[str, bytes]] = {1: {}}
        for revision, transaction in enumerate(transactions, start=2):
            state = dict(self.states[revision - 1])
            for key, value in transaction.items():
                state.pop(key, None)
                if value is not None:
                    state[key] = value
            self.states[revision] = state
        self.last = max(self.states)

    def snapshot(self, revision: int) -> Snapshot:
        return Snapshot(
            items={
                key: Item(key=key, value=value, mod_revision=1, create_revision=1)
                for key, value in self.states[revision].items()
            },
            revision=revision,
        )

    def changes(self, first: int, after: int) -> Changes:
        """All changes of the revisions from `first` to before `after`."""
        return Changes(
            [
                Change(key=key, value=value, revision=revision)
                for revision in range(max(first, 2), min(after, self.last + 1))
                for key, value in self.transactions[revision - 2].items()
            ]
        )


@given(TRANSACTIONS, STEPS, st.data())
def test_p32_no_change_is_lost_however_the_stream_is_cut(
    transactions: list[dict[str, bytes | None]],
    steps: list[object],
    data: st.DataObject,
) -> None:
    history = History(transactions)
    follower = Mirrored()
    synced = False
    for step in steps:
        match step, follower.request:
            case _, Fetch():
                assert synced == (follower.items is not None)
                at = data.draw(st.integers(1, history.last))
                follower.receive(history.snapshot(at))
                synced = True
            case "lost", _:
                follower.receive(Lost())
            case (int(replies), int(size), int(again)), Resume(revision):
                first = revision - again
                for _ in range(replies):
                    follower.receive(history.changes(first, first + size))
                    first += size
                    assert follower.items in history.states.values()
            case _:
                pass
    match follower.request:
        case Fetch():
            follower.receive(history.snapshot(history.last))
        case Resume(revision):
            follower.receive(history.changes(revision, history.last + 1))
    assert follower.items == history.states[history.last]


class Mirrored(Follower):
    """A follower beside which a copy is kept, of what it says that changed alone."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror: dict[str, bytes] = {}

    def receive(
        self, reply: Snapshot | Changes | Progress | Lost
    ) -> frozenset[str] | None:
        changed = super().receive(reply)
        items = self.items or {}
        for key in changed or ():
            self.mirror.pop(key, None)
            if key in items:
                self.mirror[key] = items[key]
        assert self.mirror == items
        return changed


def synced(revision: int = 10, term: int = 3) -> Follower:
    follower = Follower()
    follower.meet(Era(cluster=1, term=term, revision=revision))
    item = Item(key="a", value=b"1", mod_revision=5, create_revision=5)
    follower.receive(Snapshot(items={"a": item}, revision=revision))
    return follower


def test_unknown_is_not_empty() -> None:
    follower = Follower()
    assert follower.items is None
    follower.receive(Lost())
    assert follower.items is None


def test_p32_a_loss_keeps_what_was_known() -> None:
    follower = synced()
    follower.receive(Lost())
    assert follower.items == {"a": b"1"}
    assert follower.request == Fetch()


def test_several_keys_of_one_revision_all_count() -> None:
    follower = synced()
    follower.receive(
        Changes(
            [
                Change(key="b", value=b"2", revision=11),
                Change(key="c", value=b"3", revision=11),
                Change(key="a", value=None, revision=11),
            ]
        )
    )
    assert follower.items == {"b": b"2", "c": b"3"}
    assert follower.request == Resume(12)


def test_progress_moves_the_point_of_resuming_and_nothing_else() -> None:
    follower = synced(revision=10)
    assert follower.receive(Progress(20)) is None
    assert follower.request == Resume(21)
    follower.receive(Progress(15))
    assert follower.request == Resume(21)


def test_a_later_point_of_the_same_history_resumes() -> None:
    follower = synced(revision=10, term=3)
    follower.meet(Era(cluster=1, term=4, revision=12))
    assert follower.request == Resume(11)


def test_a_restored_cluster_is_listed_anew() -> None:
    for era in (
        Era(cluster=1, term=3, revision=9),
        Era(cluster=1, term=2, revision=12),
        Era(cluster=2, term=3, revision=12),
    ):
        follower = synced(revision=10, term=3)
        follower.meet(era)
        assert follower.request == Fetch(), era
        assert follower.items == {"a": b"1"}
