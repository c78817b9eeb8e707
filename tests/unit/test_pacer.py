"""When passes are due, with a clock that the test moves."""

from calico.reconcile.loop import Intervals, Pacer

INTERVALS = Intervals(throttle=0.1, resync=60, first_retry=0.5, last_retry=4)


def started(now: float = 100.0) -> Pacer:
    pacer = Pacer(INTERVALS)
    assert pacer.wait(now) == 0
    assert pacer.begin(now), "the first pass trusts no memory"
    pacer.succeed()
    return pacer


def test_a_quiet_host_is_looked_at_once_a_resync() -> None:
    pacer = started()
    assert pacer.wait(100.0) == 60
    assert pacer.wait(160.0) == 0
    assert pacer.begin(160.0)


def test_a_change_is_served_at_once_and_a_burst_is_throttled() -> None:
    pacer = started()
    pacer.mark()
    assert pacer.wait(105.0) == 0
    assert not pacer.begin(105.0)
    for _ in range(100):
        pacer.mark()
    assert 0 < pacer.wait(105.01) <= 0.1
    assert pacer.wait(105.2) == 0


def test_failures_are_tried_again_later_each_time_and_success_forgets() -> None:
    pacer = started()
    now, waits = 200.0, []
    pacer.demand_resync()
    for _ in range(5):
        pacer.begin(now)
        pacer.fail(now)
        waits.append(pacer.wait(now))
        now += waits[-1]
    assert waits == [0.5, 1, 2, 4, 4]
    pacer.begin(now)
    pacer.succeed()
    pacer.begin(now)
    pacer.fail(now)
    assert pacer.wait(now) == 0.5


def test_a_change_does_not_wait_for_the_backoff() -> None:
    pacer = started()
    for _ in range(5):
        pacer.fail(100.0)
    pacer.mark()
    assert pacer.wait(101.0) == 0


def test_a_demanded_resync_is_due_at_once() -> None:
    pacer = started()
    pacer.demand_resync()
    assert pacer.wait(101.0) == 0
    assert pacer.begin(101.0)
