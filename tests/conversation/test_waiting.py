"""What a caller hears while there is no answer: never silence beyond the bound, and an end where nothing helps."""

import asyncio

import numpy as np
import pytest

from sipagent.conversation.happenings import Ending
from sipagent.conversation.interfaces import Text, TransferCall
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import ProviderError
from sipagent.core.events import Problem
from sipagent.dialplan.model import AgentSpec, TransferSpec
from tests.conversation.scenario import Echo, Scene, Voice, Word

BOUND_S = 2.5
HUMAN = TransferSpec(target="sip:human@example.test", kind="blind")


def manners(**more: object) -> AgentSpec:
    said = {"filler": ("One moment.", "Still looking."), "sorry": "It takes long.", "handover": "Somebody will help."}
    return AgentSpec(greeting="Hello.", goodbye="Bye.", apology="Sorry.", **said | more)  # type: ignore[arg-type]


def longest_silence_s(scene: Scene, start: int) -> float:
    """On the wire, from tick `start` on."""
    longest = run = 0
    for sent in scene.wire.on_wire[start:]:
        run = 0 if sent else run + 1
        longest = max(longest, run)
    return longest / 50


class Never(Echo):
    """Has no answer, whatever is asked."""

    async def respond(self, asked):
        self.asked.append(asked.text)
        await asyncio.Event().wait()
        yield Text("")


class Failing(Echo):
    async def respond(self, asked):
        self.asked.append(asked.text)
        raise ProviderError("no model", retryable=True)
        yield Text("")


async def until_over(scene: Scene, seconds: float) -> None:
    for _ in range(round(seconds * 50)):
        await scene.run(0.02)
        if scene.task.done():
            return
    raise AssertionError("the conversation does not end")


async def test_an_agent_without_an_answer_ends_with_goodbye_and_the_line_is_never_silent():
    scene = Scene(Never(), ["question"], manners=manners())
    await scene.until_quiet()
    await scene.says()
    start = len(scene.wire.on_wire)
    await until_over(scene, 60)
    outcome = scene.task.result()
    assert outcome.ending is Ending.FAILED and outcome.why
    assert longest_silence_s(scene, start) <= BOUND_S
    *_, waited, last = scene.turns()
    assert waited.heard_text == "One moment. Still looking. It takes long."
    assert waited.details["dead_air"] == ["provider", "filler", "filler", "sorry", "goodbye"]
    assert (waited.caller_text, last.heard_text) == ("question", "Sorry. Bye.")


async def test_a_human_where_there_is_one():
    scene = Scene(Never(), ["question"], manners=manners(human=HUMAN))
    await scene.until_quiet()
    await scene.says()
    await until_over(scene, 60)
    assert scene.task.result().transfer == TransferCall(HUMAN.target, "", HUMAN)
    assert scene.turns()[-1].heard_text == "Somebody will help."


async def test_the_answer_comes_after_the_filler_and_starts_the_order_over():
    thinking = asyncio.Event()
    scene = Scene(Echo(delay=thinking), ["one", "two"], manners=manners())
    for said in ("one", "two"):
        thinking.clear()
        await scene.until_quiet()
        await scene.says()
        await scene.run(2.2)
        thinking.set()
        await scene.until_quiet()
        assert scene.turns()[-1].heard_text == f"One moment. You said {said}."
        assert scene.turns()[-1].details["dead_air"] == ["provider", "filler"]
    await scene.end()


async def test_turns_that_fail_again_and_again_end_the_call():
    scene = Scene(Failing(), ["one", "two", "three"], manners=manners())
    await scene.until_quiet()
    await scene.says()
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "Sorry."
    await scene.says()
    await until_over(scene, 20)
    assert scene.task.result().ending is Ending.FAILED
    assert scene.turns()[-1].heard_text == "Sorry. Sorry. Bye."


async def test_a_recogniser_that_hangs_is_waited_for_like_anybody_else():
    class Hanging(Word):
        async def finish(self):
            await asyncio.Event().wait()

    scene = Scene(Echo(), ["question"], manners=manners())
    scene.words.begin = lambda on_words: Hanging("question", on_words)  # type: ignore[method-assign]
    await scene.until_quiet()
    await scene.says()
    start = len(scene.wire.on_wire)
    await until_over(scene, 60)
    assert scene.task.result().ending is Ending.FAILED
    assert longest_silence_s(scene, start) <= BOUND_S


