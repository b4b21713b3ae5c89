"""What the caller says while the agent speaks, on a fake clock: every policy, and what is no interruption."""

import pytest

from sipagent.conversation import chunking
from sipagent.conversation.interfaces import Text
from sipagent.core.events import AgentInterrupted
from sipagent.dialplan.model import AgentSpec, BargeInSpec

from .scenario import Echo, Scene

GREETING = "Welcome to the office, we are open from nine to five on every day of the week."
QUESTION = "Would you like an appointment? We have one on Tuesday and one on Wednesday, and many more besides."


async def speaking(words, *, greeting=GREETING, **manners):
    """A scene in the middle of the greeting; `words` are those of the caller's utterances."""
    scene = Scene(Echo(), words, manners=AgentSpec(greeting=greeting, **manners))
    await scene.run(1.5)
    assert scene.wire.on_wire[-1]
    return scene


async def utters(scene, ms, then_ms=600):
    """The caller says something of this length; returns the ticks in which the agent was ducked, and was silent."""
    begin = len(scene.wire.on_wire)
    await scene.run(ms / 1000, speaking=True)
    await scene.run(then_ms / 1000)
    return sum(scene.wire.ducked[begin:]), scene.wire.on_wire[begin:].count(False)


async def finished(scene):
    """The turns as (caller's words, whether it was interrupted), once all is quiet."""
    await scene.until_quiet()
    await scene.run(0.5)
    await scene.until_quiet()
    turns = [(turn.caller_text, turn.interrupted) for turn in scene.turns()]
    await scene.end()
    return turns


def asides(scene, turn=0):
    return [(each["what"], each["words"]) for each in scene.turns()[turn].details.get("barge_in", [])]


def whole_greeting_left(scene, greeting=GREETING):
    """Every sample of the greeting has left once, in order."""
    frames = sum(len(clause) for clause in chunking.split(greeting)) * 3
    assert scene.turns()[0].heard_text == greeting
    assert sorted(scene.wire.sent)[:frames] == list(range(frames))
    times = [scene.wire.sent[position] for position in range(frames)]
    assert times == sorted(times)


async def test_a_cough_ducks_and_nothing_is_lost():
    scene = await speaking([""])
    ducked, silent = await utters(scene, 160)
    assert 8 <= ducked <= 30 and silent == 0
    assert await finished(scene) == [("", False)]
    whole_greeting_left(scene)


async def test_a_long_cough_stops_the_agent_who_goes_on_where_it_stopped():
    scene = await speaking([[""]])
    ducked, silent = await utters(scene, 500)
    assert ducked and 10 <= silent <= 35
    assert await finished(scene) == [("", False)]
    whole_greeting_left(scene)
    assert asides(scene) == [("noise", "")]
    assert scene.turns()[0].details["barge_in"][0]["held_ms"] == pytest.approx(20 * silent, abs=40)


@pytest.mark.parametrize("told_at_the_pause", [True, False])
@pytest.mark.parametrize("barge_in", ["always", "words", "never", BargeInSpec(after_ms=200)])
async def test_a_backchannel_is_not_answered(barge_in, told_at_the_pause):
    scene = await speaking([["Mm-hm."] if told_at_the_pause else "Mm-hm.", "question"], barge_in=barge_in)
    await utters(scene, 400)
    await scene.until_quiet()
    whole_greeting_left(scene)
    assert asides(scene) == [("backchannel", "Mm-hm.")]
    await scene.says()
    assert await finished(scene) == [("", False), ("question", False)], "the conversation goes on as ever"


@pytest.mark.parametrize("told_at_the_pause", [True, False])
@pytest.mark.parametrize("barge_in", ["always", "words", BargeInSpec(after_ms=200)])
async def test_an_interruption_is_answered(barge_in, told_at_the_pause):
    scene = await speaking([["no wait"] if told_at_the_pause else "no wait"], barge_in=barge_in)
    await utters(scene, 400)
    turns = await finished(scene)
    assert turns == [("", True), ("no wait", False)]
    assert len(scene.of(AgentInterrupted)) == 1
    heard = scene.turns()[0].heard_text
    assert GREETING.startswith(heard) and 5 < len(heard) < 40
    assert asides(scene) == [("interruption", "no wait")]
    assert not any(scene.wire.ducked[-5:]), "the answer is at full level"


