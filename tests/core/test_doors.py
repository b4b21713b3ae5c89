"""Doors: who comes in, and how long they are waited for."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sipagent.core import doors
from sipagent.core.errors import ProcessDied


def test_a_new_main_comes_in_and_both_know_each_other(tmp_path: Path):
    folder = tmp_path / ("a" * 120) / "run"  # longer than the address of a socket may be
    door = doors.make_door(folder, "lane-1")
    assert folder.stat().st_mode & 0o777 == 0o700 and (folder / "lane-1").stat().st_mode & 0o077 == 0
    assert doors.admit(door) is None
    met = doors.knock(folder, "lane-1")
    assert met is not None
    main, pid = met
    inside = doors.wait_for_main(door, 1.0)
    assert inside is not None and pid == os.getpid()
    main.sendall(b"hello")
    assert inside.recv(10) == b"hello"
    for each in (main, inside, door):
        each.close()


def test_what_the_dead_have_left_is_taken_away(tmp_path: Path):
    doors.make_door(tmp_path, "media-0").close()
    assert doors.names(tmp_path, "media-") == ["media-0"]
    assert doors.knock(tmp_path, "media-0") is None
    assert doors.names(tmp_path, "media-") == []
    assert doors.names(tmp_path / "missing", "media-") == []


def test_nobody_is_waited_for_longer_than_told(tmp_path: Path):
    with doors.make_door(tmp_path, "zygote", socket.SOCK_SEQPACKET) as door:
        assert doors.wait_for_main(door, 0.05) is None


def test_a_folder_that_takes_no_sockets_is_no_reason_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert doors.try_door(tmp_path / "file", "lane-1") is None
    assert "do not outlive" in capsys.readouterr().err


async def test_a_process_that_is_not_ours_can_be_ended_and_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    adopted = doors.Adopted(child.pid)
    assert adopted.poll() is None
    adopted.kill()
    await adopted.over()
    assert adopted.poll() == doors.UNKNOWN == adopted.wait()
    child.stdin.close()
    child.wait()
    with pytest.raises(ProcessDied):
        doors.Adopted(child.pid)
    assert "not known" in doors.status_text(doors.UNKNOWN)
    assert doors.status_text(-9) == "killed by signal 9"
