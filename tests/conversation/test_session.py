"""Whose turn it is: scenarios of caller and agent, asserting what was said, heard and recorded."""

import asyncio

import pytest

from sipagent.conversation.happenings import Ending
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import ProviderError
from sipagent.core.events import AgentInterrupted, AgentSpeaking, CallerSaid, Problem
from sipagent.dialplan.model import AgentSpec
from tests.conversation.scenario import Echo, Scene, Voice, Word


async def test_greets_listens_answers_and_hangs_up_after_goodbye():
    agent = Echo()
    scene = Scene(agent, ["what time is it", "bye"])
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    await scene.run(0.5)
    outcome = await asyncio.wait_for(scene.task, 20)

    assert outcome.ending is Ending.HANGUP
    assert agent.asked == ["what time is it", "bye"]
    assert [(t.index, t.caller_text, t.heard_text, t.interrupted) for t in scene.turns()] == [
        (0, "", "Hello.", False),
        (1, "what time is it", "You said what time is it.", False),
        (2, "bye", "You said bye.", False),
    ]
    assert [(e.speaker, e.text) for e in scene.session.history.entries] == [
        ("agent", "Hello."),
        ("caller", "what time is it"),
        ("agent", "You said what time is it."),
        ("caller", "bye"),
        ("agent", "You said bye."),
    ]
    assert len(scene.of(AgentSpeaking)) == 3


async def test_latency_parts_add_up_from_the_callers_last_packet_to_the_agents_first():
    settings = ConversationSettings(endpointing_ms=300, lead_ms=0)
    scene = Scene(Echo(), ["hi there"], settings=settings)
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    latency = scene.turns()[-1].latency
    assert latency is not None
    parts = (
        latency.jitter_buffer_ms,
        latency.endpointing_ms,
        latency.stt_ms,
        latency.llm_ms,
        latency.clause_ms,
        latency.tts_ms,
        latency.playout_ms,
        latency.pacing_ms,
    )
    assert sum(parts) == pytest.approx(latency.total_ms)
    assert latency.jitter_buffer_ms == pytest.approx(40)  # the scene's packets arrive two ticks before they are played
    assert latency.endpointing_ms == pytest.approx(300)
    assert all(part >= 0 for part in parts)
    await scene.end()


async def test_caller_takes_the_floor_and_history_has_only_what_was_heard():
    scene = Scene(Echo(), ["tell me a very long story about the sea", ["stop"]])
    await scene.until_quiet()
    await scene.says()
    await scene.run(1.0)  # part of the answer is out
    await scene.run(0.4, speaking=True)
    still = scene.wire.on_wire[-3:]
    assert not any(still), "the agent must be silent once the caller has spoken for barge_in_ms"
    await scene.run(0.2)
    interrupted = scene.of(AgentInterrupted)
    assert len(interrupted) == 1
    turn = scene.turns()[-1]
    assert turn.interrupted
    assert turn.agent_text == "You said tell me a very long story about the sea."
    assert turn.heard_text and turn.agent_text.startswith(turn.heard_text)
    assert len(turn.heard_text) < len(turn.agent_text)
    assert scene.session.history.entries[-1].text == turn.heard_text

    await scene.run(0.5)
    await scene.until_quiet()
    assert scene.turns()[-1].caller_text == "stop"
    await scene.end()


async def test_a_short_noise_does_not_stop_the_agent():
    scene = Scene(Echo(), ["tell me a very long story", "mm-hm"])
    await scene.until_quiet()
    await scene.says()
    await scene.run(0.3)
    await scene.run(0.16, speaking=True)  # "mm-hm"
    await scene.until_quiet()
    turn = scene.turns()[-1]
    assert not turn.interrupted
    assert turn.heard_text == "You said tell me a very long story."
    assert not scene.of(AgentInterrupted)
    await scene.end()


async def test_an_agent_that_may_not_be_interrupted_is_not():
    scene = Scene(Echo(), ["question", "stop"], manners=AgentSpec(greeting="Hello.", barge_in="never"))
    await scene.until_quiet()
    await scene.says()
    await scene.run(0.6, speaking=True)
    await scene.until_quiet()
    assert [t.interrupted for t in scene.turns()] == [False, False, False]
    assert [t.caller_text for t in scene.turns()] == ["", "question", "stop"]
    await scene.end()


