"""What is appended is read again, in order, whatever becomes of the process, the disk and the file."""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from sipagent.core.errors import SetupError
from sipagent.core.events import Event, PartialTranscript
from sipagent.store import journal as journal_module
from sipagent.store.encoding import event_id
from sipagent.store.journal import Journal
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder

from .story import Story
from .test_recorder import count, stored

SMALL = 4096


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", SMALL)


def opened(folder: Path | None, most_bytes: int = 1 << 20, most_in_memory: int = 10) -> Journal:
    journal = Journal(folder, most_bytes, most_in_memory)
    journal.open()
    return journal


def bodies(*numbers: int) -> list[bytes]:
    return [f"{number:06}".encode() * 10 for number in numbers]


def read(journal: Journal, done: bool = True) -> Iterator[bytes]:
    while (batch := journal.next_batch(7)) is not None:
        yield from batch.bodies
        if done:
            journal.finish(batch)


def leave(journal: Journal) -> None:
    """As a process does that is killed: what is mapped stays in the files."""
    journal._closing = True
    journal._wanted.set()
    assert journal._maker is not None
    journal._maker.join()


def distinct(events: list[Event]) -> int:
    """Facts of the node that several stories tell are one."""
    return len({event_id(item) for item in events if not isinstance(item, PartialTranscript)})


def append_when_there_is_room(journal: Journal, body: bytes) -> None:
    deadline = time.monotonic() + 10
    while not journal._spares and time.monotonic() < deadline:
        time.sleep(0.001)
    assert journal.append(body)


