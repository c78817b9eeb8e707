"""Names of ports in DNS, and their JSON in the project's own index.

The Calico v3 model has them as a part of endpoints, which each host knows of its own
ports only. A host that answers for a project's names has to know all of that project's.
"""

import re
from dataclasses import dataclass

import msgspec

from calico.model.codec import parse_address
from calico.model.ids import Address, Invalid, PortId, ProjectId
from calico.model.resource import items, parse_json

_LONGEST = 253  # octets of a name's text (RFC 1035, 2.3.4)
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortNames:
    """What a port is called in DNS: its name first, then others; its fixed addresses.

    They mean something in the port's project only. Names are in lower case, as DNS does
    not tell the cases apart, and without the dot at the end.
    """

    project: ProjectId
    port: PortId
    names: tuple[str, ...]
    addresses: tuple[Address, ...]

    def __post_init__(self) -> None:
        if not self.project or not self.port:
            raise Invalid(f"names of port {self.port!r} of project {self.project!r}")
        if not self.names:
            raise Invalid(f"port {self.port}: no name")
        for name in self.names:
            if not is_name(name):
                raise Invalid(f"port {self.port}: {name!r} is no name of DNS")


def is_name(text: str) -> bool:
    """Tell whether a text is a name as `PortNames` has them."""
    return len(text) <= _LONGEST and bool(_NAME.fullmatch(text))


def encode_port_names(names: PortNames, _old: bytes | None = None) -> bytes:
    """Return the JSON of a port's names; all of it is ours, no old value is kept."""
    addresses = [str(address) for address in names.addresses]
    return msgspec.json.encode({"names": names.names, "addresses": addresses})


def parse_port_names(project: ProjectId, port: PortId, value: bytes) -> PortNames:
    """Return the names of a port of a project in a stored value; Invalid if none."""
    body = parse_json(value)
    names = items(body, "names")
    if not all(isinstance(name, str) for name in names):
        raise Invalid(f"names {names!r}")
    return PortNames(
        project=project,
        port=port,
        names=tuple(names),
        addresses=tuple(parse_address(a) for a in items(body, "addresses")),
    )
