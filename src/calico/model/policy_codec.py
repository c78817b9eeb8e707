"""Security groups and address groups as Calico v3 JSON, both ways.

A security group is a NetworkPolicy, an address group a NetworkSet; a rule that names
either as its remote end selects it by label.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from itertools import product

from calico.model.codec import SG_LABEL, parse_prefix
from calico.model.ids import AddressGroupId, GroupId, Invalid
from calico.model.keys import Keys, namespace
from calico.model.records import (
    ICMP,
    AddressGroup,
    Policy,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.model.resource import (
    OPENSTACK,
    Json,
    Resource,
    encode,
    items,
    parse,
)

AG_LABEL = "ag.projectcalico.org/openstack-"
PROTOCOLS = {
    "ICMP": 1,
    "TCP": 6,
    "UDP": 17,
    "ICMPv6": 58,
    "SCTP": 132,
    "UDPLite": 136,
}

_NAMES = {number: name for name, number in PROTOCOLS.items()}
_NUMBERS = {name.lower(): number for name, number in PROTOCOLS.items()}
_HAS = re.compile(r"\s*has\(\s*([^\s()]+)\s*\)\s*")
_ENDS = {"nets", "selector", "ports"}
_RULE = {
    "action",
    "ipVersion",
    "protocol",
    "icmp",
    "source",
    "destination",
    "metadata",
}


def encode_policy(
    policy: Policy, keys: Keys | None = None, old: bytes | None = None
) -> bytes:
    """Return a security group as a NetworkPolicy's JSON; `old` as for endpoints."""
    keys = keys or Keys()
    annotations = {f"{OPENSTACK}name": policy.name} if policy.name else {}
    if not policy.stateful:
        annotations[f"{OPENSTACK}stateful"] = "false"
    return encode(
        Resource(
            kind="NetworkPolicy",
            name=keys.policy_name(policy.group),
            namespace=namespace(keys.region),
            annotations=annotations,
            spec={
                "selector": f"has({SG_LABEL}{policy.group})",
                "types": ["Ingress", "Egress"],
                "ingress": [_encode_rule(r, "source") for r in policy.ingress],
                "egress": [_encode_rule(r, "destination") for r in policy.egress],
            },
            created=policy.created,
        ),
        old,
    )


def _encode_rule(rule: Rule, remote_end: str) -> Json:
    written: Json = {"action": "Allow", "ipVersion": rule.version}
    if rule.protocol is not None:
        written["protocol"] = _NAMES.get(rule.protocol, rule.protocol)
    if rule.icmp_type is not None:
        code = {} if rule.icmp_code is None else {"code": rule.icmp_code}
        written["icmp"] = {"type": rule.icmp_type} | code
    ends: dict[str, Json] = {"source": {}, "destination": {}}
    ends[remote_end] |= _encode_remote(rule.remote)
    if rule.ports is not None:
        ends["destination"]["ports"] = [_encode_ports(rule.ports)]
    written |= {end: entity for end, entity in ends.items() if entity}
    if rule.id is not None:
        written["metadata"] = {"annotations": {f"{OPENSTACK}rule-id": rule.id}}
    return written


def _encode_remote(remote: Remote | None) -> Json:
    match remote:
        case None:
            return {}
        case RemoteGroup(group=group):
            return {"selector": f"has({SG_LABEL}{group})"}
        case RemoteAddressGroup(address_group=address_group):
            return {"selector": f"has({AG_LABEL}{address_group})"}
        case IPv4Network() | IPv6Network():
            return {"nets": [str(remote)]}


def _encode_ports(ports: PortRange) -> int | str:
    if ports.first == ports.last:
        return ports.first
    return f"{ports.first}:{ports.last}"


def parse_policy(value: bytes) -> Policy:
    """Return the security group in a NetworkPolicy's JSON; Invalid if it is not one.

    What this project cannot enforce is refused, not left out: a rule read as less
    than it says would allow more than it says.
    """
    resource = parse(value, "NetworkPolicy")
    selector = resource.spec.get("selector", "")
    selected = _HAS.fullmatch(selector) if isinstance(selector, str) else None
    if selected is None or not selected[1].startswith(SG_LABEL):
        raise Invalid(f"selector {selector!r} is not a security group's")
    return Policy(
        group=GroupId(selected[1].removeprefix(SG_LABEL)),
        name=resource.annotations.get(f"{OPENSTACK}name", ""),
        ingress=_parse_rules(resource.spec, "ingress", "source"),
        egress=_parse_rules(resource.spec, "egress", "destination"),
        stateful=resource.annotations.get(f"{OPENSTACK}stateful") != "false",
    )


def _parse_rules(spec: Json, direction: str, remote_end: str) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for number, written in enumerate(items(spec, direction)):
        try:
            rules += _parse_rule(written, remote_end)
        except Invalid as e:
            raise Invalid(f"{direction} rule {number}: {e}") from e
    return tuple(rules)


