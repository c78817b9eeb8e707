"""Run by test_protocols, outside of pytest: what Neutron makes of each spelling.

Prints a list of (spelling, what Neutron stores for it, the protocol's number) as JSON.
"""

import json
from collections.abc import Iterator

from neutron.extensions.securitygroup import convert_protocol
from neutron_lib.constants import IP_PROTOCOL_MAP


def spellings() -> Iterator[tuple[str | int | None, int | None]]:
    for name, number in IP_PROTOCOL_MAP.items():
        for spelling in (name, name.upper(), name.title(), name.swapcase()):
            yield spelling, number
    for number in range(256):
        for written in (number, str(number), f"+{number}", f" {number}"):
            yield written, number
    yield None, None
    yield "any", None


if __name__ == "__main__":
    print(json.dumps([(s, convert_protocol(s), n) for s, n in spellings()]))  # noqa: T201 - its answer
