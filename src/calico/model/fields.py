"""A JSON document taken apart with its paths, so that a refusal says where.

`spec.ingress[2].source.ports[0]: 'http' is no port` is what somebody can act on; the
same without the path is a riddle in a file of a hundred rules.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from calico.model.ids import Invalid


class BadField(Invalid):
    """A value that breaks its rules; the message begins with its path."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value in a document, and where it is. None is an absent one."""

    path: str
    value: object

    def refused(self, reason: object) -> BadField:
        """Return the refusal of this value, for a reason."""
        return BadField(f"{self.path}: {reason}")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say of what is refused inside that it was this value, or a part of it."""
        try:
            yield
        except BadField:
            raise  # a part's path is the better one
        except Invalid as e:
            raise self.refused(e) from e

    def members(self, known: set[str], unsupported: Mapping[str, str]) -> "Members":
        """Return an object's members; Invalid if it has others than the known.

        `unsupported` are those that mean something elsewhere, with the reason why not
        here. One that is empty or false asks for nothing, and is passed over.
        """
        if self.value is None:
            return Members(self.path, {})
        if not isinstance(self.value, dict):
            raise self.refused(f"{self.value!r} is not an object")
        found = {name: Field(self._inside(name), v) for name, v in self.value.items()}
        for name, member in found.items():
            if name not in known and member.value:
                reason = unsupported.get(name)
                told = f"not supported: {reason}" if reason else "unknown field"
                raise member.refused(told)
        return Members(self.path, found)

    def elements(self) -> list["Field"]:
        """Return a list's elements; none if it is absent."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.refused(f"{self.value!r} is not a list")
        return [Field(f"{self.path}[{n}]", v) for n, v in enumerate(self.value)]

    def text(self) -> str:
        """Return a text; the empty one if it is absent."""
        if self.value is None:
            return ""
        if not isinstance(self.value, str):
            raise self.refused(f"{self.value!r} is not a text")
        return self.value

    def number(self) -> int | None:
        """Return a whole number; None if it is absent."""
        if self.value is None:
            return None
        if type(self.value) is not int:  # a bool is an int too
            raise self.refused(f"{self.value!r} is not a whole number")
        return self.value

    def _inside(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


@dataclass(frozen=True, slots=True)
class Members:
    """The members of an object; one that it does not have is an absent field."""

    path: str
    found: Mapping[str, Field]

    def __getitem__(self, name: str) -> Field:
        return self.found.get(name) or Field(f"{self.path}.{name}", None)
