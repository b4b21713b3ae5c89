"""The way of an answer: made ahead of the wire, but never far ahead, and gone at once when nobody wants it any more."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from sipagent.conversation.answer import AUDIO_AHEAD_S, TEXTS_AHEAD, Answer
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked, Pcm, Piece, Text
from sipagent.core.errors import ProviderError
from tests.conversation.scenario import Echo, Scene, Voice

RATE = 8000


class Storyteller(Echo):
    """Answers with sentence after sentence, as fast as they are taken."""

    def __init__(self, sentences: int = 100) -> None:
        super().__init__()
        self.written = 0
        self.closed = False
        self._sentences = sentences

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        self.asked.append(asked.text)
        try:
            for number in range(self._sentences):
                self.written += 1
                yield Text(f"This is sentence {number}. ")
        finally:
            self.closed = True


class Dripping(Voice):
    """Speech in pieces of 20 ms, each when `drip` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, asyncio.Event] = {}
        self.closed: list[str] = []

    async def speak(self, text: str, rate: int) -> AsyncIterator[Pcm]:
        self.made.append(text)
        try:
            for _ in range(50):
                self.waiting[text] = asyncio.Event()
                await self.waiting[text].wait()
                yield np.full(rate // 50, 5000, np.int16)
        finally:
            self.closed.append(text)

    async def drip(self, text: str, pieces: int = 1) -> None:
        for _ in range(pieces):
            self.waiting[text].set()
            await settle()


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


def answer(agent: Echo, voice: Voice, *, speculative: bool = False) -> Answer:
    asked = Asked("go on", History(), speculative=speculative)
    return Answer(agent, asked, voice, rate=lambda: RATE, now=lambda: 1, name="test")


async def test_an_agent_that_writes_faster_than_is_spoken_is_read_slower():
    agent, voice = Storyteller(), Voice()
    async with asyncio.TaskGroup() as tasks:
        under_way = answer(agent, voice)
        under_way.begin(tasks)
        await settle()
        assert voice.made == ["This is sentence 0."], "the next begins when somebody takes this one"
        before = agent.written
        assert before <= TEXTS_AHEAD + 3
        for number in range(5):
            clause = await under_way.next()
            assert clause is not None and clause.text == f"This is sentence {number}."
            assert len([piece async for piece in clause]) == 1
            await settle()
        assert len(voice.made) == 6
        assert agent.written == before + 5
        await under_way.stop()
    assert agent.closed


async def test_the_next_clause_is_made_while_this_one_comes():
    agent, voice = Storyteller(3), Dripping()
    async with asyncio.TaskGroup() as tasks:
        under_way = answer(agent, voice)
        under_way.begin(tasks)
        first = await under_way.next()
        await settle()
        assert voice.made == ["This is sentence 0."], "the first has the voice to itself"
        await voice.drip("This is sentence 0.")
        assert voice.made == ["This is sentence 0.", "This is sentence 1."]
        await voice.drip("This is sentence 1.")
        assert len(voice.made) == 2, "only one ahead of what is being spoken"
        assert first is not None
        await under_way.stop()
    assert sorted(voice.closed) == voice.made, "what is not wanted any more is not made any more"


async def test_a_voice_is_read_no_further_than_the_wire_needs():
    agent = Storyteller(1)

    class Endless(Voice):
        pieces = 0

        async def speak(self, text: str, rate: int) -> AsyncIterator[Pcm]:
            while True:
                self.pieces += 1
                yield np.full(rate // 50, 5000, np.int16)

    voice = Endless()
    async with asyncio.TaskGroup() as tasks:
        under_way = answer(agent, voice)
        under_way.begin(tasks)
        clause = await under_way.next()
        await settle()
        assert clause is not None
        assert voice.pieces == AUDIO_AHEAD_S * 50 + 1
        for _ in range(10):
            await anext(clause)
        await settle()
        assert voice.pieces == AUDIO_AHEAD_S * 50 + 11
        await under_way.stop()


async def test_before_it_is_certain_only_the_first_clause_is_made():
    agent, voice = Storyteller(), Voice()
    async with asyncio.TaskGroup() as tasks:
        under_way = answer(agent, voice, speculative=True)
        under_way.begin(tasks)
        await under_way.next()
        await settle()
        assert voice.made == ["This is sentence 0."]
        under_way.settle()
        await settle()
        assert len(voice.made) == 2
        await under_way.stop()


async def test_a_voice_that_fails_says_so_where_its_audio_is_taken():
    agent, voice = Storyteller(2), Voice(broken={"This is sentence 1."})
    async with asyncio.TaskGroup() as tasks:
        under_way = answer(agent, voice)
        under_way.begin(tasks)
        first, second = await under_way.next(), await under_way.next()
        assert first is not None and second is not None
        assert len([piece async for piece in first]) == 1
        with pytest.raises(ProviderError, match="broken"):
            await anext(second)
        assert await under_way.next() is None


async def test_a_barge_in_stops_the_agents_stream_and_the_voice():
    agent = Storyteller()
    scene = Scene(agent, ["tell me a story", ["stop"]])
    await scene.until_quiet()
    await scene.says()
    await scene.run(3.0)
    assert scene.wire.queued <= 310, "five seconds on their way to the wire, and the end of a clause"
    assert agent.written < 20
    await scene.run(0.4, speaking=True)
    await scene.run(0.2)
    assert agent.closed
    assert scene.wire.queued == 0
    made = len(scene.voice.made)
    await scene.run(0.1, speaking=True)
    assert len(scene.voice.made) == made
    await scene.end()


async def test_silence_around_a_clause_is_cut_before_the_wire():
    class Slow(Voice):
        async def speak(self, text: str, rate: int) -> AsyncIterator[Pcm]:
            silence = np.zeros(rate // 2, np.int16)
            yield silence
            yield np.full(rate // 10, 5000, np.int16)
            yield silence

    scene = Scene(Echo(), ["hello"], voice=Slow())
    await scene.until_quiet()
    before = len(scene.wire.frames)
    await scene.says()
    await scene.until_quiet()
    loud = [bool(frame.any()) for frame in scene.wire.frames[before:]]
    assert loud == [False] + [True] * 5 + [False] * 13  # 20 ms, the word, the pause of a sentence
    turn = scene.turns()[-1]
    assert turn.heard_text == "You said hello."
    assert turn.latency is not None
    assert turn.latency.pacing_ms == pytest.approx(40), "the frame of silence is sent before the word is heard"
    await scene.end()
