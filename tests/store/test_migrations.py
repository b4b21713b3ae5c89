"""The schema goes up, down and up again, and is what the models say."""

import asyncio
import sqlite3
import stat
import traceback
from pathlib import Path

import alembic.command
import pytest
from sqlalchemy import inspect

import sipagent.store.resource_models  # noqa: F401 - its tables
from sipagent.core.errors import ConfigError, SetupError
from sipagent.core.resources import shipped_folder
from sipagent.store.engine import alembic_config, current, default_url, downgrade, make_engine, upgrade
from sipagent.store.models import Base
from sipagent.store.queries import Queries
from sipagent.store.recorder import Recorder
from sipagent.store.records import RecordUnavailable

from .story import Story

TABLES = set(Base.metadata.tables)
NEWEST = "0006"


def tables(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def rows(url: str, question: str) -> list[tuple[object, ...]]:
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(question)]
    finally:
        engine.dispose()


def test_up_down_and_up_again(empty_url: str) -> None:
    assert current(empty_url) is None
    upgrade(empty_url)
    assert current(empty_url) == NEWEST
    assert tables(empty_url) == TABLES
    downgrade(empty_url, "base")
    assert current(empty_url) is None
    assert tables(empty_url) == set()
    upgrade(empty_url)
    assert tables(empty_url) == TABLES


def test_transfers_of_before_are_kept_as_steps(empty_url: str) -> None:
    upgrade(empty_url, "0002")
    engine = make_engine(empty_url)
    call = "INSERT INTO calls (id, node, direction, from_number, to_number, trunk, state, setup_at, properties) VALUES"
    with engine.begin() as connection:
        connection.exec_driver_sql(call + " ('c', '', 'inbound', '', '', '', 'ended', '2026-01-01 10:00:00', '{}')")
        for name, state in (("one", "completed"), ("two", "requested")):
            connection.exec_driver_sql(
                "INSERT INTO transfers (id, call_id, leg_id, kind, target, state, sip_status, requested_at, changed_at)"
                f" VALUES ('{name}', 'c', 'l', 'blind', 't', '{state}', 200, '2026-01-01 10:00:00',"
                " '2026-01-01 10:00:07')"
            )
    engine.dispose()
    upgrade(empty_url)
    steps = rows(empty_url, "SELECT id, step, state FROM transfers ORDER BY id, step")
    assert steps == [("one", 0, "requested"), ("one", 1, "completed"), ("two", 0, "requested")]
    downgrade(empty_url, "0002")
    back = rows(empty_url, "SELECT id, state, requested_at < changed_at FROM transfers ORDER BY id")
    assert [(name, state, bool(later)) for name, state, later in back] == [
        ("one", "completed", True),
        ("two", "requested", False),
    ]


def test_turns_of_before_keep_their_latency_and_its_sum(empty_url: str) -> None:
    upgrade(empty_url, "0003")
    engine = make_engine(empty_url)
    call = "INSERT INTO calls (id, node, direction, from_number, to_number, trunk, state, setup_at, properties) VALUES"
    turn = (
        "INSERT INTO turns (id, call_id, turn_index, caller_text, agent_text, heard_text, intent, interrupted,"
        " started_at, ended_at, llm_ms, playout_ms, total_ms) VALUES"
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(call + " ('c', '', 'inbound', '', '', '', 'ended', '2026-01-01 10:00:00', '{}')")
        for name, parts in (("one", "30.0, 12.0, 42.0"), ("two", "NULL, NULL, NULL")):
            connection.exec_driver_sql(
                turn + f" ('{name}', 'c', 0, '', 'a', 'a', '', false, '2026-01-01 10:00:00', '2026-01-01 10:00:01',"
                f" {parts})"
            )
    engine.dispose()
    upgrade(empty_url)
    latencies = "SELECT llm_ms, {} playout_ms, {} total_ms FROM turns ORDER BY id"
    now = rows(empty_url, latencies.format("clause_ms,", "pacing_ms,"))
    assert now == [(30.0, 0.0, 12.0, 0.0, 42.0), (None,) * 5]
    assert [details for (details,) in rows(empty_url, "SELECT CAST(details AS TEXT) FROM turns")] == ["{}", "{}"]
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE turns SET clause_ms = 5, pacing_ms = 7, total_ms = 54 WHERE id = 'one'")
    engine.dispose()
    downgrade(empty_url, "0003")
    assert rows(empty_url, latencies.format("", "")) == [(35.0, 19.0, 54.0), (None,) * 3]


def test_calls_of_before_keep_their_legs_both_ways(empty_url: str) -> None:
    upgrade(empty_url, "0005")
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO calls (id, node, direction, from_number, to_number, trunk, state, setup_at, properties)"
            " VALUES ('c', '', 'inbound', '', '', '', 'ended', '2026-01-01 10:00:00', '{}')"
        )
        connection.exec_driver_sql(
            "INSERT INTO legs (id, call_id, direction, state, from_number, to_number, sip_call_id, remote_address,"
            " setup_at) VALUES ('l', 'c', 'inbound', 'ended', '', '', '', '', '2026-01-01 10:00:00')"
        )
    engine.dispose()
    upgrade(empty_url)
    [(account, recorded)] = rows(empty_url, "SELECT account_id, recorded FROM calls")
    assert (account, bool(recorded)) == ("default", False)
    downgrade(empty_url, "0005")
    assert rows(empty_url, "SELECT call_id FROM legs") == [("c",)]


