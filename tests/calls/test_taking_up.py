"""What an agent is told of the conversation that the death of an earlier main has cut off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from sipagent.calls.call import Call
from sipagent.calls.saved import SavedCall, SavedTalk
from sipagent.calls.saver import Saver
from sipagent.calls.talking import Talk, take_up
from sipagent.conversation.agents.chat import ChatAgent, ChatPlan
from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.chat_model import ChatModel, Delta, Message, Part, ToolCall, ToolSpec
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Agent, Asked, Expecting
from sipagent.conversation.tools.tool import Circumstances, Tool, object_schema
from sipagent.core import clock
from sipagent.core.events import CallerSaid, Event
from sipagent.core.ids import CallId, new_turn_id
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


class Saving(Control):
    saver: Saver

    def emit(self, event: Event) -> None:
        super().emit(event)
        self.saver.emit(event)


class Booking:
    """A model that books, and then is long about saying so."""

    async def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Part]:
        if messages[-1].role != "tool":
            yield ToolCall("book", "{}", "1")
            return
        yield Delta("One moment. ")
        await asyncio.Event().wait()


@pytest.mark.parametrize("answers", [True, False])
async def test_what_a_tool_did_in_the_lost_turn_is_known(tmp_path: Path, answers: bool):
    at_work = asyncio.Event()

    async def work(_arguments: dict[str, Any], _here: Circumstances) -> str:
        at_work.set()
        if not answers:
            await asyncio.Event().wait()
        return "booked as 17"

    book = Tool(
        name="book",
        description="Books.",
        schema=object_schema({}),
        kind="http",
        work=work,
        company=cast(Any, SimpleNamespace(saying="", saying_after_s=5, again="", again_after_s=5)),
        timeout_s=5,
        read_only=False,
    )
    plan = ChatPlan(prompt="Help.", greeting="Hello.", transfer_targets={}, tools=[book])
    control, history = Saving(), History()
    agent = ChatAgent(Booking(), plan, control)
    control.saver = saver = Saver(tmp_path)
    saver.start()
    call: Any = SimpleNamespace(
        id="call_test",
        trunk="",
        voice_app="",
        match=SimpleNamespace(dialplan=SimpleNamespace(name="test"), route="desk", steps=[]),
        todo=[],
        started=clock.now(),
        answered_at=None,
        turns=1,
        variables={},
        flows_asked=0,
        listening=[],
        asking=[],
        talk=SimpleNamespace(agent=agent, history=history),
        room=SimpleNamespace(other=None, guests={}),
        met=None,
        held=None,
        recording=None,
        legs=[],
        leg=SimpleNamespace(id="leg_1"),
    )
    saver.track(call)
    now = clock.now()
    said = CallerSaid(
        at=now,
        call_id=CallId("call_test"),
        turn_id=new_turn_id(),
        text="book it",
        started_at=now,
        ended_at=now,
        confidence=1,
    )
    saver.emit(said)
    asked = Asked("book it", history)

    async def turn() -> None:
        async for _ in agent.respond(asked):
            pass

    task = asyncio.create_task(turn())
    await at_work.wait()
    left = await on_disk(tmp_path, "ok" if answers else None)
    task.cancel()
    for each in control.tasks:
        each.cancel()
    await asyncio.wait([task, *control.tasks])
    await saver.close()

    another = ChatAgent(Booking(), plan, Control())
    going_on = taken_up(another, left)
    results = [kept["result"] for kept in cast(list[dict[str, Any]], another.checkpoint())]
    assert results == (["booked as 17"] if answers else [])
    first, *_, last = going_on.history.entries
    assert (first.speaker, first.text) == ("caller", "book it")
    assert ("has answered" if answers else "is not known") in last.text
    assert "Do not call it again" in last.text


async def on_disk(folder: Path, status: str | None) -> SavedTalk:
    """The conversation, once its file has the tool with that status."""
    async with asyncio.timeout(20):
        while True:
            for file in folder.glob("*.call"):
                talk = msgspec.msgpack.decode(file.read_bytes(), type=SavedCall).talk
                if talk is not None and [tool.status for tool in talk.tools] == [status]:
                    return talk
            await asyncio.sleep(0.02)


def test_an_agent_goes_on_where_it_was():
    one = intents()
    memory = {"intent": "track", "asking": "code", "known": [], "misses": 1, "said": "Which?"}
    assert len(taken_up(one, SavedTalk(memory=memory, history=[])).history.entries) == 0
    assert one.expecting is Expecting.DIGITS
