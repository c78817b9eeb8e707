"""`calico explain`: why a packet gets through or not, hop by hop."""

from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.text import Text

from calico.cli.output import CannotBegin, one_sentence, print_json, print_table
from calico.config import BadSettings, load_agent_settings
from calico.datastore.store import DatastoreError
from calico.lab import build
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.lab.servers import ServerFailed
from calico.verify.explain import in_lab, on_host
from calico.verify.explain.hops import Outcome
from calico.verify.explain.journey import Explanation
from calico.verify.explain.journey import explain as explain_question
from calico.verify.explain.picture import BadQuestion
from calico.verify.explain.question import Asked, understand
from calico.verify.explain.report import (
    COLUMNS,
    Sent,
    agrees,
    as_json,
    headline,
    verdict,
)

_END = "INSTANCE|PORT|ADDRESS"
_PORT = click.IntRange(0, 65535)
_OCTET = click.IntRange(0, 255)
_STYLES = {
    Outcome.DENIED: "bold red",
    Outcome.UNKNOWN: "yellow",
    Outcome.ROUTED: "",
    Outcome.ALLOWED: "green",
    Outcome.DELIVERED: "green",
}


@click.command()
@click.option("--lab", "lab_name", help="A lab, instead of the host this runs on.")
@click.option("--from", "source", required=True, metavar=_END, help="Who sends.")
@click.option("--to", "target", required=True, metavar=_END, help="Who receives.")
@click.option(
    "--proto", "protocol", metavar="tcp|udp|icmp|sctp|NUMBER", help="ICMP if not given."
)
@click.option("--dport", "port", type=_PORT, help="Port; without --proto one of TCP.")
@click.option("--icmp-type", type=_OCTET, help="An echo request if not given.")
@click.option("--icmp-code", type=_OCTET, help="Goes with --icmp-type.")
@click.option("-4", "version", flag_value=4, type=int, help="Over IPv4.")
@click.option("-6", "version", flag_value=6, type=int, help="Over IPv6.")
@click.option(
    "--send", is_flag=True, help="Send such a packet, and compare. Labs only."
)
@click.option("--json", "to_json", is_flag=True, help="Print JSON.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/calico/agent.toml"),
    show_default=True,
    help="The agent's settings file, where there is no --lab.",
)
def explain(  # noqa: PLR0913 - one for each option
    *,
    lab_name: str | None,
    source: str,
    target: str,
    protocol: str | None,
    port: int | None,
    icmp_type: int | None,
    icmp_code: int | None,
    version: int | None,
    send: bool,
    to_json: bool,
    config: Path,
) -> None:
    """Say hop by hop whether a packet may pass: by which rule and route, or why not.

    The exit code is 1 where a packet that was sent did not do as was said, and 2 where
    there is nothing to explain.
    """
    asked = Asked(
        source=source,
        target=target,
        protocol=protocol,
        port=port,
        icmp_type=icmp_type,
        icmp_code=icmp_code,
        version=version,
    )
    if send and lab_name is None:
        raise click.UsageError("--send goes with --lab")
    sent = None
    with _failures():
        if lab_name is None:
            found = _here(asked, config)
        else:
            found, sent = _of_lab(asked, lab_name, send=send)
    if to_json:
        print_json(as_json(found, sent))
    else:
        _print(found, sent)
    if sent is not None and not agrees(found, sent):
        raise SystemExit(1)


def _failures() -> AbstractContextManager[None]:
    return one_sentence(
        BadQuestion,
        BadSettings,
        DatastoreError,
        LabFailed,
        ServerFailed,
        told=CannotBegin,
    )


def _of_lab(asked: Asked, name: str, *, send: bool) -> tuple[Explanation, Sent | None]:
    build.check_root()
    lab = Lab.load(name)
    picture = in_lab.picture(lab)
    question = understand(asked, picture)
    found = explain_question(question, picture, in_lab.LabNetwork(lab))
    return found, in_lab.send(lab, picture, found) if send else None


def _here(asked: Asked, config: Path) -> Explanation:
    settings = load_agent_settings(config)
    picture = on_host.picture(settings)
    question = understand(asked, picture)
    on_host.check_is_here(question, settings)
    return explain_question(question, picture, on_host.HostNetwork(settings))


def _print(found: Explanation, sent: Sent | None) -> None:
    said = verdict(found)
    colour = "green" if found.allowed else "red"
    # click leaves colours out where standard output is no terminal.
    click.echo(f"{click.style(said, fg=colour, bold=True)}: {headline(found)}")
    print_table(
        COLUMNS,
        [
            (hop.node, hop.what, Text(hop.outcome, _STYLES[hop.outcome]), hop.detail)
            for hop in found.hops
        ],
    )
    if not found.complete:
        click.echo("Only as far as can be seen from here: see what is unknown above.")
    if sent is not None:
        agreement = "as was said" if agrees(found, sent) else "NOT as was said"
        click.echo(f"A packet was sent: {sent.detail}, {agreement}.")
