"""The rules of operators' policies as Calico v3 JSON, both ways.

What hosts cannot enforce is refused with its path: a rule read as less than it says
would allow, or deny, more than it says.
"""

from calico.model.codec import parse_prefix
from calico.model.fields import Field, Members
from calico.model.ids import Prefix
from calico.model.operator import Action, End, Icmp, OperatorRule
from calico.model.policy_codec import PROTOCOLS
from calico.model.records import ICMP, PortRange
from calico.model.resource import Json
from calico.model.selector_parser import parse_selector
from calico.model.selectors import And, Global, Has, Not, Selector

NAMESPACE_LABEL = "projectcalico.org/namespace"

_RULE = {
    "action",
    "ipVersion",
    "protocol",
    "notProtocol",
    "icmp",
    "notICMP",
    "source",
    "destination",
    "metadata",
}
_NOT_IN_RULES = {"http": "hosts look at packets, not at requests"}
_END = {
    "nets",
    "notNets",
    "selector",
    "notSelector",
    "namespaceSelector",
    "ports",
    "notPorts",
}
_NOT_IN_ENDS = {
    "serviceAccounts": "OpenStack has no service accounts",
    "services": "OpenStack has no services of Kubernetes",
    "domains": "hosts do not look at names",
}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
_NUMBERS = {name.lower(): number for name, number in PROTOCOLS.items()}
_VERSION_OF = {number: version for version, number in ICMP.items()}


def parse_rules(field: Field) -> tuple[OperatorRule, ...]:
    """Return the rules in a list of a policy's spec; Invalid names path and reason."""
    return tuple(_parse_rule(rule) for rule in field.elements())


def _parse_rule(field: Field) -> OperatorRule:
    rule = field.members(_RULE, _NOT_IN_RULES)
    protocol = parse_protocol(rule["protocol"])
    version = rule["ipVersion"].number()
    if version is None and isinstance(rule["protocol"].value, str):
        version = None if protocol is None else _VERSION_OF.get(protocol)
    with field.telling():
        return OperatorRule(
            action=_parse_action(rule["action"]),
            version=version,
            protocol=protocol,
            not_protocol=parse_protocol(rule["notProtocol"]),
            icmp=_parse_icmp(rule["icmp"]),
            not_icmp=_parse_icmp(rule["notICMP"]),
            source=_parse_end(rule["source"]),
            destination=_parse_end(rule["destination"]),
        )


def _parse_action(field: Field) -> Action:
    try:
        return Action(field.text())
    except ValueError as e:
        known = ", ".join(action.value for action in Action)
        raise field.refused(f"{field.value!r} is none of {known}") from e


def parse_protocol(field: Field) -> int | None:
    """Return the protocol number in a field, by name or number; None if absent."""
    match field.value:
        case None:
            return None
        case str(name) if name.lower() in _NUMBERS:
            return _NUMBERS[name.lower()]
        case int(number) if not isinstance(number, bool) and 0 <= number <= 255:
            return number
        case _:
            known = ", ".join(PROTOCOLS)
            raise field.refused(
                f"{field.value!r} is neither a number from 0 to 255 nor one of {known}"
            )


def _parse_icmp(field: Field) -> Icmp | None:
    icmp = field.members({"type", "code"}, {})
    type_, code = icmp["type"].number(), icmp["code"].number()
    if type_ is None:
        if code is not None:
            raise field.refused("a code without a type")
        return None
    with field.telling():
        return Icmp(type=type_, code=code)


def _parse_end(field: Field) -> End:
    end = field.members(_END, _NOT_IN_ENDS)
    return End(
        nets=_parse_nets(end["nets"]) or None,
        not_nets=_parse_nets(end["notNets"]),
        selector=in_namespaces(optional_selector(end["selector"]), end),
        not_selector=optional_selector(end["notSelector"]),
        ports=_parse_ports(end["ports"]) or None,
        not_ports=_parse_ports(end["notPorts"]),
    )


def optional_selector(field: Field) -> Selector | None:
    """Return the selector in a field; None if it is absent or empty."""
    with field.telling():
        return parse_selector(field.text()) if field.text() else None


def in_namespaces(selector: Selector | None, members: Members) -> Selector | None:
    """Return a selector narrowed by the namespaceSelector that stands beside it.

    `all()` is whatever is in a namespace: instances and their sets; `global()` whatever
    is in none: hosts and global sets. Namespaces of OpenStack have no labels that could
    be asked for.
    """
    field = members["namespaceSelector"]
    text = field.text()
    if not text:
        return selector
    with field.telling():
        namespaces = parse_selector(text)
    if str(namespaces) not in {"all()", "global()"}:
        raise field.refused("not supported: namespaces have no labels here")
    within: Selector = Has(NAMESPACE_LABEL)
    if isinstance(namespaces, Global):
        within = Not(within)
    return within if selector is None else And((within, selector))


def _parse_nets(field: Field) -> tuple[Prefix, ...]:
    return tuple(_parse_net(net) for net in field.elements())


def _parse_net(field: Field) -> Prefix:
    with field.telling():
        return parse_prefix(field.value)


def _parse_ports(field: Field) -> tuple[PortRange, ...]:
    return tuple(_parse_port(port) for port in field.elements())


def _parse_port(field: Field) -> PortRange:
    written = field.value
    if isinstance(written, bool) or not isinstance(written, int | str):
        raise field.refused(f"{written!r} is no port")
    first, colon, last = str(written).partition(":")
    last = last if colon else first
    if not _is_number(first) or not _is_number(last):
        raise field.refused(f"{written!r}: only numbers and 'first:last' are supported")
    with field.telling():
        return PortRange(first=int(first), last=int(last))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5


def encode_rules(rules: tuple[OperatorRule, ...] | None) -> list[Json] | None:
    """Return rules as a list of a policy's spec."""
    return None if rules is None else [_encode_rule(rule) for rule in rules]


def _encode_rule(rule: OperatorRule) -> Json:
    written = {
        "action": rule.action.value,
        "ipVersion": rule.version,
        "protocol": _encode_protocol(rule.protocol, rule.version),
        "notProtocol": rule.not_protocol,
        "icmp": _encode_icmp(rule.icmp),
        "notICMP": _encode_icmp(rule.not_icmp),
        "source": _encode_end(rule.source),
        "destination": _encode_end(rule.destination),
    }
    return {name: value for name, value in written.items() if value is not None}


def _encode_protocol(protocol: int | None, version: int | None) -> str | int | None:
    # By name the protocols of ICMP imply a version, by number they do not.
    if protocol is None or _VERSION_OF.get(protocol, version) != version:
        return protocol
    return _NAMES.get(protocol, protocol)


def _encode_icmp(icmp: Icmp | None) -> Json | None:
    if icmp is None:
        return None
    return {"type": icmp.type} | ({} if icmp.code is None else {"code": icmp.code})


def _encode_end(end: End) -> Json | None:
    written = {
        "nets": [str(net) for net in end.nets or ()],
        "notNets": [str(net) for net in end.not_nets],
        "selector": str(end.selector or ""),
        "notSelector": str(end.not_selector or ""),
        "ports": [encode_ports(ports) for ports in end.ports or ()],
        "notPorts": [encode_ports(ports) for ports in end.not_ports],
    }
    return {name: value for name, value in written.items() if value} or None


def encode_ports(ports: PortRange) -> int | str:
    """Return ports as a rule has them: a number, or `first:last`."""
    if ports.first == ports.last:
        return ports.first
    return f"{ports.first}:{ports.last}"
