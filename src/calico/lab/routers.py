"""BIRD configurations of the lab's routers, and the Internet's web server.

What an operator's fabric runs beside Calico. In `tor` mode all is eBGP, an AS for
each router and host (RFC 7938). Otherwise the cloud is one AS: OSPF
carries the fabric's own addresses, iBGP the instances' routes, so that every router on
the way knows them. Graceful restart is on everywhere (P49).
"""

from collections.abc import Iterator
from pathlib import Path

from calico.lab import namespaces
from calico.lab.paths import LabPaths
from calico.lab.processes import Processes
from calico.lab.topology import (
    FABRIC4,
    FABRIC6,
    INTERNET_WEB4,
    INTERNET_WEB6,
    BgpMode,
    End,
    Kind,
    Node,
    Topology,
)
from calico.model.ids import Address

WELCOME = "Welcome to the Internet of this lab.\n"

_COMMON = """\
log stderr all;
router id {router_id};
graceful restart wait 10;
watchdog warning 5 s;

protocol device {{ scan time 10; }}
protocol direct {{ ipv4; ipv6; }}

# Prefixes of the fabric itself; a host may announce neither these nor a default route.
function is_fabric() {{
    case net.type {{
        NET_IP4: return net ~ [ {fabric4}+, 0.0.0.0/0 ];
        NET_IP6: return net ~ [ {fabric6}+, ::/0 ];
    }}
    return false;
}}
filter from_host {{
    if is_fabric() then reject;
    accept;
}}
filter to_kernel4 {{
    if source = RTS_DEVICE then reject;
    krt_prefsrc = {source4};
    accept;
}}
filter to_kernel6 {{
    if source = RTS_DEVICE then reject;
    krt_prefsrc = {source6};
    accept;
}}
protocol kernel kernel4 {{
    persist; merge paths on limit 16; graceful restart on;
    ipv4 {{ import none; export filter to_kernel4; }};
}}
protocol kernel kernel6 {{
    persist; merge paths on limit 16; graceful restart on;
    ipv6 {{ import none; export filter to_kernel6; }};
}}

template bgp session {{
    graceful restart on;
    connect delay time 1;
    connect retry time 2;
    error wait time 1, 4;
}}
"""

_SESSION = """
protocol bgp {name} from session {{
    local {own} as {own_as};
    neighbor {other} as {other_as};
    {options}
    {family} {{ import {imports}; export {exports}; {channel} }};
}}
"""

_OSPF = """
protocol ospf {version} underlay{family} {{
    ipv{family} {{ import all; export none; }};
    area 0 {{
        stubnet {loopback};
{interfaces}    }};
}}
"""

_DEFAULT = """
protocol static default{family} {{
    ipv{family};
    route {prefix} via {gateway};
}}
"""


def router_config(topology: Topology, node: Node) -> str:
    """Return the text of a router's BIRD configuration."""
    web = node.kind is Kind.INTERNET
    parts = [
        _COMMON.format(
            router_id=node.loopback4,
            fabric4=FABRIC4,
            fabric6=FABRIC6,
            source4=INTERNET_WEB4 if web else node.loopback4,
            source6=INTERNET_WEB6 if web else node.loopback6,
        )
    ]
    if node.kind is Kind.BORDER:
        parts += _default_routes(topology, node)
    if topology.bgp is BgpMode.TOR or web:
        parts += _neighbour_sessions(topology, node)
    else:
        parts += _ospf(topology, node)
        parts += _inner_sessions(topology, node)
        if node.kind is Kind.BORDER:
            parts += _internet_sessions(topology, node)
    return "".join(parts)


def start(
    paths: LabPaths, processes: Processes, topology: Topology, node: Node
) -> None:
    """Start a router's BIRD; for the Internet, the web server too."""
    directory = paths.node(node.name)
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "bird.conf"
    config.write_text(router_config(topology, node))
    processes.spawn(
        f"bird-{node.name}",
        ["bird", "-f", "-c", str(config), "-s", str(control_socket(paths, node))],
        netns=paths.netns(node.name),
        log=paths.logs / f"bird-{node.name}.log",
    )
    if node.kind is Kind.INTERNET:
        _start_web(paths, processes, directory)


def control_socket(paths: LabPaths, node: Node) -> Path:
    """Return the path of a router's BIRD control socket."""
    return paths.node(node.name) / "bird.ctl"


def protocols(paths: LabPaths, node: str, socket: Path) -> list[list[str]]:
    """Return the rows of `birdc show protocols`, split; [] if BIRD does not answer."""
    result = namespaces.run(
        paths.netns(node), ["birdc", "-r", "-s", str(socket), "show", "protocols"]
    )
    rows = [line.split() for line in result.stdout.splitlines()]
    return [row for row in rows if len(row) > 3 and row[0] != "Name"]


