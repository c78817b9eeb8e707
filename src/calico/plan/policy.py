"""Security groups as the host's rules: a chain for each group and direction.

A port enters the chains of its groups one after the other (`SLOTS`). What a group
allows is elements of sets, so that a packet costs a look-up for each kind of rule and
not for each rule, and a change costs its elements (P51). The sets and chains of a group
depend on which kinds of rules it has; members are sets of their own, shared by all
groups that name them. An element carries the id of its rule, and counts for it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from calico.model.groups import Groups
from calico.model.ids import GroupId, Prefix, collapsed, is_single
from calico.model.records import (
    Endpoint,
    Policy,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.model.selectors import Selector
from calico.plan.antispoof import Element
from calico.plan.nft import Part, part_of
from calico.plan.ruleset import Chain, Set
from calico.plan.ruleset import Rule as FilterRule
from calico.policy.cover import Piece, pieces
from calico.policy.evaluate import Direction, rules_of

SLOTS = 8  # groups of a port that every host is ready for; more where a port has more
NAMES = {Direction.INGRESS: "in", Direction.EGRESS: "out"}
_FAR_END = {Direction.INGRESS: "saddr", Direction.EGRESS: "daddr"}
_NEAR_NAME = {Direction.INGRESS: "oifname", Direction.EGRESS: "iifname"}
_PROTOCOL = {4: "ip", 6: "ip6"}
_ICMP = {4: "icmp", 6: "icmpv6"}


@dataclass(frozen=True, slots=True)
class Selected:
    """All that a selector in an operator's rule selects, as a rule's remote end."""

    selector: Selector


Named = Remote | Selected
"""What has sets of addresses of its own."""


@dataclass(slots=True)
class Section:
    """Parts and elements that one thing comes to: a group, a remote, a port.

    `remotes` are what its rules name.
    """

    parts: dict[Part, Set | Chain] = field(default_factory=dict)
    elements: dict[Element, str] = field(default_factory=dict)
    remotes: set[Named] = field(default_factory=set)

    def add(self, part: Set | Chain) -> None:
        """Add a set or a chain of the `inet` table."""
        self.parts[part_of("inet", part)] = part

    def put(self, name: str, key: str, value: str = "") -> None:
        """Add an element to a set of the `inet` table."""
        self.elements[Element("inet", name, key)] = value


def stateless_groups(groups: Groups) -> frozenset[GroupId]:
    """Return the groups whose ports have no connections (P6)."""
    return frozenset(g for g, p in groups.policies.items() if not p.stateful)


def group_chain(direction: Direction, group: GroupId) -> str:
    """Return the name of the chain with what a group allows."""
    return f"{NAMES[direction]}.{group}"


def dispatch_section(slots: int) -> Section:
    """Return what leads packets to the chains of their port's groups."""
    section = Section()
    for direction, name in NAMES.items():
        maps = _slot_names(direction, slots)
        for each in maps:
            section.add(Set(each, ("ifname",), verdicts=True))
        near = _NEAR_NAME[direction]
        lines = [FilterRule(f"{near} vmap @{m}", "what one group allows") for m in maps]
        lines += [
            FilterRule(
                f"ct state established,related counter goto {name}_dropped",
                "a stateless group's; operators are asked about beginnings",
            ),
            FilterRule(f"{near} vmap @{name}_after", "the operator's last word"),
            FilterRule(f"counter goto {name}_dropped", "no group allows it"),
        ]
        section.add(Chain(f"{name}_groups", tuple(lines)))
    return section


def slot_elements(endpoint: Endpoint) -> Iterator[tuple[Element, str]]:
    """Yield the elements that say which groups a port has.

    Without port security there is nothing to ask, and all is allowed.
    """
    for direction in Direction:
        if not endpoint.port_security:
            (slot,) = _slot_names(direction, 1)
            yield Element("inet", slot, f'"{endpoint.interface}"'), "accept"
            continue
        slots = _slot_names(direction, len(endpoint.groups))
        for slot, group in zip(slots, sorted(endpoint.groups), strict=True):
            verdict = f"jump {group_chain(direction, group)}"
            yield Element("inet", slot, f'"{endpoint.interface}"'), verdict


def _slot_names(direction: Direction, slots: int) -> list[str]:
    return [f"{NAMES[direction]}_{number}" for number in range(1, slots + 1)]


def group_section(
    direction: Direction, group: GroupId, policy: Policy | None
) -> Section:
    """Return what a group allows in one direction; one not known allows nothing."""
    planned = Section()
    chain = group_chain(direction, group)
    by_remote: dict[tuple[int, Remote | None], list[Rule]] = defaultdict(list)
    for rule in rules_of(policy, direction):
        remote = rule.remote
        named = isinstance(remote, RemoteGroup | RemoteAddressGroup)
        by_remote[rule.version, remote if named else None].append(rule)
    lines: list[FilterRule] = []
    for (version, remote), rules in sorted(by_remote.items(), key=_remote_order):
        if remote is None:
            lines += _clauses(planned, direction, version, chain, rules)
            continue
        planned.remotes.add(remote)
        own = f"{chain}.{_remote_id(remote)}.{version}"
        clauses = _clauses(planned, direction, version, own, rules)
        planned.add(Chain(own, tuple(clauses)))
        far = f"{_PROTOCOL[version]} {_FAR_END[direction]}"
        lines += [
            FilterRule(f"{far} @{name} jump {own}", "from or to its members")
            for name in remote_set_names(remote, version)
        ]
    planned.add(Chain(chain, tuple(lines)))
    return planned


