"""Tools of real servers of the Model Context Protocol, by standard input and output and by HTTP."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sipagent.conversation.tools import mcp
from sipagent.conversation.tools.mcp import McpServer
from sipagent.conversation.tools.mcp_http import guarded_client
from sipagent.conversation.tools.tool import Circumstances, Tool, ToolFailed
from sipagent.core.errors import ConfigError, NotAllowed
from sipagent.dialplan.tools import McpSpec
from sipagent.web.guard import Guard
from tests.conversation.control import Control
from tests.peers.ports import free_port

COMMAND = (sys.executable, "-m", "tests.peers.mcp_server")
SECRETS = {"SHOP_KEY": "s3cret"}


@asynccontextmanager
async def connected(spec: McpSpec, allow: tuple[str, ...] = ("127.0.0.1",)) -> AsyncIterator[dict[str, Tool]]:
    server = McpServer("tables", spec, Guard(allow), SECRETS)
    await server.start()
    try:
        yield {tool.name: tool for tool in server.tools}
    finally:
        await server.close()


@asynccontextmanager
async def http_server() -> AsyncIterator[str]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(*COMMAND, "http", str(port), stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.1)
        writer.close()
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


async def use(tool: Tool, arguments: dict[str, Any]) -> str:
    return await asyncio.wait_for(tool.work(arguments, Circumstances(Control(), {})), 20)


async def check_tools(tools: dict[str, Tool]) -> None:
    hours, book = tools["opening_hours"], tools["book"]
    assert hours.read_only and not book.read_only and hours.description == "When the restaurant is open."
    assert book.schema["properties"]["guests"]["type"] == "integer" and book.kind == "mcp"
    assert await use(hours, {"day": "Monday"}) == "On Monday from six to ten."
    assert '"table": 9' in await use(book, {"day": "Monday", "guests": 2})
    with pytest.raises(ToolFailed) as caught:
        await use(book, {"day": "Monday", "guests": 12})
    assert str(caught.value) == "the server answered with an error" and "book" in caught.value.more


async def test_by_standard_input_and_output(monkeypatch):
    monkeypatch.setattr(mcp, "RETRY_S", 0.1)
    monkeypatch.setenv("SHOP_KEY", "of ours")
    spec = McpSpec(command=(*COMMAND, "stdio"), env={"TABLES_KEY": "{env:SHOP_KEY}", "PYTHONPATH": "."})
    async with connected(spec) as tools:
        await check_tools(tools)
        assert await use(tools["secret"], {}) == "s3cret/"  # what it was given, and nothing else of our environment

        # A tool that is given up leaves the connection as it was.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tools["slow"].work({}, Circumstances(Control(), {})), 0.2)
        assert "Sunday" in await use(tools["opening_hours"], {"day": "Sunday"})

        # A server that dies is started again.
        with pytest.raises(ToolFailed):
            await use(tools["leave"], {})
        assert "Sunday" in await use(tools["opening_hours"], {"day": "Sunday"})


async def test_by_http():
    async with http_server() as url:
        async with connected(McpSpec(url=url, tools=("opening_hours", "book"))) as tools:
            assert set(tools) == {"opening_hours", "book"}
            await check_tools(tools)
        with pytest.raises(ConfigError, match="has no tool `cook`"):
            async with connected(McpSpec(url=url, tools=("cook",))):
                pass


async def test_servers_that_are_not_there(monkeypatch):
    monkeypatch.setattr(mcp, "START_S", 0.5)
    inside = McpSpec(url=f"http://127.0.0.1:{free_port()}/mcp")
    for spec in (McpSpec(command=("/nowhere/at-all",)), McpSpec(command=(sys.executable, "-c", "")), inside):
        with pytest.raises(ConfigError, match="does not answer"):
            async with connected(spec):
                pass
    with pytest.raises(ConfigError, match="NotAllowed"):  # refused before it is asked
        async with connected(inside, allow=()):
            pass


async def test_every_address_of_a_name_is_looked_at(monkeypatch):
    answers = {
        "both.example": ["93.184.216.34", "::1"],
        "other.example": ["93.184.216.34", "2606:4700::1111"],
    }
    resolving(monkeypatch, answers)
    guard = Guard()
    assert await guard.addresses("other.example") == answers["other.example"]
    for host in ("both.example", "127.1", "2130706433", "0x7f.0.0.1", "::1"):
        with pytest.raises(NotAllowed):
            await guard.addresses(host)
    with pytest.raises(NotAllowed):
        guard.check_literal("127.1")


async def test_a_connection_goes_where_the_name_was_checked_to_lead(monkeypatch):
    asked = resolving(monkeypatch, {"tables.example": ["127.0.0.1"]})
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with http_server() as url:
        host = f"tables.example:{url.split(':')[2].partition('/')[0]}"
        async with guarded_client(Guard(("127.0.0.0/8",)), {}) as client:
            answer = await client.post(f"http://{host}/mcp", json={})
            assert answer.status_code >= 400 and asked == ["tables.example"]  # it was there, and asked for its name
            resolving(monkeypatch, {"tables.example": ["10.0.0.1"]})  # the name leads elsewhere now
            with pytest.raises(NotAllowed):
                await client.post(f"http://{host}/mcp", json={})


def resolving(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> list[str]:
    """Names lead to these addresses; returns those that are asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        if host not in answers:
            return real(host, *args, **more)
        asked.append(host)
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in to], socket.SOCK_STREAM, 6, "", (to, 0)) for to in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked
