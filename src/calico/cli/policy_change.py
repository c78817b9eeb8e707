"""`calico policy validate`, `apply` and `delete`: what operators write."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from calico.cli.output import CannotBegin
from calico.cli.policy_store import failures, store_options, with_store
from calico.datastore.store import Store
from calico.model.keys import Keys
from calico.operator import documents
from calico.operator.change import Change, Outcome, commit, plan_apply, plan_delete
from calico.operator.documents import Document, Reading
from calico.operator.kinds import Kind, find_kind

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_files = click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
_dry_run = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and do nothing."
)
_COLOURS = {
    Outcome.CREATED: "green",
    Outcome.CONFIGURED: "green",
    Outcome.DELETED: "yellow",
    Outcome.ABSENT: "red",
}


@click.command()
@_files
def validate(files: tuple[Path, ...]) -> None:
    """Check files without a datastore.

    Example: `calico policy validate guard.yaml`.

    FILE is YAML or JSON as calicoctl takes it, `-` standard input. The exit code is 1
    where something in them is refused; all of it is told.
    """
    for document in _checked(documents.read(_texts(files))):
        click.echo(f"{document.place}: {document} is valid")


@click.command()
@_files
@_dry_run
@store_options
def apply(
    files: tuple[Path, ...], *, dry_run: bool, lab_name: str | None, config: Path
) -> None:
    """Store policies, sets and host endpoints.

    Example: `calico policy apply guard.yaml`.

    FILE is YAML or JSON as calicoctl takes it, `-` standard input. All is checked
    before anything is written, and all is written at once, or nothing. The exit code is
    1 where something is refused, 2 where there is no datastore.
    """
    texts = _texts(files)

    def store(store: Store, keys: Keys) -> list[Change]:
        found = _checked(documents.read(texts, keys))
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        changes = plan_apply(store, found, keys, now)
        if not dry_run:
            commit(store, changes)
        return changes

    with failures():
        _tell(with_store(lab_name, config, store), dry_run=dry_run)


@click.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("-f", "--file", "files", multiple=True, type=_FILE, help="All in a file.")
@_dry_run
@store_options
def delete(
    kind: str | None,
    name: str | None,
    *,
    files: tuple[Path, ...],
    dry_run: bool,
    lab_name: str | None,
    config: Path,
) -> None:
    """Remove what operators stored.

    Example: `calico policy delete GlobalNetworkPolicy guard`.

    KIND may be short: gnp, networkset, gns, hep. With `-f guard.yaml` all that is in
    the file goes. The exit code is 1 where something is not there or Neutron's, 2 where
    there is no datastore.
    """
    if bool(files) == (name is not None) or (kind is None) != (name is None):
        raise click.UsageError("give KIND and NAME, or -f FILE")
    texts = _texts(files)

    def remove(store: Store, keys: Keys) -> list[Change]:
        changes = plan_delete(store, _named(kind, name, texts, keys), keys)
        if not dry_run:
            commit(store, changes)
        return changes

    with failures():
        changes = with_store(lab_name, config, remove)
    _tell(changes, dry_run=dry_run)
    if any(change.outcome is Outcome.ABSENT for change in changes):
        raise SystemExit(1)


def _named(
    kind: str | None, name: str | None, texts: Sequence[tuple[str, str]], keys: Keys
) -> list[tuple[Kind, str]]:
    if kind is not None and name is not None:
        found = find_kind(kind)
        return [(found, found.shown_name(name))]
    read = _checked(documents.read(texts, keys))
    return [(document.kind, document.name) for document in read]


def _texts(files: Sequence[Path]) -> list[tuple[str, str]]:
    return [_text(file) for file in files]


def _text(file: Path) -> tuple[str, str]:
    if str(file) == "-":
        return "standard input", sys.stdin.read()
    try:
        return str(file), file.read_text()
    except (OSError, UnicodeError) as e:
        raise CannotBegin(f"{file}: {e}") from e


def _checked(reading: Reading) -> tuple[Document, ...]:
    if not reading.problems:
        return reading.documents
    if len(reading.problems) == 1:
        raise click.ClickException(str(reading.problems[0]))
    for problem in reading.problems:
        click.echo(problem, err=True)
    raise click.ClickException(f"{len(reading.problems)} problems: nothing is done")


def _tell(changes: Sequence[Change], *, dry_run: bool) -> None:
    for change in changes:
        outcome = click.style(change.outcome.value, fg=_COLOURS.get(change.outcome))
        would = "would be " if dry_run and change.writes else ""
        click.echo(f"{change.subject} {would}{outcome}")
