"""Keys pressed for the other side of a leg, in the way its trunk wants them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from sipagent.core.errors import SipagentError
from sipagent.core.termination import Termination
from sipagent.media.client import MediaPort
from sipagent.media.telephone_event import (
    GAP_MS,
    KEY_MS,
    LONGEST_MS,
    PAUSE,
    PAUSE_MS,
    QUEUED,
    SHORTEST_MS,
    check_keys,
)
from sipagent.sip import info
from sipagent.sip import protocol as sip
from sipagent.sip.sdp import DtmfMode

_ANSWER_S = 35.0  # an INFO that nobody answers is given up by the lane after 32 s
_SPARE_S = 5.0  # speech that has begun is finished first


class DigitsRefused(SipagentError):
    """The other side does not take them."""


class Keypad:
    """One leg's. ``ended`` is the leg's end, with which the rest is left unpressed."""

    def __init__(
        self,
        handle: int,
        send: Callable[[sip.AnyCommand], None],
        port: MediaPort,
        ended: asyncio.Future[Termination],
        mode: DtmfMode,
    ) -> None:
        self._handle = handle
        self._send = send
        self._port = port
        self._ended = ended
        self._mode = mode
        self._one_at_a_time = asyncio.Lock()
        self._answer: asyncio.Future[int] | None = None  # to the INFO on its way
        self._sent: asyncio.Future[None] | None = None  # the media process has pressed the last one
        self._passed: deque[tuple[str, int]] = deque()  # keys of another leg's peer, and their ms
        self._passing: asyncio.Task[None] | None = None
        self.telephone_event = False  # agreed on
        port.on_digits_sent = self._all_sent

    @property
    def by_info(self) -> bool:
        return self._mode == "info"

    def pass_on(self, digit: str, duration_ms: int) -> None:
        """A key that another leg's peer has pressed, after those before it; more than `QUEUED` do not wait."""
        if len(self._passed) < QUEUED:
            held_ms = min(max(duration_ms or KEY_MS, SHORTEST_MS), LONGEST_MS)
            self._passed.append((digit, held_ms))
        if self._passing is None or self._passing.done():
            self._passing = asyncio.create_task(self._pass_all(), name="keys")

    async def _pass_all(self) -> None:
        while self._passed and not self._ended.done():
            digit, duration_ms = self._passed.popleft()
            with contextlib.suppress(DigitsRefused):
                await self.press(digit, duration_ms)

    async def press(self, digits: str, duration_ms: int = KEY_MS, gap_ms: int = GAP_MS) -> None:
        """Returns when the last key is pressed, or the leg has ended.

        Raises ValueError for what is no key, DigitsRefused when the other side does not take them.
        """
        keys = check_keys(digits, duration_ms, gap_ms)
        async with self._one_at_a_time:
            if self._mode == "info":
                await self._by_info(keys, duration_ms, gap_ms)
                return
            if self._mode == "rfc4733" and not self.telephone_event:
                raise DigitsRefused("digits go out as telephone-events here, and the other side has not agreed to them")
            self._sent = asyncio.get_running_loop().create_future()
            self._port.press(keys, duration_ms, gap_ms)
            each_s = (max(duration_ms, PAUSE_MS) + gap_ms) / 1000
            await self._until(self._sent, len(keys) * each_s + _SPARE_S)

    def info_answered(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    async def _by_info(self, keys: str, duration_ms: int, gap_ms: int) -> None:
        """One at a time: nothing else keeps their order over UDP, and a gateway plays each as it comes."""
        for key in keys:
            if self._ended.done():
                return
            held_ms = PAUSE_MS
            if key != PAUSE:
                held_ms = duration_ms + gap_ms
                self._answer = asyncio.get_running_loop().create_future()
                body = info.relay_body(key, duration_ms)
                self._send(sip.SendInfo(call=self._handle, content_type=info.RELAY, body=body))
                await self._until(self._answer, _ANSWER_S)
                status = self._answer.result() if self._answer.done() else 408
                if status >= 300 and not self._ended.done():
                    raise DigitsRefused(f"the other side answered a digit by INFO with {status}")
            await asyncio.wait([self._ended], timeout=held_ms / 1000)

    async def _until(self, done: asyncio.Future[Any], timeout_s: float) -> None:
        either: set[asyncio.Future[Any]] = {done, self._ended}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def _all_sent(self) -> None:
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)
