"""The agent without a language model: intents, slots, and what it says when it does not understand."""

import datetime as dt
from typing import Any

import msgspec
import numpy as np
import pytest

from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked, EndCall, Expecting, Text, TransferCall
from sipagent.dialplan.model import IntentSpec, SlotSpec, TransferSpec

SUNDAY = dt.date(2026, 11, 22)
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


class Desk(IntentAgent):
    def __init__(self, intents=INTENTS, **manners) -> None:
        self.done: list[tuple[str, dict[str, str]]] = []
        super().__init__(
            IntentMatcher(WordVectors(), intents),
            intents,
            IntentManners(unknown=["Pardon?", "What?"], unknown_limit=3, give_up="Sorry.", **manners),
            lambda intent, values: self.done.append((intent, values)),
            lambda: SUNDAY,
        )


@pytest.fixture
def agent():
    return Desk()


async def ask(agent, text):
    return [piece async for piece in agent.respond(Asked(text, History()))]


async def says(agent, text):
    """What it says, as one text."""
    return "".join(piece.text for piece in await ask(agent, text) if isinstance(piece, Text))


async def test_answers_what_it_knows(agent):
    assert await ask(agent, "Opening hours?") == [Text("We open at eight.")]
    assert agent.intent == "hours"


async def test_asks_for_what_is_missing_and_fills_in_what_was_said(agent):
    assert await ask(agent, "book appointment") == [Text("Which day?")]
    assert await ask(agent, "On Tuesday.") == [Text("At what time?")]
    assert await ask(agent, "half past ten") == [Text("Booked Tuesday at 10:30.")]
    assert agent.intent == "book"
    assert agent.done == [("book", {"day": "2026-11-24", "time": "10:30"})]
    # The next thing is a new matter.
    assert await ask(agent, "opening hours") == [Text("We open at eight.")]


async def test_takes_several_details_at_once(agent):
    assert await ask(agent, "book appointment") == [Text("Which day?")]
    assert await ask(agent, "Friday at three o'clock") == [Text("Booked Friday at 3.")]


async def test_a_question_is_asked_again_when_the_answer_is_not_understood(agent):
    await ask(agent, "book appointment")
    assert await ask(agent, "gibberish blah") == [Text("Sorry, I didn't catch that. Which day?")]
    assert await ask(agent, "Monday") == [Text("At what time?")]


async def test_a_question_in_between_is_answered_and_the_open_one_asked_again(agent):
    await ask(agent, "book appointment")
    assert await says(agent, "opening hours") == "We open at eight. Which day?"
    assert await ask(agent, "Monday") == [Text("At what time?")]


async def test_a_caller_may_change_the_subject_in_a_question(agent):
    await ask(agent, "book appointment")
    assert await ask(agent, "bye") == [Text("Goodbye."), EndCall()]


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


MANY = {
    "order": IntentSpec(
        examples=["order pizza"],
        slots={
            "size": SlotSpec(kind="choice", choices={"small": ["little"], "large": ["big"]}, ask="Which size?"),
            "number": SlotSpec(kind="number", min=1, max=9, ask="How many?"),
            "name": SlotSpec(kind="name", ask="What name?", again="Your name, please."),
        },
        confirm="{number} {size} for {name}?",
        answer="{number} {size}, thank you.",
    ),
    "track": IntentSpec(
        examples=["track parcel"],
        slots={"code": SlotSpec(kind="digits", digits="4-6", ask="Which number?", confirm=True)},
        answer="It is on its way.",
    ),
    "book": IntentSpec(
        examples=["book"],
        slots={"day": SlotSpec(kind="date", ask="Which day?"), "time": SlotSpec(kind="time", ask="When?")},
        confirm="{day} at {time}?",
        answer="Booked.",
    ),
    "hours": IntentSpec(examples=["opening hours"], answer="We open at eight."),
}


async def test_all_is_confirmed_and_what_is_wrong_corrected():
    agent = Desk(MANY)
    assert await says(agent, "order pizza") == "Which size?"
    assert await says(agent, "a big one") == "How many?"
    assert agent.expecting == Expecting.NUMBER
    assert await says(agent, "Twelve.") == "It can be at most 9. How many?"
    assert await says(agent, "Two.") == "What name?"
    assert await says(agent, "It's Ann.") == "2 large for Ann?"
    assert str(agent.expecting) == "yes_no"
    assert await says(agent, "mumble") == "Sorry, I didn't catch that. 2 large for Ann?"
    assert await says(agent, "No, small.") == "2 small for Ann?"
    assert await says(agent, "No, that's wrong.") == "What should I change?"
    assert await says(agent, "the name") == "What name?"
    assert await says(agent, "My name is Anna.") == "2 small for Anna?"
    assert await says(agent, "Yes, please.") == "2 small, thank you."
    assert agent.done == [("order", {"size": "small", "number": "2", "name": "Anna"})]


