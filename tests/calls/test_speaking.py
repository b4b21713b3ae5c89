"""What the steps of a dialplan say, and by which voice."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from sipagent.calls.speaking import say
from sipagent.conversation.speaker import Utterance
from sipagent.core.events import Event, Problem
from tests.conversation.scenario import Voice, Wire


class Line(Wire):
    """A port that plays whatever is queued, as fast as it is asked."""

    def __init__(self, now: Callable[[], int], rate: int) -> None:
        super().__init__(now, rate)
        self.taps: list[Callable[[Any], None]] = []

    async def play(self, until: "asyncio.Future[Any]") -> None:
        while not until.done():
            if self.taps:
                self.tick()
            for tap in list(self.taps):
                tap(None)
            await asyncio.sleep(0)


class FakeCall:
    id = "call_1"

    def __init__(self, tts: tuple[str, ...], voice: Voice) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.said: list[Utterance] = []
        self.events: list[Event] = []
        self.leg = SimpleNamespace(port=Line(lambda: 1, 8000))
        self.match = SimpleNamespace(dialplan=SimpleNamespace(tts=tts, folder="."))

        def voice_for(names: tuple[str, ...], _ledger: object) -> Voice:
            self.asked.append(names)
            return voice

        self.services = SimpleNamespace(
            voice_for=voice_for,
            conversation=SimpleNamespace(ahead_ms=5000),
            events=SimpleNamespace(emit=self.events.append),
        )

    def spoke(self, utterance: Utterance) -> None:
        self.said.append(utterance)

    async def say(self, text: str) -> str:
        task = asyncio.create_task(say(cast(Any, self), text))
        await self.leg.port.play(task)
        await task
        return self.said[-1].heard_text


async def test_a_text_is_said_by_the_voices_that_the_dialplan_names() -> None:
    call = FakeCall(("one", "two"), Voice())
    assert await call.say("Good day. One moment.") == "Good day. One moment."
    assert call.asked == [("one", "two")]


async def test_a_voice_that_fails_is_a_problem_and_no_more() -> None:
    call = FakeCall((), Voice(broken={"Good day."}))
    assert await call.say("Good day.") == ""
    [problem] = call.events
    assert isinstance(problem, Problem) and problem.where == "tts"


async def test_two_may_speak_on_one_line_and_each_comes_to_its_end() -> None:
    call = FakeCall((), Voice())
    both = asyncio.gather(*(asyncio.create_task(say(cast(Any, call), text)) for text in ("Good day.", "One moment.")))
    await asyncio.wait_for(call.leg.port.play(both), 10)
    await both
    assert call.leg.port.taps == []
