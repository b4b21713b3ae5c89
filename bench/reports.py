"""How long a month's report takes over a million calls.

`python -m bench.reports sqlite|postgresql [--calls 1000000]` makes the calls of March 2026 (three turns each,
one leg, its quality), closes their hours as a node does, and asks for reports. SQLite's file stays in `--folder`,
where it is not made again.
"""

import argparse
import random
import resource
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sipagent.reports.closing import close_hours
from sipagent.reports.reading import Reports
from sipagent.reports.report import Question
from sipagent.reports.settings import PriceSettings
from sipagent.store.engine import current, upgrade
from sipagent.store.report_queries import HourWriter, ReportQueries
from tests.store.postgres import PostgresServer

BEGIN, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
NOW = datetime(2026, 4, 2, tzinfo=UTC)
AT_ONCE = 5_000
PRICES = [PriceSettings(of="minute", price=0.01, first_s=60), PriceSettings(of="tts_character", price=15, per=1e6)]
OUTCOMES = [  # share, disposition, cause, by, SIP status, answered
    (70, "answered", "normal", "caller", 200, True),
    (12, "answered", "normal", "agent", 200, True),
    (6, "no_answer", "no_answer", "callee", 480, False),
    (5, "busy", "busy", "callee", 486, False),
    (4, "cancelled", "cancelled", "caller", 487, False),
    (3, "failed", "refused", "callee", 503, False),
]
CALLS = (
    "id node direction from_number to_number trunk dialplan route agent state setup_at ringing_at answered_at ended_at "
    "disposition cause ended_by sip_status detail properties account_id recorded"
).split()
LEGS = (
    "id call_id direction state from_number to_number sip_call_id remote_address role trunk codec setup_at ringing_at "
    "answered_at ended_at disposition cause ended_by sip_status detail"
).split()
TURNS = (
    "id call_id turn_index caller_text agent_text heard_text intent confidence interrupted started_at agent_started_at "
    "ended_at total_ms details"
).split()
QUALITY = "leg_id at final call_id packets lost lost_percent discarded concealed_ms mos_lq mos_cq".split()
TABLES = {"calls": CALLS, "legs": LEGS, "turns": TURNS, "quality": QUALITY}
SAID = "I would like to move my appointment to Friday afternoon, please."
ANSWERED = "Of course. On Friday there is room at three and at half past four. Which do you like better?"


def made(count: int) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """The rows of so many calls, some thousand at a time."""
    chance = random.Random(6)
    outcomes = [outcome for outcome in OUTCOMES for _ in range(outcome[0])]
    spread = (END - BEGIN) / count
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
    for n in range(count):
        _, disposition, cause, by, sip, answered = chance.choice(outcomes)
        inbound = chance.random() < 0.7
        setup = BEGIN + n * spread
        ringing = setup + timedelta(seconds=chance.uniform(0.2, 3))
        answer = ringing + timedelta(seconds=chance.uniform(0.1, 12)) if answered else None
        ended = (answer or ringing) + timedelta(seconds=min(3000, chance.expovariate(1 / 150) + 1))
        theirs, ours = f"+49301{chance.randrange(10**7):07}", f"+4930555{chance.randrange(40):02}"
        numbers = (theirs, ours) if inbound else (ours, theirs)
        call_id, leg_id, trunk = f"call_{n:026}", f"leg_{n:026}", f"trunk-{chance.randrange(6)}"
        direction = "inbound" if inbound else "outbound"
        agent = f"agent-{chance.randrange(5)}"
        end = (disposition, cause, by, sip, "")
        instants = (setup, ringing, answer, ended)
        rows["calls"].append(
            (
                call_id,
                "a",
                direction,
                *numbers,
                trunk,
                "desk",
                "day",
                agent,
                "ended",
                *instants,
                *end,
                "{}",
                "default",
                False,
            )
        )
        role = "caller" if inbound else "callee"
        address = "192.0.2.1:5060"
        rows["legs"].append(
            (leg_id, call_id, direction, "ended", *numbers, leg_id, address, role, trunk, "PCMU", *instants, *end)
        )
        if answer is None:
            continue
        mos = chance.uniform(3.2, 4.4)
        rows["quality"].append((leg_id, ended, True, call_id, 5000, 3, 0.06, 0, 60, mos, mos - 0.1))
        for turn in range(3):
            at = answer + timedelta(seconds=5 * turn)
            ms = chance.lognormvariate(6.4, 0.35)
            texts = (SAID, ANSWERED, ANSWERED, "move")
            rows["turns"].append(
                (
                    f"turn_{n:020}{turn}",
                    call_id,
                    turn,
                    *texts,
                    0.9,
                    False,
                    at,
                    at,
                    at,
                    ms,
                    '{"tokens": {"prompt": 400, "answer": 30}}',
                )
            )
        if len(rows["calls"]) >= AT_ONCE:
            yield rows
            rows = {name: [] for name in TABLES}
    yield rows


def fill_sqlite(url: str, count: int) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;")
    sqlite3.register_adapter(datetime, lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f"))
    for rows in made(count):
        for name, columns in TABLES.items():
            places = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({places})", rows[name])
    connection.commit()
    connection.close()


def fill_postgresql(url: str, count: int) -> None:
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for rows in made(count):
            for name, columns in TABLES.items():
                with cursor.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
                    for row in rows[name]:
                        copy.write_row(row)
        connection.commit()
        connection.autocommit = True
        cursor.execute("ANALYZE")


def measure(url: str, repeats: int) -> None:
    queries = ReportQueries(url)
    reports = Reports(queries, PRICES, "EUR")
    month = Question(begin=BEGIN, end=END, by="day", zone="Europe/Berlin")
    questions = {
        "a month by day": [month],
        "by hour": [Question(begin=BEGIN, end=END, by="hour", zone="Europe/Berlin")],
        "by trunk": [Question(begin=BEGIN, end=END, by="trunk")],
        "by number, of one agent": [Question(begin=BEGIN, end=END, by="number", agent="agent-2")],
        "the HTML page's six": [
            Question(begin=BEGIN, end=END, by=by) for by in ("day", "trunk", "number", "agent", "cause", "q850")
        ],
    }
    for name, asked in questions.items():
        took = []
        for _ in range(repeats):
            before = time.perf_counter()
            found = reports.reports(asked, NOW)
            took.append(time.perf_counter() - before)
        print(f"| {name} | {found[0].total.calls} | {min(took):.2f} s | {max(took):.2f} s |")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", choices=["sqlite", "postgresql"])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("bench-reports"))
    given = parser.parse_args()
    server = PostgresServer() if given.database == "postgresql" else None
    try:
        given.folder.mkdir(exist_ok=True)
        url = server.create("bench") if server is not None else f"sqlite:///{given.folder.resolve() / 'calls.db'}"
        if current(url) is None:
            upgrade(url)
            before = time.perf_counter()
            (fill_postgresql if server is not None else fill_sqlite)(url, given.calls)
            print(f"{given.calls} calls made in {time.perf_counter() - before:.0f} s", flush=True)
        before = time.perf_counter()
        queries, writer = ReportQueries(url), HourWriter(url)
        hours = close_hours(queries, writer, PRICES, "EUR", NOW, most=10_000)
        print(f"{hours} hours closed in {time.perf_counter() - before:.0f} s", flush=True)
        queries.close()
        writer.close()
        measure(url, given.repeats)
    finally:
        if server is not None:
            server.close()


if __name__ == "__main__":
    main()