def _parse_rule(written: object, remote_end: str) -> Iterator[Rule]:
    body = _known(written, _RULE)
    if body.get("action") != "Allow":
        raise Invalid(f"action {body.get('action')!r}")
    version = body.get("ipVersion")
    if not isinstance(version, int) or version not in {4, 6}:
        raise Invalid(f"ipVersion {version!r}")
    protocol = _parse_protocol(body.get("protocol"), version)
    icmp_type, icmp_code = _parse_icmp(body)
    remote = _known(body.get(remote_end, {}), _ENDS)
    local_end = "destination" if remote_end == "source" else "source"
    local = _known(body.get(local_end, {}), _ENDS)
    ports = _destination_ports(body, local_end, local, remote)
    for port_range, remote_part in product(ports, _parse_remotes(remote)):
        yield Rule(
            version=version,
            protocol=protocol,
            ports=port_range,
            icmp_type=icmp_type,
            icmp_code=icmp_code,
            remote=remote_part,
            id=_rule_id(body),
        )


def _known(written: object, names: set[str]) -> Json:
    if not isinstance(written, dict):
        raise Invalid(f"{written!r} is not an object")
    unknown = {name for name, value in written.items() if value} - names
    if unknown:
        raise Invalid(f"unsupported: {', '.join(sorted(unknown))}")
    return written


def _parse_protocol(written: object, version: int) -> int | None:
    match written:
        case None:
            return None
        case bool():
            raise Invalid(f"protocol {written!r}")
        case int() if 0 <= written <= 255:
            return written
        case str() if written.isdecimal() and written.isascii():
            return _parse_protocol(int(written), version)  # others spell numbers so
        case str() if written.lower() in _NUMBERS:
            number = _NUMBERS[written.lower()]
            # Both families' ICMP goes by the one name in some writers' rules.
            return ICMP[version] if number == ICMP[4] else number
        case _:
            raise Invalid(f"protocol {written!r}")


def _parse_icmp(body: Json) -> tuple[int | None, int | None]:
    written = _known(body.get("icmp") or {}, {"type", "code"})
    for value in written.values():
        if type(value) is not int or not 0 <= value <= 255:  # a bool is an int too
            raise Invalid(f"icmp {written!r}")
    return written.get("type"), written.get("code")


def _destination_ports(
    body: Json, local_end: str, local: Json, remote: Json
) -> list[PortRange | None]:
    source = local if local_end == "source" else remote
    if source.get("ports"):
        raise Invalid("unsupported: source ports")
    if local.get("nets") or local.get("selector"):
        raise Invalid(f"unsupported: {local_end} nets or selector")
    ports = items(body.get("destination", {}), "ports")
    return [_parse_ports(p) for p in ports] or [None]


def _parse_ports(written: object) -> PortRange:
    try:
        first, _, last = str(written).partition(":")
        return PortRange(first=int(first), last=int(last or first))
    except ValueError as e:
        raise Invalid(f"ports {written!r}") from e


def _parse_remotes(entity: Json) -> list[Remote | None]:
    nets: list[Remote | None] = [parse_prefix(net) for net in items(entity, "nets")]
    selector = entity.get("selector")
    if not selector:
        return nets or [None]
    if nets:
        raise Invalid("unsupported: nets and selector in one rule")
    selected = _HAS.fullmatch(str(selector))
    if selected and selected[1].startswith(SG_LABEL):
        return [RemoteGroup(GroupId(selected[1].removeprefix(SG_LABEL)))]
    if selected and selected[1].startswith(AG_LABEL):
        address_group = AddressGroupId(selected[1].removeprefix(AG_LABEL))
        return [RemoteAddressGroup(address_group)]
    raise Invalid(f"unsupported selector {selector!r}")


def _rule_id(body: Json) -> str | None:
    metadata = body.get("metadata") or {}
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if not isinstance(annotations, dict):
        return None  # the id is for people: without it the rule means the same
    found = annotations.get(f"{OPENSTACK}rule-id")
    return found if isinstance(found, str) else None


def encode_address_group(
    address_group: AddressGroup, keys: Keys | None = None, old: bytes | None = None
) -> bytes:
    """Return an address group as a NetworkSet's JSON; `old` as for endpoints."""
    keys = keys or Keys()
    return encode(
        Resource(
            kind="NetworkSet",
            name=keys.address_group_name(address_group.id),
            namespace=namespace(keys.region),
            labels={AG_LABEL + address_group.id: ""},
            annotations={f"{OPENSTACK}name": address_group.name}
            if address_group.name
            else {},
            spec={"nets": [str(prefix) for prefix in address_group.prefixes]},
            created=address_group.created,
        ),
        old,
    )


def parse_address_group(value: bytes) -> AddressGroup:
    """Return the address group in a NetworkSet's JSON; Invalid if it is not one."""
    resource = parse(value, "NetworkSet")
    labels = [name for name in resource.labels if name.startswith(AG_LABEL)]
    if len(labels) != 1:
        raise Invalid(f"{len(labels)} labels {AG_LABEL}ID instead of one")
    return AddressGroup(
        id=AddressGroupId(labels[0].removeprefix(AG_LABEL)),
        name=resource.annotations.get(f"{OPENSTACK}name", ""),
        prefixes=tuple(parse_prefix(net) for net in items(resource.spec, "nets")),
    )
