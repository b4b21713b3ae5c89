"""A writer killed with signal 9, a server that throws its clients out: what was committed stays, once."""

import signal
import subprocess
import sys
import time

import pytest
from sqlalchemy import text

from sipagent.core.events import CallEvent, PartialTranscript
from sipagent.store.engine import make_engine, parse_url, upgrade
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder

from .conftest import Servers
from .story import Story

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
