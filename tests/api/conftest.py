from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sipagent.api.keys import new_key
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.core.events import EventHub
from sipagent.store.engine import upgrade
from sipagent.store.queries import StoreReads
from sipagent.store.recorder import Recorder

from .node import Node

KEY, KEY_HASH = new_key()
OTHER_KEY, OTHER_HASH = new_key()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    url = f"sqlite:///{tmp_path / 'sipagent.db'}"
    upgrade(url)
    recorder, hub, reads = Recorder(url), EventHub(), StoreReads(url)
    recorder.start()
    hub.subscribe(recorder.emit)
    node = Node(hub, recorder, reads)
    yield node
    await reads.close()
    assert await recorder.close() == 0
    assert recorder.statistics.refused == 0


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(port=0, key_hashes=[KEY_HASH, OTHER_HASH], request_timeout_s=1.0, heartbeat_s=0.2, max_streams=3)


@pytest.fixture
async def server(node: Node, settings: ApiSettings) -> AsyncIterator[ApiServer]:
    server = ApiServer(settings, node.backend, node.hub)
    await server.start()
    yield server
    await server.close()


class Answer(msgspec.Struct):
    status: int
    body: Any
    headers: dict[str, str]


class Http:
    """A client with a key; every answer's body is read as JSON."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.ask("POST", path, json=body, **options)

    async def ask(self, method: str, path: str, key: str | None = KEY, **options: Any) -> Answer:
        headers = {**({} if key is None else {"x-api-key": key}), **options.pop("headers", {})}
        async with self.session.request(method, self.url + path, headers=headers, **options) as response:
            assert response.content_type == "application/json", await response.text()
            return Answer(response.status, await response.json(), dict(response.headers))


@pytest.fixture
async def http(server: ApiServer) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession() as session:
        yield Http(server.url, session)
