import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sipagent.api.keys import new_key
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.backend.access import LiveAccess
from sipagent.backend.erasures import LiveErasures
from sipagent.backend.reports import LiveReports
from sipagent.backend.resources import LiveResources
from sipagent.backend.webhooks import Webhooks
from sipagent.calls.directory import Directory
from sipagent.calls.inventory import configured
from sipagent.calls.settings import AclSettings, AppSettings, NumberSettings
from sipagent.core.events import EventHub
from sipagent.core.resources import shipped_folder
from sipagent.dialplan.loader import load_folder
from sipagent.reports.settings import PriceSettings, ReportSettings
from sipagent.sip.settings import TrunkSettings
from sipagent.store.engine import upgrade
from sipagent.store.queries import StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.recording_files import RecordingFiles
from sipagent.store.sealing import seal_of
from sipagent.store.writing import StoreWrites
from sipagent.web.client import WebClient
from sipagent.web.guard import Guard

from .node import Node

KEY, KEY_HASH = new_key()
OTHER_KEY, OTHER_HASH = new_key()
KEY_OF_APPS = b"k" * 32
CONFIGURED: dict[str, Any] = {
    "apps": [AppSettings(name="configured", dialplan="front-desk")],
    "numbers": [NumberSettings(number="+49301000", app="configured", name="head office")],
    "trunks": [TrunkSettings(name="carrier", domain="192.0.2.1", peers=["192.0.2.0/24"])],
    "acls": [AclSettings(name="office", addresses=("192.0.2.0/24",))],
}


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all its tables, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "sipagent.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
async def node(tmp_path: Path, migrated: Path) -> AsyncIterator[Node]:
    url = f"sqlite:///{shutil.copy(migrated, tmp_path)}"
    recorder, hub, reads = Recorder(url), EventHub(), StoreReads(url)
    recorder.start()
    hub.subscribe(recorder.emit)
    writes = StoreWrites(url)
    directory = Directory()
    seal = seal_of(tmp_path, "")
    resources = LiveResources(
        configured(**CONFIGURED, seal=seal),
        reads,
        writes,
        directory,
        seal,
        lambda: load_folder(shipped_folder("dialplans")),
        Guard(),
    )
    await resources.start()
    access = LiveAccess(reads, writes, "test")
    await access.start()
    client = WebClient(Guard(("127.0.0.0/8",)))
    webhooks = Webhooks(reads, writes, client, lambda _app: KEY_OF_APPS, schedule_s=(0.3, 0.3))
    webhooks.start()
    reports = LiveReports(url, ReportSettings(time_zone="Europe/Berlin"), [PriceSettings(of="minute", price=0.6)])
    reports.start()
    files = RecordingFiles(tmp_path / "recordings", "")
    erasures = LiveErasures(reads, writes, recorder, files)
    node = Node(
        hub,
        recorder,
        reads,
        resources,
        access,
        writes,
        webhooks,
        reports,
        erasures=erasures,
        folder=files.folder,
    )
    yield node
    await reports.close()
    await webhooks.close()
    await client.close()
    await access.close()
    await resources.close()
    await writes.close()
    await reads.close()
    assert await recorder.close() == 0
    assert recorder.statistics.refused == 0


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(port=0, key_hashes=[KEY_HASH, OTHER_HASH], request_timeout_s=3.0, heartbeat_s=0.2, max_streams=3)


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
