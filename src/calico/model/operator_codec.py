"""Operators' policies, network sets and host endpoints as Calico v3 JSON, both ways.

What this project does not enforce is refused with its path and the reason (P1): never
left out. A resource belongs to its operator, whole: of a stored value that is replaced
only identity and annotations stay (its labels and spec may be what is to go).
"""

from collections.abc import Mapping

import msgspec

from calico.model.codec import parse_address, parse_prefix
from calico.model.fields import Field
from calico.model.ids import Address, HostName, Invalid, Prefix
from calico.model.keys import shown_policy_name, stored_policy_name
from calico.model.operator import (
    Failsafe,
    FailsafePort,
    GlobalPolicy,
    HostEndpoint,
    NetworkSet,
    OperatorRule,
)
from calico.model.resource import Json, Resource, encode, parse, parse_json
from calico.model.rule_codec import (
    NAMESPACE_LABEL,
    encode_rules,
    in_namespaces,
    optional_selector,
    parse_protocol,
    parse_rules,
)
from calico.model.selectors import EVERYTHING

DEFAULT_ALLOW = "projectcalico-default-allow"

_POLICY = {
    "tier",
    "order",
    "selector",
    "namespaceSelector",
    "types",
    "ingress",
    "egress",
    "performanceHints",  # of how, not of what: another data path may heed them
}
_NOT_IN_POLICIES = {
    "serviceAccountSelector": "OpenStack has no service accounts",
    "doNotTrack": "policies see connections, not single packets",
    "preDNAT": "policies see packets after their translation",
    "applyOnForward": (
        "policies hold for instances' traffic in any case, and what else is forwarded"
        " by a host's interface is not protected"
    ),
}
_NOT_IN_SETS = {"allowedEgressDomains": "hosts do not look at names"}
_HOST = {"node", "interfaceName", "expectedIPs", "profiles"}
_NOT_IN_HOSTS = {"ports": "ports have no names here, rules give their numbers"}
_TYPES = ("Ingress", "Egress")


def parse_global_policy(value: bytes) -> GlobalPolicy:
    """Return the policy in a GlobalNetworkPolicy's JSON; Invalid says where and why."""
    resource = parse(value, "GlobalNetworkPolicy")
    spec = Field("spec", resource.spec).members(_POLICY, _NOT_IN_POLICIES)
    if spec["tier"].text() not in {"", "default"}:
        raise spec["tier"].refused("not supported: 'default' is the only tier here")
    spec["performanceHints"].elements()
    ingress, egress = parse_rules(spec["ingress"]), parse_rules(spec["egress"])
    types = _parse_types(spec["types"]) or _default_types(ingress, egress)
    selector = in_namespaces(optional_selector(spec["selector"]), spec)
    return GlobalPolicy(
        name=shown_policy_name(resource.name),
        order=_parse_order(spec["order"]),
        selector=selector or EVERYTHING,
        ingress=_of_type(ingress, spec["ingress"], "Ingress", types),
        egress=_of_type(egress, spec["egress"], "Egress", types),
    )


def _parse_order(field: Field) -> float | None:
    if field.value is None:
        return None
    if isinstance(field.value, bool) or not isinstance(field.value, int | float):
        raise field.refused(f"{field.value!r} is not a number")
    try:
        return float(field.value)
    except OverflowError as e:
        raise field.refused("too great a number") from e


def _parse_types(field: Field) -> set[str]:
    types = field.elements()
    for each in types:
        if each.value not in _TYPES:
            raise each.refused(f"{each.value!r} is neither Ingress nor Egress")
    return {each.text() for each in types}


def _default_types(
    ingress: tuple[OperatorRule, ...], egress: tuple[OperatorRule, ...]
) -> set[str]:
    types = {"Egress"} if egress else set()
    return types | ({"Ingress"} if ingress or not egress else set())


def _of_type(
    rules: tuple[OperatorRule, ...], field: Field, name: str, types: set[str]
) -> tuple[OperatorRule, ...] | None:
    if name in types:
        return rules
    if rules:
        raise field.refused(f"there are rules, but spec.types does not name {name}")
    return None


def encode_global_policy(policy: GlobalPolicy, old: bytes | None = None) -> bytes:
    """Return a policy as a GlobalNetworkPolicy's JSON; `old` is what it replaces."""
    directions = (policy.ingress, policy.egress)
    types = zip(_TYPES, directions, strict=True)
    return encode_document(
        Resource(
            kind="GlobalNetworkPolicy",
            name=stored_policy_name(policy.name),
            spec={
                "order": policy.order,
                "selector": str(policy.selector),
                "types": [name for name, rules in types if rules is not None],
                "ingress": encode_rules(policy.ingress),
                "egress": encode_rules(policy.egress),
            },
        ),
        old,
    )


def parse_network_set(value: bytes) -> NetworkSet:
    """Return the set in a NetworkSet's JSON: an operator's, or an address group.

    Like everything in a namespace it can be selected by the namespace's label.
    """
    resource = parse(value, "NetworkSet")
    if resource.namespace is None:
        raise Invalid("metadata.namespace: missing")
    labels = {**resource.labels, NAMESPACE_LABEL: resource.namespace}
    return _network_set(resource, labels)


