"""TLS of the API, and the page to look through it."""

import re
import ssl
import subprocess
from pathlib import Path

import aiohttp
import msgspec
import pytest
from yarl import URL

from sipagent.api.calls.backend import Originate
from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.core import clock
from sipagent.core.errors import SetupError
from sipagent.store.resource_models import Recording

from .conftest import KEY_HASH, Http
from .node import Node


async def test_the_api_speaks_tls_itself(node: Node, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    settings = ApiSettings(port=0, key_hashes=[KEY_HASH], tls_certificate=str(certificate), tls_key=str(key))
    server = ApiServer(settings, node.backend, node.hub)
    await server.start()
    assert server.url.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session:
        assert (await Http(server.url, session).get("/api/v1/live-calls")).status == 200
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url.replace("https", "http"))
    await server.close()


async def test_a_certificate_that_is_not_there_is_told(node: Node, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    settings = ApiSettings(port=0, key_hashes=[KEY_HASH], tls_certificate=missing, tls_key=missing)
    with pytest.raises(SetupError, match="tls_certificate"):
        await ApiServer(settings, node.backend, node.hub).start()
    with pytest.raises(ValueError, match="both"):
        ApiSettings(tls_certificate=missing)


async def test_the_page_needs_nothing_from_elsewhere(http: Http) -> None:
    async with http.session.get(f"{http.url}/api/docs") as response:
        page, policy = await response.text(), response.headers["Content-Security-Policy"]
    assert response.status == 200 and response.content_type == "text/html"
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


async def test_behind_a_proxy_recordings_have_the_public_address(node: Node) -> None:
    node.folder.mkdir()
    (node.folder / "rec.wav").write_bytes(b"RIFF")
    row = {"id": "rec_1", "call_id": await node.originate(Originate(to_number="100")), "state": "done", "rate": 8000}
    await node.recorder.flush()
    assert node.writes is not None
    row |= {"started_at": clock.now().wall, "channels": 2, "file": "rec.wav", "detail": ""}
    await node.writes.run(lambda session: session.add(Recording(**row)))
    for public, begins in (
        ("", "http://127.0.0.1:"),
        ("https://sip.example.com/pbx/", "https://sip.example.com/pbx/api/"),
    ):
        server = ApiServer(ApiSettings(port=0, key_hashes=[KEY_HASH], public_url=public), node.backend, node.hub)
        await server.start()
        async with aiohttp.ClientSession() as session:
            asked = {"params": {"recording_id": "rec_1"}, "allow_redirects": False}
            answer = await Http(server.url, session).get("/api/v1/recordings", **asked)
            assert answer.status == 307 and answer.body["url"] == answer.headers["Location"]
            assert answer.body["url"].startswith(begins)
            signed = URL(answer.body["url"])
            async with session.get(server.url + signed.path_qs.removeprefix("/pbx")) as audio:
                assert await audio.read() == b"RIFF"
        await server.close()


@pytest.mark.parametrize("url", ["sip.example.com", "ftp://a.example", "https://a.example/?x=1", "https://u@a.example"])
def test_a_public_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="public_url"):
        msgspec.convert({"public_url": url}, ApiSettings)
