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
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from calico.model.groups import Groups
from calico.model.ids import GroupId, Prefix
from calico.model.records import (
    Endpoint,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.plan.antispoof import Element
from calico.plan.nft import Part, part_of
from calico.plan.ruleset import Chain, Set
from calico.plan.ruleset import Rule as FilterRule
from calico.policy.cover import Piece, pieces
from calico.policy.evaluate import Direction, rules_of

SLOTS = 8  # groups of a port that every host is ready for; more where a port has more
_NAMES = {Direction.INGRESS: "in", Direction.EGRESS: "out"}
_FAR_END = {Direction.INGRESS: "saddr", Direction.EGRESS: "daddr"}
_NEAR_NAME = {Direction.INGRESS: "oifname", Direction.EGRESS: "iifname"}
_PROTOCOL = {4: "ip", 6: "ip6"}
_ICMP = {4: "icmp", 6: "icmpv6"}


@dataclass(slots=True)
class GroupFilter:
    """The parts and elements of the `inet` table that groups come to."""

    parts: dict[Part, Set | Chain] = field(default_factory=dict)
    elements: dict[Element, str] = field(default_factory=dict)

    def add(self, part: Set | Chain) -> None:
        """Add a set or a chain."""
        self.parts[part_of("inet", part)] = part

    def put(self, name: str, key: str, value: str = "") -> None:
        """Add an element to a set."""
        self.elements[Element("inet", name, key)] = value


def plan_groups(endpoints: Iterable[Endpoint], groups: Groups) -> GroupFilter:
    """Return what the groups of a host's endpoints come to.

    A group that nothing is known of allows nothing.
    """
    guarded = [e for e in endpoints if e.port_security]
    planned = GroupFilter()
    slots = max([SLOTS, *(len(e.groups) for e in guarded)])
    remotes: set[Remote] = set()
    for direction in Direction:
        _dispatch(planned, direction, guarded, slots)
        for group in sorted({group for e in guarded for group in e.groups}):
            remotes |= _group(planned, direction, group, groups)
    for remote in sorted(remotes, key=repr):
        _remote_sets(planned, remote, groups)
    return planned


def stateless_groups(groups: Groups) -> frozenset[GroupId]:
    """Return the groups whose ports have no connections (P6)."""
    return frozenset(g for g, p in groups.policies.items() if not p.stateful)


def group_chain(direction: Direction, group: GroupId) -> str:
    """Return the name of the chain with what a group allows."""
    return f"{_NAMES[direction]}.{group}"


def _dispatch(
    planned: GroupFilter,
    direction: Direction,
    guarded: Iterable[Endpoint],
    slots: int,
) -> None:
    name = _NAMES[direction]
    maps = [f"{name}_{number}" for number in range(1, slots + 1)]
    for each in maps:
        planned.add(Set(each, ("ifname",), verdicts=True))
    near = _NEAR_NAME[direction]
    lines = [FilterRule(f"{near} vmap @{m}", "what one group allows") for m in maps]
    lines.append(FilterRule("counter drop", "no group allows it"))
    planned.add(Chain(f"{name}_groups", tuple(lines)))
    for endpoint in guarded:
        for slot, group in zip(maps, sorted(endpoint.groups), strict=False):
            verdict = f"jump {group_chain(direction, group)}"
            planned.put(slot, f'"{endpoint.interface}"', verdict)


def _group(
    planned: GroupFilter, direction: Direction, group: GroupId, groups: Groups
) -> set[Remote]:
    """Add a group's chains of one direction; return the remotes that they name."""
    chain = group_chain(direction, group)
    by_remote: dict[tuple[int, Remote | None], list[Rule]] = defaultdict(list)
    for rule in rules_of(groups.policies.get(group), direction):
        remote = rule.remote
        named = isinstance(remote, RemoteGroup | RemoteAddressGroup)
        by_remote[rule.version, remote if named else None].append(rule)
    lines: list[FilterRule] = []
    remotes: set[Remote] = set()
    for (version, remote), rules in sorted(by_remote.items(), key=_remote_order):
        if remote is None:
            lines += _clauses(planned, direction, version, chain, rules)
            continue
        remotes.add(remote)
        own = f"{chain}.{_remote_id(remote)}.{version}"
        clauses = _clauses(planned, direction, version, own, rules)
        planned.add(Chain(own, tuple(clauses)))
        far = f"{_PROTOCOL[version]} {_FAR_END[direction]}"
        lines += [
            FilterRule(f"{far} @{name} jump {own}", "from or to its members")
            for name in _remote_set_names(remote, version)
        ]
    planned.add(Chain(chain, tuple(lines)))
    return remotes


def _remote_order(item: tuple[tuple[int, Remote | None], object]) -> tuple[int, str]:
    (version, remote), _ = item
    return version, "" if remote is None else repr(remote)


def _clauses(
    planned: GroupFilter,
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
    if prefix.prefixlen == prefix.max_prefixlen:
        return str(prefix.network_address)
    return str(prefix)


def _remote_id(remote: Remote) -> str:
    match remote:
        case RemoteGroup(group=group):
            return str(group)
        case RemoteAddressGroup(address_group=address_group):
            return f"ag-{address_group}"
        case _:
            raise TypeError(remote)


def _remote_set_names(remote: Remote, version: int) -> tuple[str, str]:
    """Return the sets of a remote's single addresses, and of its networks."""
    remote_id = _remote_id(remote)
    return f"members{version}.{remote_id}", f"nets{version}.{remote_id}"


def _remote_sets(planned: GroupFilter, remote: Remote, groups: Groups) -> None:
    prefixes = groups.prefixes(remote)
    for version in (4, 6):
        singles, nets = _remote_set_names(remote, version)
        type_ = (f"ipv{version}_addr",)
        planned.add(Set(singles, type_))
        planned.add(Set(nets, type_, interval=True))
        of_version = [p for p in prefixes if p.version == version]
        wide = [p for p in of_version if p.prefixlen < p.max_prefixlen]
        for prefix in of_version:
            if prefix.prefixlen == prefix.max_prefixlen:
                planned.put(singles, str(prefix.network_address))
        for prefix in _collapsed(wide):
            planned.put(nets, prefix_text(prefix))


def _collapsed(prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    prefixes = list(prefixes)
    yield from collapse_addresses(p for p in prefixes if isinstance(p, IPv4Network))
    yield from collapse_addresses(p for p in prefixes if isinstance(p, IPv6Network))
