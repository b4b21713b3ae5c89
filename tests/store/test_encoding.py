"""Events as JSON and the ids made from them."""

from datetime import UTC, datetime, timedelta

from sipagent.core.clock import Stamp
from sipagent.core.events import DigitReceived, ProcessStarted
from sipagent.core.ids import new_call_id, new_leg_id
from sipagent.store.encoding import event_data, event_id

from .story import START, Story


def test_the_same_event_has_the_same_id_and_others_do_not() -> None:
    told = Story().whole()
    ids = [event_id(item) for item in told]
    assert ids == [event_id(item) for item in told]
    assert len(set(ids)) == len(told)


def test_two_equal_digits_are_two_events() -> None:
    call, leg = new_call_id(), new_leg_id()
    first, second = (
        DigitReceived(at=Stamp(mono, START), call_id=call, leg_id=leg, digit="1", duration_ms=100) for mono in (1, 2)
    )
    assert event_id(first) != event_id(second)


def test_ids_sort_by_time_and_look_like_every_other_id() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [
        event_id(ProcessStarted(at=Stamp(i, start + timedelta(milliseconds=i)), process="lane", pid=1))
        for i in range(50)
    ]
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {len("evt_") + 26}


def test_data_is_json_by_the_events_own_names() -> None:
    turn = Story().turn(6, said="hello")[-1]
    data = event_data(turn)
    assert data["caller_text"] == "hello"
    assert data["started_at"] == "2026-03-29T01:00:04.123456+00:00"
    assert data["latency"]["stt_ms"] == 80.0
    assert not {"at", "call_id"} & set(data)
