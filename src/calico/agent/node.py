"""Introduces the host to the others as a BGP speaker, unless an operator did (P43)."""

from ipaddress import IPv4Address, IPv6Address

import structlog

from calico.agent.keeper import own_address
from calico.config import AgentSettings
from calico.datastore.store import Compare, DatastoreError, Put, Store, Transaction
from calico.model.bgp_codec import encode_node
from calico.model.keys import NODES
from calico.model.records import Node
from calico.model.world import World
from calico.reconcile.problem import Problem
from calico.system.kernel import Have

log = structlog.get_logger()


class Introduction:
    """Stores the host's Node where the world has none."""

    def __init__(self, store: Store, settings: AgentSettings) -> None:
        self._store = store
        self._settings = settings

    def apply(self, world: World, have: Have) -> list[Problem]:
        """Store the Node once the host has an address; return why it could not be."""
        if any(node.name == world.host for node in world.nodes):
            return []
        address4 = own_address(self._settings, have, 4)
        address6 = own_address(self._settings, have, 6)
        if address4 is None and address6 is None:
            return []
        node = Node(
            name=world.host,
            address4=address4 if isinstance(address4, IPv4Address) else None,
            address6=address6 if isinstance(address6, IPv6Address) else None,
        )
        key = NODES + world.host
        try:
            self._store.transaction(
                Transaction(
                    compares=(Compare.absent(key),),
                    writes=(Put(key=key, value=encode_node(node)),),
                )
            )
        except DatastoreError as e:
            return [Problem(f"node {world.host}", "store", str(e))]
        log.info("stored this host as a BGP speaker", node=world.host)
        return []