def parse_global_network_set(value: bytes) -> NetworkSet:
    """Return the set in a GlobalNetworkSet's JSON."""
    resource = parse(value, "GlobalNetworkSet")
    if resource.namespace is not None:
        raise Invalid("metadata.namespace: a GlobalNetworkSet has none")
    return _network_set(resource, resource.labels)


def _network_set(resource: Resource, labels: Mapping[str, str]) -> NetworkSet:
    spec = Field("spec", resource.spec).members({"nets"}, _NOT_IN_SETS)
    return NetworkSet(
        name=resource.name,
        namespace=resource.namespace,
        labels=labels,
        nets=tuple(_parse_net(net) for net in spec["nets"].elements()),
    )


def _parse_net(field: Field) -> Prefix:
    with field.telling():
        return parse_prefix(field.value)


def encode_network_set(network_set: NetworkSet, old: bytes | None = None) -> bytes:
    """Return a set as NetworkSet or GlobalNetworkSet; `old` is what it replaces."""
    kind = "GlobalNetworkSet" if network_set.namespace is None else "NetworkSet"
    return encode_document(
        Resource(
            kind=kind,
            name=network_set.name,
            namespace=network_set.namespace,
            labels=network_set.labels,
            spec={"nets": [str(net) for net in network_set.nets]},
        ),
        old,
    )


def parse_host_endpoint(value: bytes) -> HostEndpoint:
    """Return the host's interfaces in a HostEndpoint's JSON.

    One that names no interface is refused: which it means would follow from addresses
    that a host may have or not have, and with it what is protected.
    """
    resource = parse(value, "HostEndpoint")
    spec = Field("spec", resource.spec).members(_HOST, _NOT_IN_HOSTS)
    host, interface = spec["node"].text(), spec["interfaceName"].text()
    if not host:
        raise spec["node"].refused("missing: which host?")
    if not interface:
        raise spec["interfaceName"].refused("missing: name one, or '*' for all")
    if interface == "lo" or interface.startswith("tap"):
        raise spec["interfaceName"].refused(
            "not supported: loopback is the host's own, and tap... are instances'"
        )
    profiles = [profile.value for profile in spec["profiles"].elements()]
    if profiles not in ([], [DEFAULT_ALLOW]):
        raise spec["profiles"].refused(f"not supported, but for [{DEFAULT_ALLOW}]")
    return HostEndpoint(
        name=resource.name,
        host=HostName(host),
        interface=None if interface == "*" else interface,
        addresses=tuple(map(_parse_address, spec["expectedIPs"].elements())),
        labels=resource.labels,
        default_allow=bool(profiles),
    )


def _parse_address(field: Field) -> Address:
    with field.telling():
        return parse_address(field.value)


def encode_host_endpoint(endpoint: HostEndpoint, old: bytes | None = None) -> bytes:
    """Return a host's interfaces as a HostEndpoint; `old` is what it replaces."""
    return encode_document(
        Resource(
            kind="HostEndpoint",
            name=endpoint.name,
            labels=endpoint.labels,
            spec={
                "node": endpoint.host,
                "interfaceName": endpoint.interface or "*",
                "expectedIPs": [str(address) for address in endpoint.addresses],
                "profiles": [DEFAULT_ALLOW] if endpoint.default_allow else [],
            },
        ),
        old,
    )


def encode_document(resource: Resource, old: bytes | None = None) -> bytes:
    """Return the JSON of an operator's resource in place of the stored one, if any.

    Labels and spec are the new ones alone; of the old one identity and annotations
    stay.
    """
    return encode(resource, old and _identity(old))


def _identity(old: bytes) -> bytes:
    try:
        metadata = parse_json(old).get("metadata")
    except Invalid:
        return b""
    kept = {"uid", "creationTimestamp", "annotations"}
    items = metadata.items() if isinstance(metadata, dict) else ()
    return msgspec.json.encode({"metadata": {k: v for k, v in items if k in kept}})


def parse_failsafe(value: bytes | None) -> Failsafe:
    """Return the open ports of hosts in the FelixConfiguration `default`, if any.

    A list that is absent is the model's own; one that is empty closes all. Invalid
    where they cannot be read: a host then keeps to the model's own.
    """
    if value is None:
        return Failsafe()
    spec = parse(value, "FelixConfiguration").spec
    own = Failsafe()
    return Failsafe(
        inbound=_parse_failsafe(spec, "failsafeInboundHostPorts", own.inbound),
        outbound=_parse_failsafe(spec, "failsafeOutboundHostPorts", own.outbound),
    )


def _parse_failsafe(
    spec: Json, name: str, own: tuple[FailsafePort, ...]
) -> tuple[FailsafePort, ...]:
    field = Field(f"spec.{name}", spec.get(name))
    if field.value is None:
        return own
    return tuple(_parse_failsafe_port(port) for port in field.elements())


def _parse_failsafe_port(field: Field) -> FailsafePort:
    written = field.members({"protocol", "port", "net"}, {})
    port, protocol = written["port"].number(), parse_protocol(written["protocol"])
    if port is None:
        raise written["port"].refused("missing")
    with field.telling():
        return FailsafePort(
            protocol=6 if protocol is None else protocol,
            port=port,
            net=_parse_net(written["net"]) if written["net"].text() else None,
        )
