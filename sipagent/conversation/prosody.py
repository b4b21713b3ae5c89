"""Asks, at each pause of the caller, whether the speech so far sounds finished."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from sipagent.conversation.audio import join
from sipagent.conversation.interfaces import FRAME_MS, Pcm
from sipagent.core.errors import SipagentError

WINDOW_MS = 8000  # the judges hear no more


class TurnJudge(Protocol):
    """The speech worker's client."""

    async def complete(self, pcm: Pcm, rate: int) -> float | None:
        """0..1; None when it cannot be told now. Raises SipagentError."""
        ...


class NoJudge:
    async def complete(self, pcm: Pcm, rate: int) -> float | None:
        return None


class Prosody:
    """Of one caller. `judged` is called on the event loop, unless the caller has gone on meanwhile."""

    def __init__(self, judge: TurnJudge, judged: Callable[[float], None]) -> None:
        self._judge = None if isinstance(judge, NoJudge) else judge
        self._judged = judged
        self._frames: deque[Pcm] = deque(maxlen=WINDOW_MS // FRAME_MS)
        self._asking: asyncio.Task[None] | None = None

    def push(self, frame: Pcm) -> None:
        if self._judge is not None:
            self._frames.append(frame)

    def pause(self, silent: int) -> None:
        """The caller has said nothing in the last `silent` frames, which are left out: the judges err less so."""
        self.cancel()
        spoken = list(self._frames)[: -silent or None]
        if spoken and self._judge is not None:
            self._asking = asyncio.create_task(self._ask(self._judge, spoken))

    def cancel(self) -> None:
        """What is asked is of no interest any more."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def forget(self) -> None:
        """The utterance is over."""
        self.cancel()
        self._frames.clear()

    async def _ask(self, judge: TurnJudge, frames: list[Pcm]) -> None:
        try:
            complete = await judge.complete(*join(frames))
        except SipagentError:
            return  # a sign among others: the turn ends without it
        if complete is not None:
            self._judged(min(max(complete, 0.0), 1.0))
