"""Where `calico policy` finds the datastore: by a host's settings, or in a lab."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from calico.cli.output import CannotBegin, one_sentence
from calico.config import BadSettings, EtcdSettings, load_agent_settings
from calico.datastore.client import Client
from calico.datastore.store import DatastoreError, Store
from calico.lab import build
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.lab.paths import CONTROL
from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.operator.change import Conflict
from calico.verify.inside import inside

T = TypeVar("T")
Command = Callable[..., Any]

_lab = click.option("--lab", "lab_name", help="A lab, instead of --config's datastore.")
_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/calico/agent.toml"),
    show_default=True,
    help="An agent's settings file, which says where the datastore is.",
)


def store_options(command: Command) -> Command:
    """Give a command the options that say where the datastore is."""
    return _lab(_config(command))


@contextmanager
def failures() -> Iterator[None]:
    """Tell in one sentence why a command cannot begin (2), or what it refuses (1)."""
    with (
        one_sentence(BadSettings, DatastoreError, LabFailed, told=CannotBegin),
        one_sentence(Invalid, Conflict),
    ):
        yield


def with_store(
    lab_name: str | None, config: Path, call: Callable[[Store, Keys], T]
) -> T:
    """Call with the datastore and its keys, and return what it returns."""
    if lab_name is None:
        settings = load_agent_settings(config)
        return _called(settings.etcd, Keys(settings.region), call)
    build.check_root()
    lab = Lab.load(lab_name)
    etcd = EtcdSettings(endpoints=tuple(lab.cloud.etcd_endpoints))
    try:
        return inside(lab.paths.netns(CONTROL), lambda: _called(etcd, Keys(), call))
    except OSError as e:
        raise LabFailed(f"lab {lab_name} does not run: {e}") from e


def _called(etcd: EtcdSettings, keys: Keys, call: Callable[[Store, Keys], T]) -> T:
    with closing(Client(etcd)) as client:
        return call(client, keys)
