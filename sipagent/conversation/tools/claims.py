"""What an agent may not say before it knows: that something has been done.

A model that calls a tool may announce its success in the same breath. So a clause that claims one is held back until
the model's answer is complete: with a call of a tool in it the clause is dropped, for it was said without knowledge.
"""

import re
from functools import cache

from sipagent.conversation.chunking import Chunker
from sipagent.conversation.languages import codes, language


@cache
def _patterns() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for code in codes() for each in language(code).claims), re.IGNORECASE)


def claims_success(clause: str) -> bool:
    """
    >>> claims_success("I have booked the table for you."), claims_success("Let me look that up.")
    (True, False)
    """
    return _patterns().search(clause) is not None


class HeldBack:
    """Clauses of one answer on their way to the caller; from the first claim on they wait."""

    def __init__(self) -> None:
        self._chunker = Chunker()
        self._held: list[str] = []

    def push(self, delta: str) -> list[str]:
        """What may be said now."""
        return [clause for clause in self._chunker.push(delta) if self._passes(clause)]

    def end(self, *, called: bool) -> list[str]:
        """The answer is complete: all that is left, or with a call of a tool what claims nothing."""
        rest = [clause for clause in self._chunker.flush() if self._passes(clause)]
        return rest if called else [*self._held, *rest]

    def _passes(self, clause: str) -> bool:
        if not self._held and not claims_success(clause):
            return True
        self._held.append(clause)
        return False
