"""The live event stream as a websocket: each text message is one event, as JSON.

For pages and programs that have no reader of server-sent events. Nothing is asked over it: what a client sends is not
looked at, but too much of it ends the connection.
"""

import asyncio

from aiohttp import WSCloseCode, WSMsgType, web

MAX_MESSAGE = 4096  # bytes of what a client sends
MAX_MESSAGES = 1000
CLOSE_S = 2.0
Queue = asyncio.Queue[bytes | None]


def upgraded(request: web.Request, heartbeat_s: float) -> web.WebSocketResponse | None:
    """None for a request that is no handshake."""
    ws = web.WebSocketResponse(heartbeat=heartbeat_s, max_msg_size=MAX_MESSAGE, timeout=CLOSE_S, compress=False)
    return ws if ws.can_prepare(request).ok else None


async def pump(ws: web.WebSocketResponse, queue: Queue) -> None:
    """Until the client goes, or None comes out of the queue."""
    reading = asyncio.create_task(_until_gone(ws), name="events-ws")
    sending = asyncio.create_task(_send(ws, queue), name="events-ws-send")
    try:
        await asyncio.wait([reading, sending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, sending):
            task.cancel()
        await asyncio.gather(reading, sending, return_exceptions=True)
        await ws.close(code=WSCloseCode.GOING_AWAY)


async def _send(ws: web.WebSocketResponse, queue: Queue) -> None:
    while (message := await queue.get()) is not None:
        await ws.send_str(message.decode())


async def _until_gone(ws: web.WebSocketResponse) -> None:
    for _ in range(MAX_MESSAGES):
        if (await ws.receive()).type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return