@pytest.mark.usefixtures("small")
def test_records_over_many_segments_are_read_in_order_and_their_files_go(tmp_path: Path) -> None:
    journal, told = opened(tmp_path), bodies(*range(500))
    for body in told:
        append_when_there_is_room(journal, body)
    assert journal.appended == 500 and len(list(tmp_path.iterdir())) > 8
    assert list(read(journal)) == told
    assert journal.finished == 500
    assert journal.close() == (0, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_what_a_process_left_comes_first_at_the_next_start(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for body in bodies(*range(100)):
        append_when_there_is_room(first, body)
    batch = first.next_batch(30)
    assert batch is not None
    first.finish(batch)
    leave(first)
    second = opened(tmp_path)
    assert second.append(b"new")
    assert list(read(second)) == [*bodies(*range(30, 100)), b"new"]
    assert second.close() == (0, 0)


@pytest.mark.usefixtures("small")
def test_what_was_left_is_read_file_by_file_and_one_that_cannot_be_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(tmp_path)
    for body in bodies(*range(200)):
        append_when_there_is_room(first, body)
    leave(first)
    (tmp_path / "000000000000.events").mkdir()
    reopen, read_files = journal_module._reopen, []

    def noted(path: Path) -> journal_module.Segment | None:
        read_files.append(path.name)
        return reopen(path)

    monkeypatch.setattr(journal_module, "_reopen", noted)
    second = opened(tmp_path)
    assert read_files == []  # whoever starts a node does not wait for it
    assert second.append(b"new")
    batch = second.next_batch(7)
    assert batch is not None and batch.bodies == bodies(*range(7))
    assert read_files == ["000000000000.events", "000000000001.events"]
    assert "a file of the journal cannot be read and waits for the next start" in caplog.messages
    assert list(read(second)) == [*bodies(*range(200)), b"new"]
    assert (second.appended, second.finished, second.left) == (1, 1, 0)
    assert second.close() == (0, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["000000000000.events"]


def test_what_is_done_cannot_be_read_any_more(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for body in (b"said in confidence", b"and this, too"):
        assert journal.append(body)

    def in_files() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    batch = journal.next_batch(1)
    assert batch is not None and b"confidence" in in_files()
    journal.finish(batch)
    assert b"confidence" not in in_files() and b"and this" in in_files()
    leave(journal)
    journal._segments[0].memory[32:42] = b"confidence"  # killed before it was taken away
    again = opened(tmp_path)
    assert list(read(again)) == [b"and this, too"]
    assert b"confidence" not in in_files() and b"and this" not in in_files()
    again.close()


def test_what_is_appended_while_a_batch_is_read_is_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, records = opened(tmp_path), journal_module.Segment.records
    assert journal.append(b"one")

    def meanwhile(segment: journal_module.Segment, *where: int) -> Iterator[tuple[int, bytes]]:
        yield from records(segment, *where)
        monkeypatch.undo()
        assert journal.append(b"two")

    monkeypatch.setattr(journal_module.Segment, "records", meanwhile)
    assert list(read(journal)) == [b"one", b"two"]
    assert journal.close() == (0, 0)


def test_a_record_that_was_cut_off_or_damaged_costs_only_itself(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for body in bodies(1, 2, 3):
        assert first.append(body)
    leave(first)
    segment = first._segments[0]
    start = segment.head
    segment.memory[start + 8 : start + 20] = b"half a bodyX"  # its length was not written any more
    second_record = 32 + 8 + 60
    segment.memory[second_record + 10] ^= 1
    second = opened(tmp_path)
    assert list(read(second)) == bodies(1, 3)
    assert second.damaged == 1
    second.close()


def test_a_length_that_cannot_be_ends_the_file(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for body in bodies(1, 2, 3):
        assert first.append(body)
    leave(first)
    first._segments[0].memory[32 + 68 : 32 + 72] = b"\xff\xff\xff\x7f"
    second = opened(tmp_path)
    assert list(read(second)) == bodies(1)
    assert second.damaged == 1
    second.close()


def test_files_that_are_none_of_ours_are_set_aside_and_unfinished_ones_go(tmp_path: Path) -> None:
    (tmp_path / "000000000001.events").write_bytes(b"")
    (tmp_path / "000000000002.events").write_bytes(bytes(4096))
    (tmp_path / "000000000003.events").write_bytes(b"something else" * 10)
    (tmp_path / "notes.txt").touch()
    journal = opened(tmp_path)
    assert list(read(journal)) == []
    journal.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000000000003.damaged", "notes.txt"]


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="the journal .*file/journal cannot be used"):
        opened(tmp_path / "file" / "journal")


@pytest.mark.usefixtures("small")
def test_a_full_disk_leaves_memory_and_then_the_disk_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    room = os.posix_fallocate

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    told = bodies(*range(300))
    kept = [body for body in told if journal.append(body)]
    assert journal.trouble == "" or "No space left" in journal.trouble
    assert kept == told[: len(kept)] and len(kept) > 100 + 10  # what was made beforehand, and ten in memory
    monkeypatch.setattr(os, "posix_fallocate", room)
    append_when_there_is_room(journal, b"room again")
    assert journal._segments[-1].file is not None and journal.trouble == ""
    assert list(read(journal)) == [*kept, b"room again"]
    assert journal.close() == (0, 0)


@pytest.mark.usefixtures("small")
def test_files_take_no_more_than_they_may(tmp_path: Path) -> None:
    journal = opened(tmp_path, most_bytes=6 * SMALL, most_in_memory=0)
    deadline = time.monotonic() + 10
    while "spill_mb" not in journal.trouble and time.monotonic() < deadline:
        if not journal.append(bodies(1)[0]):
            time.sleep(0.001)
    assert "spill_mb" in journal.trouble
    assert len(list(tmp_path.iterdir())) == 6
    assert not journal.append(b"x" * SMALL)  # larger than any segment
    left, lost = journal.close()
    assert left == journal.appended and lost == 0


async def test_what_the_database_did_not_take_by_the_close_is_written_by_the_next_run(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sipagent.store.recorder.CLOSE_LIMIT_S", 0.2)
    folder, stories = tmp_path / "journal", [Story() for _ in range(30)]
    recorder = Recorder(sqlite_url, folder=folder, backlog=0)
    recorder.start()
    await recorder.flush()
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    told = [item for story in stories for item in story.whole()]
    for item in told:
        recorder.emit(item)
    assert await recorder.close() == 0
    assert recorder.statistics.backlog == len(stored(told))
    assert "events wait in the journal for the next start" in caplog.messages
    other.execute("COMMIT")
    other.close()

    after = Recorder(sqlite_url, folder=folder)
    after.start()
    await after.flush()
    assert await after.close() == 0
    assert after.statistics.written == len(stored(told))
    assert count(sqlite_url, "events") == distinct(told)
    queries = Queries(sqlite_url)
    assert {call.cause for call in queries.list_calls().calls} == {"normal"}  # their ends came before the settling
    queries.close()


async def test_a_full_database_delays_and_loses_nothing(sqlite_url: str, tmp_path: Path) -> None:
    pages = [0]  # that the database may have; 0 is no limit

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages[0] or 1 << 30}")

    event.listen(Engine, "checkout", limit)
    try:
        recorder = Recorder(sqlite_url, folder=tmp_path / "journal")
        recorder.start()
        await recorder.flush()
        pages[0] = 1  # as many as it has
        told = [item for _ in range(50) for item in Story().whole()]
        for item in told:
            recorder.emit(item)
        deadline = time.monotonic() + 10
        while "full" not in recorder.statistics.last_error and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert "full" in recorder.statistics.last_error
        pages[0] = 0
        await recorder.flush()
        assert await recorder.close() == 0
    finally:
        event.remove(Engine, "checkout", limit)
    assert count(sqlite_url, "events") == distinct(told)
    assert (recorder.statistics.refused, recorder.statistics.dropped) == (0, 0)


async def test_an_event_of_another_version_costs_only_itself(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, story = tmp_path / "journal", Story()
    writer = opened(folder)
    writer.append(b"\x93\x01\xa7FaxCame\xc4\x01\xc0")
    writer.append(b"no msgpack")
    writer.close()
    recorder = Recorder(sqlite_url, folder=folder)
    recorder.start()
    for item in story.arrives():
        recorder.emit(item)
    assert await recorder.close() == 0
    assert (recorder.statistics.written, recorder.statistics.refused) == (3, 2)
