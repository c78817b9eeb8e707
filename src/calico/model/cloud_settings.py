"""What an operator sets for the whole cloud and each host has to know.

The Calico v3 model has no place for it: plain JSON under a key of our own index, which
is there while something is set that is not the default.
"""

from dataclasses import dataclass

import msgspec

from calico.model.ids import Invalid
from calico.model.resource import parse_json

_SOURCES = "floating_ip_source_translation"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings:
    """The cloud's settings. `translate_sources` is about floating IPs (S13).

    It says that what a port sends out of the cloud comes from its floating IP.
    """

    translate_sources: bool = False


DEFAULTS = CloudSettings()


def encode_cloud_settings(settings: CloudSettings) -> bytes:
    """Return the JSON of settings; all of it is ours, nothing of an old one is kept."""
    return msgspec.json.encode({_SOURCES: settings.translate_sources})


def parse_cloud_settings(value: bytes) -> CloudSettings:
    """Return the settings in their JSON; Invalid says what is wrong."""
    sources = parse_json(value).get(_SOURCES, False)
    if not isinstance(sources, bool):
        raise Invalid(f"{_SOURCES} is {sources!r}")
    return CloudSettings(translate_sources=sources)
