"""A question as it was typed, and the one packet that it comes to. Pure."""

from dataclasses import dataclass

from calico.model.records import ICMP, PORT_PROTOCOLS
from calico.policy.evaluate import Packet
from calico.policy.explain import protocol_name
from calico.verify.explain.picture import BadQuestion, End, Picture

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_ICMP_NAMES = frozenset({"icmp", "icmpv6", "ipv6-icmp"})
_ECHO_REQUEST = {4: 8, 6: 128}
# What follows in the chain of IPv6 headers is the protocol, never these (RFC 8200, 4).
_EXTENSION_HEADERS = frozenset({0, 43, 44, 60})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The words of a question; None for what was not said."""

    source: str
    target: str
    protocol: str | None = None
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """From where, to where, and the first packet of the flow."""

    source: End
    target: End
    packet: Packet


def understand(asked: Asked, picture: Picture) -> Question:
    """Return the question that the words mean; BadQuestion if they mean none.

    Of two families IPv4 goes first. A port without a protocol is one of TCP, and
    neither is a ping.
    """
    version = asked.version or _version(asked, picture)
    source = picture.source(asked.source, version)
    target = picture.target(asked.target, version)
    if source.address == target.address or (source.port and source.port == target.port):
        raise BadQuestion(f"{source} to {target}: that is within one network stack")
    number = _protocol(asked, version)
    port = _port(asked, number)
    icmp_type, icmp_code = _icmp(asked, number, version)
    packet = Packet(
        source=source.address,
        destination=target.address,
        protocol=number,
        port=port,
        icmp_type=icmp_type,
        icmp_code=icmp_code,
    )
    return Question(source=source, target=target, packet=packet)


def _version(asked: Asked, picture: Picture) -> int:
    ours, theirs = picture.versions(asked.source), picture.versions(asked.target)
    if not ours & theirs:
        raise BadQuestion(
            f"{asked.source} and {asked.target} have no addresses of one family"
        )
    return min(ours & theirs)


def _protocol(asked: Asked, version: int) -> int:
    name = (asked.protocol or ("icmp" if asked.port is None else "tcp")).lower()
    if name in _ICMP_NAMES:
        return ICMP[version]
    if name in _PROTOCOLS:
        return _PROTOCOLS[name]
    if not (name.isascii() and name.isdigit() and int(name) <= 255):
        raise BadQuestion(
            f"--proto {asked.protocol}: not tcp, udp, icmp, sctp or a number up to 255"
        )
    if version == 6 and int(name) in _EXTENSION_HEADERS:
        raise BadQuestion(f"--proto {name} is an extension header of IPv6, no protocol")
    return int(name)


def _port(asked: Asked, number: int) -> int | None:
    if number in PORT_PROTOCOLS:
        if asked.port is None:
            raise BadQuestion(f"{protocol_name(number)} needs --dport")
        return asked.port
    if asked.port is not None:
        raise BadQuestion(f"{protocol_name(number)} has no ports: --dport is too much")
    return None


def _icmp(asked: Asked, number: int, version: int) -> tuple[int | None, int | None]:
    if number != ICMP[version]:
        if asked.icmp_type is not None or asked.icmp_code is not None:
            raise BadQuestion(
                f"{protocol_name(number)} is not IPv{version}'s ICMP: "
                "--icmp-type and --icmp-code are too much"
            )
        return None, None
    if asked.icmp_type is None and asked.icmp_code is not None:
        raise BadQuestion("--icmp-code needs --icmp-type")
    kind = _ECHO_REQUEST[version] if asked.icmp_type is None else asked.icmp_type
    return kind, asked.icmp_code or 0