async def test_caller_who_goes_on_before_any_answer_is_answered_once_with_all_words():
    thinking = asyncio.Event()
    agent = Echo(delay=thinking)
    scene = Scene(agent, ["i would like", "a table for two"])
    await scene.until_quiet()
    await scene.says()  # the pause looked like the end; the agent is thinking
    assert agent.asked == ["i would like"]
    await scene.run(0.8, speaking=True)
    thinking.set()
    await scene.run(0.4)
    await scene.until_quiet()
    assert agent.rolled_back == 1
    assert agent.asked[-1] == "i would like a table for two"
    spoken = [t for t in scene.turns() if t.caller_text]
    assert [t.caller_text for t in spoken] == ["i would like a table for two"]
    assert "You said i would like." not in scene.voice.made
    await scene.end()


async def test_noise_that_is_no_speech_is_ignored():
    agent = Echo()
    scene = Scene(agent, [""])
    await scene.until_quiet()
    await scene.says()
    await scene.run(1.0)
    assert agent.asked == []
    assert not scene.of(CallerSaid)
    assert len(scene.turns()) == 1  # the greeting
    await scene.end()


async def test_silent_caller_is_prompted_twice_then_let_go():
    manners = AgentSpec(
        greeting="Hello.", silence_prompt="Anyone?", silence_s=2.0, silence_prompts=2, goodbye="Goodbye."
    )
    scene = Scene(Echo(), [], manners=manners)
    for _ in range(20):
        await scene.run(1.0)
        if scene.task.done():
            break
    outcome = await asyncio.wait_for(scene.task, 20)
    assert outcome.ending is Ending.CALLER_SILENT
    assert [t.agent_text for t in scene.turns()] == ["Hello.", "Anyone?", "Anyone?", "Goodbye."]


async def test_a_slow_agent_is_bridged_by_a_filler():
    thinking = asyncio.Event()
    manners = AgentSpec(greeting="Hello.", filler="One moment.", filler_after_s=0.05)
    scene = Scene(Echo(delay=thinking), ["question"], manners=manners)
    await scene.until_quiet()
    await scene.says()
    await asyncio.sleep(0.1)
    await scene.run(0.2)
    assert "One moment." in scene.voice.made
    thinking.set()
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "One moment. You said question."
    await scene.end()


async def test_an_agent_that_never_answers_is_apologised_for():
    manners = AgentSpec(greeting="Hello.", filler="One moment.", filler_after_s=0.03, apology="Sorry.")
    scene = Scene(
        Echo(delay=asyncio.Event()),
        ["question"],
        manners=manners,
        settings=ConversationSettings(reply_limit_s=0.06, lead_ms=0),
    )
    await scene.until_quiet()
    await scene.says()
    for _ in range(4):
        await asyncio.sleep(0.05)
        await scene.run(0.1)
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "One moment. Sorry."
    problems = scene.of(Problem)
    assert len(problems) == 1
    await scene.end()


async def test_recogniser_failure_is_apologised_for_and_the_call_goes_on():
    scene = Scene(Echo(), [ProviderError("no words", retryable=True), "hello"], manners=AgentSpec(greeting="Hi."))
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    assert "Sorry, something went wrong here." in scene.voice.made
    await scene.says()
    await scene.until_quiet()
    assert scene.turns()[-1].caller_text == "hello"
    await scene.end()


async def test_a_voice_that_is_broken_for_good_ends_the_call():
    voice = Voice(broken={"You said hello.", "Sorry, something went wrong here."})
    scene = Scene(Echo(), ["hello"], voice=voice)
    await scene.until_quiet()
    await scene.says()
    await scene.run(0.5)
    outcome = await asyncio.wait_for(scene.task, 20)
    assert outcome.ending is Ending.FAILED


async def test_a_call_that_ends_in_mid_sentence_records_what_was_heard():
    scene = Scene(Echo(), ["tell me a very long story"])
    await scene.until_quiet()
    await scene.says()
    await scene.run(0.6)
    await scene.end()
    turn = scene.turns()[-1]
    assert turn.interrupted
    assert 0 < len(turn.heard_text) < len(turn.agent_text)


async def test_an_error_in_the_agent_is_not_swallowed():
    class Broken(Echo):
        async def respond(self, asked):
            raise RuntimeError("bug")
            yield

    scene = Scene(Broken(), ["hello"])
    await scene.until_quiet()
    await scene.says()
    await scene.run(0.2)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(scene.task, 20)


