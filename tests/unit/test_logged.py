"""Which ports a log is about, and what that comes to on a host."""

from dataclasses import replace

import pytest
from tests.endpoints import HOST, PROJECT, endpoint
from tests.unit.hosts import world

from calico.model.codec import encode_endpoint
from calico.model.ids import GroupId, LogId, PortId, ProjectId
from calico.model.keys import Keys
from calico.model.logs import Event, Log, encode_log
from calico.model.world import build, watched_prefixes
from calico.plan.antispoof import Element
from calico.plan.host import HostFacts, plan_host
from calico.policy.logged import logs_of

KEYS = Keys()
WEB, OTHER = GroupId("web"), GroupId("other")
ONE = replace(endpoint(2), groups=frozenset({WEB}))
MINE, FOREIGN = PROJECT, ProjectId("foreign")
LOG = Log(id=LogId("log"), project=MINE)
OTHER_PORT = PortId("other")


@pytest.mark.parametrize(
    ("log", "is_logged"),
    [
        (LOG, True),
        (replace(LOG, project=FOREIGN), False),
        (replace(LOG, port=ONE.port), True),
        (replace(LOG, port=OTHER_PORT), False),
        (replace(LOG, group=WEB), True),
        (replace(LOG, group=OTHER), False),
        (replace(LOG, group=WEB, port=ONE.port), True),
        (replace(LOG, group=OTHER, port=ONE.port), False),
        (replace(LOG, group=WEB, port=OTHER_PORT), False),
        # An administrator's, made in his own project.
        (replace(LOG, project=FOREIGN, port=ONE.port), True),
        (replace(LOG, project=FOREIGN, group=WEB), True),
    ],
)
def test_a_log_is_about_what_it_names_or_else_about_its_project(
    log: Log, *, is_logged: bool
) -> None:
    assert logs_of(ONE, [log]) == ((log,) if is_logged else ())


def test_a_port_without_port_security_has_nothing_to_log() -> None:
    assert logs_of(replace(ONE, port_security=False), [LOG]) == ()


@pytest.mark.parametrize(
    ("wanted", "sets"),
    [
        ({Event.ACCEPT}, {"logged_accepts"}),
        ({Event.DROP}, {"logged_drops"}),
        ({Event.ACCEPT, Event.DROP}, {"logged_accepts", "logged_drops"}),
    ],
)
def test_p51_a_port_that_is_logged_is_elements_and_nothing_else(
    wanted: set[Event], sets: set[str]
) -> None:
    facts = HostFacts(taps=frozenset({ONE.interface}))
    plain = world(ONE, endpoint(3, project=FOREIGN))
    logged = replace(plain, logs=(replace(LOG, events=frozenset(wanted)),))
    before, after = (plan_host(one, facts).whole_filter for one in (plain, logged))
    assert after.parts == before.parts
    assert after.elements.keys() - before.elements.keys() == {
        Element("inet", name, f'"{ONE.interface}"') for name in sets
    }


def test_p41_a_bad_log_is_set_aside_and_disturbs_no_other() -> None:
    good, bad = KEYS.log(LogId("log")), KEYS.log(LogId("bad"))
    everybody = b'{"project": "project", "event": "ALL", "resource": ""}'
    items = {
        KEYS.endpoint(HOST, ONE.device, ONE.port): encode_endpoint(ONE),
        good: encode_log(LOG),
        bad: everybody,
    }
    found = build(HOST, KEYS, items)
    assert (found.endpoints, found.logs) == ((ONE,), (LOG,))
    assert [one.key for one in found.rejected] == [bad]
    assert any(good.startswith(prefix) for prefix in watched_prefixes(HOST, KEYS))
