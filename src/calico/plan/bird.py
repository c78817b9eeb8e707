"""What BIRD on a host should do: BGP sessions, filters, the kernel's table, as text.

Pure and stable: the text depends on the world and on the host's own facts, not on the
order in which objects arrived. Protocols are named after what they are for, so that
BIRD keeps a session up when something else changes.
"""

import re
import zlib
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from calico.model.ids import Address, HostName, Interface
from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS, NODES
from calico.model.world import Rejected, World
from calico.plan.bird_filters import PREPENDED, render_filters

_RX_BUFFER = 64 << 20  # bytes; P48: bursts overrun the default
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:/ -]")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BgpFacts:
    """What only the host itself knows of its place in the fabric.

    `address4` and `address6` are its own addresses, from which sessions beyond the
    link are made and which its routes prefer as source. `uplinks` name the interfaces
    to the fabric, `connected` the addresses (with their prefixes) on them: a peer
    within one of these is on the link.
    """

    host: HostName
    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    uplinks: tuple[str, ...] = ()
    connected: tuple[Interface, ...] = ()

    def address(self, version: int) -> Address | None:
        """Return the host's own address of an IP version."""
        return self.address4 if version == 4 else self.address6


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One BGP session: the far end, how to reach it and what to believe from it.

    `host` True is another host (mesh), which is believed instances' addresses only;
    routers may announce the default route as well.
    """

    address: Address
    as_number: int
    description: str
    host: bool = False
    bfd: bool = False

    @property
    def name(self) -> str:
        """Return the protocol's name in BIRD: the same as long as the address is."""
        return f"bgp{self.address.version}_{re.sub('[.:%]', '_', str(self.address))}"


def plan_bird(world: World, facts: BgpFacts) -> str:
    """Return the whole configuration of a host's BIRD."""
    blocks = [
        _globals(facts),
        *(_filters(world, facts, version) for version in (4, 6)),
        _interfaces(facts),
        *(_kernel(version) for version in (4, 6)),
    ]
    sessions = plan_sessions(world, facts)
    if any(session.bfd for session in sessions):
        blocks.append("protocol bfd {\n}\n")
    as_number = own_as(world)
    blocks += [_session(session, facts, as_number) for session in sessions]
    return "\n".join(blocks)


def unreadable(world: World) -> tuple[Rejected, ...]:
    """Return the objects that say what sessions this host has, and cannot be used.

    With one of them the sessions are unknown, not the default ones.
    """
    own = {BGP_CONFIGURATION, NODES + world.host}
    return tuple(
        one for one in world.rejected if one.key in own or one.key.startswith(BGP_PEERS)
    )


def without_sessions(world: World) -> World:
    """Return a world in which no host talks to any other."""
    return replace(world, bgp=replace(world.bgp, full_mesh=False), peers=())


def own_as(world: World) -> int:
    """Return the host's AS number: its Node's, else the cloud's."""
    for node in world.nodes:
        if node.name == world.host and node.as_number is not None:
            return node.as_number
    return world.bgp.as_number


def plan_sessions(world: World, facts: BgpFacts) -> tuple[Session, ...]:
    """Return the sessions that a host keeps, by address (P43: from resources alone).

    These are the peers that name this host or no host, and, in a full mesh, every
    other host. Of several peers with one address one counts: the host's own before
    a global one before the mesh. No session is made with the host itself, nor in a
    family in which the host has no address.
    """
    own = {facts.address4, facts.address6}
    own |= {interface.ip for interface in facts.connected}
    found: dict[Address, Session] = {}
    for session in [*_peer_sessions(world), *_mesh_sessions(world)]:
        possible = facts.address(session.address.version) is not None
        if possible and session.address not in own:
            found.setdefault(session.address, session)
    return tuple(sorted(found.values(), key=lambda s: (s.address.version, s.address)))


def _peer_sessions(world: World) -> list[Session]:
    peers = [peer for peer in world.peers if peer.node in {None, world.host}]
    return [
        Session(
            address=peer.address,
            as_number=peer.as_number,
            description=peer.name,
            bfd=peer.bfd,
        )
        for peer in sorted(peers, key=lambda peer: (peer.node is None, peer.name))
    ]


