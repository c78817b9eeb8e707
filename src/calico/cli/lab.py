"""`calico lab`: a whole cloud network on this machine, in namespaces."""

import os
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import click

from calico.cli.output import (
    as_rows,
    one_sentence,
    print_json,
    print_table,
    progress,
    shell_exports,
)
from calico.lab import build, dhclient, environment
from calico.lab import lab as labs
from calico.lab.lab import Lab, Plan
from calico.lab.namespaces import LabFailed
from calico.lab.servers import ServerFailed
from calico.lab.topology import BgpMode, Impossible

_PROJECTS = click.Choice(["admin", "demo1", "demo2"])
_name = click.argument("name", default="default")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_lab = click.option(
    "--lab", "lab_name", default="default", show_default=True, help="Which lab."
)


def _failures() -> AbstractContextManager[None]:
    return one_sentence(LabFailed, ServerFailed, Impossible)


@click.group()
def lab() -> None:
    """A multi-rack cloud network on this machine."""
    environment.prepare()


@lab.command()
@_name
@click.option("--racks", default=2, show_default=True, help="Racks, each with a ToR.")
@click.option("--hosts-per-rack", default=2, show_default=True, help="Hosts in each.")
@click.option(
    "--bgp",
    type=click.Choice([mode.value for mode in BgpMode]),
    default=BgpMode.TOR.value,
    show_default=True,
    help="Whom hosts exchange routes with.",
)
@click.option("--etcd-members", default=1, show_default=True, help="Size of etcd.")
@click.option(
    "--neutron-conf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings for Neutron that win over the lab's.",
)
def up(name: str, neutron_conf: Path | None, **wishes: Any) -> None:
    """Make the lab NAME: fabric, hosts with agents, Keystone and Neutron."""
    with _failures(), progress() as tell:
        own = neutron_conf.read_text(errors="replace") if neutron_conf else ""
        bgp = BgpMode(wishes.pop("bgp"))
        plan = Plan(name=name, neutron_conf=own, bgp=bgp, **wishes)
        build.up(plan, tell)
        tell(f"lab {name} is up")
    option = "" if name == "default" else f" --lab {name}"
    argument = "" if name == "default" else f" {name}"
    click.echo(
        f"To go on: `eval $(calico lab env{argument})`, then `openstack network "
        f"create`, `openstack subnet create`,\nand "
        f"`calico lab instance create{option} NAME --network NET`."
    )


@lab.command()
@_name
def down(name: str) -> None:
    """Take the lab NAME down, or what a crash left of it."""
    with _failures(), progress() as tell:
        build.down(name, tell)
        tell(f"lab {name} is gone")


