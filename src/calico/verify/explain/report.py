"""An explanation as a table and as JSON. Pure."""

from dataclasses import dataclass
from typing import Any

from calico.policy.explain import packet_words
from calico.verify.explain.hops import Hop
from calico.verify.explain.journey import Explanation
from calico.verify.explain.picture import End

COLUMNS = ("node", "what", "outcome", "detail")


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a packet that was sent: whether it arrived, and where or why."""

    arrived: bool
    detail: str


def agrees(explanation: Explanation, sent: Sent) -> bool:
    """Tell whether the packet did what was said."""
    return sent.arrived is explanation.allowed


def verdict(explanation: Explanation) -> str:
    """Return the verdict in one word."""
    return "allowed" if explanation.allowed else "denied"


def headline(explanation: Explanation) -> str:
    """Return the packet in words: what, from where, to where."""
    asked = explanation.question
    return f"{packet_words(asked.packet)} from {asked.source} to {asked.target}"


def as_json(explanation: Explanation, sent: Sent | None = None) -> dict[str, Any]:
    """Return what `--json` prints. `complete` false: other hosts have a say, too."""
    asked = explanation.question
    rule = explanation.rule
    body: dict[str, Any] = {
        "verdict": verdict(explanation),
        "complete": explanation.complete,
        "from": _end(asked.source),
        "to": _end(asked.target),
        "packet": {
            "version": asked.packet.version,
            "protocol": asked.packet.protocol,
            "port": asked.packet.port,
            "icmp_type": asked.packet.icmp_type,
            "icmp_code": asked.packet.icmp_code,
        },
        "hops": [_hop(hop) for hop in explanation.hops],
        "rule": None
        if rule is None
        else {
            "id": rule.id,
            "group": rule.group,
            "policy": rule.policy,
            "direction": rule.direction,
        },
    }
    if sent is not None:
        body["agree"] = agrees(explanation, sent)
        body["sent"] = {"arrived": sent.arrived, "detail": sent.detail}
    return body


def _end(end: End) -> dict[str, str | None]:
    return {
        "name": end.name,
        "address": str(end.address),
        "port": end.port,
        "host": end.host,
    }


def _hop(hop: Hop) -> dict[str, str]:
    return {
        "node": hop.node,
        "what": hop.what,
        "outcome": hop.outcome.value,
        "detail": hop.detail,
    }
