"""`calico agent`: serves this host."""

import sys
from pathlib import Path

import click

from calico import obs
from calico.agent.daemon import Agent, build, stop_on_signals
from calico.config import BadSettings, load_agent_settings
from calico.system.nft import NftError

_PATIENCE = 30.0  # seconds for the datastore to be seen whole


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/calico/agent.toml"),
    show_default=True,
    help="The settings file.",
)
@click.option("--once", is_flag=True, help="Make one pass and end; 1 if it failed.")
@click.option("--dry-run", is_flag=True, help="Print what a pass would change.")
def agent(path: Path, *, once: bool, dry_run: bool) -> None:
    """Serve this host: routes, anti-spoofing, DHCP and BGP for its instances.

    Ends on SIGTERM and leaves the data path in place; reads its settings again on
    SIGHUP.
    """
    process = _build(path)
    try:
        if dry_run:
            for line in process.preview(_PATIENCE):
                click.echo(line)
        elif once:
            sys.exit(0 if process.once(_PATIENCE) else 1)
        else:
            stop_on_signals(process)
            process.serve()
    except TimeoutError as e:
        raise click.ClickException(str(e)) from e


def _build(path: Path) -> Agent:
    try:
        settings = load_agent_settings(path)
        obs.configure_logging(settings.log_level, as_json=settings.log_json)
        return build(settings, path)
    except (BadSettings, NftError, ValueError) as e:
        raise click.ClickException(str(e)) from e
