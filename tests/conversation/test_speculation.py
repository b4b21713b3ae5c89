"""Answers begun at a pause: adopted when it was the end of the turn, else as if they had never been."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sipagent.conversation.happenings import Ending
from sipagent.conversation.interfaces import Asked, EndCall, Piece, Text
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.speculation import same_words
from sipagent.core.events import AgentSpeaking, CallerSaid
from tests.conversation.scenario import Echo, Scene, Voice

SETTINGS = ConversationSettings(lead_ms=0, pause_ms=140, endpointing_ms=340)


class Counter(Echo):
    """Remembers what it was asked, and when its answers may have effects."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.effects: list[str] = []
        self.checkpoints: list[int] = []

    def checkpoint(self) -> object:
        return len(self.said)

    def rollback(self, state: object) -> None:
        assert isinstance(state, int)
        self.rolled_back += 1
        del self.said[state:]

    async def respond(self, asked: Asked) -> AsyncIterator[Piece]:
        self.asked.append(asked.text)
        self.said.append(asked.text)
        yield Text(f"You said {asked.text}. ")
        await asked.certain()
        self.effects.append(asked.text)
        yield Text("It is done.")
        if asked.text == "bye":
            yield EndCall()


def test_words_are_the_same_whatever_the_punctuation():
    assert same_words("Yes, Tuesday.", "yes tuesday")
    assert same_words("e-mail", "E mail")
    assert not same_words("Tuesday", "Thursday")
    assert not same_words("Tuesday", "Tuesday at nine")


async def test_an_answer_begun_at_the_pause_is_there_when_the_turn_ends():
    agent = Counter()
    scene = Scene(agent, [["what time is it"]], settings=SETTINGS)
    await scene.until_quiet()
    await scene.run(1.0, speaking=True)
    await scene.run(0.2)
    assert agent.asked == ["what time is it"]
    assert scene.voice.made[1:] == ["You said what time is it."], "only the first clause"
    assert scene.wire.queued == 0 and not scene.of(CallerSaid), "and nobody hears or reads of it"
    assert agent.effects == []
    await scene.run(0.2)
    await scene.until_quiet()
    turn = scene.turns()[-1]
    assert agent.asked == agent.said == agent.effects == ["what time is it"]
    assert agent.rolled_back == 0
    assert turn.heard_text == "You said what time is it. It is done."
    assert turn.details["speculation"] == {"begun": 1, "retracted": 0, "adopted": True, "ahead_ms": 200}
    assert turn.latency is not None
    assert turn.latency.stt_ms == turn.latency.llm_ms == turn.latency.clause_ms == turn.latency.tts_ms == 0
    assert turn.latency.endpointing_ms == pytest.approx(340)
    await scene.end()


async def test_when_the_caller_goes_on_nothing_is_left_of_it():
    agent = Counter()
    scene = Scene(agent, [["i would like", "i would like a table"]], settings=SETTINGS)
    await scene.until_quiet()
    await scene.run(0.8, speaking=True)
    await scene.run(0.2)
    assert agent.said == ["i would like"]
    await scene.run(0.6, speaking=True)
    assert agent.said == [] and agent.rolled_back == 1
    await scene.run(0.4)
    await scene.until_quiet()
    assert agent.said == agent.effects == ["i would like a table"]
    assert [turn.caller_text for turn in scene.turns()] == ["", "i would like a table"]
    assert [entry.text for entry in scene.session.history.entries] == [
        "Hello.",
        "i would like a table",
        "You said i would like a table. It is done.",
    ]
    assert len(scene.of(AgentSpeaking)) == 2
    assert scene.turns()[-1].details["speculation"]["begun"] == 2
    assert scene.turns()[-1].details["speculation"]["retracted"] == 1
    await scene.end()


async def test_words_that_changed_are_answered_anew():
    agent = Counter()
    scene = Scene(agent, [["on Tuesday", "on Thursday"]], settings=SETTINGS)
    scene.words.final_differs = True
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    assert agent.said == agent.effects == ["on Thursday"]
    assert scene.turns()[-1].details["speculation"] == {"begun": 1, "retracted": 1, "adopted": False}
    await scene.end()


async def test_a_caller_who_pauses_again_and_again_is_answered_ahead_only_so_often():
    agent = Counter()
    texts = ["one", "one two", "one two three", "one two three four"]
    settings = ConversationSettings(lead_ms=0, pause_ms=140, endpointing_ms=340, speculations=2)
    scene = Scene(agent, [texts], settings=settings)
    await scene.until_quiet()
    for _ in texts:
        await scene.run(0.4, speaking=True)
        await scene.run(0.2)
    await scene.run(0.2)
    await scene.until_quiet()
    assert agent.asked == ["one", "one two", "one two three four"]
    assert scene.turns()[-1].details["speculation"] == {"begun": 2, "retracted": 2, "adopted": False}
    await scene.end()


async def test_without_speculations_none_is_begun():
    agent = Counter()
    scene = Scene(agent, [["hello"]], settings=ConversationSettings(lead_ms=0, speculations=0))
    await scene.until_quiet()
    await scene.run(0.8, speaking=True)
    await scene.run(0.22)
    assert agent.asked == []
    await scene.run(0.2)
    await scene.until_quiet()
    assert agent.asked == ["hello"] and "speculation" not in scene.turns()[-1].details
    await scene.end()


async def test_a_call_that_ends_at_the_pause_keeps_the_words_and_no_answer():
    agent = Counter()
    scene = Scene(agent, [["never mind"]], settings=SETTINGS)
    await scene.until_quiet()
    await scene.run(0.8, speaking=True)
    await scene.run(0.2)
    assert agent.said == ["never mind"]
    await scene.end()
    assert agent.said == agent.effects == []
    assert [(turn.caller_text, turn.agent_text) for turn in scene.turns()] == [("", "Hello."), ("never mind", "")]


async def test_an_answer_adopted_and_then_talked_over_before_it_was_heard_is_retracted_too():
    class Later(Voice):
        """Its audio comes only after a while."""

        gate = asyncio.Event()

        async def speak(self, text, rate):
            if text != "Hello.":
                await self.gate.wait()
            async for piece in super().speak(text, rate):
                yield piece

    agent = Counter()
    scene = Scene(agent, [["i would like"], ["a table"]], settings=SETTINGS, voice=Later())
    await scene.until_quiet()
    await scene.says()
    assert agent.said == ["i would like"], "adopted, and waiting for the voice"
    await scene.run(0.8, speaking=True)
    assert agent.said == []
    Later.gate.set()
    await scene.run(0.4)
    await scene.until_quiet()
    assert agent.said == ["i would like a table"]
    assert [turn.caller_text for turn in scene.turns()] == ["", "i would like a table"]
    await scene.end()


async def test_goodbye_is_said_and_meant_though_it_was_begun_early():
    scene = Scene(Counter(), [["bye"]], settings=SETTINGS)
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    await scene.run(0.5)
    outcome = await asyncio.wait_for(scene.task, 20)
    assert outcome.ending is Ending.HANGUP
