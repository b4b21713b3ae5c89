"""A newer version of the program starts while processes of an older one wait for a main."""

import asyncio
import socket
from pathlib import Path

import pytest

from sipagent import predecessor
from sipagent.core import doors
from sipagent.core.program import fingerprint
from sipagent.media import protocol


async def left_alone(run: Path) -> bytes:
    """A media process behind its door; what it is told."""
    door = doors.make_door(run, "media-0")
    comer = await asyncio.to_thread(doors.wait_for_main, door, 20)
    assert comer is not None
    with comer, door:
        comer.settimeout(20)
        told = await asyncio.to_thread(comer.recv, 100)
        doors.take_away(run, "media-0")
    return told


@pytest.mark.parametrize("known", [None, "of an older program"])
async def test_what_another_program_has_left_is_ended(tmp_path: Path, known: str | None):
    if known is not None:
        (tmp_path / predecessor.PROGRAM).write_text(known)
    left = asyncio.create_task(left_alone(tmp_path / "run"))
    while not doors.names(tmp_path / "run", ""):
        await asyncio.sleep(0.01)
    assert await predecessor.part_with_another(tmp_path)
    assert (await left)[4:] == protocol.encoder.encode(protocol.Stop())
    assert doors.names(tmp_path / "run", "") == []
    assert (tmp_path / predecessor.PROGRAM).read_text() == fingerprint()
    assert not await predecessor.part_with_another(tmp_path), "there is nothing any more"


async def test_what_this_program_has_left_is_left_alone(tmp_path: Path):
    (tmp_path / predecessor.PROGRAM).write_text(fingerprint())
    with doors.make_door(tmp_path / "run", "media-0"):
        assert not await predecessor.part_with_another(tmp_path)
        assert doors.names(tmp_path / "run", "") == ["media-0"]


async def test_who_does_not_leave_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(predecessor, "PARTING_S", 0.1)
    with doors.make_door(tmp_path / "run", "lane-1", socket.SOCK_STREAM):
        assert await predecessor.part_with_another(tmp_path)
        assert doors.names(tmp_path / "run", "") == []
