"""`calico policy`: operators' policies, and what security groups do on hosts."""

from collections.abc import Sequence

import click
import msgspec

from calico.cli.output import one_sentence, print_json, print_table
from calico.cli.policy_change import apply, delete, validate
from calico.cli.policy_show import list_, show
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.system.counters import Hits, read_hits
from calico.system.nft import Nft, NftError
from calico.verify.inside import inside

_COLUMNS = ("host", "direction", "group", "policy", "rule", "packets", "bytes")


@click.group()
def policy() -> None:
    """Operators' policies, and what security groups do on hosts."""


@policy.command()
@click.option("--lab", "lab_name", help="A lab's hosts instead of this host.")
@click.option("--host", "hosts", multiple=True, help="Of a lab: these hosts alone.")
@click.option("--group", "groups", multiple=True, help="These groups' ids alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def hits(
    *,
    lab_name: str | None,
    hosts: tuple[str, ...],
    groups: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show how many packets each rule of each security group let in, or policy met.

    A connection counts once, by its first packet. A line without group and policy is of
    what no group allowed.
    """
    if hosts and lab_name is None:
        raise click.UsageError("--host goes with --lab")
    with one_sentence(LabFailed, NftError):
        found = _of_lab(lab_name, hosts) if lab_name else [("", _here())]
    shown = [
        (host, hit)
        for host, some in found
        for hit in some
        if not groups or hit.group in groups
    ]
    if as_json:
        print_json([{"host": host, **msgspec.to_builtins(hit)} for host, hit in shown])
        return
    print_table(
        _COLUMNS,
        [
            (
                host,
                hit.direction,
                hit.group,
                hit.policy,
                hit.rule,
                hit.packets,
                hit.bytes,
            )
            for host, hit in shown
        ],
    )


def _here() -> list[Hits]:
    return read_hits(Nft())


def _of_lab(name: str, hosts: Sequence[str]) -> list[tuple[str, list[Hits]]]:
    lab = Lab.load(name)
    unknown = sorted(set(hosts) - set(lab.hosts()))
    if unknown:
        raise LabFailed(f"lab {name} has no host {', '.join(unknown)}")
    return [(host, inside(lab.netns_of(host), _here)) for host in hosts or lab.hosts()]


for _command in (apply, delete, list_, show, validate):
    policy.add_command(_command)
