"""DHCP options in dnsmasq's language: what may be asked for, and how it is written.

A tenant's text never reaches the file as it came: a value is parsed by the kind of its
option and rendered again, or put in quotes where it is text (P54). What dnsmasq does
not know, or keeps for the protocol itself, is refused with the reason (P12).
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from calico.model.ids import Invalid
from calico.model.records import DhcpOption, HostRoute

CLASSLESS_ROUTES = 121
MICROSOFT_ROUTES = 249  # the same, for clients older than RFC 3442
MAX_LINE = 1000  # dnsmasq reads lines of up to 1024 octets, and splits longer ones
MAX_VALUE4 = 255  # the length of a DHCPv4 option is one octet

_HEX = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})+")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# A condition on whether the client is iPXE, as Neutron's API users write it.
_CONDITION = re.compile(r"(?:tag:(!?ipxe),)?(.*)", re.DOTALL)

# The options of `dnsmasq --help dhcp`, by the kind of their value.
_ADDRESSES4 = {
    "netmask": 1, "router": 3, "dns-server": 6, "log-server": 7, "lpr-server": 9,
    "swap-server": 16, "policy-filter": 21, "router-solicitation": 32,
    "static-route": 33, "nis-server": 41, "ntp-server": 42, "netbios-ns": 44,
    "netbios-dd": 45, "x-windows-fs": 48, "x-windows-dm": 49, "nis+-server": 65,
    "mobile-ip-home": 68, "smtp-server": 69, "pop3-server": 70, "nntp-server": 71,
    "irc-server": 74, "tftp-server-address": 150, "server-ip-address": 255,
}  # fmt: skip
_OCTET4 = {
    "ip-forward-enable": 19, "non-local-source-routing": 20, "default-ttl": 23,
    "all-subnets-local": 27, "router-discovery": 31, "trailer-encapsulation": 34,
    "ethernet-encap": 36, "tcp-ttl": 37, "netbios-nodetype": 46,
}  # fmt: skip
_SHORT4 = {
    "boot-file-size": 13, "max-datagram-reassembly": 22, "mtu": 26, "client-arch": 93,
}  # fmt: skip
_LONG4 = {
    "time-offset": 2, "arp-timeout": 35, "tcp-keepalive": 38, "T1": 58, "T2": 59,
    "ipv6-only": 108,
}  # fmt: skip
_TEXT4 = {
    "domain-name": 15, "root-path": 17, "extension-path": 18, "nis-domain": 40,
    "nis+-domain": 64, "tftp-server": 66, "bootfile-name": 67, "posix-timezone": 100,
    "tzdb-timezone": 101,
}  # fmt: skip
_NAMES4 = {"domain-search": 119}
_ROUTES4 = {"classless-static-route": CLASSLESS_ROUTES}
_ANY4 = {
    "netbios-scope": 47, "vendor-class": 60, "user-class": 77, "rapid-commit": 80,
    "client-interface-id": 94, "client-machine-id": 97, "sip-server": 120,
    "vendor-id-encap": 125,
}  # fmt: skip
# Part of the exchange itself: pad, host name, overload, message type, server, ...
_RESERVED4 = frozenset({0, 12, *range(50, 58), 61, 81, 82, 118})

_ADDRESSES6 = {
    "sip-server": 22, "dns-server": 23, "nis-server": 27, "nis+-server": 28,
    "sntp-server": 31,
}  # fmt: skip
_NAMES6 = {
    "sip-server-domain": 21, "domain-search": 24, "nis-domain": 29, "nis+-domain": 30,
}  # fmt: skip
_LONG6 = {"information-refresh-time": 32}
_TEXT6 = {
    "posix-timezone": 41, "tzdb-timezone": 42, "bootfile-url": 59, "bootfile-param": 60,
}  # fmt: skip
_ANY6 = {"ntp-server": 56}
_RESERVED6 = frozenset({*range(21), 25, 26, 39})

Render = Callable[[str], str]


def render_option(tags: str, option: DhcpOption) -> str:
    """Return the line that hands `option` to the clients that carry `tags`.

    Takes Neutron's extra_dhcp_opts: a name of dnsmasq's or a number, optionally behind
    `option:` or `option6:` and `tag:ipxe,` or `tag:!ipxe,`. Raises Invalid with the
    reason for what cannot be handed out.
    """
    condition, name = _split_name(option)
    number, render = _look_up(name, option.version)
    prefix = "option6:" if option.version == 6 else ""
    all_tags = [tags, *([f"tag:{condition}"] if condition else [])]
    # The name means "siaddr of the header"; 255 as a number would end the options.
    code = "option:server-ip-address" if name == "server-ip-address" else str(number)
    value = _render_value(render, option)
    line = ",".join([*all_tags, f"{prefix}{code}", *([value] if value else [])])
    if len(line.encode()) > MAX_LINE:
        raise Invalid("value too long")
    return line


def render_routes(routes: Sequence[HostRoute]) -> str:
    """Return IPv4 routes as the octets of option 121 (RFC 3442), in hexadecimal.

    Octets, since dnsmasq's notation of many routes may exceed its line length. Raises
    Invalid where they exceed the length of an option.
    """
    octets = bytearray()
    for route in routes:
        length = route.destination.prefixlen
        significant = (length + 7) // 8
        octets.append(length)
        octets += route.destination.network_address.packed[:significant]
        octets += route.nexthop.packed
    if len(octets) > MAX_VALUE4:
        raise Invalid(f"{len(routes)} routes do not fit a DHCP option")
    return octets.hex(":")


def is_domain(text: str) -> bool:
    """Return whether a text is a domain name that may be written as it is."""
    return bool(_NAME.fullmatch(text)) and len(text) <= 253


def _split_name(option: DhcpOption) -> tuple[str | None, str]:
    """Return the condition, or None, and the bare name or number of an option."""
    match = _CONDITION.fullmatch(option.name.strip())
    if match is None:  # cannot be: the expression takes anything
        return None, option.name
    condition, name = match.groups()
    return condition, name.removeprefix(f"option{option.version}:").removeprefix(
        "option:"
    )


def _look_up(name: str, version: int) -> tuple[int, Render]:
    table, reserved, last = (
        (_TABLE4, _RESERVED4, 254) if version == 4 else (_TABLE6, _RESERVED6, 65535)
    )
    if re.fullmatch(r"[0-9]{1,5}", name):
        number = int(name)
        if number in reserved or number > last:
            raise Invalid("reserved for the protocol itself, or not a DHCP option")
        known = (found for found in table.values() if found[0] == number)
        return next(known, (number, _any4 if version == 4 else _any6))
    if name not in table:
        raise Invalid(f"not a DHCPv{version} option of dnsmasq")
    return table[name]


def _render_value(render: Render, option: DhcpOption) -> str:
    value = option.value.strip()
    if not value.isascii():
        raise Invalid("value is not ASCII")
    if option.version == 4 and len(value) > MAX_VALUE4 and render is _text:
        raise Invalid("value too long")
    # An empty value makes dnsmasq leave the option out (Neutron's blank `router`).
    return render(value) if value else ""


def _addresses4(value: str) -> str:
    return ",".join(str(_address(part, IPv4Address)) for part in value.split(","))


def _addresses6(value: str) -> str:
    parts = (part.strip().strip("[]") for part in value.split(","))
    return ",".join(f"[{_address(part, IPv6Address)}]" for part in parts)


def _address(text: str, kind: type) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text.strip())
    except ValueError as e:
        raise Invalid(str(e)) from e
    if not isinstance(address, kind):
        raise Invalid(f"{address} is of the other IP version")
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Invalid(f"{address} has a zone")
    return address


def _number(octets: int) -> Render:
    suffix = {1: "b", 2: "s", 4: "i"}[octets]  # dnsmasq's marks of a number's width

    def render(value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) >= 256**octets:
            raise Invalid(f"{value!r} is not a number of {octets} octet(s)")
        return f"{int(value)}{suffix}"

    return render


def _seconds(value: str) -> str:
    return _number(4)(value).removesuffix("i")  # T1, T2: dnsmasq reads `i` as text


def _names(value: str) -> str:
    names = [part.strip() for part in value.split(",")]
    for name in names:
        if not is_domain(name):
            raise Invalid(f"{name!r} is not a domain name")
    return ",".join(names)


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _routes(value: str) -> str:
    parts = [part.strip() for part in value.split(",")]
    if len(parts) % 2:
        raise Invalid("routes are pairs of a destination and a next hop")
    try:
        pairs = [
            HostRoute(
                destination=IPv4Network(to, strict=False), nexthop=IPv4Address(by)
            )
            for to, by in zip(parts[::2], parts[1::2], strict=True)
        ]
    except ValueError as e:
        raise Invalid(str(e)) from e
    return render_routes(pairs)


def _any4(value: str) -> str:
    return _any(value, _addresses4)


def _any6(value: str) -> str:
    return _any(value, _addresses6)


def _any(value: str, addresses: Render) -> str:
    """Render a value whose kind only its writer knows: octets, number, addresses."""
    if _HEX.fullmatch(value):
        return value
    if re.fullmatch(r"[0-9]{1,10}", value):
        return _number(4)(value).removesuffix("i")  # dnsmasq takes the least octets
    try:
        return addresses(value)
    except Invalid:
        return _text(value)


def _kinds(
    *tables: tuple[dict[str, int], Render],
) -> dict[str, tuple[int, Render]]:
    return {
        name: (number, render)
        for table, render in tables
        for name, number in table.items()
    }


_TABLE4 = _kinds(
    (_ADDRESSES4, _addresses4),
    (_OCTET4, _number(1)),
    (_SHORT4, _number(2)),
    (_LONG4, _seconds),
    (_TEXT4, _text),
    (_NAMES4, _names),
    (_ROUTES4, _routes),
    (_ANY4, _any4),
)
_TABLE6 = _kinds(
    (_ADDRESSES6, _addresses6),
    (_NAMES6, _names),
    (_LONG6, _seconds),
    (_TEXT6, _text),
    (_ANY6, _any6),
)
