"""The `calico` command's entry: a table of subcommands, each loaded when it is called.

Loading late keeps `calico --help` fast, and lets a host have the agent without what the
lab needs.
"""

import importlib
from importlib.metadata import version

import click

_COMMANDS = {
    "agent": ("calico.cli.agent:agent", "Serve this host: the agent process."),
    "explain": ("calico.cli.explain:explain", "Why a packet gets through, or not."),
    "policy": ("calico.cli.policy:policy", "Operators' policies, and what groups do."),
    "lab": ("calico.cli.lab:lab", "A multi-rack cloud network on this machine."),
    "verify": ("calico.cli.verify:verify", "Prove the connectivity contract."),
}


class _LateGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - our own table
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the table of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            rows = [(name, text) for name, (_, text) in sorted(_COMMANDS.items())]
            formatter.write_dl(rows)


@click.group(cls=_LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("calico-openstack"), prog_name="calico")
def main() -> None:
    """Pure layer 3 networking for OpenStack Neutron."""
