"""What is known of ports: the datastore's items, and the instances of a lab. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address

import msgspec

from calico.model.codec import parse_endpoint
from calico.model.ids import Address, HostName, Invalid, PortId
from calico.model.keys import Keys
from calico.model.records import Endpoint
from calico.model.world import World, build

_WHY_NOT_UP = {
    "down": "its tap is not on the host",
    "error": "its host could not serve it; the agent's log says why",
    None: "its host has not reported it: does the agent run?",
}


class BadQuestion(Exception):  # noqa: N818 - names what was asked
    """What was asked makes no sense here; the message says which word, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """An instance that is known by name. `note` is what Neutron says of its port."""

    name: str
    port: PortId
    host: HostName
    addresses: tuple[Address, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a packet's way.

    `port` None: an address that is no port's, or several ports' alike. `problem` says
    why a port is not served; `endpoint` None, that its host knows nothing of it.
    """

    name: str
    address: Address
    port: PortId | None = None
    host: HostName | None = None
    endpoint: Endpoint | None = None
    problem: str = ""

    def __str__(self) -> str:
        own = str(self.address)
        return own if self.name == own else f"{self.name} ({own})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A port, from the datastore or as a guest's, before an address is chosen."""

    port: PortId
    host: HostName
    addresses: tuple[Address, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The items under /calico/ by key, and the instances that have names."""

    items: Mapping[str, bytes]
    keys: Keys = field(default_factory=Keys)
    guests: tuple[Guest, ...] = ()
    _worlds: dict[str, World] = field(default_factory=dict, repr=False)

    def world(self, host: str) -> World:
        """Return the world as a host sees it, or as it would see it in full."""
        if host not in self._worlds:
            self._worlds[host] = build(HostName(host), self.keys, self.items)
        return self._worlds[host]

    @cached_property
    def endpoints(self) -> Mapping[PortId, Endpoint]:
        """Return all hosts' endpoints, but those that cannot be used."""
        found = {}
        for key, value in self.items.items():
            if key.startswith(self.keys.endpoints):
                try:
                    endpoint = parse_endpoint(value)
                except Invalid:
                    continue
                found[endpoint.port] = endpoint
        return found

    @cached_property
    def rejected(self) -> Mapping[PortId, str]:
        """Return why the endpoints of some ports cannot be used."""
        found = {}
        for key, value in self.items.items():
            parsed = self.keys.parse_endpoint(key)
            if parsed is not None:
                try:
                    parse_endpoint(value)
                except Invalid as e:
                    found[parsed[1]] = str(e)
        return found

    def label(self, port: PortId) -> str:
        """Return what people call a port: its instance's name, if that is known."""
        names = [guest.name for guest in self.guests if guest.port == port]
        return names[0] if names else f"port {port}"

    def source(self, text: str, version: int | None) -> End:
        """Return the end that sends; BadQuestion where it cannot be told which."""
        found, address = self._find(text)
        if len(found) > 1:
            ports = ", ".join(sorted(known.port for known in found))
            raise BadQuestion(f"{text} is the address of several ports: {ports}")
        return self._end(text, found, address, version)

    def target(self, text: str, version: int | None) -> End:
        """Return the end that receives. Of ports with one address routes choose."""
        found, address = self._find(text)
        return self._end(text, found if len(found) == 1 else [], address, version)

    def served(self, endpoint: Endpoint, address: Address) -> End:
        """Return a host's endpoint as the end that has an address."""
        known = _Known(port=endpoint.port, host=endpoint.host, addresses=(address,))
        return self._of_port(known, address)

    def sharers(self, address: Address) -> tuple[PortId, ...]:
        """Return the ports that have an address, sorted."""
        return tuple(sorted(known.port for known in self._owners(address)))

    def versions(self, text: str) -> frozenset[int]:
        """Return the IP versions that an end has addresses of."""
        found, address = self._find(text)
        addresses = (address,) if address else found[0].addresses
        return frozenset(each.version for each in addresses)

    def _find(self, text: str) -> tuple[list[_Known], Address | None]:
        """Return the ports that are meant, and the address if that was named."""
        try:
            address = ip_address(text)
        except ValueError:
            return [self._by_name(text)], None
        return self._owners(address), address

    def _by_name(self, text: str) -> _Known:
        found = {known.port: known for known, names in self._all() if text in names}
        if not found:
            raise BadQuestion(
                f"{text!r} is neither an instance, nor the id of a port that is "
                "served, nor an address"
            )
        if len(found) > 1:
            ports = ", ".join(sorted(found))
            raise BadQuestion(f"{text!r} matches several ports: {ports}; name one")
        return next(iter(found.values()))

    def _all(self) -> Iterator[tuple[_Known, frozenset[str]]]:
        """Yield what is known of ports with the names they go by.

        Guests come first: what the datastore says of the same port is newer.
        """
        for guest in self.guests:
            known = _Known(port=guest.port, host=guest.host, addresses=guest.addresses)
            yield known, frozenset({guest.name, guest.port})
        by_port = {guest.port: guest.name for guest in self.guests}
        for e in self.endpoints.values():
            names = {str(e.port), str(e.device), by_port.get(e.port, str(e.port))}
            known = _Known(port=e.port, host=e.host, addresses=e.addresses)
            yield known, frozenset(names)

    def _owners(self, address: Address) -> list[_Known]:
        """Return the ports that an address is fixed to; else those it is a pair of."""
        fixed = {
            known.port: known for known, _ in self._all() if address in known.addresses
        }
        if fixed:
            return list(fixed.values())
        return [
            _Known(port=e.port, host=e.host, addresses=(address,))
            for e in self.endpoints.values()
            if any(address in pair.prefix for pair in e.pairs)
        ]

    def _end(
        self,
        text: str,
        found: list[_Known],
        address: Address | None,
        version: int | None,
    ) -> End:
        among = (address,) if address else found[0].addresses
        chosen = _choose(text, among, version)
        if not found:
            return End(name=text, address=chosen)
        return self._of_port(found[0], chosen)

    def _of_port(self, known: _Known, address: Address) -> End:
        endpoint = self.endpoints.get(known.port)
        return End(
            name=self.label(known.port),
            address=address,
            port=known.port,
            host=known.host,
            endpoint=endpoint,
            problem=self.problem(known.port),
        )

    def problem(self, port: PortId) -> str:
        """Return why a port is not served; empty if it is."""
        endpoint = self.endpoints.get(port)
        notes = [guest.note for guest in self.guests if guest.port == port]
        note = f" ({notes[0]})" if notes and notes[0] else ""
        if port in self.rejected:
            return f"what is stored of it cannot be used: {self.rejected[port]}"
        if endpoint is None:
            return f"it is not published to its host{note}"
        key = self.keys.port_status(endpoint.host, endpoint.device, port)
        status = _status(self.items.get(key))
        if status == "up":
            return ""
        why = _WHY_NOT_UP.get(status, "which means nothing to this program")
        return f"its status is {status or 'unknown'}: {why}{note}"


def _choose(text: str, among: tuple[Address, ...], version: int | None) -> Address:
    for address in among:
        if version in {None, address.version}:
            return address
    which = f"IPv{version} " if version else ""
    raise BadQuestion(f"{text} has no {which}address")


def _status(value: bytes | None) -> str | None:
    """Return the status that a host wrote of a port; None where it wrote none."""
    try:
        body = msgspec.json.decode(value or b"{}")
    except msgspec.DecodeError as e:
        return f"unreadable ({e})"
    found = body.get("status") if isinstance(body, dict) else None
    return found if isinstance(found, str) else None
