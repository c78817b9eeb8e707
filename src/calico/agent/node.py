"""Introduces the host to the others as a BGP speaker, unless an operator did (P43).

A Node that an agent wrote has a mark and follows the host's addresses. One without is
an operator's: it is never changed, only compared.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import structlog

from calico.agent.keeper import own_address
from calico.config import AgentSettings
from calico.datastore.store import (
    Compare,
    DatastoreError,
    Item,
    Put,
    Store,
    Transaction,
)
from calico.model.bgp_codec import encode_node, parse_node
from calico.model.ids import Invalid
from calico.model.keys import NODES
from calico.model.records import Node
from calico.model.resource import OPENSTACK, encode, parse
from calico.model.world import World
from calico.reconcile.problem import Problem
from calico.system.kernel import Have

log = structlog.get_logger()

_MARK = {f"{OPENSTACK}written-by": "agent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addresses:
    """The host's own addresses, as they are now."""

    four: IPv4Address | None
    six: IPv6Address | None

    @property
    def both(self) -> tuple[IPv4Address | None, IPv6Address | None]:
        """Return both, IPv4 first."""
        return self.four, self.six

    def over(self, node: Node) -> Node:
        """Return a Node with these; one that is lacking now stays as it was."""
        return replace(
            node,
            address4=self.four or node.address4,
            address6=self.six or node.address6,
        )

    def contradict(self, node: Node) -> bool:
        """Return whether a Node names an address that is not the host's.

        One that it does not name may have been left out on purpose.
        """
        pairs = ((self.four, node.address4), (self.six, node.address6))
        return any(own and named and own != named for own, named in pairs)


class Introduction:
    """Keeps the host's Node in the datastore, where that is the agent's to do."""

    def __init__(self, store: Store, settings: AgentSettings) -> None:
        self._store = store
        self._settings = settings
        self._seen: World | None = None
        self._said: list[Problem] = []
        self._operators: Node | None = None  # the Node last found to be one

    def apply(self, world: World, have: Have) -> list[Problem]:
        """Store the Node, or correct it; return why it is not as it should be.

        The datastore is asked only where the world's Node differs, and once a world;
        of an operator's Node only once, or an outage would hold up every pass.
        """
        if world is not self._seen:
            self._said = self._introduce(world, have)
        self._seen = world
        return self._said

    def _introduce(self, world: World, have: Have) -> list[Problem]:
        subject, key = f"node {world.host}", NODES + world.host
        own = self._addresses(have)
        if own.four is None and own.six is None:
            reply = "no address: set address4 or address6, or give an uplink one"
            return [Problem(subject, "introduce", reply, lasting=True)]
        if any(one.key == key for one in world.rejected):
            return []  # told already, and it may be an operator's
        known = next((n for n in world.nodes if n.name == world.host), None)
        if known is not None and own.over(known) == known:
            return []
        if known is not None and known == self._operators:
            return _contradiction(known, own)
        try:
            return self._store_node(world, own)
        except DatastoreError as e:
            return [Problem(subject, "store", str(e))]

    def _addresses(self, have: Have) -> _Addresses:
        four = own_address(self._settings, have, 4)
        six = own_address(self._settings, have, 6)
        return _Addresses(
            four=four if isinstance(four, IPv4Address) else None,
            six=six if isinstance(six, IPv6Address) else None,
        )

    def _store_node(self, world: World, own: _Addresses) -> list[Problem]:
        """Write the Node, if it is not an operator's; return what is wrong with it."""
        key = NODES + world.host
        item = self._store.get(key)
        node = own.over(Node(name=world.host))
        if item is not None:
            try:
                stored = parse_node(item.value)
            except Invalid as e:
                return [Problem(f"node {world.host}", "read", str(e))]
            if not _is_agents(item):
                self._operators = stored
                return _contradiction(stored, own)
            node = own.over(stored)
        written = self._store.transaction(
            Transaction(
                compares=(Compare.unchanged(key, item),),
                writes=(Put(key=key, value=_encode(node, item)),),
            )
        )
        if not written.succeeded:
            reply = "somebody else wrote it meanwhile"
            return [Problem(f"node {world.host}", "store", reply)]
        log.info("stored this host as a BGP speaker", node=world.host)
        return []


def _contradiction(node: Node, own: _Addresses) -> list[Problem]:
    if not own.contradict(node):
        return []
    named = _text((node.address4, node.address6))
    reply = f"it is an operator's with {named}, but the host has {_text(own.both)}"
    return [Problem(f"node {node.name}", "correct", reply, lasting=True)]


def _text(addresses: tuple[IPv4Address | None, IPv6Address | None]) -> str:
    return " and ".join(str(address) for address in addresses if address)


def _is_agents(item: Item) -> bool:
    return _MARK.items() <= dict(parse(item.value, "Node").annotations).items()


def _encode(node: Node, item: Item | None) -> bytes:
    """Return a Node's JSON with the agent's mark, and what else there was in it."""
    plain = encode_node(node, item.value if item else None)
    return encode(replace(parse(plain, "Node"), annotations=_MARK), plain)
