"""Answers by the keys: which belong together, and what they do in a conversation."""

import pytest

from sipagent.conversation.interfaces import Expecting
from sipagent.conversation.keyed import MOST, KeyedAnswer
from sipagent.dialplan.model import AgentSpec
from tests.conversation.scenario import Echo, Scene

SECOND = 1_000_000_000


def test_digits_end_with_a_pause_or_the_hash_key():
    keyed = KeyedAnswer()
    for i, key in enumerate("1234"):
        assert keyed.press(key, Expecting.DIGITS, i * SECOND)
        assert keyed.due(Expecting.DIGITS, i * SECOND + SECOND // 2) is None
    assert keyed.due(Expecting.DIGITS, 7 * SECOND) == "1234"
    assert keyed.due(Expecting.DIGITS, 20 * SECOND) is None
    keyed.press("#", Expecting.DIGITS, 21 * SECOND)  # ends nothing
    keyed.press("5", Expecting.DIGITS, 22 * SECOND)
    keyed.press("#", Expecting.DIGITS, 22 * SECOND)
    assert not keyed.press("6", Expecting.DIGITS, 22 * SECOND)
    assert keyed.due(Expecting.DIGITS, 22 * SECOND) == "5"


def test_as_many_digits_as_the_answer_has_end_it():
    keyed = KeyedAnswer()
    for key in "123":
        keyed.press(key, Expecting.DIGITS, 0, 4)
    assert keyed.due(Expecting.DIGITS, 0) is None
    keyed.press("4", Expecting.DIGITS, 0, 4)
    assert keyed.due(Expecting.DIGITS, 0) == "1234"


@pytest.mark.parametrize("expecting", [Expecting.YES_NO, Expecting.CHOICE])
def test_one_key_is_enough_where_one_is_asked_for(expecting):
    keyed = KeyedAnswer()
    keyed.press("2", expecting, 0)
    assert keyed.due(expecting, 0) == "2"


def test_keys_for_one_question_are_no_answer_to_another():
    keyed = KeyedAnswer()
    for key in "4711":
        keyed.press(key, Expecting.DIGITS, 0)
    assert keyed.due(Expecting.YES_NO, SECOND) is None
    keyed.press("1", Expecting.YES_NO, SECOND)
    assert keyed.due(Expecting.YES_NO, SECOND) == "1"


def test_keys_nobody_asked_for_are_no_answer_and_there_are_only_so_many():
    keyed = KeyedAnswer()
    assert not keyed.press("1", Expecting.ANYTHING, 0)
    assert keyed.due(Expecting.ANYTHING, SECOND) is None
    for _ in range(100):
        keyed.press("1", Expecting.DIGITS, 0)
    assert keyed.due(Expecting.DIGITS, 9 * SECOND) == "1" * MOST


async def test_a_key_interrupts_the_agent_and_is_answered():
    agent = Echo()
    agent.expecting = Expecting.DIGITS
    scene = Scene(agent, [], manners=AgentSpec(greeting="Please press the number that is on your card."))
    await scene.run(0.5)
    assert scene.wire.on_wire[-1]
    scene.session.pressed("4")
    await scene.run(0.2)
    assert not scene.wire.on_wire[-1] and agent.asked == []
    scene.session.pressed("2")
    scene.session.pressed("#")
    await scene.until_quiet()
    assert agent.asked == ["42"]
    greeting, answer = scene.turns()
    assert greeting.interrupted and answer.heard_text == "You said 42."
    assert (answer.caller_text, answer.details["keys"], answer.latency) == ("42", True, None)
    assert [entry.text for entry in scene.session.history.entries[-2:]] == ["42", "You said 42."]
    await scene.end()


async def test_who_may_not_be_interrupted_is_answered_afterwards():
    agent = Echo()
    agent.expecting = Expecting.YES_NO
    scene = Scene(agent, [], manners=AgentSpec(greeting="This call is recorded.", barge_in="never"))
    await scene.run(0.1)
    scene.session.pressed("1")
    await scene.run(0.3)
    assert agent.asked == [] and scene.wire.on_wire[-1]
    await scene.until_quiet()
    await scene.run(0.1)
    assert agent.asked == ["1"]
    await scene.end()
