"""The rules that every host has, the same everywhere: two nftables tables, wholly ours.

`inet calico` looks at IP and `arp calico` at ARP. All that differs per port is elements
of their sets and verdict maps (`plan.antispoof`), so a change costs its own size (P51)
and a packet's cost does not depend on the number of ports. Table as data: rendered here
and compared with what the kernel has by each rule's comment.

A `tap` interface that is in no map is cut off, both ways.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

TABLE = "calico"
_ANY_TAP = '"tap*"'
_RAW = -300  # before connection tracking
_FILTER = 0


@dataclass(frozen=True, slots=True)
class Set:
    """A set of a table, or a map to verdicts; `types` is the concatenation's."""

    name: str
    types: tuple[str, ...]
    interval: bool = False
    verdicts: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and why it is there (kept in the kernel as its comment)."""

    text: str
    note: str

    @property
    def comment(self) -> str:
        """Return the comment by which a read-back rule is recognised as this one."""
        return f"{self.note} [{crc32(self.text.encode()):08x}]"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; one with a hook is entered by the kernel at that priority."""

    name: str
    rules: tuple[Rule, ...]
    hook: str | None = None
    priority: int = _FILTER


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one family, named `calico`."""

    family: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]


_GUARDED = Chain(
    "guarded",
    (
        Rule(
            "iifname . ether saddr . ip saddr @sources4 goto proven",
            "an address of the port, from its MAC",
        ),
        Rule(
            "iifname . ether saddr . ip6 saddr @sources6 goto proven",
            "an address of the port, from its MAC",
        ),
        Rule(
            "iifname . ether saddr . ip saddr @networks4 goto proven",
            "in an allowed pair's prefix",
        ),
        Rule(
            "iifname . ether saddr . ip6 saddr @networks6 goto proven",
            "in an allowed pair's prefix",
        ),
        Rule("iifname . ether saddr @macs goto unaddressed", "no address yet"),
        Rule("drop", "foreign source MAC or address"),
    ),
)
_PROVEN = Chain(
    "proven",
    (
        Rule("meta nfproto ipv4 udp sport 67 udp dport 68 drop", "no DHCP server"),
        Rule("meta nfproto ipv6 udp sport 547 udp dport 546 drop", "no DHCPv6 server"),
        Rule(
            "icmpv6 type { nd-router-advert, nd-redirect } drop", "no router in a port"
        ),
        Rule("goto destination", "the source is proven"),
    ),
)
_UNADDRESSED = Chain(
    "unaddressed",
    (
        Rule(
            "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 "
            "accept",
            "a DHCP client without an address (RFC 2131, 4.1)",
        ),
        Rule(
            "ip6 saddr :: icmpv6 type "
            "{ nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
            "duplicate address detection (RFC 4862, 5.4)",
        ),
        Rule(
            "ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::/16 } goto proven",
            "on the link only: ND, MLD, DHCPv6",
        ),
        Rule("drop", "neither an address of the port nor a start-up packet"),
    ),
)
_DESTINATION = Chain(
    "destination",
    (
        Rule(
            "ip daddr 255.255.255.255 udp dport != 67 drop", "no limited broadcast (S3)"
        ),
        Rule(
            "ip daddr 255.255.255.255 meta l4proto != udp drop",
            "no limited broadcast (S3)",
        ),
        Rule("ip daddr @broadcasts drop", "no directed broadcast (S3)"),
        Rule("accept", "forwarded traffic"),
    ),
)
_TO_HOST = Chain(
    "to_host",
    (
        Rule("ct state established,related accept", "answers to the host"),
        Rule("meta nfproto ipv4 udp sport 68 udp dport 67 accept", "DHCP"),
        Rule("meta nfproto ipv6 udp sport 546 udp dport 547 accept", "DHCPv6"),
        Rule(
            "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, "
            "nd-neighbor-advert, echo-request } accept",
            "neighbour discovery and ping",
        ),
        Rule("icmp type echo-request accept", "ping"),
        Rule("drop", "nothing else from an instance to its host"),
    ),
)
_INET = Table(
    "inet",
    (
        Set("from_port", ("ifname",), verdicts=True),
        Set("to_port", ("ifname",), verdicts=True),
        Set("macs", ("ifname", "ether_addr")),
        Set("sources4", ("ifname", "ether_addr", "ipv4_addr")),
        Set("sources6", ("ifname", "ether_addr", "ipv6_addr")),
        Set("networks4", ("ifname", "ether_addr", "ipv4_addr"), interval=True),
        Set("networks6", ("ifname", "ether_addr", "ipv6_addr"), interval=True),
        Set("broadcasts", ("ipv4_addr",)),
    ),
    (
        _DESTINATION,
        _PROVEN,
        _UNADDRESSED,
        _GUARDED,
        _TO_HOST,
        Chain(
            "from_instance",
            (
                Rule("iifname vmap @from_port", "to the port's own checks"),
                Rule("drop", "a port that is not served"),
            ),
        ),
        Chain(
            "to_instance",
            (
                Rule("oifname vmap @to_port", "to the port's own checks"),
                Rule("drop", "a port that is not served"),
            ),
        ),
        Chain(
            "prerouting",
            (Rule(f"iifname {_ANY_TAP} goto from_instance", "from an instance"),),
            "prerouting",
            _RAW,
        ),
        Chain(
            "input",
            (Rule(f"iifname {_ANY_TAP} goto to_host", "from an instance"),),
            "input",
        ),
        Chain(
            "forward",
            (
                Rule("ip daddr { 169.254.0.0/16, 224.0.0.0/24 } drop", "link-local"),
                Rule("ip6 daddr { fe80::/10, ff02::/16 } drop", "link-local"),
                Rule(f"oifname {_ANY_TAP} goto to_instance", "to an instance"),
            ),
            "forward",
        ),
        Chain(
            "output",
            (Rule(f"oifname {_ANY_TAP} goto to_instance", "to an instance"),),
            "output",
        ),
    ),
)
_ARP = Table(
    "arp",
    (
        Set("from_port", ("ifname",), verdicts=True),
        Set("macs", ("ifname", "ether_addr")),
        Set("sources4", ("ifname", "ether_addr", "ipv4_addr")),
        Set("networks4", ("ifname", "ether_addr", "ipv4_addr"), interval=True),
        Set("own4", ("ifname", "ipv4_addr")),
    ),
    (
        Chain(
            "unanswered",
            (
                Rule(
                    "iifname . arp daddr ip @own4 drop",
                    "asks for its own address: never answered (P35)",
                ),
            ),
        ),
        Chain(
            "guarded",
            (
                Rule(
                    "iifname . arp daddr ip @own4 drop",
                    "asks for its own address: never answered (P35)",
                ),
                Rule("iifname . ether saddr @macs goto sender", "the frame's source"),
                Rule("drop", "foreign source MAC"),
            ),
        ),
        Chain(
            "sender",
            (
                Rule(
                    "iifname . arp saddr ether . arp saddr ip @sources4 accept",
                    "an address of the port",
                ),
                Rule(
                    "arp saddr ip 0.0.0.0 "
                    "iifname . arp saddr ether . arp daddr ip @networks4 drop",
                    "a probe of a pair's address (RFC 5227): never answered (P35)",
                ),
                Rule(
                    "iifname . arp saddr ether . arp saddr ip @networks4 accept",
                    "in an allowed pair's prefix",
                ),
                Rule(
                    "arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs accept",
                    "a probe (RFC 5227)",
                ),
                Rule("drop", "foreign sender"),
            ),
        ),
        Chain(
            "from_instance",
            (
                Rule("iifname vmap @from_port", "to the port's own checks"),
                Rule("drop", "a port that is not served"),
            ),
        ),
        Chain(
            "input",
            (Rule(f"iifname {_ANY_TAP} goto from_instance", "from an instance"),),
            "input",
        ),
    ),
)
TABLES = (_INET, _ARP)


def render(table: Table) -> str:
    """Return a table's definition, without elements, in nft's language."""
    lines = [f"table {table.family} {TABLE} {{"]
    for each in table.sets:
        lines += _render_set(each)
    for chain in table.chains:
        lines += _render_chain(chain)
    return "\n".join([*lines, "}"])


def skeleton(table: Table) -> frozenset[str]:
    """Return what must be in the kernel for the table to be this one: one line each.

    Elements are not part of it. `system.nft` makes the same lines of what it reads.
    """
    return frozenset(_skeleton_lines(table))


def describe_set(family: str, declared: Set) -> str:
    """Return a set's line of a skeleton."""
    kind = "map" if declared.verdicts else "set"
    interval = " interval" if declared.interval else ""
    return f"{family} {kind} {declared.name} {'.'.join(declared.types)}{interval}"


