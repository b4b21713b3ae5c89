"""200 kills with signal 9 at random moments: what was told is in the record, once and in order."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sipagent.store.recorder import Recorder

from .killed import ROUND
from .test_crash import numbers

ROUNDS = 200
SEED = 6


@pytest.mark.timeout(400)
async def test_what_a_killed_process_told_is_in_the_record_once_and_in_order(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    command = [sys.executable, "-m", "tests.store.killed", url, str(folder), str(ROUNDS), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=360, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    # On a busy machine a process may die before it has told anything.
    assert len(counts) == ROUNDS and counts.count(0) < ROUNDS // 10 and sum(counts) > 10 * ROUNDS

    after = Recorder(url, folder=folder)
    after.start()
    await after.flush()
    assert await after.close() == 0
    assert (after.statistics.refused, after.statistics.dropped) == (0, 0)
    assert list(folder.iterdir()) == []

    recorded = numbers(url)  # in the order of the record
    assert [number for number, times in Counter(recorded).items() if times > 1] == []  # nothing twice
    assert recorded == sorted(recorded)
    by_round = Counter(number // ROUND for number in recorded)
    for each, told in enumerate(counts):
        # nothing lost; the kill may have fallen between the journal and the counter
        assert told <= by_round[each] <= told + 1, each
        assert recorded.count(each * ROUND) == 1 or not told
