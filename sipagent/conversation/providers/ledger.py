"""What the providers did for one call: for the turn's record, for the event stream, and a way to hurry them."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from sipagent.core.errors import ProviderError

MOST_NOTES = 24  # of one turn; a turn that asked more often has failed long before

Note = dict[str, Any]


class Impatience(Protocol):
    """How much of a hurry there is about the providers of a role just now."""

    def hedge_ms(self, role: str) -> int:
        """After which the next provider is asked as well; 0 leaves it to the provider's setting."""
        ...

    def fastest_first(self, role: str) -> bool: ...


class Patience:
    """None at all."""

    def hedge_ms(self, role: str) -> int:
        return 0

    def fastest_first(self, role: str) -> bool:
        return False


class Ledger:
    """Whoever asks a provider writes here; the session takes it into the turn's details.

    `problem` is told of every failure, by role ("stt", "llm", "tts").
    """

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._hurry = asyncio.Event()
        self.impatience: Impatience = Patience()
        self.problem: Callable[[str, ProviderError], None] = lambda _where, _error: None

    def answered(self, role: str, provider: str, first_ms: float) -> None:
        self._note({"role": role, "provider": provider, "first_ms": round(first_ms, 1)})

    def failed(self, role: str, provider: str, error: ProviderError, after_ms: float) -> None:
        """The reason has no words of the call in it."""
        self._note({"role": role, "provider": provider, "failed": str(error), "after_ms": round(after_ms, 1)})
        self.problem(role, ProviderError(f"{provider}: {error}", retryable=error.retryable))

    def late(self, role: str, provider: str, after_ms: float) -> None:
        """Another one answered first."""
        self._note({"role": role, "provider": provider, "late": True, "after_ms": round(after_ms, 1)})

    def take(self) -> list[Note]:
        """All since the last time."""
        notes, self._notes = self._notes, []
        return notes

    def hurry(self) -> None:
        """The caller waits in silence: whoever has not answered yet gets company now."""
        self._hurry.set()
        self._hurry = asyncio.Event()

    async def hurried(self) -> None:
        await self._hurry.wait()

    def _note(self, note: Note) -> None:
        if len(self._notes) < MOST_NOTES:
            self._notes.append(note)
