"""The agent without a language model: intents, slots, and what it says when it does not understand."""

import numpy as np
import pytest

from sipagent.conversation.agents.intents import IntentAgent, IntentMatcher
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked, EndCall, Text, TransferCall
from sipagent.dialplan.model import IntentSpec, SlotSpec, TransferSpec

MANAGER = TransferSpec(target="2000", whisper="Wants {day}.")
INTENTS = {
    "hours": IntentSpec(examples=["opening hours"], answer="We open at eight."),
    "book": IntentSpec(
        examples=["book appointment"],
        slots={"day": SlotSpec(kind="day", ask="Which day?"), "time": SlotSpec(kind="time", ask="At what time?")},
        answer="Booked {day} at {time}.",
    ),
    "manager": IntentSpec(
        examples=["manager"], slots={"day": SlotSpec(ask="Which day?", kind="day")}, transfer=MANAGER
    ),
    "human": IntentSpec(examples=["human"], answer="One moment.", transfer="sip:desk@example.test"),
    "bye": IntentSpec(examples=["bye"], answer="Goodbye.", hangup=True),
}


class WordVectors:
    """Texts that share words are alike: enough to steer the agent without a model."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    async def embed(self, texts):
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split():
                row[self.words.setdefault(word, len(self.words)) % 64] = 1
            row /= max(1.0, float(np.linalg.norm(row)))
        return vectors


@pytest.fixture
def agent():
    return IntentAgent(
        IntentMatcher(WordVectors(), INTENTS), INTENTS, unknown=["Pardon?", "What?"], unknown_limit=3, give_up="Sorry."
    )


async def ask(agent, text):
    return [piece async for piece in agent.respond(Asked(text, History()))]


async def test_answers_what_it_knows(agent):
    assert await ask(agent, "Opening hours?") == [Text("We open at eight.")]
    assert agent.intent == "hours"


async def test_asks_for_what_is_missing_and_fills_in_what_was_said(agent):
    assert await ask(agent, "book appointment") == [Text("Which day?")]
    assert await ask(agent, "On Tuesday.") == [Text("At what time?")]
    assert await ask(agent, "half past ten") == [Text("Booked Tuesday at 10:30.")]
    assert agent.intent == "book"
    # The next thing is a new matter.
    assert await ask(agent, "opening hours") == [Text("We open at eight.")]


async def test_takes_several_details_at_once(agent):
    assert await ask(agent, "book appointment") == [Text("Which day?")]
    assert await ask(agent, "Friday at three o'clock") == [Text("Booked Friday at 3.")]


async def test_a_question_is_asked_again_when_the_answer_is_not_understood(agent):
    await ask(agent, "book appointment")
    assert await ask(agent, "gibberish blah") == [Text("Sorry. Which day?")]
    assert await ask(agent, "Monday") == [Text("At what time?")]


async def test_a_caller_may_change_the_subject_in_a_question(agent):
    await ask(agent, "book appointment")
    assert await ask(agent, "opening hours") == [Text("We open at eight.")]


async def test_gives_up_after_the_limit(agent):
    assert await ask(agent, "gibberish") == [Text("Pardon?")]
    assert await ask(agent, "gibberish") == [Text("What?")]
    assert await ask(agent, "gibberish") == [Text("Sorry."), EndCall()]


async def test_understanding_resets_the_count(agent):
    await ask(agent, "gibberish")
    await ask(agent, "gibberish")
    await ask(agent, "opening hours")
    assert await ask(agent, "gibberish") == [Text("Pardon?")]


async def test_transfers_and_hangs_up(agent):
    assert await ask(agent, "human") == [Text("One moment."), TransferCall("sip:desk@example.test")]
    assert await ask(agent, "bye") == [Text("Goodbye."), EndCall()]


async def test_a_transfer_tells_the_other_side_what_was_learnt(agent):
    await ask(agent, "manager")
    *_, wanted = await ask(agent, "Friday")
    assert isinstance(wanted, TransferCall)
    assert (wanted.target, wanted.whisper, wanted.plan) == ("2000", "Wants Friday.", MANAGER)


async def test_an_answer_that_was_never_heard_leaves_no_trace(agent):
    await ask(agent, "book appointment")
    before = agent.checkpoint()
    await ask(agent, "Tuesday")
    agent.rollback(before)
    assert await ask(agent, "Wednesday") == [Text("At what time?")]
    assert await ask(agent, "noon") == [Text("Booked Wednesday at noon.")]
