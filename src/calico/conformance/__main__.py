"""The command behind `make conformance`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click

from calico.conformance import report, run
from calico.conformance.inapplicable import Mode
from calico.conformance.judgement import Judgement
from calico.lab import build
from calico.lab.lab import Lab, Plan
from calico.lab.namespaces import LabFailed
from calico.model.ids import Invalid

_PAGE = Path("docs/conformance.md")
_PACKAGES = ("neutron", "neutron-tempest-plugin", "tempest")


@click.command()
@click.option("--mode", "modes", type=click.Choice([*map(str, Mode)]), multiple=True)
@click.option("--only", metavar="REGEX", help="Tests in whose id this is found.")
@click.option("--keep", is_flag=True, help="Leave the lab up.")
@click.option("--lab", "given", metavar="NAME", help="Use a lab that is up.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("conformance.json")
)
def main(
    modes: tuple[str, ...],
    only: str | None,
    given: str | None,
    output: Path,
    *,
    keep: bool,
) -> None:
    """Run OpenStack's API test suites against a lab, once in each mode.

    Whole runs in all modes write the page of the documentation, too.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {text}")

    try:
        wishes = [run.Wish(mode=Mode(one), only=only) for one in modes or Mode]
        with build.terminated_by_exception(), _lab(given, say, keep=keep) as lab:
            judgements = [_run(lab, wish, say) for wish in wishes]
    except (LabFailed, Invalid) as e:
        raise click.ClickException(str(e)) from e
    versions = {name: version(name) for name in _PACKAGES}
    output.write_text(json.dumps(report.as_json(judgements, versions), indent=1))
    if only is None and {one.mode for one in judgements} == set(Mode):
        _PAGE.write_text(report.as_page(judgements, versions))
    for judgement in judgements:
        _tell(judgement)
    sys.exit(not all(judgement.conforms for judgement in judgements))


@contextmanager
def _lab(name: str | None, say: build.Progress, *, keep: bool) -> Iterator[Lab]:
    """Give the lab of that name, or one that is made and goes again."""
    if name is not None:
        yield Lab.load(name)
        return
    # A test of agents wants two of them.
    plan = Plan(name=f"conformance{os.getpid()}", racks=1, hosts_per_rack=2)
    lab = build.up(plan, say)
    try:
        yield lab
    finally:
        if keep:
            say(f"lab {lab.name} stays: `calico lab down {lab.name}` takes it down")
        else:
            build.down(lab.name, say)


def _run(lab: Lab, wish: run.Wish, say: build.Progress) -> Judgement:
    say(f"{wish.mode}: restarting Neutron with overlapping_subnets = {wish.mode}")
    run.in_mode(lab, wish.mode)
    directory = lab.paths.state / "conformance" / wish.mode
    return run.run(lab, wish, directory, say)


def _tell(judgement: Judgement) -> None:
    for result in judgement.failures:
        click.echo(f"{result.outcome}: {result.test}: {result.brief}")
    for line in judgement.stale:
        click.echo(f"in the list for nothing: {line}")
    listed = sum(map(len, judgement.cannot.values()))
    click.echo(
        f"{judgement.mode}: {len(judgement.passed)} passed, {listed} cannot apply, "
        f"{len(judgement.failures)} are not as they should be"
    )


if __name__ == "__main__":
    main()
