from collections.abc import AsyncIterator

import pytest

from tests.sip.agent import Agent


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent() as agent:
        yield agent
