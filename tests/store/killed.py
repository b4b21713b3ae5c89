"""Run by test_kills: a recorder in a process that is killed with signal 9, again and again.

    python -m tests.store.killed URL FOLDER ROUNDS SEED

Each round is a fork that emits events numbered from `round * ROUND`, one by one or in bursts, until it is killed;
memory that parent and child share says which number `emit` has returned for. In every fifth round somebody else holds
the database's lock. Prints a JSON list: by round, how many events were told.
"""

import asyncio
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

from sqlalchemy import Engine

from sipagent.core import clock
from sipagent.core.events import ProcessStarted
from sipagent.store import journal
from sipagent.store.engine import make_engine
from sipagent.store.recorder import Recorder

ROUND = 1_000_000
COUNT = struct.Struct("<q")
START_LIMIT_S = 20


def told(shared: mmap.mmap) -> int:
    (count,) = COUNT.unpack_from(shared)
    return int(count)


async def emit_for_ever(url: str, folder: Path, first: int, shared: mmap.mmap, burst: int) -> None:
    recorder = Recorder(url, folder=folder, spill_bytes=64 << 20)
    recorder.start()
    for count in range(ROUND):
        recorder.emit(ProcessStarted(at=clock.now(), process="test", pid=first + count))
        COUNT.pack_into(shared, 0, count + 1)
        if count % burst == 0:
            time.sleep(0.001)
    raise AssertionError("was not killed")


def play(url: str, folder: Path, number: int, chance: random.Random, shared: mmap.mmap) -> int:
    """One round; returns how many events were told."""
    COUNT.pack_into(shared, 0, 0)
    burst = chance.choice((1, 5, 50))
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(emit_for_ever(url, folder, number * ROUND, shared, burst))
        finally:
            os._exit(1)
    limit = time.monotonic() + START_LIMIT_S
    while not told(shared) and time.monotonic() < limit:
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    return told(shared)


def locked(engine: Engine) -> str:
    """What keeps every writer out until the transaction ends."""
    return "LOCK TABLE events IN ACCESS EXCLUSIVE MODE" if engine.dialect.name == "postgresql" else "SELECT 1"


def main() -> None:
    url, folder, rounds, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    journal.SEGMENT_BYTES = 32 << 10  # so that kills fall between segments, too
    chance = random.Random(seed)
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    counts = []
    for number in range(rounds):
        if number % 5 != 4:
            counts.append(play(url, folder, number, chance, shared))
            continue
        engine = make_engine(url)  # for this round only: a fork must not share a connection
        with engine.begin() as connection:
            connection.exec_driver_sql(locked(engine))
            counts.append(play(url, folder, number, chance, shared))
        engine.dispose()
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
