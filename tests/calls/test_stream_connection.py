"""Where a connection to an application may lead."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from sipagent.calls.streams.connection import Connector, StreamFailed
from sipagent.web.guard import Guard
from tests.web.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as server:
        yield server


async def refusal(url: str, *allow: str) -> StreamFailed:
    connector = Connector(Guard(allow, "[web] allow"), 5.0)
    try:
        with pytest.raises(StreamFailed) as caught:
            await connector.connect(url, {})
    finally:
        await connector.close()
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_handshake_is_not_sent_on(receiver: Receiver, status: int) -> None:
    inside = receiver.url + "/inside"
    receiver.answers["/old"] = lambda _asked: web.Response(status=status, headers={"Location": inside})
    error = await refusal(receiver.url.replace("http://127.0.0.1", "ws://localhost") + "/old", "localhost")
    assert str(error) == f"the application answered {status}" and not error.again
    assert [one.path for one in receiver.asked] == ["/old"]


@pytest.mark.parametrize("host", ["127.0.0.1", "１２７.0.0.1", "127。0。0。1", "[::1]", "127.1"])
@pytest.mark.parametrize("scheme", ["ws", "tcp"])
async def test_addresses_inside_are_refused_however_written(receiver: Receiver, scheme: str, host: str) -> None:
    error = await refusal(receiver.url.replace("http://127.0.0.1", f"{scheme}://{host}"))
    assert "may not be reached" in str(error) and not error.again
    assert not receiver.asked
