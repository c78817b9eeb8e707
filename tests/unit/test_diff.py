from hypothesis import given
from hypothesis import strategies as st

from calico.reconcile.diff import diff

states = st.dictionaries(st.integers(0, 6), st.integers(0, 2))


@given(states, states)
def test_a_diff_turns_one_state_into_the_other_and_touches_nothing_else(
    want: dict[int, int], have: dict[int, int]
) -> None:
    change = diff(want, have)
    after = {k: v for k, v in have.items() if k not in change.drop} | dict(change.put)
    assert after == want
    assert all(have.get(k) != v for k, v in change.put.items())
    assert not change.put.keys() & change.drop.keys()
    assert change.replaced == {k: have[k] for k in change.put.keys() & have.keys()}
    assert bool(change) == (want != have)