async def test_what_was_said_before_is_corrected_while_the_next_is_asked():
    agent = Desk(MANY)
    assert await says(agent, "book for Monday") == "When?"
    assert await says(agent, "No, I meant Tuesday.") == "When?"
    assert await says(agent, "At ten.") == "Tuesday, November 24 at 10?"
    assert await says(agent, "Not Tuesday, Wednesday, and at eleven.") == "Wednesday, November 25 at 11?"
    assert await says(agent, "That's right.") == "Booked."


async def test_digits_are_said_back_and_have_to_be_as_many_as_they_should():
    agent = Desk(MANY)
    assert await says(agent, "track parcel") == "Which number?"
    assert agent.expecting == Expecting.DIGITS
    assert await says(agent, "one two") == "I need 4 or 6 digits, and I have heard 2. Which number?"
    assert await says(agent, "double two oh seven") == "I have 2 2 0 7. Is that right?"
    assert await says(agent, "No, it is double two oh eight.") == "I have 2 2 0 8. Is that right?"
    assert await says(agent, "nope") == "Which number?"
    assert await says(agent, "1234") == "I have 1 2 3 4. Is that right?"
    assert await says(agent, "yes") == "It is on its way."


async def test_the_last_words_are_said_again_on_request_and_a_matter_is_dropped():
    agent = Desk(MANY)
    assert await says(agent, "book") == "Which day?"
    assert await says(agent, "Pardon?") == "Which day?"
    assert await says(agent, "Oh, never mind.") == "All right. What else can I do for you?"
    assert await says(agent, "opening hours") == "We open at eight."
    assert await says(agent, "Could you repeat that?") == "We open at eight."


async def test_an_agent_may_begin_with_a_matter_of_its_own():
    agent = Desk(MANY, start="order")
    assert agent.expecting == Expecting.CHOICE
    assert await says(agent, "the small one") == "How many?"


async def test_it_speaks_the_language_of_its_callers():
    intents = {
        "book": IntentSpec(
            examples=["termin"],
            slots={"day": SlotSpec(kind="date", ask="Wann?"), "time": SlotSpec(kind="time", ask="Um wie viel Uhr?")},
            confirm="{day} um {time}?",
            answer="Danke.",
        )
    }
    agent = Desk(intents, language="de")
    assert await says(agent, "termin") == "Wann?"
    assert await says(agent, "Am dritten Mai") == "Um wie viel Uhr?"
    assert await says(agent, "halb vier") == "Montag, den 3. Mai um 3 Uhr 30?"
    assert await says(agent, "Nein, um vier") == "Montag, den 3. Mai um 4 Uhr?"
    assert await says(agent, "bla") == "Das habe ich leider nicht verstanden. Montag, den 3. Mai um 4 Uhr?"
    assert await says(agent, "ja, genau") == "Danke."


async def test_keys_answer_as_words_do():
    agent = Desk(MANY)
    await ask(agent, "order pizza")
    assert await says(agent, "2") == "How many?"
    assert await says(agent, "3") == "What name?"
    assert await says(agent, "Ann") == "3 large for Ann?"
    assert await says(agent, "1") == "3 large, thank you."


async def test_an_answer_that_is_given_again_is_told_once():
    agent = Desk(MANY)
    await ask(agent, "track parcel")
    await ask(agent, "1234")
    before = agent.checkpoint()
    await ask(agent, "yes")
    agent.rollback(before)  # the caller went on before the answer was heard
    await ask(agent, "yes please")
    assert agent.done == [("track", {"code": "1234"})]
    await ask(agent, "track parcel")
    await ask(agent, "1234")
    await ask(agent, "yes")
    assert len(agent.done) == 2, "another time it is another matter"


def memory_of(intent: str, asking: str, *known: str) -> dict[str, Any]:
    values = [[name, "x", "x"] for name in known]
    return {"intent": intent, "asking": asking, "known": values, "misses": 0, "said": ""}


@pytest.mark.parametrize(
    "memory",
    [
        memory_of("renamed", "code"),
        memory_of("track", "renamed"),
        memory_of("track", "?code"),
        memory_of("track", "code", "renamed"),
        memory_of("order", "?confirm", "size"),
        {"asking": "code"},
        [],
    ],
)
async def test_a_memory_of_another_dialplan_is_refused(memory):
    agent = Desk(MANY)
    await ask(agent, "track parcel")
    before = agent.checkpoint()
    with pytest.raises((ValueError, KeyError, TypeError)):
        agent.rollback(memory)
    assert agent.checkpoint() == before
    assert agent.expecting is Expecting.DIGITS


async def test_its_memory_is_plain_data():
    agent = Desk(MANY)
    await ask(agent, "book")
    await ask(agent, "Monday")
    memory = msgspec.msgpack.decode(msgspec.msgpack.encode(agent.checkpoint()))
    another = Desk(MANY)
    another.rollback(memory)
    assert await says(another, "at ten") == "Monday, November 23 at 10?"
