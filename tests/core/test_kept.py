"""A key is made once, as a whole, and for its owner alone."""

import os
import threading
from pathlib import Path

import pytest

from sipagent.core.kept import kept


def test_it_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "api.key"
    assert kept(file, lambda: "first") == "first"
    assert kept(file, lambda: "second") == "first"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["api.key"]


def test_an_empty_file_is_one_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "api.key"
    file.touch()
    assert kept(file, lambda: "new") == "new" == file.read_text().strip()


def test_a_death_while_it_is_written_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "api.key"

    def killed(_descriptor: int) -> None:
        assert not file.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "fsync", killed)
        kept(file, lambda: "half")
    assert kept(file, lambda: "whole") == "whole"


def test_two_at_once_have_the_same(tmp_path: Path) -> None:
    found: list[str] = []
    both = threading.Barrier(4, timeout=10)

    def make(number: int) -> str:
        both.wait()  # all have seen that there is none
        return f"key {number}"

    threads = [
        threading.Thread(target=lambda number=number: found.append(kept(tmp_path / "key", lambda: make(number))))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4 and len(set(found)) == 1