def test_the_newest_revision_is_what_the_models_say(url: str) -> None:
    with alembic_config(url) as config:
        alembic.command.check(config)


def test_upgrading_what_is_new_already_changes_nothing(url: str) -> None:
    upgrade(url)
    assert current(url) == NEWEST


def test_a_new_sqlite_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "50% of it.db"
    upgrade(f"sqlite:///{file}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_asking_for_the_revision_makes_no_file(tmp_path: Path) -> None:
    assert current(f"sqlite:///{tmp_path / 'none.db'}") is None
    assert not (tmp_path / "none.db").exists()


def test_sqlite_keeps_a_write_ahead_log_and_foreign_keys(sqlite_url: str) -> None:
    engine = make_engine(sqlite_url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000
    engine.dispose()


@pytest.mark.parametrize("bad", ["", "no url", "sqlite://", "sqlite:///:memory:", "mysql://host/db"])
def test_a_url_we_cannot_use_is_a_configuration_error(bad: str) -> None:
    with pytest.raises(ConfigError):
        make_engine(bad)


@pytest.mark.parametrize("bad", ["postgresql://u:p@ss:w0rd@host/db", "postgresql:/u:w0rd@host/db"])
def test_a_password_that_needs_escapes_is_not_quoted(bad: str) -> None:
    with pytest.raises(ConfigError, match="%40") as refused:
        make_engine(bad)
    shown = "".join(traceback.format_exception(refused.value))
    assert "w0rd" not in str(refused.value) and refused.value.__suppress_context__
    assert "w0rd" not in shown.rpartition("ConfigError")[2]


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="file/under.db"):
        upgrade(f"sqlite:///{tmp_path / 'file' / 'under.db'}")


def test_a_database_somebody_else_uses_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sipagent.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE calls (mine TEXT)")
    connection.close()
    with pytest.raises(SetupError, match="already exists"):
        upgrade(f"sqlite:///{file}")
    assert current(f"sqlite:///{file}") is None


def test_a_database_that_is_away_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="the database cannot be used: .*connection.*failed"):
        upgrade(f"postgresql://sipagent@/none?host={tmp_path}")


def test_a_revision_that_does_not_exist_is_said_in_a_sentence(sqlite_url: str) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        downgrade(sqlite_url, "nonsense")


async def test_reading_and_writing_make_no_file(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    queries = Queries(url)
    with pytest.raises(RecordUnavailable, match="unable to open"):
        queries.list_calls()
    queries.close()
    recorder = Recorder(url)
    recorder.start()
    recorder.emit(Story().arrives()[0])
    while not recorder.statistics.last_error:
        await asyncio.sleep(0.01)
    assert list(tmp_path.iterdir()) == []
    upgrade(url)
    assert await recorder.close() == 0
    assert current(url) == NEWEST


def test_odd_folder_names_are_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20c#d?e&f=g"
    upgrade(default_url(folder))
    assert [file.name for file in folder.iterdir()] == ["sipagent.db"]
    assert current(default_url(folder)) == NEWEST


def test_the_checkout_has_its_migrations() -> None:
    assert (shipped_folder("migrations") / "versions").is_dir()
