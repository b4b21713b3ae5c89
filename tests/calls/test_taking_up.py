"""What an agent is told of the conversation that the death of an earlier main has cut off."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sipagent.calls.call import Call
from sipagent.calls.saved import SavedTalk
from sipagent.calls.talking import Talk, take_up
from sipagent.conversation.agents.chat import ChatAgent, ChatPlan
from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.chat_model import ChatModel
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Agent, Expecting
from sipagent.dialplan.model import IntentSpec, SlotSpec
from tests.conversation.control import Control

INTENTS = {"track": IntentSpec(examples=["track"], slots={"code": SlotSpec(kind="digits", ask="Which?")}, answer="On.")}


def intents() -> IntentAgent:
    manners = IntentManners(unknown=["What?"], unknown_limit=3, give_up="Goodbye.")
    return IntentAgent(cast(IntentMatcher, None), INTENTS, manners, lambda _intent, _values: None)


def chat() -> ChatAgent:
    plan = ChatPlan(prompt="Help.", greeting="Hello.", transfer_targets={})
    return ChatAgent(cast(ChatModel, None), plan, Control())


def taken_up(agent: Agent, left: SavedTalk) -> Talk:
    spec: Any = SimpleNamespace(resumed="Where were we?")
    going_on = Talk(agent, spec, History(), cast(Any, None), cast(Any, None))
    call: Any = SimpleNamespace(id="call_1", turns=0, services=SimpleNamespace(events=Control()))
    take_up(cast(Call, call), going_on, left)
    return going_on


@pytest.mark.parametrize(
    ("agent", "memory"),
    [
        (intents, {"intent": "renamed", "asking": "code", "known": [], "misses": 0, "said": ""}),
        (chat, [{"name": "book", "result": "booked"}]),
        (chat, {"intent": "track"}),
    ],
)
def test_an_agent_whose_dialplan_was_changed_begins_anew(agent, memory):
    one = agent()
    going_on = taken_up(one, SavedTalk(memory=memory, history=[("caller", "Hi.")]))
    assert one.expecting is Expecting.ANYTHING
    assert one.checkpoint() == agent().checkpoint()
    said, note = going_on.history.entries
    assert said.text == "Hi."
    assert note.speaker == "note" and "ask the caller again" in note.text


def test_an_agent_goes_on_where_it_was():
    one = intents()
    memory = {"intent": "track", "asking": "code", "known": [], "misses": 1, "said": "Which?"}
    assert len(taken_up(one, SavedTalk(memory=memory, history=[])).history.entries) == 0
    assert one.expecting is Expecting.DIGITS