def _remote_order(item: tuple[tuple[int, Remote | None], object]) -> tuple[int, str]:
    (version, remote), _ = item
    return version, "" if remote is None else repr(remote)


def _clauses(
    planned: Section,
    direction: Direction,
    version: int,
    chain: str,
    rules: Iterable[Rule],
) -> Iterator[FilterRule]:
    """Yield the rules of a chain for one IP version, and add the sets that they use."""
    by_kind: dict[tuple[bool, str], list[Piece]] = defaultdict(list)
    for piece in pieces(rules):
        by_kind[piece.prefix is not None, piece.kind].append(piece)
    for (prefixed, kind), found in sorted(by_kind.items()):
        looked_at = _fields(direction, version, kind, prefixed=prefixed)
        if not looked_at:
            family = f"meta nfproto ipv{version}"
            yield FilterRule(f"{family} counter accept", found[0].rule.id or "any")
            continue
        name = f"{chain}.{'nets_' if prefixed else ''}{kind}{version}"
        types = tuple(type_ for _, type_ in looked_at)
        # Single protocols need no ranges, and a set without is quicker to change.
        ranges = len(types) > 1 or prefixed
        planned.add(Set(name, types, interval=ranges, counted=True))
        for piece in found:
            planned.put(name, _key(piece), piece.rule.id or "")
        fields = " . ".join(text for text, _ in looked_at)
        family = "" if prefixed or kind == "icmp" else f"meta nfproto ipv{version} "
        yield FilterRule(f"{family}{fields} @{name} accept", f"{kind} allowed")


def _fields(
    direction: Direction, version: int, kind: str, *, prefixed: bool
) -> list[tuple[str, str]]:
    """Return what a kind of rule looks at: nft's expressions and their types."""
    icmp = _ICMP[version]
    address = f"{_PROTOCOL[version]} {_FAR_END[direction]}"
    of_kind = {
        "all": [],
        "protos": [("meta l4proto", "inet_proto")],
        "ports": [("meta l4proto", "inet_proto"), ("th dport", "inet_service")],
        "icmp": [(f"{icmp} type", f"{icmp}_type"), (f"{icmp} code", f"{icmp}_code")],
    }[kind]
    return [(address, f"ipv{version}_addr"), *of_kind] if prefixed else of_kind


def _key(piece: Piece) -> str:
    """Return a piece as nft writes an element, all in numbers."""
    first, last = piece.within
    within = str(first) if first == last else f"{first}-{last}"
    parts = {
        "all": [],
        "protos": [str(piece.number)],
        "ports": [str(piece.number), within],
        "icmp": [str(piece.number), within],
    }[piece.kind]
    return " . ".join([*([prefix_text(piece.prefix)] if piece.prefix else []), *parts])


def prefix_text(prefix: Prefix) -> str:
    """Return a prefix as nft writes it: a single address without a length."""
    return str(prefix.network_address if is_single(prefix) else prefix)


def _remote_id(remote: Named) -> str:
    match remote:
        case RemoteGroup(group=group):
            return str(group)
        case RemoteAddressGroup(address_group=address_group):
            return f"ag-{address_group}"
        case Selected(selector=selector):
            return f"sel-{sha256(str(selector).encode()).hexdigest()[:16]}"
        case _:
            raise TypeError(remote)


def remote_set_names(remote: Named, version: int) -> tuple[str, str]:
    """Return the sets of a remote's single addresses, and of its networks."""
    remote_id = _remote_id(remote)
    return f"members{version}.{remote_id}", f"nets{version}.{remote_id}"


def remote_section(remote: Named) -> Section:
    """Return the sets of the addresses that a rule's remote stands for, empty."""
    planned = Section()
    for version in (4, 6):
        singles, nets = remote_set_names(remote, version)
        type_ = (f"ipv{version}_addr",)
        planned.add(Set(singles, type_))
        planned.add(Set(nets, type_, interval=True))
    return planned


def members_section(remote: Named, prefixes: frozenset[Prefix]) -> Section:
    """Return elements of a remote's sets; all its networks have to be in one section.

    Ranges of a set must not overlap, so networks are merged.
    """
    planned = Section()
    for version in (4, 6):
        singles, nets = remote_set_names(remote, version)
        of_version = [p for p in prefixes if p.version == version]
        for prefix in of_version:
            if is_single(prefix):
                planned.put(singles, str(prefix.network_address))
        for prefix in collapsed(p for p in of_version if not is_single(p)):
            planned.put(nets, prefix_text(prefix))
    return planned
