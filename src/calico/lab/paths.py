"""Where a lab keeps its things on disk, and what its namespaces are called."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from calico.lab.namespaces import LabFailed

NAMESPACE_PREFIX = "calico-"
CONTROL = "control"
# Without '-', so that no lab's namespaces can pass for those of another.
_NAME = re.compile(r"[a-z][a-z0-9]{0,19}")


def root() -> Path:
    """Return the directory of all labs; CALICO_LAB_ROOT overrides the default."""
    return Path(os.environ.get("CALICO_LAB_ROOT", "/var/lib/calico-lab"))


@dataclass(frozen=True, slots=True)
class LabPaths:
    """The files and the namespaces of the lab called `name`."""

    name: str
    state: Path

    @property
    def record(self) -> Path:
        """Return the file that says what the lab is made of."""
        return self.state / "lab.json"

    @property
    def complete(self) -> Path:
        """Return the file that is there once the lab is up."""
        return self.state / "complete"

    @property
    def processes(self) -> Path:
        """Return the directory with a record for every process of the lab."""
        return self.state / "processes"

    @property
    def logs(self) -> Path:
        """Return the directory of all log files."""
        return self.state / "logs"

    def policy_log(self, host: str) -> Path:
        """Return the file of packets that rules of a host log."""
        return self.logs / f"policy-{host}.log"

    @property
    def instances(self) -> Path:
        """Return the directory with a record for every instance."""
        return self.state / "instances"

    @property
    def lock(self) -> Path:
        """Return the file whose lock serialises what changes the lab as a whole.

        It is beside the state directory, which comes and goes under the lock.
        """
        return self.state.with_name(f".{self.name}.lock")

    @property
    def control(self) -> Path:
        """Return the directory of the cloud's servers: databases, settings."""
        return self.node(CONTROL)

    def node(self, node: str) -> Path:
        """Return the directory of one node (or instance)."""
        return self.state / "nodes" / node

    def netns(self, node: str) -> str:
        """Return the name of the network namespace of a node."""
        return f"{NAMESPACE_PREFIX}{self.name}-{node}"

    def instance_netns(self, instance: str) -> str:
        """Return the name of the network namespace of an instance."""
        return self.netns(f"vm-{instance}")

    def machine_netns(self, instance: str) -> str:
        """Return the name of the namespace of the machine around an instance."""
        return self.netns(f"hv-{instance}")


def is_name(name: str) -> bool:
    """Tell whether a lab can be called so."""
    return _NAME.fullmatch(name) is not None


def lab_paths(name: str) -> LabPaths:
    """Return the paths of the lab called `name`; LabFailed if none can be.

    Whatever takes a name comes by here, since what it leads to is written and deleted.
    """
    if not is_name(name):
        raise LabFailed(
            f"{name!r} cannot be a lab's name: up to 20 of a-z and 0-9, a-z first"
        )
    return LabPaths(name, root() / name)
