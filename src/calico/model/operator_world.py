"""What one host knows of an operator's policies, and whom their selectors select."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from calico.model.groups import Groups
from calico.model.ids import PortId, Prefix
from calico.model.operator import GlobalPolicy, HostEndpoint
from calico.model.selectors import Selector

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Selectable:
    """Something that a rule's selector may select: its labels, and its addresses."""

    labels: Labels
    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorWorld:
    """An operator's policies, and what they apply to and select.

    `labels` are those of the host's own ports, `host_endpoints` its own, sorted by
    name. `selectable` is all that selectors may select, as far as the host has to know
    it.
    """

    policies: tuple[GlobalPolicy, ...] = ()
    labels: Mapping[PortId, Labels] = field(default_factory=dict)
    host_endpoints: tuple[HostEndpoint, ...] = ()
    selectable: tuple[Selectable, ...] = ()

    def labels_of(self, port: PortId) -> Labels:
        """Return the labels of one of the host's ports."""
        return self.labels.get(port, {})

    def prefixes(self, selector: Selector, groups: Groups) -> frozenset[Prefix]:
        """Return the addresses of all that a selector selects."""
        del groups
        return frozenset(
            prefix
            for one in self.selectable
            if selector.matches(one.labels)
            for prefix in one.prefixes
        )


NO_OPERATOR = OperatorWorld()