async def test_a_gap_in_the_middle_of_an_answer_is_filled():
    go_on = asyncio.Event()

    class Halting(Echo):
        async def respond(self, asked):
            yield Text("The first sentence. ")
            await go_on.wait()
            yield Text("The second sentence.")

    scene = Scene(Halting(), ["question"], manners=manners())
    await scene.until_quiet()
    await scene.says()
    start = len(scene.wire.on_wire)
    await scene.run(5.0)
    go_on.set()
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "The first sentence. One moment. The second sentence."
    assert longest_silence_s(scene, start) <= BOUND_S
    await scene.end()


async def test_nobody_speaks_while_the_caller_does():
    thinking = asyncio.Event()
    scene = Scene(Echo(delay=thinking), ["one", "two"], manners=manners())
    await scene.until_quiet()
    await scene.says()
    await scene.run(4.0, speaking=True)
    assert not any(scene.wire.on_wire[-150:])
    thinking.set()
    await scene.end()


async def test_what_is_at_hand_is_said_when_the_voice_hangs():
    class Hanging(Voice):
        async def speak(self, text, rate):
            if text != "Hello.":
                await asyncio.Event().wait()
            async for piece in super().speak(text, rate):
                yield piece

    scene = Scene(Echo(), ["question"], manners=manners(), voice=Hanging(), urgent=Voice())
    await scene.until_quiet()
    await scene.says()
    start = len(scene.wire.on_wire)
    await scene.run(6.0)
    assert longest_silence_s(scene, start) <= BOUND_S
    await scene.end()


@pytest.mark.parametrize("again", [False, True])
async def test_a_voice_that_hangs_within_a_clause_is_bridged_and_its_rest_comes_behind(again):
    go_on = asyncio.Event()

    class Halting(Voice):
        """Stops in the middle; another begins again in its place, or it goes on."""

        async def speak(self, text, rate):
            half = np.full(rate, 5000, np.int16)
            if text == "Hello.":
                yield half
                return
            yield half
            await go_on.wait()
            if again:
                yield half
            yield half

    scene = Scene(Echo(), ["one two three four"], manners=manners(), voice=Halting(), urgent=Voice())
    await scene.until_quiet()
    await scene.says()
    start = len(scene.wire.on_wire)
    await scene.run(4.5)
    go_on.set()
    await scene.until_quiet()
    assert longest_silence_s(scene, start) <= BOUND_S
    before, filler, after = scene.turns()[-1].heard_text.partition("One moment.")
    assert filler and before
    assert f"{before}{after}".split() == "You said one two three four.".split()
    await scene.end()


async def test_a_voice_that_cannot_say_the_filler_is_a_problem_and_no_more():
    thinking = asyncio.Event()
    scene = Scene(Echo(delay=thinking), ["one"], manners=manners(), urgent=Voice(broken={"One moment."}))
    await scene.until_quiet()
    await scene.says()
    await scene.run(2.2)
    thinking.set()
    await scene.until_quiet()
    assert scene.turns()[-1].heard_text == "You said one."
    assert [problem.where for problem in scene.of(Problem)] == ["tts"]  # type: ignore[attr-defined]
    await scene.end()


async def test_silence_hurries_the_providers():
    ledger = Ledger()
    hurried = asyncio.create_task(ledger.hurried())
    scene = Scene(Never(), ["question"], manners=manners(), ledger=ledger)
    await scene.until_quiet()
    await scene.says()
    assert not hurried.done()
    await scene.run(2.0)
    assert hurried.done()
    await scene.end()


@pytest.mark.parametrize("budget_ms", [0, 900])
async def test_turns_over_the_budget_shorten_the_silence_that_ends_a_turn(budget_ms):
    settings = ConversationSettings(lead_ms=0, endpointing_ms=900, latency_budget_ms=budget_ms, dead_air_ms=9000)
    scene = Scene(Echo(), ["word"] * 9, manners=manners(), settings=settings)
    await scene.until_quiet()
    for _ in range(6):
        await scene.run(0.6, speaking=True)
        await scene.run(1.1)
        await scene.until_quiet()
    turns = [turn for turn in scene.turns() if turn.caller_text]
    waits = [turn.latency.endpointing_ms for turn in turns if turn.latency is not None]
    if budget_ms:
        assert waits[0] == pytest.approx(900, abs=40) and waits[-1] < 800
        assert turns[-1].details["budget"]["endpointing"] >= 1
    else:
        assert max(waits) - min(waits) < 40
        assert "budget" not in turns[-1].details
    await scene.end()
