"""A writer killed with signal 9, a server that throws its clients out: what was committed stays, once."""

import asyncio
import logging
import signal
import subprocess
import sys
import time

import pytest
from sqlalchemy import text

from sipagent.core.events import CallEvent, Event, PartialTranscript
from sipagent.core.states import LegState, RegistrationState
from sipagent.store import recorder as recorder_module
from sipagent.store.engine import make_engine, parse_url, upgrade
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder

from .conftest import Servers
from .story import Story, registration

WRITER = """
import asyncio, sys
from sipagent.core import clock
from sipagent.core.events import ProcessStarted
from sipagent.store.recorder import Recorder

async def main():
    recorder = Recorder(sys.argv[1])
    recorder.start()
    number = 0
    while True:
        for _ in range(37):
            recorder.emit(ProcessStarted(at=clock.now(), process="test", pid=number))
            number += 1
        await recorder.flush()
        print(number, flush=True)

asyncio.run(main())
"""


def numbers(url: str) -> list[int]:
    column = "json_extract(data, '$.pid')" if url.startswith("sqlite") else "(data->>'pid')::int"
    engine = make_engine(url, read_only=True)
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT {column} FROM events ORDER BY seq")).scalars().all()
    engine.dispose()
    return [int(number) for number in found]


def test_a_killed_writer_leaves_a_prefix_and_a_sound_database(url: str) -> None:
    for delay in (0.05, 0.2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()  # it runs
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        committed = numbers(url)
        told = int(rest[-1]) if rest else 37
        assert committed == list(range(len(committed)))
        assert len(committed) >= told  # what flush() promised is there
        engine = make_engine(url)
        with engine.begin() as connection:
            if parse_url(url).get_backend_name() == "sqlite":
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            connection.exec_driver_sql("DELETE FROM events")
        engine.dispose()


@pytest.mark.peer
async def test_a_server_that_drops_its_clients_gets_every_event_once(servers: Servers, postgres_url: str) -> None:
    recorder = Recorder(postgres_url)
    recorder.start()
    stories = [Story() for _ in range(60)]
    for index, story in enumerate(stories):
        for item in story.whole():
            recorder.emit(item)
        if index % 10 == 5:
            servers.postgres.disconnect_all(postgres_url.partition("@/")[2].partition("?")[0])
        if index % 10 == 8:
            await recorder.flush()
    assert await recorder.close() == 0
    queries = Queries(postgres_url)
    for story in stories:
        full = queries.get_call(story.call_id)
        assert full is not None and full.call.state == "ended"
        told = [
            item for item in story.whole() if isinstance(item, CallEvent) and not isinstance(item, PartialTranscript)
        ]
        assert len(full.events) == len(told)
    queries.close()
    assert recorder.statistics.refused == 0


@pytest.mark.peer
async def test_a_server_that_is_away_at_the_start_is_waited_for(servers: Servers) -> None:
    url = servers.postgres.url("not_yet")
    recorder = Recorder(url)
    recorder.start()
    for item in Story().whole():
        recorder.emit(item)
    deadline = time.monotonic() + 10
    while not recorder.statistics.last_error and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "does not exist" in recorder.statistics.last_error
    servers.postgres.create("not_yet")
    upgrade(url)
    await recorder.flush()
    assert recorder.statistics.written > 20
    assert await recorder.close() == 0
    servers.postgres.drop("not_yet")


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


async def complaint(recorder: Recorder, words: str) -> None:
    deadline = time.monotonic() + 10
    while words not in recorder.statistics.last_error and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert words in recorder.statistics.last_error


@pytest.mark.peer
@pytest.mark.parametrize("started", [False, True])
async def test_a_switchover_is_waited_out(servers: Servers, postgres_url: str, started: bool) -> None:
    database, story = name_of(postgres_url), Story()
    recorder = Recorder(postgres_url)
    if started:
        recorder.start()
        await recorder.flush()
    servers.postgres.admin(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    servers.postgres.disconnect_all(database)
    if not started:
        recorder.start()
    for item in story.whole():
        recorder.emit(item)
    await complaint(recorder, "25006")
    # our session goes on being read-only, as the one with a former primary would; only a new one can write
    servers.postgres.admin(f'ALTER DATABASE "{database}" SET default_transaction_read_only = off')
    await recorder.flush()
    assert await recorder.close() == 0
    assert (recorder.statistics.refused, recorder.statistics.last_error) == (0, "")
    queries = Queries(postgres_url)
    full = queries.get_call(story.call_id)
    assert full is not None and full.call.state == LegState.ENDED
    queries.close()


@pytest.mark.peer
async def test_missing_grants_are_waited_for(servers: Servers, postgres_url: str) -> None:
    database, story = name_of(postgres_url), Story()
    servers.postgres.admin("CREATE ROLE poor LOGIN")
    recorder = Recorder(postgres_url.replace("sipagent@", "poor@"))
    recorder.start()
    await complaint(recorder, "42501")
    servers.postgres.admin("GRANT ALL ON ALL TABLES IN SCHEMA public TO poor", database)
    recorder.emit(registration(0, RegistrationState.REGISTERED))
    await recorder.flush()
    assert recorder.statistics.last_error == ""
    servers.postgres.admin("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM poor", database)
    for item in story.whole():
        recorder.emit(item)
    await complaint(recorder, "42501")
    servers.postgres.admin("GRANT ALL ON ALL TABLES IN SCHEMA public TO poor", database)
    await recorder.flush()
    assert await recorder.close() == 0
    assert recorder.statistics.refused == 0
    servers.postgres.admin("DROP OWNED BY poor", database)
    servers.postgres.admin("DROP ROLE poor")


@pytest.mark.peer
async def test_two_nodes_of_one_name_do_not_close_each_others_calls(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "CLAIM_LIMIT_S", 0.3)
    up, later, elsewhere = Story(), Story(), Story()
    queries = Queries(postgres_url)

    async def starts(node: str, *events: Event) -> Recorder:
        recorder = Recorder(postgres_url, node=node)
        recorder.start()
        for item in events:
            recorder.emit(item)
        await recorder.flush()
        return recorder

    def states() -> dict[str, str]:
        return {call.id: call.state for call in queries.list_calls().calls}

    def errors() -> list[str]:
        return [line.message for line in caplog.records if line.levelno >= logging.ERROR]

    first = await starts("", *up.arrives(), registration(0, RegistrationState.REGISTERED))
    other = await starts("another", *elsewhere.arrives())
    assert errors() == []
    second = await starts("", *later.arrives())
    for item in later.rings():
        second.emit(item)
    await second.flush()
    assert errors() == ["another node of this name writes to this record; set [node] name"]
    assert states() == {up.call_id: "setup", later.call_id: "ringing", elsewhere.call_id: "setup"}
    assert len(queries.registrations()) == 1
    for item in up.is_answered():
        first.emit(item)
    await first.flush()
    assert states()[up.call_id] == "answered"
    for recorder in (first, second, other):
        assert await recorder.close() == 0
        assert recorder.statistics.refused == 0

    again = await starts("")
    assert states() == {up.call_id: "ended", later.call_id: "ended", elsewhere.call_id: "setup"}
    assert len(errors()) == 1
    await again.close()
    queries.close()


@pytest.mark.peer
async def test_the_name_is_taken_again_after_a_lost_connection(
    servers: Servers, postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "CLAIM_LIMIT_S", 0.3)
    up = Story()
    first, second = Recorder(postgres_url), Recorder(postgres_url)
    first.start()
    await first.flush()
    servers.postgres.disconnect_all(name_of(postgres_url))
    for item in up.arrives():
        first.emit(item)
    await first.flush()
    second.start()
    await second.flush()
    assert "another node of this name writes to this record; set [node] name" in caplog.messages
    for recorder in (first, second):
        assert await recorder.close() == 0
