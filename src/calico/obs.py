"""Logs and metrics: how they look, and the table of all metrics there are.

Pure code returns facts; whoever has effects logs and counts them with what is here.
"""

import logging
import sys
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import start_http_server

_LEVELS = ("debug", "info", "warning", "error")


class Metrics:
    """All metrics of an agent, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        mine = self.registry
        self.passes = Counter(
            "calico_agent_passes", "Passes, by outcome.", ["outcome"], registry=mine
        )
        self.pass_seconds = Histogram(
            "calico_agent_pass_seconds", "Duration of a pass.", registry=mine
        )
        self.changes = Counter(
            "calico_agent_changes",
            "Changes made on the host, by kind.",
            ["kind"],
            registry=mine,
        )
        self.problems = Gauge(
            "calico_agent_problems", "What the last pass could not do.", registry=mine
        )
        self.endpoints = Gauge(
            "calico_agent_endpoints", "Endpoints, by status.", ["status"], registry=mine
        )
        self.rejected = Gauge(
            "calico_agent_rejected_objects", "Stored objects set aside.", registry=mine
        )
        self.policy_log_events = Counter(
            "calico_agent_policy_log_events",
            "Packets that the kernel told the policy log of.",
            registry=mine,
        )
        self.policy_log_lost = Counter(
            "calico_agent_policy_log_lost",
            "Packets that the policy log could not read or write.",
            registry=mine,
        )
        self.in_sync = Gauge(
            "calico_agent_in_sync",
            "1 once the datastore was seen whole.",
            registry=mine,
        )


def configure_logging(level: str, *, as_json: bool) -> None:
    """Send structlog's and the library's logs to stderr at `level` and above.

    ValueError names a level that does not exist.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level {level!r}: one of {', '.join(_LEVELS)}")
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(
        level=max(number, logging.INFO),
        stream=sys.stderr,
        format="%(asctime)s [%(levelname)s] %(name)s: %(message)s",
        force=True,
    )
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info
            if as_json
            else structlog.processors.StackInfoRenderer(),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def serve_metrics(metrics: Metrics, address: str) -> WSGIServer:
    """Serve metrics over HTTP at `host:port`; OSError if that cannot be had."""
    host, _, port = address.rpartition(":")
    server, _ = start_http_server(int(port), host, registry=metrics.registry)
    return server
