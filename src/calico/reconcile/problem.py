"""A change that could not be made: a fact to log, count and try again, not an end.

`apply` functions return a list of these instead of raising at the first, so that one
bad object never stops the others (P41).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What was to be changed, to what, and what the kernel or daemon answered.

    `lasting` is one that no other try helps, only a change of what is asked for: an
    input that is refused. Such a change is noticed by itself.
    """

    subject: str
    wish: str
    reply: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.subject}: {self.wish}: {self.reply}"
