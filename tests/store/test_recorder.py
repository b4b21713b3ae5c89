"""What is emitted is what is in the tables, once and in order, whatever the database does meanwhile."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text

from sipagent.core.events import (
    EVENT_TYPES,
    Event,
    LegCreated,
    LegEnded,
    MediaFigures,
    PartialTranscript,
    RegistrationChanged,
    TurnEnded,
)
from sipagent.core.states import LegState, RegistrationState, ToolStatus, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.store import recorder as recorder_module
from sipagent.store.engine import make_engine, upgrade
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder

from .story import START, Story, at, registration


@pytest.fixture
def queries(url: str) -> Iterator[Queries]:
    queries = Queries(url)
    yield queries
    queries.close()


async def record(url: str, *events: Event, node: str = "") -> Recorder:
    recorder = Recorder(url, node=node)
    recorder.start()
    for item in events:
        recorder.emit(item)
    assert await recorder.close() == 0
    return recorder


def count(url: str, table: str) -> int:
    engine = make_engine(url, read_only=True)
    with engine.connect() as connection:
        number = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
    engine.dispose()
    return int(number)


def stored(events: list[Event]) -> list[str]:
    return [type(item).__name__ for item in events if not isinstance(item, PartialTranscript)]


async def test_a_whole_call_becomes_its_rows(url: str, queries: Queries) -> None:
    story = Story()
    recorder = await record(url, *story.whole())
    assert recorder.statistics.refused == 0 and recorder.statistics.last_error == ""

    full = queries.get_call(story.call_id)
    assert full is not None
    call = full.call
    assert (call.direction, call.from_number, call.to_number) == ("inbound", "+4930123456", "100")
    assert (call.trunk, call.dialplan, call.route, call.agent) == ("carrier", "front-desk", "day", "desk")
    assert call.setup_at == START
    assert call.ringing_at == START + timedelta(seconds=0.1)
    assert call.answered_at == START + timedelta(seconds=1)
    assert call.ended_at == START + timedelta(seconds=60)
    assert (call.state, call.disposition, call.cause) == (LegState.ENDED, Disposition.ANSWERED, Cause.NORMAL)
    assert (call.ended_by, call.sip_status) == (EndedBy.CALLER, 200)

    [leg] = call.legs
    assert (leg.id, leg.state, leg.codec, leg.remote_media) == (story.leg_id, "ended", "PCMU", "192.0.2.1:30002")
    assert leg.sip_call_id == "sip-1@peer"  # as of its answer
    assert leg.ringing_at == call.ringing_at and leg.answered_at == call.answered_at
    assert (leg.packets_in, leg.lost, leg.foreign, leg.jitter_ms) == (2950, 2, 1, 1.5)

    greeting, hours = full.turns
    assert (greeting.turn_index, greeting.caller_text, greeting.total_ms) == (0, "", None)
    assert (hours.turn_index, hours.caller_text, hours.intent) == (1, "when do you open", "hours")
    assert greeting.details == {}
    assert hours.details["end"]["strategy"] == "silence"
    assert hours.details["end"]["at"].endswith("+00:00")  # whatever is in it is plain by then
    assert (hours.endpointing_ms, hours.stt_ms, hours.total_ms) == (300.0, 80.0, 500.0)
    assert hours.agent_started_at == START + timedelta(seconds=7.5)

    asked, accepted, done = full.transfers
    assert asked.id == accepted.id == done.id and [step.step for step in full.transfers] == [0, 1, 2]
    assert (done.kind, done.state, done.sip_status) == ("blind", TransferState.COMPLETED, 200)
    assert done.at - asked.at == timedelta(seconds=2)

    (tool,) = full.tool_calls
    assert (tool.name, tool.kind, tool.arguments, tool.turn_id) == ("order_status", "http", '{"order": "1234"}', None)
    assert (tool.status, tool.ms, tool.detail, tool.at) == ("ok", 400.0, "", START + timedelta(seconds=19))

    of_the_call = [item for item in story.whole() if hasattr(item, "call_id")]
    assert [row.type for row in full.events] == stored(of_the_call)


async def test_a_transfer_whose_outcome_nobody_told(url: str, queries: Queries) -> None:
    story = Story()
    told = [*story.transfer(20, 0, TransferState.ACCEPTED, 202), *story.transfer(22, 1, TransferState.UNKNOWN)]
    recorder = await record(url, *story.arrives(), *told)
    assert recorder.statistics.refused == 0
    full = queries.get_call(story.call_id)
    assert full is not None and full.transfers[-1].state == TransferState.UNKNOWN


async def test_a_tool_that_failed_and_one_that_is_at_work(url: str, queries: Queries) -> None:
    story = Story()
    failed, running = story.tool(5, ToolStatus.FAILED), story.tool(9)[:1]
    recorder = await record(url, *story.arrives(), *failed, *running)
    assert recorder.statistics.refused == 0
    full = queries.get_call(story.call_id)
    assert full is not None
    assert [(call.status, call.ms, call.detail) for call in full.tool_calls] == [
        ("failed", 400.0, "the server answered 500"),
        ("running", None, ""),
    ]


async def test_sip_messages_stand_in_a_table_of_their_own(url: str, queries: Queries) -> None:
    story = Story()
    told = [
        *story.arrives(),
        *story.messages(0, text="INVITE sip:100@192.0.2.9 SIP/2.0\r\n\r\n"),
        *story.messages(1, 7),
    ]
    recorder = await record(url, *told)
    assert recorder.statistics.refused == 0
    invite, again, late, _ = queries.sip_messages(story.call_id)
    assert (invite.seq, invite.sent, invite.at, invite.leg_id) == (0, False, START, story.leg_id)
    assert invite.text.startswith("INVITE sip:100@") and invite.size == len(invite.text)
    assert (again.repeats, again.text) == (0, "")
    assert late.seq == 7  # five were not kept
    full = queries.get_call(story.call_id)
    assert full is not None
    (first, second) = [row.data for row in full.events if row.type == "SipMessages"]
    assert first == second == {"dialog": 1, "count": 2}
    await record(url, *told)  # a replay
    assert count(url, "sip_messages") == 4
    assert queries.sip_messages("call_none") == []


async def test_every_type_of_event_is_understood(url: str) -> None:
    told = Story().whole()
    assert {type(item).__name__ for item in told} == set(EVENT_TYPES)
    recorder = await record(url, *told)
    assert recorder.statistics.written == len(stored(told)) == count(url, "events")
    assert recorder.statistics.refused == 0


async def test_the_quality_of_a_call_is_kept_with_its_events(url: str, queries: Queries) -> None:
    story = Story()
    told = [story.quality(5), story.quality(10), story.quality(11, final=True)]
    await record(url, *story.arrives(), *told)
    full = queries.get_call(story.call_id)
    assert full is not None
    rows = [row for row in full.events if row.type == "CallQuality"]
    assert [row.data["final"] for row in rows] == [False, False, True]
    assert {row.leg_id for row in rows} == {story.leg_id}
    assert (rows[0].data["lost"], rows[0].data["mos_cq"], rows[0].data["peer_mos_lq"]) == (3, 4.27, None)


async def test_an_event_replayed_is_not_doubled(url: str, queries: Queries) -> None:
    told = Story().whole()
    await record(url, *told)
    before = queries.list_calls()
    await record(url, *told)
    await record(url, *told[5:9], *told[5:9])
    assert count(url, "events") == len(stored(told))
    assert count(url, "turns") == 2
    assert queries.list_calls() == before  # late news does not take an ended call back


async def test_events_are_committed_in_batches(url: str) -> None:
    commits = 0

    def on_commit(_connection: Connection) -> None:
        nonlocal commits
        commits += 1

    told = [item for _ in range(40) for item in Story().arrives()]
    event.listen(Engine, "commit", on_commit)
    try:
        await record(url, *told)
    finally:
        event.remove(Engine, "commit", on_commit)
    assert count(url, "events") == len(told) == 120
    assert commits <= 3


async def test_a_lone_event_is_committed_soon(url: str, queries: Queries) -> None:
    recorder = Recorder(url)
    recorder.start()
    recorder.emit(registration(0, RegistrationState.REGISTERED))
    deadline = time.monotonic() + 5
    while not queries.registrations() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert queries.registrations()[0].state == RegistrationState.REGISTERED
    await recorder.close()


async def test_flush_returns_when_everything_is_committed(url: str) -> None:
    recorder = Recorder(url)
    recorder.start()
    for _ in range(150):
        for item in Story().arrives():
            recorder.emit(item)
    await recorder.flush()
    assert count(url, "events") == recorder.statistics.written == 450
    assert recorder.statistics.backlog == 0
    await recorder.close()
    await recorder.flush()  # of a closed recorder: nothing to wait for


async def test_registrations_show_the_present_and_start_empty(url: str, queries: Queries) -> None:
    await record(
        url,
        registration(0, RegistrationState.REGISTERED),
        registration(1, RegistrationState.REFUSED, sip_status=403),
        registration(2, RegistrationState.UNREACHABLE, trunk="backup", sip_status=0),
    )
    assert [(row.trunk, row.state) for row in queries.registrations()] == [
        ("backup", RegistrationState.UNREACHABLE),
        ("carrier", RegistrationState.REFUSED),
    ]
    await record(url, node="another")
    assert len(queries.registrations()) == 2
    await record(url)
    assert queries.registrations() == []
    assert count(url, "events") == 3


async def test_one_event_the_database_refuses_costs_no_other(
    url: str, queries: Queries, caplog: pytest.LogCaptureFixture
) -> None:
    good, lost = Story(), Story()
    orphan = [item for item in lost.arrives() if isinstance(item, LegCreated)]  # its CallCreated never came
    recorder = await record(url, *good.arrives(), *orphan, *good.is_answered())
    assert recorder.statistics.refused == 1
    assert recorder.statistics.written == 5  # the event itself is kept
    full = queries.get_call(good.call_id)
    assert full is not None and full.call.state == LegState.ANSWERED
    [line] = [item for item in caplog.records if item.levelno == logging.ERROR]
    assert good.from_number not in str(line.__dict__)


async def test_what_a_stranger_puts_into_a_header_can_be_stored(url: str, queries: Queries) -> None:
    story = Story(from_number="\x00'; DROP TABLE calls; --\udcff" + "9" * 10_000)
    odd = [*story.arrives(), *story.turn(1, said="caf\x00é 🙂")]
    recorder = await record(url, *odd)
    assert recorder.statistics.refused == 0
    full = queries.get_call(story.call_id)
    assert full is not None
    assert full.call.from_number.startswith("�'; DROP TABLE calls; --�999")
    assert len(full.call.from_number) == 512
    assert len(full.events[0].data["from_number"]) > 10_000
    assert full.turns[0].caller_text == "caf�é 🙂"


async def test_numbers_json_cannot_hold_become_null(url: str, queries: Queries) -> None:
    story = Story()
    ended, turn = story.ends()[0], story.turn(1, said="hello")[-1]
    assert isinstance(ended, LegEnded) and isinstance(turn, TurnEnded)
    odd = replace(ended, figures=MediaFigures(jitter_ms=float("inf")))
    odd_turn = replace(turn, confidence=float("nan"))
    recorder = await record(url, *story.arrives(), odd_turn, odd)
    assert recorder.statistics.refused == 0
    full = queries.get_call(story.call_id)
    assert full is not None
    assert full.turns[0].confidence is None
    assert full.events[-1].data["figures"]["jitter_ms"] is None


async def test_counters_a_peer_drives_up_can_be_stored(url: str, queries: Queries) -> None:
    story, huge = Story(), 1 << 40
    ended, registered = story.ends()[0], registration(0, RegistrationState.REGISTERED)
    assert isinstance(ended, LegEnded) and isinstance(registered, RegistrationChanged)
    figures = MediaFigures(**{field.name: huge for field in fields(MediaFigures)})
    recorder = await record(
        url, *story.arrives(), replace(ended, figures=figures), replace(registered, expires_s=(1 << 32) - 1)
    )
    assert recorder.statistics.refused == 0
    full = queries.get_call(story.call_id)
    assert full is not None
    [leg] = full.call.legs
    assert {getattr(leg, field.name) for field in fields(MediaFigures)} == {huge}
    assert queries.registrations()[0].expires_s == (1 << 32) - 1


async def test_more_than_the_backlog_is_dropped_counted_and_said_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(url, backlog=10)
    events = [item for _ in range(5) for item in Story().arrives()]
    for item in events:  # not started: nothing is taken out
        recorder.emit(item)
    assert (recorder.statistics.backlog, recorder.statistics.dropped) == (10, 5)
    assert [item.message for item in caplog.records if item.levelno == logging.ERROR] == [
        "events dropped: the record's backlog is full or closed"
    ]
    recorder.start()
    assert await recorder.close() == 0
    assert count(url, "events") == 10
    recorder.emit(events[0])
    assert recorder.statistics.dropped == 6


async def test_a_locked_database_delays_and_loses_nothing(sqlite_url: str) -> None:
    recorder = Recorder(sqlite_url)
    recorder.start()
    await recorder.flush()
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    told = [item for _ in range(100) for item in Story().arrives()]
    began = time.monotonic()
    for item in told:
        recorder.emit(item)
    assert time.monotonic() - began < 0.5  # the call path did not wait
    deadline = time.monotonic() + 10
    while "locked" not in recorder.statistics.last_error and time.monotonic() < deadline:
        time.sleep(0.05)
    assert recorder.statistics.backlog == len(told) and recorder.statistics.written == 0
    other.execute("COMMIT")
    other.close()
    await recorder.flush()
    assert recorder.statistics.last_error == ""
    assert await recorder.close() == 0
    assert count(sqlite_url, "events") == len(told)
    assert count(sqlite_url, "calls") == 100


async def test_what_cannot_be_written_by_the_close_is_reported(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "CLOSE_LIMIT_S", 0.2)
    recorder = Recorder(sqlite_url)
    recorder.start()
    await recorder.flush()
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for item in Story().arrives():
        recorder.emit(item)
    began = time.monotonic()
    assert await recorder.close() == 3
    assert time.monotonic() - began < 4
    other.close()
    assert "events lost at close" in caplog.messages


async def test_a_database_not_yet_migrated_is_waited_for(empty_url: str) -> None:
    recorder = Recorder(empty_url)
    recorder.start()
    told = Story().whole()
    for item in told:
        recorder.emit(item)
    deadline = time.monotonic() + 10
    while not recorder.statistics.last_error and time.monotonic() < deadline:
        time.sleep(0.05)
    upgrade(empty_url)
    await recorder.flush()
    assert await recorder.close() == 0
    assert count(empty_url, "events") == len(stored(told))


async def wait_for_complaint(recorder: Recorder, words: str) -> None:
    deadline = time.monotonic() + 10
    while words not in recorder.statistics.last_error and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert words in recorder.statistics.last_error


@pytest.mark.parametrize(("broken_from", "told"), [(0, "not a database"), (100, "malformed")])
async def test_a_broken_database_is_waited_for_until_it_is_put_back(
    sqlite_url: str, broken_from: int, told: str
) -> None:
    file, story = Path(sqlite_url.removeprefix("sqlite:///")), Story()
    sound = file.read_bytes()
    file.write_bytes(sound[:broken_from] + b"\xa5" * (len(sound) - broken_from))
    recorder = Recorder(sqlite_url)
    recorder.start()
    for item in story.whole():
        recorder.emit(item)
    await wait_for_complaint(recorder, told)
    statistics = recorder.statistics
    assert (statistics.written, statistics.refused, statistics.backlog) == (0, 0, len(stored(story.whole())))
    for left in file.parent.glob(f"{file.name}-*"):
        left.unlink()
    file.write_bytes(sound)
    await recorder.flush()
    assert await recorder.close() == 0
    assert (recorder.statistics.refused, recorder.statistics.last_error) == (0, "")
    assert count(sqlite_url, "events") == len(stored(story.whole()))


async def test_a_machine_without_memory_costs_no_event(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    recorder = Recorder(sqlite_url)
    recorder.start()
    await recorder.flush()
    with monkeypatch.context() as patched:
        patched.setattr(recorder_module, "known_events", none_left)
        for item in Story().arrives():
            recorder.emit(item)
        await wait_for_complaint(recorder, "MemoryError")
        assert recorder.statistics.backlog == 3
    assert await recorder.close() == 0
    assert (recorder.statistics.refused, count(sqlite_url, "events")) == (0, 3)


async def test_calls_left_open_by_a_crash_are_closed_at_the_next_start(url: str, queries: Queries) -> None:
    answered, ringing, ended, elsewhere = Story(), Story(), Story(), Story()
    await record(url, *answered.arrives(), *answered.rings(), *answered.is_answered(), *answered.turn(2))
    # a recorder that is gone without `ends` is what a crash leaves; starts in between would close them
    assert queries.list_calls().calls[0].state == LegState.ANSWERED
    recorder = Recorder(url, clock=lambda: at(3600))
    for item in (*ringing.arrives(), *ringing.rings(), *ended.whole()):
        recorder.emit(item)
    recorder.start()
    await recorder.close()
    await record(url, *elsewhere.arrives(), node="another")
    await record(url)

    full = queries.get_call(answered.call_id)
    assert full is not None
    call = full.call
    assert (call.state, call.disposition, call.cause) == ("ended", Disposition.ANSWERED, Cause.NODE_CRASHED)
    assert call.ended_by == EndedBy.SYSTEM
    assert call.ended_at == START + timedelta(seconds=5)  # its last sign of life, not the hour of the restart
    assert call.legs[0].cause == Cause.NODE_CRASHED and call.legs[0].ended_at == call.ended_at
    assert full.events[-1].type == "CallEnded"
    assert full.events[-1].at == START + timedelta(hours=1)
    by_id = {item.id: item for item in queries.list_calls().calls}
    assert by_id[ringing.call_id].disposition == Disposition.FAILED
    assert by_id[ended.call_id].cause == Cause.NORMAL
    assert by_id[elsewhere.call_id].state == LegState.SETUP


async def test_a_reader_sees_what_is_committed_while_the_writer_writes(url: str, queries: Queries) -> None:
    recorder = Recorder(url)
    recorder.start()
    seen = []
    for _ in range(20):
        for item in Story().whole():
            recorder.emit(item)
        await recorder.flush()
        page = queries.list_calls()
        seen.append(len(page.calls))
        assert all(call.state == LegState.ENDED for call in page.calls)
    assert seen == list(range(1, 21))
    await recorder.close()


def test_starting_twice_is_a_mistake(sqlite_url: str) -> None:
    recorder = Recorder(sqlite_url)
    recorder.start()
    with pytest.raises(RuntimeError):
        recorder.start()
    asyncio.run(recorder.close())
