"""Hours are closed again and again, whatever happens meanwhile."""

import asyncio
from pathlib import Path

import pytest

from sipagent.backend import reports
from sipagent.backend.reports import LiveReports
from sipagent.reports.settings import ReportSettings


async def test_a_round_that_fails_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveReports(f"sqlite:///{tmp_path / 'none.db'}", ReportSettings(), [])
    loop, again, rounds = asyncio.get_running_loop(), asyncio.Event(), 0

    def fails() -> int:
        nonlocal rounds
        rounds += 1
        if rounds > 1:
            loop.call_soon_threadsafe(again.set)
        raise ZeroDivisionError

    monkeypatch.setattr(reports, "CLOSE_EVERY_S", 0.0)
    monkeypatch.setattr(live, "_close_some", fails)
    live.start()
    async with asyncio.timeout(20):
        await again.wait()
    await live.close()
