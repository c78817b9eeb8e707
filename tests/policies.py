"""A security group that allows everything, for tests that are about something else."""

from calico.model.groups import Groups
from calico.model.ids import GroupId
from calico.model.records import Policy, Rule

OPEN = GroupId("open")
_ANY = tuple(Rule(version=version, id=f"any{version}") for version in (4, 6))
OPEN_POLICY = Policy(group=OPEN, name="open", ingress=_ANY, egress=_ANY)
OPEN_GROUPS = Groups(policies={OPEN: OPEN_POLICY})
