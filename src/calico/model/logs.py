"""Logs of security groups, as Neutron's logging API has them, and their JSON.

The Calico v3 model has nothing like them, so they lie in the project's own index. A log
that is disabled is not there at all.
"""

import enum
from dataclasses import dataclass

import msgspec

from calico.model.ids import GroupId, Invalid, LogId, PortId, ProjectId
from calico.model.resource import optional_text, parse_json, text


class Event(enum.Enum):
    """What became of a packet, in Neutron's words."""

    ACCEPT = "ACCEPT"
    DROP = "DROP"


_EVERY = "ALL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log: of the ports with `group`, of `port`, of both at once, or of a project.

    Neither named means all ports of `project`. The name is for people only.
    """

    id: LogId
    project: ProjectId
    group: GroupId | None = None
    port: PortId | None = None
    events: frozenset[Event] = frozenset(Event)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.id or not self.project:
            raise Invalid(f"log {self.id!r} of project {self.project!r}")
        if not self.events:
            raise Invalid(f"log {self.id}: no event")


def encode_log(log: Log, _old: bytes | None = None) -> bytes:
    """Return a log's JSON; all of it is ours, so nothing of an old value is kept."""
    body = {
        "project": log.project,
        "resource": log.group,
        "target": log.port,
        "event": _event_text(log.events),
        "name": log.name,
    }
    return msgspec.json.encode(body)


def parse_log(id_: LogId, value: bytes) -> Log:
    """Return the log in a stored value; Invalid if it is none."""
    body = parse_json(value)
    group, port = optional_text(body, "resource"), optional_text(body, "target")
    # An empty text is no name: it must not stand for a whole project.
    if "" in {group, port}:
        raise Invalid("resource and target must not be empty")
    return Log(
        id=id_,
        project=ProjectId(text(body, "project")),
        group=None if group is None else GroupId(group),
        port=None if port is None else PortId(port),
        events=parse_events(text(body, "event")),
        name=optional_text(body, "name") or "",
    )


def parse_events(word: str) -> frozenset[Event]:
    """Return what Neutron's word for events stands for; Invalid if it is none."""
    if word == _EVERY:
        return frozenset(Event)
    try:
        return frozenset({Event(word)})
    except ValueError as e:
        raise Invalid(f"event {word!r}") from e


def _event_text(events: frozenset[Event]) -> str:
    if events == frozenset(Event):
        return _EVERY
    (event,) = events
    return event.value
