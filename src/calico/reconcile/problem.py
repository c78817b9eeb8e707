"""A change that could not be made: a fact to log, count and try again, not an end.

`apply` functions return a list of these instead of raising at the first, so that one
bad object never stops the others (P41).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What was to be changed, to what, and what the kernel or daemon answered."""

    subject: str
    wish: str
    reply: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.wish}: {self.reply}"