async def test_words_said_just_before_the_call_ends_are_recorded():
    scene = Scene(Echo(), ["never mind"])
    await scene.until_quiet()
    await scene.run(0.6, speaking=True)
    await scene.end()
    assert [t.caller_text for t in scene.turns()] == ["", "never mind"]
    assert scene.turns()[-1].agent_text == ""


async def test_words_that_fail_at_the_end_are_a_problem_not_an_error():
    scene = Scene(Echo(), [ProviderError("no words", retryable=True)])
    await scene.until_quiet()
    await scene.run(0.6, speaking=True)
    await scene.end()
    assert len(scene.turns()) == 1
    assert len(scene.of(Problem)) == 1


async def test_without_a_filler_a_slow_answer_is_waited_for():
    thinking = asyncio.Event()
    manners = AgentSpec(greeting="Hello.", dead_air=())
    scene = Scene(Echo(delay=thinking), ["question"], manners=manners)
    await scene.until_quiet()
    await scene.says()
    await asyncio.sleep(0.08)
    await scene.run(0.1)
    thinking.set()
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "You said question."
    await scene.end()


async def test_a_slow_recogniser_is_bridged_too():
    recognised = asyncio.Event()

    class SlowWord(Word):
        async def finish(self):
            await recognised.wait()
            return await super().finish()

    manners = AgentSpec(greeting="Hello.", filler="One moment, please.", filler_after_s=0.03)
    scene = Scene(Echo(), ["question"], manners=manners)
    begin = scene.words.begin
    scene.words.begin = lambda on_words: SlowWord(begin(on_words).said)  # type: ignore[method-assign]
    await scene.until_quiet()
    await scene.says()
    await asyncio.sleep(0.08)
    await scene.run(0.2)
    recognised.set()
    await scene.until_quiet()
    turn = scene.turns()[-1]
    assert turn.heard_text == "One moment, please. You said question."
    assert turn.latency is not None
    assert turn.latency.total_ms < 1000, "the filler is the first thing heard"
    await scene.end()


async def test_a_sentence_said_while_the_agent_may_not_be_interrupted_is_answered_afterwards():
    manners = AgentSpec(greeting="This is a long and important greeting.", barge_in="never")
    scene = Scene(Echo(), ["i have a question", "and another"], manners=manners)
    await scene.run(0.3)
    await scene.run(0.8, speaking=True)
    await scene.run(0.5)
    await scene.until_quiet()
    await scene.until_quiet()
    assert [t.caller_text for t in scene.turns()] == ["", "i have a question"]
    assert not scene.turns()[0].interrupted
    await scene.end()


async def test_noise_does_not_keep_a_silent_caller_on_the_line():
    manners = AgentSpec(greeting="Hello.", silence_prompt="Anyone?", silence_s=2.0, silence_prompts=1)
    scene = Scene(Echo(), [""] * 50, manners=manners)
    await scene.until_quiet()
    for _ in range(20):
        await scene.run(0.5, speaking=True)
        await scene.run(0.6)
        if scene.task.done():
            break
    outcome = await asyncio.wait_for(scene.task, 20)
    assert outcome.ending is Ending.CALLER_SILENT


async def test_a_turn_longer_than_the_wire_remembers_keeps_its_start():
    scene = Scene(Echo(), ["tell me everything " * 12])
    await scene.until_quiet()
    await scene.says()
    await scene.run(1.0)
    scene.wire.sent.clear()  # as the ring does after 20 s
    await scene.until_quiet()
    turn = scene.turns()[-1]
    assert turn.agent_started_at is not None and turn.latency is not None
    await scene.end()


async def test_speech_during_the_lead_takes_the_floor_as_soon_as_the_agent_begins():
    settings = ConversationSettings(lead_ms=400)
    manners = AgentSpec(greeting="This is a very long greeting that nobody wants to hear to its end.")
    scene = Scene(Echo(), ["i know"], manners=manners, settings=settings)
    await scene.run(0.1)
    await scene.run(1.2, speaking=True)
    assert not any(scene.wire.on_wire[-10:])
    await scene.run(0.5)
    await scene.until_quiet()
    assert scene.turns()[-1].caller_text == "i know"
    await scene.end()
