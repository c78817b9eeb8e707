"""The kinds of resources that operators write: names, keys, parsers. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from calico.model.ids import Invalid
from calico.model.keys import (
    ADDRESS_GROUP_NAME,
    GLOBAL_NETWORK_SETS,
    GLOBAL_POLICIES,
    HOST_ENDPOINTS,
    Keys,
    namespace,
    shown_policy_name,
    stored_policy_name,
)
from calico.model.operator import GlobalPolicy, HostEndpoint, NetworkSet
from calico.model.operator_codec import (
    parse_global_network_set,
    parse_global_policy,
    parse_host_endpoint,
    parse_network_set,
)

Record = GlobalPolicy | NetworkSet | HostEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind: its name in files, others that commands take, and how it is stored.

    `prefix` is that of its keys; None where it lies in the region's namespace.
    """

    name: str
    others: tuple[str, ...]
    parse: Callable[[bytes], Record]
    prefix: str | None

    @property
    def namespaced(self) -> bool:
        """Tell whether its resources lie in a namespace."""
        return self.prefix is None

    def namespace(self, keys: Keys) -> str | None:
        """Return the namespace of its resources, if they have one."""
        return namespace(keys.region) if self.namespaced else None

    def all_keys(self, keys: Keys) -> str:
        """Return the prefix of all its resources' keys."""
        return self.prefix or keys.network_sets

    def keys_of(self, name: str, keys: Keys) -> tuple[str, ...]:
        """Return the keys under which one may be stored, the first if it is new."""
        prefix = self.all_keys(keys)
        if self is not POLICY:
            return (prefix + name,)
        # Newer writers of the model leave the tier out.
        return tuple(dict.fromkeys((prefix + stored_policy_name(name), prefix + name)))

    def shown_name(self, stored: str) -> str:
        """Return what people call a resource of a stored name."""
        return shown_policy_name(stored) if self is POLICY else stored

    def check_owner(self, name: str) -> None:
        """Refuse what is Neutron's, and would be written over by it."""
        if self is NETWORK_SET and name.startswith(ADDRESS_GROUP_NAME):
            raise Invalid(
                f"{self.name} {name} is an address group of Neutron's:"
                f" `openstack address group set` changes it"
            )


POLICY = Kind(
    name="GlobalNetworkPolicy",
    others=("globalnetworkpolicies", "policy", "policies", "gnp"),
    parse=parse_global_policy,
    prefix=GLOBAL_POLICIES,
)
NETWORK_SET = Kind(
    name="NetworkSet",
    others=("networksets", "netset", "netsets"),
    parse=parse_network_set,
    prefix=None,
)
GLOBAL_NETWORK_SET = Kind(
    name="GlobalNetworkSet",
    others=("globalnetworksets", "gns"),
    parse=parse_global_network_set,
    prefix=GLOBAL_NETWORK_SETS,
)
HOST_ENDPOINT = Kind(
    name="HostEndpoint",
    others=("hostendpoints", "hep", "heps"),
    parse=parse_host_endpoint,
    prefix=HOST_ENDPOINTS,
)
KINDS = (POLICY, NETWORK_SET, GLOBAL_NETWORK_SET, HOST_ENDPOINT)

_BY_WORD = {word.lower(): kind for kind in KINDS for word in (kind.name, *kind.others)}
_NEUTRONS = {
    "networkpolicy": "security groups are Neutron's: write a GlobalNetworkPolicy",
    "workloadendpoint": "ports are Neutron's",
}


def find_kind(word: str) -> Kind:
    """Return the kind that a word means; Invalid if it is none of operators'."""
    found = _BY_WORD.get(word.lower())
    if found is None:
        known = ", ".join(kind.name for kind in KINDS)
        reason = _NEUTRONS.get(word.lower(), f"it is none of {known}")
        raise Invalid(f"kind {word!r}: {reason}")
    return found
