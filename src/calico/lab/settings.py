"""OpenStack's settings files: sections of `name = value` lines."""

from collections.abc import Mapping
from pathlib import Path

Sections = Mapping[str, Mapping[str, str]]


def write_settings(file: Path, sections: Sections) -> None:
    """Write a settings file that oslo.config reads; only root may: it has passwords."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(render(sections))


def render(sections: Sections) -> str:
    """Return the text of a settings file."""
    return "\n".join(
        f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in values.items())
        for section, values in sections.items()
    )
