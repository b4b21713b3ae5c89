"""Callers talk with an agent whose vendors fail in every way: each call ends, and none falls silent."""

import pytest

from bench.conversations import run

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(180)]


async def test_no_call_without_an_ending_and_no_silence_beyond_the_bound():
    found = await run(calls=4, seconds=20, call_s=20)
    print(f"\n{found}")
    found.check()
    assert sum(found.troubles.values()) > 0
