"""How long the caller may say nothing: a prompt, another, then goodbye. Pure; the time is an argument (ns)."""

from enum import Enum, auto


class SilenceAct(Enum):
    PROMPT = auto()
    GOODBYE = auto()


class SilenceWatch:
    def __init__(self, silence_s: float, prompts: int) -> None:
        self._limit_ns = int(silence_s * 1e9)
        self._prompts = prompts
        self._asked = 0
        self._since: int | None = None  # None while somebody speaks or an answer is being made

    def quiet(self, now: int) -> None:
        """Nobody speaks and it is the caller's turn."""
        if self._since is None:
            self._since = now

    def busy(self) -> None:
        """The agent speaks or thinks."""
        self._since = None

    def caller_spoke(self) -> None:
        self._since = None
        self._asked = 0

    def due(self, now: int) -> SilenceAct | None:
        """What to do about the silence, at most once per stretch of it."""
        if self._since is None or now - self._since < self._limit_ns:
            return None
        self._since = None
        self._asked += 1
        return SilenceAct.PROMPT if self._asked <= self._prompts else SilenceAct.GOODBYE