def describe_chain(family: str, name: str, hook: str | None, priority: int) -> str:
    """Return a chain's line of a skeleton."""
    return f"{family} chain {name} {hook} {priority if hook else '-'}"


def describe_rule(family: str, chain: str, position: int, comment: str) -> str:
    """Return a rule's line of a skeleton; `position` counts from 0 in its chain."""
    return f"{family} rule {chain} {position} {comment}"


def _skeleton_lines(table: Table) -> Iterator[str]:
    family = table.family
    for each in table.sets:
        yield describe_set(family, each)
    for chain in table.chains:
        yield describe_chain(family, chain.name, chain.hook, chain.priority)
        for position, rule in enumerate(chain.rules):
            yield describe_rule(family, chain.name, position, rule.comment)


def _render_set(declared: Set) -> list[str]:
    kind = "map" if declared.verdicts else "set"
    verdict = " : verdict" if declared.verdicts else ""
    lines = [
        f"  {kind} {declared.name} {{",
        f"    type {' . '.join(declared.types)}{verdict}",
    ]
    if declared.interval:
        lines.append("    flags interval")
    return [*lines, "  }"]


def _render_chain(chain: Chain) -> list[str]:
    lines = [f"  chain {chain.name} {{"]
    if chain.hook:
        hook = f"type filter hook {chain.hook} priority {chain.priority}"
        lines.append(f"    {hook}; policy accept;")
    lines += [f'    {rule.text} comment "{rule.comment}"' for rule in chain.rules]
    return [*lines, "  }"]