@lab.command(name="list")
@_json
def list_(as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """List the labs of this machine."""
    found = [Lab.load(name) for name in labs.names()]
    entries = [
        {
            "name": each.name,
            "state": each.state.value,
            "racks": each.plan.racks,
            "hosts": len(each.hosts()),
            "bgp": each.plan.bgp.value,
            "instances": len(each.instances()),
        }
        for each in found
    ]
    if as_json:
        print_json(entries)
    else:
        columns = ("name", "state", "racks", "hosts", "bgp", "instances")
        print_table(columns, [[entry[c] for c in columns] for entry in entries])


@lab.command()
@_name
@_json
def status(name: str, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Show how the nodes of the lab NAME do: agents, BGP sessions, addresses."""
    with _failures():
        found = Lab.load(name)
        nodes = found.status()
        servers = [p.name for p in found.processes.recorded() if not p.running]
    if as_json:
        print_json({"name": name, "nodes": nodes, "dead": servers})
        return
    print_table(
        ("node", "agent", "BGP sessions", "addresses"),
        [
            (n.name, n.agent or "", f"{n.sessions_up}/{n.sessions}", *_joined(n))
            for n in nodes
        ],
    )
    for server in servers:
        click.echo(f"{server} does not run; its log is {found.paths.logs}/{server}.log")


def _joined(node: labs.NodeStatus) -> tuple[str]:
    return (", ".join(node.addresses),)


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("place", metavar="NODE|INSTANCE")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_lab
def exec_(place: str, command: tuple[str, ...], lab_name: str) -> NoReturn:
    """Run a COMMAND in a node or an instance: `calico lab exec web -- ip route`.

    An instance resolves names as its DHCP client was told.
    """
    with _failures():
        netns = Lab.load(lab_name).netns_of(place)
        build.check_root()
    argv = dhclient.told(netns, command)
    os.execvp("ip", ["ip", "netns", "exec", netns, *argv])  # noqa: S606 - no shell


@lab.command()
@_name
@click.option("--project", type=_PROJECTS, default="demo1", show_default=True)
@_json
def env(name: str, project: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Print what the `openstack` command needs: `eval $(calico lab env)`."""
    with _failures():
        variables = dict(Lab.load(name).environment(project))
    variables |= {name: os.environ[name] for name in environment.PROXIES}
    if as_json:
        print_json(variables)
    else:
        click.echo(shell_exports(variables))


@lab.group()
def instance() -> None:
    """Instances: namespaces with a port of Neutron's and a DHCP client."""


@instance.command()
@click.argument("name")
@_lab
@click.option("--network", help="The network, by name or id.")
@click.option("--port", help="A port to use, instead of a new one on the network.")
@click.option("--host", help="Where to run it; the least used host if not given.")
@click.option(
    "--security-group", "groups", multiple=True, help="Of the new port; repeatable."
)
@click.option("--project", type=_PROJECTS, default="demo1", show_default=True)
@_json
def create(  # noqa: PLR0913 - one for each option
    name: str,
    *,
    lab_name: str,
    network: str | None,
    port: str | None,
    host: str | None,
    groups: tuple[str, ...],
    project: str,
    as_json: bool,
) -> None:
    """Make the instance NAME, and wait until it has its addresses."""
    if network is None and port is None:
        raise click.UsageError("give --network or --port")
    with _failures():
        build.check_root()
        made = Lab.load(lab_name).create_instance(
            name,
            network=network,
            port_id=port,
            host=host,
            project=project,
            security_groups=groups or None,
        )
    if as_json:
        print_json(made)
    else:
        addresses = ", ".join(made.addresses)
        click.echo(f"{made.name} runs on {made.host} and has {addresses}")
        where = "" if lab_name == "default" else f" --lab {lab_name}"
        hint = f"calico lab exec{where} {shlex.quote(name)} -- ip address"
        click.echo(f"Look inside: {hint}")


@instance.command()
@click.argument("name")
@click.option("--to", "target", required=True, help="The host to move to.")
@_lab
@click.option(
    "--measure-from",
    "sender",
    help="Count what is lost of 1,000 packets a second from this instance.",
)
@click.option("--cold", is_flag=True, help="Do not prepare the target: evacuate.")
@click.option("--silent", is_flag=True, help="Let nobody announce the guest.")
@_json
def migrate(  # noqa: PLR0913 - one for each option
    name: str,
    *,
    target: str,
    lab_name: str,
    sender: str | None,
    cold: bool,
    silent: bool,
    as_json: bool,
) -> None:
    """Move the running instance NAME to another host, in Nova's sequence."""
    with _failures():
        build.check_root()
        report = Lab.load(lab_name).migrate_instance(
            name,
            to=target,
            warm=not cold,
            announced=not silent,
            measure_from=sender,
        )
    if as_json:
        print_json(report)
        return
    for step in report.steps:
        click.echo(f"{step.at:6.2f} s  {step.what}")
    if report.loss is not None:
        click.echo(
            f"{report.loss.lost} of {report.loss.sent} packets were lost, which is "
            f"{report.loss.milliseconds:g} ms of traffic"
        )


@instance.command(name="list")
@_lab
@_json
def list_instances(lab_name: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """List the instances."""
    with _failures():
        found = Lab.load(lab_name).instances()
    if as_json:
        print_json(found)
    else:
        columns = ("name", "project", "host", "addresses", "mac", "port_id")
        print_table(columns, as_rows(found, *columns))


@instance.command()
@click.argument("name")
@_lab
def delete(name: str, lab_name: str) -> None:
    """Take the instance NAME away, with the port that was made for it."""
    with _failures():
        build.check_root()
        Lab.load(lab_name).delete_instance(name)
