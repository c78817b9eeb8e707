"""Which ports a log is about (Neutron's logging API)."""

from collections.abc import Iterable

from calico.model.logs import Event, Log
from calico.model.records import Endpoint


def logs_of(endpoint: Endpoint, logs: Iterable[Log]) -> tuple[Log, ...]:
    """Return the logs that are about a port, in their order.

    A port without port security has no groups, so nothing of theirs to log.
    """
    if not endpoint.port_security:
        return ()
    return tuple(log for log in logs if _is_about(log, endpoint))


def logged_events(endpoint: Endpoint, logs: Iterable[Log]) -> frozenset[Event]:
    """Return the events of a port that some log asks for."""
    return frozenset(event for log in logs_of(endpoint, logs) for event in log.events)


def _is_about(log: Log, endpoint: Endpoint) -> bool:
    """Tell whether all that a log names is the port's.

    What it names it is about, whosever it is: who may name what, Neutron has decided
    (an administrator's log is his own project's). One that names nothing is about its
    project.
    """
    if log.port is None and log.group is None:
        return log.project == endpoint.project
    return log.port in {None, endpoint.port} and (
        log.group is None or log.group in endpoint.groups
    )
