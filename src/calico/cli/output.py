"""How commands speak: tables or JSON, progress, and errors in one sentence."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(value: object) -> None:
    """Print anything that msgspec knows as indented JSON."""
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as a table; plain, in full width, where it is not for a terminal."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def _cell(value: object) -> Text:
    """Return a cell that is shown as it is: names may look like rich's markup."""
    return value if isinstance(value, Text) else Text(str(value))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that tells what is being done, with the time it has taken.

    On a terminal a line turns while it is worked on; elsewhere each is printed as it
    begins. All of it goes to standard error.
    """
    console = Console(stderr=True, highlight=False)
    start = time.monotonic()

    def line(text: str) -> str:
        return f"[dim]{time.monotonic() - start:5.1f} s[/]  {text}"

    if not console.is_terminal:
        yield lambda text: console.print(line(text), soft_wrap=True)
        return
    with console.status("") as status:

        def tell(text: str) -> None:
            console.print(line(text))
            status.update(text)

        yield tell


class CannotBegin(click.ClickException):
    """There is nothing to do what was asked with, or no right to."""

    exit_code = 2


@contextmanager
def one_sentence(
    *failures: type[Exception],
    told: type[click.ClickException] = click.ClickException,
) -> Iterator[None]:
    """Turn the named exceptions into a message and an exit code, 1 if not `told`."""
    try:
        yield
    except failures as e:
        raise told(str(e)) from e


def shell_exports(variables: Mapping[str, str]) -> str:
    """Return lines for a shell's `eval`."""
    return "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in variables.items()
    )


def as_rows(objects: Iterable[Any], *names: str) -> list[list[object]]:
    """Return the named attributes of each object, tuples joined by commas."""
    rows: list[list[object]] = []
    for each in objects:
        values = [getattr(each, name) for name in names]
        rows.append([", ".join(v) if isinstance(v, tuple) else v for v in values])
    return rows
