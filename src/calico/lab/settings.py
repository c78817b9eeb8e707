"""OpenStack's settings files: sections of `name = value` lines."""

from collections.abc import Mapping
from configparser import ConfigParser, Error
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


def parse(text: str) -> Sections:
    """Return the sections of a settings file's text; ValueError says what is wrong."""
    parser = ConfigParser(interpolation=None, default_section="", strict=False)
    try:
        parser.read_string(text)
    except Error as e:
        raise ValueError(str(e).replace("\n", " ")) from e
    return {name: dict(parser[name]) for name in parser.sections()}
