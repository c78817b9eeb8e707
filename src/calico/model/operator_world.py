"""What one host knows of an operator's policies, and whom their selectors select."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from calico.model.codec import SG_LABEL
from calico.model.groups import Groups
from calico.model.ids import GroupId, PortId, Prefix
from calico.model.operator import Failsafe, GlobalPolicy, HostEndpoint
from calico.model.selectors import Has, Selector

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Selectable:
    """Something that a rule's selector may select: its labels, and its addresses.

    With `only_by` it is selected by `has(only_by)` alone: what a tenant fills as he
    likes must not be among what an operator selects without naming it (P47).
    """

    labels: Labels
    prefixes: tuple[Prefix, ...]
    only_by: str = ""

    def is_selected_by(self, selector: Selector) -> bool:
        """Tell whether a selector selects it."""
        if self.only_by:
            return isinstance(selector, Has) and selector.name == self.only_by
        return selector.matches(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorWorld:
    """An operator's policies, and what they apply to and select.

    `labels` are those of the host's own ports, `host_endpoints` its own, sorted by
    name. `selectable` is all that selectors may select, as far as the host has to know
    it. `failsafe` is what a host's own traffic may do whatever policies say.
    """

    policies: tuple[GlobalPolicy, ...] = ()
    labels: Mapping[PortId, Labels] = field(default_factory=dict)
    host_endpoints: tuple[HostEndpoint, ...] = ()
    selectable: tuple[Selectable, ...] = ()
    failsafe: Failsafe = field(default_factory=Failsafe)

    def labels_of(self, port: PortId) -> Labels:
        """Return the labels of one of the host's ports."""
        return self.labels.get(port, {})

    def prefixes(self, selector: Selector, groups: Groups) -> frozenset[Prefix]:
        """Return the addresses of all that a selector selects.

        The members of a security group are those of the member index.
        """
        group = group_of(selector)
        members = groups.members.get(group, frozenset()) if group else frozenset()
        return members.union(
            prefix
            for one in self.selectable
            if one.is_selected_by(selector)
            for prefix in one.prefixes
        )


NO_OPERATOR = OperatorWorld()


def group_of(selector: Selector) -> GroupId | None:
    """Return the security group whose ports a selector selects, if it says just that.

    Who is in a group is known without knowing all ports (`model.keys`, members).
    """
    if isinstance(selector, Has) and selector.name.startswith(SG_LABEL):
        return GroupId(selector.name.removeprefix(SG_LABEL))
    return None
