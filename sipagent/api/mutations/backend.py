"""What the API asks of calls that are up: sounds, keys, silence, questions, and the answer to a call that rings."""

from typing import Protocol

import msgspec


class Play(msgspec.Struct, kw_only=True, frozen=True):
    source: str  # URL of a WAV file, or its name beside the dialplan
    loops: int = 1
    until_key: bool = False


class DigitsAsked(msgspec.Struct, kw_only=True, frozen=True):
    least: int = 1
    most: int = 32
    end: str = "#"
    between_s: float = 4.0


class Ask(msgspec.Struct, kw_only=True, frozen=True):
    text: str = ""
    digits: DigitsAsked | None = None
    speech: bool = False
    language: str = "en"
    first_s: float = 8.0
    limit_s: float = 60.0


class Answered(msgspec.Struct, kw_only=True, frozen=True):
    """What the caller has answered, as far as known: `by` is "" while the question is still being asked."""

    gather_id: str
    by: str = ""
    digits: str = ""
    text: str = ""
    reason: str = ""


class MutationsBackend(Protocol):
    """Each returns what is falsy when no such call is up. ``leg_id`` is a leg of the call, "" the caller's.

    Each raises NotNow (409) when the call is in no state for it.
    """

    async def mute(self, call_id: str, leg_id: str, on: bool) -> bool: ...

    async def press(self, call_id: str, leg_id: str, digits: str, duration_ms: int) -> bool:
        """Raises ValueError for what is no key."""
        ...

    async def play(self, call_id: str, leg_id: str, wanted: Play) -> str:
        """The playback's id."""
        ...

    async def say(self, call_id: str, leg_id: str, text: str) -> bool: ...

    async def gather(self, call_id: str, wanted: Ask, wait_s: float) -> Answered | None:
        """The answer, or after so long that there is none yet. Raises ConfigError for an unknown language."""
        ...

    async def answer(self, call_id: str, dialplan: str) -> bool:
        """``dialplan``: the steps to take then, "" those behind what it is at. Raises ConfigError."""
        ...

    async def reject(self, call_id: str, status: int, reason: str) -> bool: ...
