"""S19: what DHCP and router advertisements hand out is what Neutron says.

And so is what the metadata service tells an instance that it is, and what the host
answers one whose subnet has no DNS servers.
"""

import http.client
import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

from calico.verify import layout
from calico.verify.checks import names
from calico.verify.cloud import Address, Lease, Site
from calico.verify.layout import SitePlan
from calico.verify.networks import DNS, NEXT_HOP, ROUTED, Net
from calico.verify.parallel import eventually, parallel
from calico.verify.result import Tally
from calico.verify.stage import NTP, SEARCH, Stage

_IP_MTU, _IPV6_MTU = 14, 24  # linux/in.h, in6.h
_DISCARD = 9
_METADATA = {4: "169.254.169.254", 6: "fe80::a9fe:a9fe"}
_SETTLE = 5.0
_REACH = 15.0  # seconds for a change of a subnet to reach new leases
Finding = tuple[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a network's subnets say: DNS servers of both versions, and IPv4 routes.

    The gateway and the host route's next hop are given by their numbers in the subnet.
    """

    dns: tuple[str, str] = DNS
    gateway: int
    next_hop: int = NEXT_HOP


# None of these numbers is one of a subnet's pool, nor what any network began with.
_CHANGED = Promise(dns=("192.0.2.54", "2001:db8::54"), gateway=253, next_hop=252)
_ASKING = "B"  # the network whose subnets have no DNS servers once they were changed


def check(stage: Stage, tally: Tally) -> None:
    """Read leases of all kinds of network, change the subnets, read new leases.

    Then ask for the name that an instance of each of two projects was given.
    """
    begun = [
        (site, Promise(gateway=stage.net_of(site).plan.gateway))
        for site in stage.on("ABC")
    ]
    parallel([partial(_judge, stage, tally, *each) for each in begun])
    name = names.give(stage, "a1", "b1")
    promises = {key: _change(stage, stage.nets[key]) for key in "ABC"}
    plans = [
        SitePlan(key=f"{key.lower()}9", net=key, project=net.plan.project, where=1)
        for key, net in stage.nets.items()
        if key in "ABC"
    ]
    parallel(
        [partial(_judge_new, stage, tally, plan, promises[plan.net]) for plan in plans]
    )
    other = stage.nets["A"]
    names.judge(
        tally,
        names.Case(
            name=name,
            asker=stage.sites["b9"],
            servers=promises[_ASKING].dns,
            named=stage.sites["b1"],
            other=stage.sites["a9"],
            closed=str(other.cidr4[_CHANGED.gateway]),
        ),
    )


def _judge_new(stage: Stage, tally: Tally, plan: SitePlan, changed: Promise) -> None:
    """Judge a new instance's lease, once the change has had time to reach its host.

    An instance that boots in the moment of the change rightly has the old lease, and
    no reason to ask again.
    """
    site = stage.make_site(plan)
    deadline = time.monotonic() + _REACH
    while (seen := _look(stage, site, changed)) and time.monotonic() < deadline:
        if not any(wrong for _, wrong in seen):
            break
        stage.cloud.compute().destroy(site.name)
        site = stage.boot(plan.key, site.port, site.host)
    _tell(stage, tally, site, seen)


def _change(stage: Stage, net: Net) -> Promise:
    """Change a network's subnets; return what they say then."""
    api = stage.cloud.api(net.plan.project).network
    asking = net.plan.key == _ASKING
    route = {"destination": ROUTED, "nexthop": str(net.cidr4[_CHANGED.next_hop])}
    four = api.update_subnet(
        net.subnet4,
        dns_nameservers=[] if asking else [_CHANGED.dns[0]],
        gateway_ip=str(net.cidr4[_CHANGED.gateway]),
        host_routes=[route],
    )
    six = api.update_subnet(
        net.subnet6, dns_nameservers=[] if asking else [_CHANGED.dns[1]]
    )
    if not asking:
        return _CHANGED
    # The host is asked at the address that it has in each of them.
    return replace(_CHANGED, dns=(four.gateway_ip, six.gateway_ip))


def _judge(stage: Stage, tally: Tally, site: Site, promise: Promise) -> None:
    _tell(stage, tally, site, _look(stage, site, promise))


def _look(stage: Stage, site: Site, promise: Promise) -> list[Finding]:
    """Return what is right and wrong, once all is right or a client is long done."""
    net = stage.net_of(site)
    seen: list[Finding] = []

    def settled() -> bool:
        """Look once: a client has its addresses before it has done all it will."""
        lease = stage.cloud.compute().lease(site)
        found = judge_lease(net, site, lease, promise)
        seen[:] = [*found, *_kernel(net, site, promise), *_metadata(stage, site)]
        return not any(wrong for _, wrong in seen)

    eventually(settled, _SETTLE)
    return seen


def _tell(stage: Stage, tally: Tally, site: Site, seen: Iterable[Finding]) -> None:
    mode = stage.net_of(site).plan.mode6
    for what, wrong in seen:
        tally.case(f"{site.short} ({mode}): {what}", wrong)


def judge_lease(
    net: Net, site: Site, lease: Lease, promise: Promise
) -> Iterator[Finding]:
    """Yield what was to be handed out, each with what was instead, or None."""
    four = lease.get("dhcp4", {})
    yield "address", _is(four, "ip_address", str(site.address(4)))
    yield "prefix", _is(four, "subnet_cidr", str(net.cidr4.prefixlen))
    yield "gateway", _is(four, "routers", str(net.cidr4[promise.gateway]))
    yield "DNS", _is(four, "domain_name_servers", promise.dns[0])
    yield "MTU", _is(four, "interface_mtu", str(net.mtu))
    yield "extra_dhcp_opts", _is(four, "ntp_servers", NTP)
    route = f"{ROUTED} {net.cidr4[promise.next_hop]}"
    routes = four.get("classless_static_routes", "nothing")
    wrong = None if f"{route} " in f"{routes} " else f"{routes}, not {route}"
    yield "host route", wrong
    yield from _judge_six(net, site, lease, promise.dns[1])


def _judge_six(net: Net, site: Site, lease: Lease, dns: str) -> Iterator[Finding]:
    six, advertised = lease.get("dhcp6", {}), lease.get("ra", {})
    yield "router advertisement", None if advertised else "none came"
    yield "MTU by RA", _among(advertised, "mtu", str(net.mtu))
    if net.plan.mode6 == layout.STATEFUL:
        own = str(site.address(6))
        yield "DHCPv6 address", _is(six, "dhcp6_ia_na1_ia_addr1", own)
    else:
        prefix = str(net.cidr6.network_address)
        yield "prefix by RA", _among(advertised, "prefix", prefix)
    if net.plan.mode6 == layout.SLAAC:
        yield "IPv6 DNS by RA", _among(advertised, "rdnss", dns)
        yield "no DHCPv6", f"{dict(six)}" if six else None
    else:
        yield "DHCPv6 DNS", _is(six, "dhcp6_name_servers", dns)
        yield "DHCPv6 extra_dhcp_opts", _is(six, "dhcp6_domain_search", SEARCH)


def _is(lease: Mapping[str, str], name: str, wanted: str) -> str | None:
    found = lease.get(name, "nothing")
    return None if found.rstrip(".") == wanted else f"{found}, not {wanted}"


def _among(lease: Mapping[str, str], part: str, wanted: str) -> str | None:
    """Look for a value among options of a router advertisement, which are counted."""
    found = {name: value for name, value in lease.items() if part in name}
    if any(wanted in value.split() for value in found.values()):
        return None
    return f"{found or 'nothing'}, not {wanted}"


def _kernel(net: Net, site: Site, promise: Promise) -> Iterator[Finding]:
    """Yield what the instance's own stack made of it."""
    four, six = (_routes(site, family) for family in ("-4", "-6"))
    via = {route["dst"]: route.get("gateway", "") for route in four}
    for what, number in (("default", promise.gateway), (ROUTED, promise.next_hop)):
        wanted = net.cidr4[number]
        wrong = None if via.get(what) == str(wanted) else f"via {via.get(what)}"
        yield f"uses the route {what} via {wanted}", wrong
    gateways = [r.get("gateway", "") for r in six if r["dst"] == "default"]
    wrong = None if any(g.startswith("fe80:") for g in gateways) else str(gateways)
    yield "uses an IPv6 default route via its host", wrong
    for target in map(ip_address, DNS):
        found = site.place.inside(partial(_path_mtu, target))
        wrong = None if found == net.mtu else f"{found}, not {net.mtu}"
        yield f"uses the MTU for IPv{target.version}", wrong


def _metadata(stage: Stage, site: Site) -> Iterator[Finding]:
    """Yield what the metadata service takes an instance for."""
    port = stage.cloud.api("admin").network.get_port(site.port)
    wanted = (port.device_id, port.project_id)
    for version, address in _METADATA.items():
        scope = f"%{site.interface}" if version == 6 else ""
        found = site.place.inside(partial(_ask_metadata, f"{address}{scope}"))
        wrong = None if found == wanted else f"{found}, not {wanted}"
        yield f"metadata over IPv{version}", wrong


def _ask_metadata(address: str) -> tuple[str, str] | str:
    """Return an instance's id and project, as it is told; or what went wrong."""
    asking = http.client.HTTPConnection(address, 80, timeout=_SETTLE)
    try:
        asking.request("GET", "/openstack/latest/meta_data.json")
        told = json.loads(asking.getresponse().read())
        return told["uuid"], told["project_id"]
    except (OSError, ValueError, LookupError, http.client.HTTPException) as e:
        return repr(e)
    finally:
        asking.close()


def _routes(site: Site, family: str) -> list[dict[str, str]]:
    done = site.place.run(["ip", "-j", family, "route"])
    found: list[dict[str, str]] = json.loads(done.stdout or "[]")
    return found


def _path_mtu(target: Address) -> int:
    """Return the MTU that the stack has for a target.

    A client may set the interface's MTU or, as dhcpcd does, that of the routes.
    """
    if target.version == 4:
        family, level, option = socket.AF_INET, socket.IPPROTO_IP, _IP_MTU
    else:
        family, level, option = socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_MTU
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(target), _DISCARD))
        return sock.getsockopt(level, option)
