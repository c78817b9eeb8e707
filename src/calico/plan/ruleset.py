"""The rules that every host has, the same everywhere: two nftables tables, wholly ours.

`inet calico` looks at IP and `arp calico` at ARP. All that differs per port is elements
of their sets and verdict maps (`plan.antispoof`), so a change costs its own size (P51)
and a packet's cost does not depend on the number of ports. Security groups add sets and
chains of their own (`plan.policy`). Table as data: `plan.nft` renders it, and compares
it with what the kernel has by each rule's comment.

A `tap` interface that is in no map is cut off, both ways.

What a packet between instances passes, in order: `prerouting` (is the source its own?),
`forward_from` (may the sender send it?), `forward` (may the receiver have it?). The two
are chains of their own, so that to accept in one is not to accept in the other. What
has passed one of them is looked at by `sent` or `received`, which only log.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

TABLE = "calico"
ANY_TAP = '"tap*"'
_RAW = -300  # before connection tracking
_SENDER = -10  # before the filter of the receiver
_SENT = -5
_FILTER = 0
BEFORE_ROUTING, AFTER_ROUTING = -100, 100  # NF_IP_PRI_NAT_DST, _SRC
HOST = 1  # after the filter of what instances send to the host
_RECEIVED = 5
LOG_GROUP = 5
"""The netfilter log group that all rules which log tell of their packets.

The kernel's own log is silent about packets in network namespaces.
"""
_NEAR = {"out": "iifname", "in": "oifname"}  # the interface of the port in question
METADATA = "metadata"  # the set of interfaces that may ask the metadata service
DNS = {4: "dns4", 6: "dns6"}  # the sets of who may ask which of the host's addresses
LOGGED_ACCEPTS, LOGGED_DROPS = "logged_accepts", "logged_drops"
CUT = 0x01000000
"""The bit of a connection's mark that says: no longer allowed (P7)."""


@dataclass(frozen=True, slots=True)
class Set:
    """A set of a table, or a map to verdicts or, if so, `to` values of another type.

    `types` is the key's, a concatenation if there are several.
    The elements of one that is `counted` have counters, and a comment as their value.
    """

    name: str
    types: tuple[str, ...]
    interval: bool = False
    verdicts: bool = False
    counted: bool = False
    to: str = ""

    @property
    def is_map(self) -> bool:
        """Return whether its elements lead to something."""
        return self.verdicts or bool(self.to)


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
    """A chain; one with a hook is entered by the kernel at that priority.

    One for `nat` sees the first packet of each connection.
    """

    name: str
    rules: tuple[Rule, ...]
    hook: str | None = None
    priority: int = _FILTER
    nat: bool = False


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
        Rule(
            f"ip daddr 169.254.169.254 tcp dport 80 iifname @{METADATA} accept",
            "metadata",
        ),
        Rule(
            f"ip6 daddr fe80::a9fe:a9fe tcp dport 80 iifname @{METADATA} accept",
            "metadata",
        ),
        *(
            Rule(
                "meta l4proto { tcp, udp } th dport 53 "
                f"iifname . {protocol} daddr @{DNS[version]} accept",
                "DNS, at the address that DHCP announced (P15)",
            )
            for version, protocol in ((4, "ip"), (6, "ip6"))
        ),
        Rule("drop", "nothing else from an instance to its host"),
    ),
)


_CUT = Rule(
    f"ct mark & {CUT:#x} == {CUT:#x} counter goto cut",
    "a connection that is no longer allowed (P7)",
)
_ESTABLISHED = Rule("ct state established,related accept", "allowed when it began")


def _policy_chains(way: str) -> tuple[Chain, ...]:
    """Return how packets of one direction get to what decides, by kind of port.

    What the operator says first comes before the groups, and is about the beginning of
    connections only.
    """
    to_new = Rule(f"goto {way}_new", "a new connection")
    return (
        Chain(
            f"{way}_stateful",
            (
                _CUT,
                _ESTABLISHED,
                # The tracker checks UDP-Lite against UDP's pseudo header and takes what
                # is right for damaged: it has to pass policy in either direction.
                Rule(
                    "meta l4proto != udplite ct state invalid "
                    f"counter goto {way}_dropped",
                    "of no connection",
                ),
                to_new,
            ),
        ),
        Chain(
            f"{way}_stateless",
            (
                _CUT,
                Rule(
                    f"ct state established,related goto {way}_groups",
                    "groups without state look at every packet (P6)",
                ),
                to_new,
            ),
        ),
        Chain(f"{way}_open", (_CUT, _ESTABLISHED, to_new)),
        Chain(
            f"{way}_new",
            (
                Rule(f"{_NEAR[way]} vmap @{way}_before", "the operator's first word"),
                Rule(f"goto {way}_groups", "to the port's groups"),
            ),
        ),
    )


