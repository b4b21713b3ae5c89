"""A web server for tests that keeps what it was asked and answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Reply = web.Response | dict[str, Any] | bytes | int
Responder = Callable[[Asked], Reply]


@dataclass
class Receiver:
    """`answers` by path: a status, a JSON object, bytes, or a function of the request that makes any of them or a
    response; 200 for others. `slow` seconds pass before each answer on the path.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, Reply | Responder] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)

    def of(self, path: str) -> list[Asked]:
        return [one for one in self.asked if one.path == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, dict(request.headers), await request.read())
        self.asked.append(asked)
        if request.path in self.slow:
            await asyncio.sleep(self.slow[request.path])
        answer = self.answers.get(request.path, 200)
        if callable(answer):
            answer = answer(asked)
        match answer:
            case int():
                return web.Response(status=answer)
            case bytes():
                return web.Response(body=answer)
            case dict():
                return web.json_response(answer)
        return answer


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