def _start_web(paths: LabPaths, processes: Processes, directory: Path) -> None:
    pages = directory / "www"
    pages.mkdir(exist_ok=True)
    (pages / "index.html").write_text(WELCOME)
    processes.spawn(
        "web-internet",
        ["busybox", "httpd", "-f", "-p", "80", "-h", str(pages)],
        netns=paths.netns(Kind.INTERNET.value),
        log=paths.logs / "web-internet.log",
    )


def _default_routes(topology: Topology, border: Node) -> Iterator[str]:
    _, internet = _towards(topology, border, Kind.INTERNET)
    for family, prefix, gateway in (
        (4, "0.0.0.0/0", internet.address4.ip),
        (6, "::/0", internet.address6.ip),
    ):
        yield _DEFAULT.format(family=family, prefix=prefix, gateway=gateway)


def _towards(topology: Topology, node: Node, kind: Kind) -> tuple[End, End]:
    """Return the ends (own, other) of a node's first link to a node of some kind."""
    return next(p for p in topology.adjacent(node) if p[1].node.kind is kind)


def _neighbour_sessions(topology: Topology, node: Node) -> Iterator[str]:
    """Yield an eBGP session for each link and family."""
    for own, other in topology.adjacent(node):
        host = other.node.kind is Kind.HOST
        imports = "filter from_host" if host else "all"
        yield from _link_sessions(own, other, imports)


def _internet_sessions(topology: Topology, border: Node) -> Iterator[str]:
    own, other = _towards(topology, border, Kind.INTERNET)
    yield from _link_sessions(own, other, "all")


def _link_sessions(own: End, other: End, imports: str) -> Iterator[str]:
    for mine, theirs in (
        (own.address4, other.address4),
        (own.address6, other.address6),
    ):
        yield _session(
            own.node,
            other.node,
            (mine.ip, theirs.ip),
            options="direct;",
            imports=imports,
        )


def _ospf(topology: Topology, node: Node) -> Iterator[str]:
    lines = ""
    for own, other in topology.adjacent(node):
        if other.node.kind in {Kind.HOST, Kind.INTERNET}:
            how = "stub yes;"
        else:
            how = "type ptp; hello 1; retransmit 2; dead 4;"
        lines += f'        interface "{own.interface}" {{ {how} }};\n'
    for version, family, loopback in (
        ("v2", 4, f"{node.loopback4}/32"),
        ("v3", 6, f"{node.loopback6}/128"),
    ):
        yield _OSPF.format(
            version=version, family=family, loopback=loopback, interfaces=lines
        )


def _inner_sessions(topology: Topology, node: Node) -> Iterator[str]:
    """Yield iBGP sessions: all routers with each other, and with hosts by mode.

    In mesh mode every router is a member of the full mesh; in reflector mode a ToR
    reflects for the hosts of its rack.
    """
    for other in topology.routers:
        if other.kind is not Kind.INTERNET and other != node:
            yield from _router_sessions(node, other)
    reflector = topology.bgp is BgpMode.REFLECTOR
    for host in topology.hosts:
        if not reflector:
            yield from _host_sessions(topology, node, host, "")
        elif node.kind is Kind.TOR and node.rack == host.rack:
            yield from _host_sessions(topology, node, host, "rr client;")


def _router_sessions(node: Node, other: Node) -> Iterator[str]:
    for mine, theirs in (
        (node.loopback4, other.loopback4),
        (node.loopback6, other.loopback6),
    ):
        assert mine  # noqa: S101 - routers have loopback addresses
        assert theirs  # noqa: S101 - likewise
        yield _session(node, other, (mine, theirs), options="multihop;")


def _host_sessions(
    topology: Topology, node: Node, host: Node, options: str
) -> Iterator[str]:
    own, tor = topology.uplink(host)
    mine4, mine6 = (
        (tor.address4.ip, tor.address6.ip)
        if options
        else (node.loopback4, node.loopback6)
    )
    for mine, theirs in ((mine4, own.address4.ip), (mine6, own.address6.ip)):
        assert mine  # noqa: S101 - routers have loopback addresses
        yield _session(
            node,
            host,
            (mine, theirs),
            options=options or "multihop;",
            imports="filter from_host",
        )


def _session(
    node: Node,
    other: Node,
    addresses: tuple[Address, Address],
    *,
    options: str,
    imports: str = "all",
) -> str:
    own, theirs = addresses
    inner = node.as_number == other.as_number
    exports = "where source ~ [ RTS_BGP, RTS_STATIC ]" if inner else "all"
    if other.kind is Kind.INTERNET:
        exports = "where net.len > 0"  # the default route came from there
    return _SESSION.format(
        name=f"{other.name.replace('-', '_')}_ip{own.version}",
        own=own,
        own_as=node.as_number,
        other=theirs,
        other_as=other.as_number,
        options=options,
        family=f"ipv{own.version}",
        imports=imports,
        exports=exports,
        channel="next hop self;" if inner else "",
    )