async def test_speech_without_end_interrupts_unless_only_words_do():
    for barge_in, interrupted in (("always", True), ("words", False)):
        scene = await speaking(["words that come late"], barge_in=barge_in, greeting=GREETING + GREETING)
        _, silent = await utters(scene, 3500, 0)
        assert bool(scene.of(AgentInterrupted)) is interrupted
        assert silent > 80
        if not interrupted:
            assert scene.wire.on_wire[-1], "two seconds of silence are enough"
        await scene.end()


async def test_an_agent_that_is_never_interrupted_answers_afterwards():
    scene = await speaking([["no wait"]], barge_in="never")
    assert await utters(scene, 1500) == (0, 0)
    assert await finished(scene) == [("", False), ("no wait", False)]
    whole_greeting_left(scene)
    assert asides(scene) == [("later", "no wait")]


async def test_what_waits_for_the_floor_is_answered_although_a_hmm_spans_the_agents_end():
    scene = await speaking([["what about friday"], ["Hmm."]], barge_in="never")
    await utters(scene, 1500)
    while scene.wire.queued > 35:
        await scene.run(0.02)
    await utters(scene, 400)
    assert (await finished(scene))[-1] == ("what about friday", False)


async def test_only_speech_that_lasts_interrupts():
    scene = await speaking([["no wait"], ["no wait a moment"]], barge_in=BargeInSpec(after_ms=800))
    await utters(scene, 600)
    assert not scene.of(AgentInterrupted)
    await utters(scene, 900)
    assert scene.of(AgentInterrupted)
    assert await finished(scene) == [("", True), ("no wait no wait a moment", False)]


async def test_a_yes_to_a_question_is_an_answer():
    scene = await speaking([["Yes."]], greeting=QUESTION)
    await scene.run(2.0)
    await utters(scene, 300)
    assert await finished(scene) == [("", True), ("Yes.", False)]


async def test_an_okay_at_the_very_end_is_answered_and_the_last_word_is_heard():
    scene = await speaking([["Okay."]])
    await scene.run(len(GREETING) * 0.06 - 1.5 - 0.6)
    await utters(scene, 200)
    assert await finished(scene) == [("", False), ("Okay.", False)]
    whole_greeting_left(scene)


class Warns(Echo):
    """Says one thing that must be heard whole and one that need not be."""

    WARNING = "This call is recorded, and the recording is kept for thirty days, as the law wants it."

    async def respond(self, asked):
        await asked.certain()
        yield Text(self.WARNING, whole=True)
        yield Text(" Now what can I do for you today, and which day of the week would suit you best?")


async def test_a_sentence_that_must_be_heard_whole_is():
    scene = Scene(Warns(), ["hello", ["I know"], ["stop it please"]])
    await scene.until_quiet()
    await scene.says()
    await scene.run(1.0)
    assert await utters(scene, 1500) == (0, 0)
    assert not scene.of(AgentInterrupted)
    await scene.run(len(Warns.WARNING) * 0.06 - 3.1 + 1.0)
    await utters(scene, 500)
    heard = scene.turns()[-1].heard_text
    assert heard.startswith(Warns.WARNING)
    assert len(heard) < len(Warns.WARNING) + 40
    await scene.end()


async def test_the_caller_who_is_put_on_hold_leaves_nobody_ducked():
    scene = await speaking([[""]])
    await scene.run(0.2, speaking=True)
    assert scene.wire.ducked[-1]
    scene.session.held = True
    await scene.run(0.1)
    assert not scene.wire.ducked[-1]
    await scene.end()


async def test_after_the_callers_hold_a_voice_stops_the_agent_as_before():
    scene = await speaking([["", ""]])
    _, silent = await utters(scene, 400, 0)
    assert silent and not scene.wire.on_wire[-1]
    scene.session.held = True
    await scene.run(0.1)
    scene.session.held = False
    _, silent = await utters(scene, 400, 0)
    assert silent > 5
    await scene.end()


async def test_words_that_are_said_beside_the_agent_are_written_down_when_the_call_ends():
    scene = await speaking(["no wait"], barge_in="never")
    await utters(scene, 600)
    await scene.end()
    assert [turn.caller_text for turn in scene.turns()] == ["", "no wait"]
