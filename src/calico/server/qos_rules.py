"""Neutron's QoS rules to the limits of a port. Pure, like `translate`."""

from collections.abc import Iterable, Mapping
from typing import Any

from calico.model.ids import Invalid
from calico.model.qos import (
    UNLIMITED,
    Bandwidth,
    PacketRate,
    Qos,
    bandwidth,
    packet_rate,
)

_KILO = 1000  # Neutron's kbps and kpps are SI's
_NEUTRONS_OWN = ("network:", "neutron:")

Rule = Mapping[str, Any]
"""A rule of a policy, with its `type`."""


def policy_of(port: Mapping[str, Any]) -> str | None:
    """Return the policy that holds for a port: its own, else its network's.

    A network's does not hold for Neutron's own ports on it.
    """
    own = port.get("qos_policy_id")
    if own or (port.get("device_owner") or "").startswith(_NEUTRONS_OWN):
        return own
    return port.get("qos_network_policy_id")


def limits(rules: Iterable[Rule]) -> tuple[Qos, list[tuple[Rule, str]]]:
    """Return what the rules of a policy come to, and those left out, with the reason.

    Rules that no host enforces are refused by the API (`server.qos`).
    """
    found: dict[str, Any] = {}
    omitted = []
    for rule in rules:
        try:
            found |= _limit(rule)
        except Invalid as e:
            omitted.append((rule, str(e)))
    return Qos(**found) if found else UNLIMITED, omitted


def limit_of(rule: Rule) -> Bandwidth | PacketRate:
    """Return the limit in a rule of one of the two types; Invalid if it is none."""
    if rule["type"] == "bandwidth_limit":
        return bandwidth(
            rule["max_kbps"] * _KILO, (rule["max_burst_kbps"] or 0) * _KILO
        )
    return packet_rate(rule["max_kpps"] * _KILO, (rule["max_burst_kpps"] or 0) * _KILO)


def is_possible(rule: Rule) -> bool:
    """Tell whether the numbers of a limit go together."""
    try:
        limit_of(rule)
    except Invalid:
        return False
    return True


def floating_limits(
    rules: Iterable[Rule], *, own: bool
) -> tuple[Qos, list[tuple[Rule, str]]]:
    """Return what a policy comes to for a floating IP, and what is left out of it.

    Bandwidth alone; where the policy is not its `own`, other rules are not about it.
    """
    rules = list(rules)
    of_bandwidth = [rule for rule in rules if rule["type"] == "bandwidth_limit"]
    found, omitted = limits(of_bandwidth)
    if own:
        others = (rule for rule in rules if rule not in of_bandwidth)
        omitted += [(r, "floating IPs are limited in bandwidth alone") for r in others]
    return found, omitted


def _limit(rule: Rule) -> dict[str, Any]:
    match rule["type"]:
        case "bandwidth_limit":
            return {rule["direction"]: limit_of(rule)}
        case "packet_rate_limit":
            return {f"{rule['direction']}_packets": limit_of(rule)}
        case "dscp_marking":
            return {"dscp": rule["dscp_mark"]}
        case kind:
            raise Invalid(f"{kind} rules are not enforced")