def _dropped(name: str, *ways: str) -> Chain:
    """Return a chain that drops, and tells the log of the ports at these ends."""
    tells = (f"{_NEAR[way]} @{LOGGED_DROPS} jump log_{way}_drop" for way in ways)
    return Chain(
        name,
        (
            *(Rule(tell, "the port is logged") for tell in tells),
            Rule("drop", "not allowed"),
        ),
    )


def _accepted(name: str, way: str, priority: int) -> Chain:
    """Return the chain behind one that decides: who comes here was let through.

    The first packet of a connection is one that is not in the tracker's table yet; a
    connection that nobody answers stays `new` for ever.
    """
    selector = f"ct status ! confirmed {_NEAR[way]} @{LOGGED_ACCEPTS}"
    rule = Rule(f"{selector} jump log_{way}_accept", "begins a connection")
    return Chain(name, (rule,), "forward", priority)


_INET = Table(
    "inet",
    (
        Set("from_port", ("ifname",), verdicts=True),
        Set("to_port", ("ifname",), verdicts=True),
        Set("out_policy", ("ifname",), verdicts=True),
        Set("in_policy", ("ifname",), verdicts=True),
        Set("out_before", ("ifname",), verdicts=True),
        Set("in_before", ("ifname",), verdicts=True),
        Set("out_after", ("ifname",), verdicts=True),
        Set("in_after", ("ifname",), verdicts=True),
        Set("macs", ("ifname", "ether_addr")),
        Set("sources4", ("ifname", "ether_addr", "ipv4_addr")),
        Set("sources6", ("ifname", "ether_addr", "ipv6_addr")),
        Set("networks4", ("ifname", "ether_addr", "ipv4_addr"), interval=True),
        Set("networks6", ("ifname", "ether_addr", "ipv6_addr"), interval=True),
        Set("broadcasts", ("ipv4_addr",)),
        Set(METADATA, ("ifname",)),
        Set(DNS[4], ("ifname", "ipv4_addr")),
        Set(DNS[6], ("ifname", "ipv6_addr")),
        Set(LOGGED_ACCEPTS, ("ifname",)),
        Set(LOGGED_DROPS, ("ifname",)),
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
        *_policy_chains("out"),
        *_policy_chains("in"),
        _dropped("out_dropped", "out"),
        _dropped("in_dropped", "in"),
        # Whose groups no longer allow a connection, its mark does not say.
        _dropped("cut", "out", "in"),
        _accepted("sent", "out", _SENT),
        _accepted("received", "in", _RECEIVED),
        Chain(
            "forward_from_instance",
            (
                Rule("iifname vmap @out_policy", "to the port's own policy"),
                Rule("drop", "a port that is not served"),
            ),
        ),
        Chain(
            "forward_to_instance",
            (
                Rule("oifname vmap @in_policy", "to the port's own policy"),
                Rule("drop", "a port that is not served"),
            ),
        ),
        Chain(
            "prerouting",
            (Rule(f"iifname {ANY_TAP} goto from_instance", "from an instance"),),
            "prerouting",
            _RAW,
        ),
        Chain(
            "forward_from",
            (
                Rule(f"iifname {ANY_TAP} jump leaving", "by which interface"),
                Rule(f"oifname {ANY_TAP} jump entering", "by which interface"),
                Rule(
                    f"iifname {ANY_TAP} goto forward_from_instance",
                    "from an instance",
                ),
            ),
            "forward",
            _SENDER,
        ),
        Chain(
            "input",
            (Rule(f"iifname {ANY_TAP} goto to_host", "from an instance"),),
            "input",
        ),
        Chain(
            "forward",
            (
                Rule("ip daddr { 169.254.0.0/16, 224.0.0.0/24 } drop", "link-local"),
                Rule("ip6 daddr { fe80::/10, ff02::/16 } drop", "link-local"),
                Rule(f"oifname {ANY_TAP} goto forward_to_instance", "to an instance"),
            ),
            "forward",
        ),
        Chain(
            "output",
            (Rule(f"oifname {ANY_TAP} goto to_instance", "to an instance"),),
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
            (Rule(f"iifname {ANY_TAP} goto from_instance", "from an instance"),),
            "input",
        ),
    ),
)
TABLES = (_INET, _ARP)


def passage(uplinks: Iterable[str]) -> Iterator[Chain]:
    """Yield what instances may leave by, and be entered by: uplinks, other instances.

    A host's other interfaces are its own networks, for management or storage: it
    forwards, and must not forward into those. Without uplinks nothing is said.
    """
    names = sorted(set(uplinks))
    for chain, selector in (("leaving", "oifname"), ("entering", "iifname")):
        rules = [
            Rule(f"{selector} {ANY_TAP} return", "an instance"),
            *(Rule(f'{selector} "{name}" return', "an uplink") for name in names),
            Rule("counter drop", "the host's own networks are no way"),
        ]
        yield Chain(chain, tuple(rules) if names else ())
