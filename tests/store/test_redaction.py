"""What is blacked out before it is written."""

from dataclasses import replace

import msgspec
import pytest

from sipagent.core.events import CallerSaid, DigitReceived, Event, Gathered, SipMessages, ToolCalled, TurnEnded
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder
from sipagent.store.redaction import luhn, redactor
from sipagent.store.settings import RedactionSettings

from .story import Story


def said(text: str, **policy: object) -> str:
    redact = redactor(msgspec.convert(policy, RedactionSettings))
    assert redact is not None
    event = Story().turn(6, said=text)[1]
    assert isinstance(event, CallerSaid)
    after = redact(event)
    assert isinstance(after, CallerSaid)
    return after.text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("my card is 4111 1111 1111 1111, right", "my card is xxxx xxxx xxxx 1111, right"),
        ("4111-1111-1111-1111", "xxxx-xxxx-xxxx-1111"),
        ("378282246310005.", "xxxxxxxxxxx0005."),
        ("4111111111111112", "4111111111111112"),  # its check digit is wrong
        ("call +49 30 1234567", "call +49 30 1234567"),
    ],
)
def test_of_card_numbers_the_last_four_stay(text: str, left: str) -> None:
    assert said(text, cards=True) == left


def test_runs_of_digits_and_patterns() -> None:
    assert said("code 12 34 56, room 12", digits=4) == "code xx xx xx, room 12"
    assert said("I am Anna of DE-4711", patterns=[r"DE-\d+", "Anna"]) == "I am [redacted] of [redacted]"


def test_an_answer_by_keys_is_black_whatever_else_is_looked_for() -> None:
    redact = redactor(RedactionSettings(keys=True))
    assert redact is not None
    spoken = Story().turn(6, said="42#")[-1]
    assert isinstance(spoken, TurnEnded)
    spoken = replace(spoken, agent_text="42, right?", heard_text="42")
    assert redact(spoken) == spoken
    after = redact(replace(spoken, details={"keys": True}))
    assert isinstance(after, TurnEnded)
    assert (after.caller_text, after.agent_text, after.heard_text) == ("xxx", "xx, right?", "xx")


def test_check_digits() -> None:
    assert luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 3])  # the standard's own example
    assert not luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 0])


def test_keys_given_as_an_answer_are_keys() -> None:
    redact = redactor(RedactionSettings(keys=True))
    assert redact is not None
    [gathered] = [redact(event) for event in Story().whole() if isinstance(event, Gathered)]
    assert isinstance(gathered, Gathered) and gathered.digits == "xx"


def test_no_policy_is_no_work() -> None:
    assert redactor(RedactionSettings()) is None


@pytest.mark.parametrize(
    ("pattern", "told"), [("(", "no regular expression"), ("(a+)+b", "repeats"), ("x*", "empty"), ("a" * 201, "200")]
)
def test_patterns_that_cannot_be_are_refused(pattern: str, told: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=told):
        msgspec.convert({"patterns": [pattern]}, RedactionSettings)


async def test_nothing_of_it_reaches_the_record(url: str) -> None:
    card, pin = "4111 1111 1111 1111", "8642"
    story = Story()
    told: list[Event] = []
    for event in story.whole():
        match event:
            case CallerSaid():
                event = replace(event, text=f"card {card}, PIN {pin}")
            case TurnEnded():
                details = {"tools": [{"arguments": {"card": card}}], "pin": pin}
                event = replace(event, caller_text=card, heard_text=f"was it {pin}?", details=details)
            case ToolCalled():
                event = replace(event, arguments=f'{{"card": "{card}"}}')
            case DigitReceived():
                event = replace(event, digit="7")
            case Gathered():
                event = replace(event, digits=pin)
            case SipMessages():
                info = f"INFO sip:a@b SIP/2.0\r\n\r\nSignal={pin[0]}\r\nDuration=160\r\n"
                messages = tuple(replace(message, text=info) for message in event.messages)
                event = replace(event, messages=messages)
        told.append(event)
    policy = RedactionSettings(keys=True, cards=True, digits=4)
    recorder = Recorder(url, redact=redactor(policy))
    recorder.start()
    for event in told:
        recorder.emit(event)
    assert await recorder.close() == 0 and recorder.statistics.refused == 0
    queries = Queries(url)
    full = queries.get_call(story.call_id)
    assert full is not None
    everything = msgspec.json.encode((full.turns, full.tool_calls, [row.data for row in full.events])).decode()
    assert card not in everything and pin not in everything
    assert "xxxx xxxx xxxx" in full.turns[0].caller_text
    assert [row.data["digit"] for row in full.events if row.type == "DigitReceived"] == ["x"]
    assert [row.data["digits"] for row in full.events if row.type == "Gathered"] == ["xxxx"]
    assert all("Signal=x\r\nDuration=160" in message.text for message in queries.sip_messages(story.call_id))
    assert full.call.from_number == story.from_number  # calls are found by it
    queries.close()

    again = Recorder(url)  # another policy knows the events all the same
    again.start()
    for event in told:
        again.emit(event)
    await again.close()
    queries = Queries(url)
    after = queries.get_call(story.call_id)
    assert after is not None and len(after.events) == len(full.events)
    queries.close()
