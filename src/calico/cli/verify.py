"""`calico verify`: prove the connectivity contract with real packets."""

import json
from collections.abc import Collection
from pathlib import Path

import click

from calico.cli.output import CannotBegin, print_json, print_table, progress
from calico.lab import build, environment
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.verify.cloud import CloudError
from calico.verify.lab_cloud import LabCloud
from calico.verify.report import COLUMNS, as_json, as_rows
from calico.verify.result import Report
from calico.verify.run import verify as run_verify
from calico.verify.statements import IDS


@click.command()
@click.option("--lab", "name", default="default", show_default=True, help="Which lab.")
@click.option("--only", metavar="S1,S7", help="Check these statements alone.")
@click.option("--json", "to_json", is_flag=True, help="Print JSON, not a table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the JSON to a file as well.",
)
def verify(*, name: str, only: str | None, to_json: bool, output: Path | None) -> None:
    """Prove the statements S1-S21 with real packets.

    Networks, ports and instances of its own are made through the Neutron API, and gone
    afterwards. The exit code is 1 where a statement fails.
    """
    chosen = _chosen(only)
    environment.prepare()
    try:
        build.check_root()
        lab = Lab.load(name)
    except LabFailed as e:
        raise CannotBegin(str(e)) from e
    if not lab.complete:
        raise CannotBegin(f"lab {name} is incomplete; `calico lab down {name}` first")
    try:
        report = _run(lab, chosen)
    except (CloudError, LabFailed) as e:
        raise CannotBegin(str(e)) from e
    body = as_json(report)
    if output is not None:
        output.write_text(json.dumps(body, indent=2) + "\n")
    if to_json:
        print_json(body)
    else:
        print_table(COLUMNS, as_rows(report))
        for note in report.notes:
            click.echo(f"Note: {note}")
        click.echo(f"{report.cloud}, {report.seconds:.0f} s")
    if not report.holds:
        raise SystemExit(1)


def _run(lab: Lab, chosen: Collection[str]) -> Report:
    with (
        build.verifying(lab.paths),
        progress() as tell,
        build.terminated_by_exception(),
    ):
        return run_verify(LabCloud(lab), chosen, tell)


def _chosen(only: str | None) -> tuple[str, ...]:
    if only is None:
        return IDS
    chosen = tuple(part.strip().upper() for part in only.split(",") if part.strip())
    unknown = [part for part in chosen if part not in IDS]
    if unknown or not chosen:
        raise click.UsageError(
            f"--only takes ids from {IDS[0]} to {IDS[-1]}, not {only!r}"
        )
    return chosen
