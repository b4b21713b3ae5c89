"""A language model by script: a server that speaks the OpenAI-compatible streaming protocol."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class ChatServer:
    """Answers each request with the next script: chunks as dicts, raw bytes, a status, or "hang".

    With `decide`, by what was asked: of a node that begins answers ahead nobody knows how many requests come.
    """

    def __init__(self) -> None:
        self.scripts: list[list[object]] = []
        self.decide: Callable[[list[dict[str, Any]]], list[object]] | None = None
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.disconnected = asyncio.Event()
        self.base_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.authorizations.append(request.headers.get("Authorization"))
        script = self.decide(self.messages()) if self.decide is not None else self.scripts.pop(0)
        if isinstance(script[0], int):
            return web.json_response({"error": {"message": "no"}}, status=script[0])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for part in script:
                if part == "hang":
                    await asyncio.sleep(30)
                elif isinstance(part, bytes):
                    await response.write(part)
                else:
                    await response.write(b"data: " + json.dumps(part).encode() + b"\n\n")
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.CancelledError):
            self.disconnected.set()
            raise
        return response

    def messages(self, number: int = -1) -> list[dict[str, Any]]:
        """Of one of the requests."""
        messages: list[dict[str, Any]] = self.requests[number]["messages"]
        return messages


def delta(**content: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": None}]}


def says(text: str) -> dict[str, object]:
    return delta(content=text)


def calls(name: str, arguments: object = None, index: int = 0) -> dict[str, object]:
    """A whole call of a tool."""
    text = json.dumps(arguments or {})
    function = {"name": name, "arguments": text}
    return delta(tool_calls=[{"index": index, "id": f"call_{name}_{index}", "type": "function", "function": function}])


DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def chat_server() -> AsyncIterator[ChatServer]:
    fake = ChatServer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield fake
    finally:
        await runner.cleanup()
