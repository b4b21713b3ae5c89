"""What the log says, and what it keeps to itself."""

import json
import logging

import pytest

from sipagent import logs
from sipagent.config import LogSettings
from sipagent.core import clock
from sipagent.core.context import current_call
from sipagent.core.events import EVENT_TYPES, CallCreated, CallerSaid, DigitReceived, private_fields
from sipagent.core.ids import CallId, LegId, TurnId
from sipagent.core.states import Direction
from sipagent.logs import log_event


@pytest.fixture
def lines(capsys):
    """Log lines as JSON, after the test has logged."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def start(*, private: bool = False):
        logs.setup(LogSettings(format="json", private=private))

        def read():
            return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

        return read

    yield start
    root.handlers[:], root.level = before[0], before[1]


def events():
    at = clock.now()
    call = CallId("call_1")
    yield CallCreated(
        at=at, call_id=call, direction=Direction.INBOUND, from_number="+4912345", to_number="100", trunk="pbx"
    )
    yield CallerSaid(
        at=at, call_id=call, turn_id=TurnId("t"), text="my secret", started_at=at, ended_at=at, confidence=0.5
    )
    yield DigitReceived(at=at, call_id=call, leg_id=LegId("l"), digit="7", duration_ms=100)


def test_numbers_words_and_digits_stay_out_of_the_log(lines):
    read = lines()
    for event in events():
        log_event(event)
    found = read()
    assert [line["event"] for line in found] == ["CallCreated", "CallerSaid", "DigitReceived"]
    assert found[0]["trunk"] == "pbx" and found[0]["call_id"] == "call_1"
    text = json.dumps(found)
    assert "12345" not in text and "secret" not in text and '"digit"' not in text


def test_an_operator_may_ask_for_them(lines):
    read = lines(private=True)
    for event in events():
        log_event(event)
    assert [line.get("pii.from_number") for line in read()][0] == "+4912345"


def test_every_line_of_a_call_names_it(lines):
    read = lines()
    token = current_call.set("call_9")
    logging.getLogger("sipagent.x").info("hello", extra={"answer": 42})
    current_call.reset(token)
    logging.getLogger("sipagent.x").info("bye")
    first, second = read()
    assert (first["call_id"], first["answer"], first["message"]) == ("call_9", 42, "hello")
    assert "call_id" not in second


def test_every_field_that_holds_a_number_or_words_is_marked_private():
    open_fields = {
        (name, field)
        for name, kind in EVENT_TYPES.items()
        for field in kind.__dataclass_fields__
        if field.endswith(("_number", "text")) or field in ("digit", "target", "url")
    }
    marked = {
        (name, field)
        for name, kind in EVENT_TYPES.items()
        for field, spec in kind.__dataclass_fields__.items()
        if spec.metadata.get("private")
    }
    told = {("CallerTold", field) for field in ("name", "headers", "diversions")} | {("SipMessages", "messages")}
    told |= {
        ("TurnEnded", "details"),
        ("ToolCalled", "arguments"),
        ("IntentFulfilled", "values"),
        ("Gathered", "digits"),
    }
    told |= {("WebhookDue", "payload"), ("WebhookDue", "delivery_id")}
    assert open_fields | told == marked
    assert private_fields(next(events())) == {"from_number", "to_number"}


def test_text_names_the_event_and_its_fields(capsys):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.setup(LogSettings(format="text"))
    log_event(next(events()))
    root.handlers[:], root.level = before[0], before[1]
    line = capsys.readouterr().err
    assert "CallCreated" in line and 'trunk="pbx"' in line and "12345" not in line
