"""Asterisk's manager interface: actions, and every event of the PBX as its own view of a call."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from tests.wait import until

USER, SECRET = "tests", "tests"
Block = dict[str, str]


class Ami:
    """``async with Ami(port) as manager:``; every event since then is in ``events``, oldest first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Block]] = {}
        self.events: list[Block] = []

    async def __aenter__(self) -> "Ami":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        await self._reader.readline()  # its greeting
        self._task = asyncio.create_task(self._read(), name="ami")
        await self.action("Login", Username=USER, Secret=SECRET)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def action(self, name: str, variables: Sequence[str] = (), **fields: str) -> Block:
        """The response; AssertionError when it is none of success."""
        number = str(next(self._ids))
        lines = [f"Action: {name}", f"ActionID: {number}", *(f"{key}: {value}" for key, value in fields.items())]
        lines += [f"Variable: {variable}" for variable in variables]
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(20):
            response: Block = await answer
        assert response["Response"] in ("Success", "Goodbye"), f"{name}: {response}"
        return response

    async def event(self, name: str, *, since: int = 0, within_s: float = 30.0, **wanted: str) -> Block:
        """The first such event from the position ``since`` in ``events`` on."""

        def found() -> Block | None:
            matching = (event for event in self.events[since:] if wanted.items() <= event.items())
            return next((event for event in matching if event["Event"] == name), None)

        return await until(found, f"event {name} {wanted} of Asterisk", within_s)

    async def channels(self) -> list[Block]:
        """What Asterisk has up, as `core show channels` tells."""
        before = len(self.events)
        answer = await self.action("CoreShowChannels")
        number = answer["ActionID"]
        await self.event("CoreShowChannelsComplete", since=before, ActionID=number)
        return [
            event
            for event in self.events[before:]
            if event["Event"] == "CoreShowChannel" and event.get("ActionID") == number
        ]

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                text = (await self._reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
                fields = (line.partition(":") for line in text.splitlines() if line)
                self._take({key: value.strip() for key, _, value in fields})

    def _take(self, block: Block) -> None:
        if "Event" in block:
            self.events.append(block)
        elif (waiting := self._answers.pop(block.get("ActionID", ""), None)) is not None and not waiting.done():
            waiting.set_result(block)