def _mesh_sessions(world: World) -> list[Session]:
    if not world.bgp.full_mesh:
        return []
    return [
        Session(
            address=address,
            as_number=world.bgp.as_number if node.as_number is None else node.as_number,
            description=f"host {node.name}",
            host=True,
        )
        for node in sorted(world.nodes, key=lambda node: node.name)
        for address in (node.address4, node.address6)
        if node.name != world.host and address is not None
    ]


def _globals(facts: BgpFacts) -> str:
    """Render what concerns the whole daemon.

    A router id is 32 bits and not 0 (RFC 6286); without an IPv4 address it is drawn
    from what the host has, the same each time.
    """
    seed = str(facts.address6 or facts.host).encode()
    router_id = facts.address4 or IPv4Address(zlib.crc32(seed) or 1)
    return f"""\
# Written by calico from the datastore; a change by hand is overwritten.
log stderr {{ remote, warning, error, auth, fatal, bug }};
router id {router_id};
graceful restart wait 30;
"""


def _filters(world: World, facts: BgpFacts, version: int) -> str:
    prefixes = {subnet.prefix for subnet in world.subnets.values()} | world.elsewhere
    # Another Neutron side did not say all subnets: then no address is foreign yet.
    return render_filters(
        version,
        prefixes,
        facts.address(version),
        own_as(world),
        singles=not world.adopted,
    )


def _interfaces(facts: BgpFacts) -> str:
    """Render which interfaces BIRD looks at for connected networks (next hops)."""
    uplinks = sorted(name for name in facts.uplinks if _INTERFACE.fullmatch(name))
    names = [f'"{name}"' for name in uplinks] or ['-"tap*"', '-"calico-*"', '"*"']
    return f"""\
protocol device {{
}}
protocol direct {{
  ipv4 {{ table nexthops4; }};
  ipv6 {{ table nexthops6; }};
  interface {", ".join(names)};
}}
"""


def _kernel(version: int) -> str:
    """Render the kernel protocol of a family.

    `persist` leaves the routes when BIRD ends, and with graceful restart a new BIRD
    takes them over (P49).
    """
    return f"""\
protocol kernel kernel{version} {{
  ipv{version} {{
    import filter kernel_in{version};
    export filter kernel_out{version};
  }};
  learn;
  persist;
  graceful restart on;
  merge paths on;
  netlink rx buffer {_RX_BUFFER};
}}
protocol pipe underlay_pipe{version} {{
  table master{version};
  peer table nexthops{version};
  import none;
  export filter underlay{version};
}}
"""


def _session(session: Session, facts: BgpFacts, as_number: int) -> str:
    """Render a session, which carries the family of its own address.

    Hosts may share an AS whose routes come back through a router of another AS
    (an AS per rack): the own AS in a path is no loop, since a host passes nothing on.
    It is there many times in a route of an instance on the way out.
    """
    version = session.address.version
    on_link = any(session.address in i.network for i in facts.connected)
    reach = (
        "direct;"
        if on_link and not session.host
        else f"multihop;\n  source address {facts.address(version)};"
    )
    description = _UNSAFE.sub("_", session.description)
    options = "  bfd on;\n" if session.bfd else ""
    if session.as_number != as_number:
        options += f"  allow local as {1 + PREPENDED};\n"
    return f"""\
protocol bgp {session.name} {{
  description "{description}";
  local as {as_number};
  neighbor {session.address} as {session.as_number};
  {reach}
{options}  graceful restart on;
  hold time 30;
  keepalive time 10;
  connect delay time 1;
  connect retry time 5;
  error wait time 1, 10;
  ipv{version} {{
    import filter {"host" if session.host else "peer"}_in{version};
    export filter {"i" if session.as_number == as_number else ""}bgp_out{version};
    igp table nexthops{version};
    next hop self;
    add paths rx;
  }};
}}
"""
