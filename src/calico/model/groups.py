"""Security groups, their members and address groups: all that rules can refer to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from calico.model.ids import AddressGroupId, GroupId, Prefix
from calico.model.records import Policy, Remote, RemoteAddressGroup, RemoteGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """All that rules can refer to: what is not here has no members and no rules."""

    policies: Mapping[GroupId, Policy] = field(default_factory=dict)
    members: Mapping[GroupId, frozenset[Prefix]] = field(default_factory=dict)
    address_groups: Mapping[AddressGroupId, frozenset[Prefix]] = field(
        default_factory=dict
    )

    def prefixes(self, remote: Remote) -> frozenset[Prefix]:
        """Return the addresses that a rule's remote stands for."""
        match remote:
            case RemoteGroup(group=group):
                return self.members.get(group, frozenset())
            case RemoteAddressGroup(address_group=address_group):
                return self.address_groups.get(address_group, frozenset())
            case _:
                return frozenset({remote})
