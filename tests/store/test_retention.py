"""What is too old goes, and a caller's data when it is asked for; nothing else does."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from sipagent.core.ids import new_id
from sipagent.store.engine import make_engine
from sipagent.store.erasure import ErasureRecord, erase_caller, erasures, number_hash
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder
from sipagent.store.recording_files import RECORDINGS, RecordingFiles
from sipagent.store.resource_models import IdempotencyKey, Recording, WebhookDelivery
from sipagent.store.retention import Retention
from sipagent.store.settings import RetentionSettings
from sipagent.store.writing import StoreWrites

from .story import Story

NOW = datetime.now(UTC)
CALLER, OTHER = "+4930123456", "+4989654321"


async def no_pause(_seconds: float) -> None:
    pass


@pytest.fixture
async def writes(url: str) -> AsyncIterator[StoreWrites]:
    writes = StoreWrites(url)
    yield writes
    await writes.close()


async def record(url: str, *stories: Story, node: str = "") -> None:
    recorder = Recorder(url, node=node)
    recorder.start()
    for story in stories:
        for event in story.whole():
            recorder.emit(event)
    assert await recorder.close() == 0 and recorder.statistics.refused == 0


def add_belongings(session: Session, story: Story, folder: Path, number: str = CALLER) -> None:
    """A recording with its file, a webhook, a kept answer."""
    file = f"{story.call_id}.wav"
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"RIFF")
    row = {"id": new_id("rec"), "call_id": story.call_id, "state": "done", "started_at": story.at(1).wall, "rate": 8000}
    session.execute(insert(Recording).values(**row, channels=2, file=file, detail=""))
    delivery = {"id": new_id("whd"), "event_id": "evt_1", "event_type": "call.ended", "call_id": story.call_id}
    sent = {"url": "https://a.example", "payload": {"from": number}, "state": "done", "attempts": 1, "last_error": ""}
    session.execute(insert(WebhookDelivery).values(**delivery, **sent, created_at=NOW))
    kept = {"fingerprint": "f", "status": 200, "at": NOW}
    for scope, body in (("s", f'{{"to": "{number}"}}'), (f"key_1 /calls/{story.call_id}/gather", "{}")):
        session.execute(insert(IdempotencyKey).values(scope=scope, key=story.call_id, body=body, **kept))


def everything(url: str) -> str:
    """The whole record as text."""
    engine = make_engine(url, read_only=True)
    tables = ("calls", "legs", "turns", "events", "transfers", "tool_calls", "sip_messages", "webhook_deliveries")
    with engine.connect() as connection:
        found = [
            str(tuple(row))
            for table in (*tables, "idempotency_keys", "erasures", "recordings", "audit")
            for row in connection.execute(text(f"SELECT * FROM {table}"))
        ]
    engine.dispose()
    return "\n".join(found)


def count(url: str, table: str) -> int:
    engine = make_engine(url, read_only=True)
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
    engine.dispose()
    return int(found)


async def test_old_calls_go_with_all_that_is_theirs(url: str, writes: StoreWrites, tmp_path: Path) -> None:
    old, young = Story(NOW - timedelta(days=40)), Story(NOW - timedelta(days=20))
    await record(url, old, young)
    folder = tmp_path / "recordings"
    for story in (old, young):
        await writes.run(lambda session, story=story: add_belongings(session, story, folder))  # type: ignore[misc]
    retention = Retention(
        RetentionSettings(calls_days=30, webhook_deliveries_days=0), writes, RecordingFiles(folder, "")
    )
    gone = await retention.sweep(NOW, no_pause)
    assert gone == {"calls": 1}
    assert [file.name for file in folder.iterdir()] == [f"{young.call_id}.wav"]
    await retention.sweep(NOW + timedelta(hours=25), no_pause)
    assert old.call_id not in everything(url)
    queries = Queries(url)
    assert [call.id for call in queries.list_calls().calls] == [young.call_id]
    queries.close()
    assert await retention.sweep(NOW, no_pause) == {}


async def test_the_longest_retention_keeps_everything(url: str, writes: StoreWrites, tmp_path: Path) -> None:
    await record(url, Story())
    longest = 36_500  # days: before 1970, where times of ids begin
    names = ("calls", "turns", "tool_calls", "sip_messages", "quality", "events", "recordings", "webhook_deliveries")
    settings = msgspec.convert({f"{name}_days": longest for name in names}, RetentionSettings)
    assert await Retention(settings, writes, RecordingFiles(tmp_path, "")).sweep(NOW, no_pause) == {}


async def test_what_goes_wrong_with_one_table_costs_no_other(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writes, old = StoreWrites(sqlite_url), Story(NOW - timedelta(days=40))
    await record(sqlite_url, old)

    def broken(*_: object) -> int:
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr("sipagent.store.retention._old_recordings", broken)
    settings = RetentionSettings(recordings_days=30, calls_days=30, webhook_deliveries_days=0)
    assert await Retention(settings, writes, RecordingFiles(tmp_path, "")).sweep(NOW, no_pause) == {"calls": 1}
    assert "old rows could not be deleted" in caplog.messages
    await writes.close()


async def test_calls_that_are_up_and_calls_recorded_elsewhere_stay(
    url: str, writes: StoreWrites, tmp_path: Path
) -> None:
    long_ago = NOW - timedelta(days=400)
    up, elsewhere = Story(long_ago), Story(long_ago)
    recorder = Recorder(url)
    recorder.start()
    for event in up.arrives():
        recorder.emit(event)
    await recorder.close()
    await record(url, elsewhere, node="another")
    folder = tmp_path / "recordings"
    await writes.run(lambda session: add_belongings(session, elsewhere, folder))
    retention = Retention(
        RetentionSettings(calls_days=30, recordings_days=30, webhook_deliveries_days=0),
        writes,
        RecordingFiles(folder, ""),
    )
    assert await retention.sweep(NOW, no_pause) == {}
    assert count(url, "calls") == 2 and len(list(folder.iterdir())) == 1


async def test_each_table_has_an_age_of_its_own(url: str, writes: StoreWrites, tmp_path: Path) -> None:
    story = Story()  # of months ago; ids of turns and calls are of now
    await record(url, story)
    folder = tmp_path / "recordings"
    await writes.run(lambda session: add_belongings(session, story, folder))
    files = RecordingFiles(folder, "")
    later = NOW + timedelta(days=10)
    settings = RetentionSettings(
        turns_days=5,
        tool_calls_days=5,
        sip_messages_days=5,
        quality_days=5,
        events_days=5,
        recordings_days=5,
        webhook_deliveries_days=5,
    )
    tables = ("turns", "tool_calls", "sip_messages", "quality", "events", "webhook_deliveries")
    before = {table: count(url, table) for table in tables}
    assert all(before.values())
    gone = await Retention(settings, writes, files).sweep(later, no_pause)
    assert gone == before | {"recordings": count(url, "recordings"), "idempotency_keys": 2}
    assert list(folder.iterdir()) == []
    states = await writes.run(lambda session: session.execute(select(RECORDINGS.c.state, RECORDINGS.c.detail)).all())
    assert {tuple(row) for row in states} == {("erased", "by age")}
    assert count(url, "calls") == count(url, "legs") == 1


async def test_a_caller_is_erased_and_the_proof_stays(url: str, writes: StoreWrites, tmp_path: Path) -> None:
    mine = Story(from_number=CALLER)
    again = Story(from_number="004930123456")  # written in another way
    dialled = Story(from_number=OTHER, to_number=CALLER)
    other = Story(from_number=OTHER)
    await record(url, mine, again, dialled, other)
    folder = tmp_path / "recordings"
    await writes.run(lambda session: add_belongings(session, mine, folder))
    await writes.run(lambda session: add_belongings(session, other, folder, OTHER))
    files = RecordingFiles(folder, "")

    proof = await writes.run(lambda session: erase_caller(session, CALLER, files, "key_1", NOW))
    left = everything(url)
    assert "30123456" not in left
    assert left.count(OTHER) >= 4  # another caller's data stays as it was
    assert [file.name for file in folder.iterdir()] == [f"{other.call_id}.wav"]
    assert proof.counts["calls"] == 3 and proof.counts["files"] == 1
    assert proof.counts["turns"] == 6 and proof.counts["idempotency_keys"] == 2
    assert count(url, "idempotency_keys") == 2
    assert proof.number_hash == number_hash(proof.id, "0049 30 123456") and "calls_up" not in proof.counts

    queries = Queries(url)
    full = queries.get_call(mine.call_id)
    assert full is not None
    assert (full.call.from_number, full.call.to_number) == ("erased", "100")
    assert full.call.disposition == "answered" and full.turns[1].total_ms == 500.0  # reports go on
    assert {turn.caller_text + turn.agent_text + turn.heard_text for turn in full.turns} == {""}
    assert full.events == [] and queries.sip_messages(mine.call_id) == []
    untouched = queries.get_call(other.call_id)
    assert untouched is not None and untouched.turns[1].caller_text == "when do you open"
    proofs: list[ErasureRecord] = queries.ask(lambda session: erasures(session, 10))
    assert proofs == [proof]
    assert queries.ask(lambda session: erasures(session, 10, after=proof.id)) == []
    queries.close()

    second = await writes.run(lambda session: erase_caller(session, CALLER, files, "key_1", NOW))
    assert second.counts == {}


async def test_calls_that_are_up_are_told(url: str, writes: StoreWrites, tmp_path: Path) -> None:
    story = Story(from_number=CALLER)
    recorder = Recorder(url)
    recorder.start()
    for event in story.arrives():
        recorder.emit(event)
    await recorder.close()
    proof = await writes.run(lambda session: erase_caller(session, CALLER, RecordingFiles(tmp_path, ""), "x", NOW))
    assert proof.counts == {"calls_up": 1}
    assert CALLER in everything(url)


def test_files_outside_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other.wav").touch()
    files = RecordingFiles(tmp_path / "recordings", "")
    assert not files.erase("../other.wav") and not files.erase("") and not files.erase("none.wav")
    assert (tmp_path / "other.wav").exists()
