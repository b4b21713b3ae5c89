"""TLS of the API, and the page to look through it."""

import re
import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest

from sipagent.api.server import ApiServer
from sipagent.api.settings import ApiSettings
from sipagent.core.errors import SetupError

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
