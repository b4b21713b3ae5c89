"""What an agent may have done to its call (`conversation.interfaces.CallControl`)."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from sipagent.calls.gathering import Gathering
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import CallFacts, DigitsWanted
from sipagent.core import clock
from sipagent.core.events import EventSink

if TYPE_CHECKING:
    from sipagent.calls.call import Call

LOOK_S = 0.05  # how often it is looked whether the caller has pressed the last key


class AgentControl:
    def __init__(self, call: "Call", history: History) -> None:
        self._call = call
        self._history = history

    @property
    def facts(self) -> CallFacts:
        who = self._call.leg.identity
        return CallFacts(self._call.id, who.from_number, who.to_number)

    @property
    def events(self) -> EventSink:
        return self._call.services.events

    async def press(self, digits: str) -> None:
        await self._call.leg.press(digits)

    async def collect(self, wanted: DigitsWanted) -> str:
        leg = self._call.leg
        gathering = Gathering(wanted, clock.mono_ns())

        def pressed(digit: str) -> None:
            gathering.pressed(digit, clock.mono_ns())

        leg.on_digit.append(pressed)
        try:
            while not gathering.over(clock.mono_ns()) and not leg.ended.done():
                if leg.port.queued:
                    gathering.asking(clock.mono_ns())
                await asyncio.sleep(LOOK_S)
        finally:
            leg.on_digit.remove(pressed)
        return gathering.digits

    def note(self, text: str) -> None:
        self._history.note(text)

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        return self._call.beside(work, name)
