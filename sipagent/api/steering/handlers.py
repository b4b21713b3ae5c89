"""What a call that is up can be told: to end, to be handed over, to wait, to be joined with others."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error, no_such_call
from sipagent.api.http import read_body, request_id
from sipagent.api.idempotency import Answer
from sipagent.api.routing import CALL, Route
from sipagent.api.shared import Shared
from sipagent.api.steering.backend import Guest, Transfer
from sipagent.api.steering.types import (
    Bridge,
    BringIn,
    Hangup,
    Hold,
    MutationOut,
    Resume,
    TransferCall,
    TransferStarted,
)
from sipagent.core.ids import new_transfer_id
from sipagent.dialplan import flow


class SteeringHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._calls = backend.calls
        self._steering = backend.steering
        self._shared = shared

    async def hangup(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Hangup)
        leg_id = body.leg_id
        if leg_id is not None:
            if self._steering.call_of_leg(leg_id) != request.match_info["call_id"]:
                raise field_error("leg_id", "is no leg of this call that is up")
            return await self._ordered(request, raw, lambda call_id: self._steering.hangup_leg(call_id, leg_id))
        return await self._ordered(request, raw, self._steering.hangup)

    async def transfer(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, TransferCall)
        wanted = _transfer(body)
        if body.target.kind == "leg":
            other = self._steering.call_of_leg(body.target.leg_id)
            if not other:
                raise field_error("target.leg_id", "is no leg of a call that is up on this node")

            async def join(call_id: str) -> bytes:
                joined = await self._steering.bridge(call_id, other)
                return _started(call_id, new_transfer_id(), body) if joined else b""

            return await self._ordered(request, raw, join)

        async def start(call_id: str) -> bytes:
            transfer_id = await self._steering.transfer(call_id, wanted)
            return _started(call_id, transfer_id, body) if transfer_id else b""

        return await self._ordered(request, raw, start)

    async def hold(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Hold)
        return await self._ordered(request, raw, lambda call_id: self._steering.hold(call_id, body.music))

    async def resume(self, request: web.Request) -> web.Response:
        _, raw = await read_body(request, Resume)
        return await self._ordered(request, raw, self._steering.resume)

    async def bridge(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Bridge)
        if all(live.call_id != body.call_id for live in self._calls.live_calls()):
            raise field_error("call_id", "is no call that is up on this node")
        return await self._ordered(request, raw, lambda call_id: self._steering.bridge(call_id, body.call_id))

    async def bring_in(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, BringIn)
        guest = Guest(
            to_number=body.to_number, part=body.part, trunk=body.trunk, timeout_s=float(body.timeout_s or 0.0)
        )
        return await self._ordered(request, raw, lambda call_id: self._steering.bring_in(call_id, guest))

    async def _ordered(
        self, request: web.Request, raw: bytes, order: Callable[[str], Awaitable[bool | bytes]]
    ) -> web.Response:
        """Asks something of the call in the path, once. What comes back of it is the body, where it is one."""
        call_id = request.match_info["call_id"]

        async def work() -> Answer:
            done = await order(call_id)
            if done:
                body = done if isinstance(done, bytes) else msgspec.json.encode(MutationOut(request_id=request_id()))
                return Answer(200, body)
            if await self._calls.get_call(call_id) is None:
                raise no_such_call()
            raise ApiError(409, "this call is not up any more")

        return await self._shared.done_once(request, raw, work)


def _started(call_id: str, transfer_id: str, body: TransferCall) -> bytes:
    started = TransferStarted(
        id=transfer_id,
        call_id=call_id,
        status="requested",
        target_leg_id=body.target.leg_id or None,
        mode=body.mode,
        request_id=request_id(),
    )
    return msgspec.json.encode(started)


def _transfer(body: TransferCall) -> Transfer:
    attended = body.mode in ("attended", "warm")
    headers = body.target.custom_headers
    if headers and (body.target.kind == "leg" or (body.via == "refer" and not attended)):
        raise field_error("target.custom_headers", "go with an INVITE of ours: not to a leg, nor blindly by refer")
    if body.whisper and not attended:
        raise field_error("whisper", "is for mode attended: nobody is asked before a blind transfer")
    field = {"pstn": "number", "sip": "uri", "leg": "leg_id"}[body.target.kind]
    target: str = getattr(body.target, field)
    if not target:
        raise field_error(f"target.{field}", f"is needed for kind {body.target.kind}")
    if body.confirm_sound is not None and (body.target.kind == "leg" or (body.via == "refer" and not attended)):
        raise field_error("confirm_sound", "is for a target that we ring: not a leg, nor blindly by refer")
    if body.on_failure is not None and body.target.kind == "leg":
        raise field_error("on_failure", "is for a target that is rung: two legs are joined at once")
    try:
        confirm, said = flow.confirmation(body.confirm_sound)
        on_failure = flow.instead("on_failure", body.on_failure)
        music = _music(body)
    except flow.BadAnswer as error:
        raise field_error(error.field, error.what) from error
    if said and not attended:
        raise field_error("confirm_sound.text", "is said to a target that is asked first: mode attended")
    return Transfer(
        target=target,
        attended=attended,
        whisper=said or body.whisper,
        via=body.via,
        trunk=body.trunk,
        timeout_s=float(body.timeout or 0.0),
        music=music,
        headers=headers,
        confirm=confirm,
        on_failure=on_failure,
    )


def _music(body: TransferCall) -> str:
    """Raises BadAnswer."""
    music = body.dial_music
    if music is None:
        return "ringback" if body.ringback not in (None, "", "none") else ""
    if bool(music.file) is bool(music.media_url):
        raise flow.BadAnswer("dial_music", "needs `file` or `media_url`")
    return music.file or flow.url("dial_music.media_url", music.media_url)


ROUTES = (
    Route(
        method="POST",
        path=f"{CALL}/hangup",
        handler=SteeringHandlers.hangup,
        summary="End a call",
        body=Hangup,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/transfer",
        handler=SteeringHandlers.transfer,
        summary="Hand the caller to somebody else",
        body=TransferCall,
        answers={200: TransferStarted},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 501, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/hold",
        handler=SteeringHandlers.hold,
        summary="Put the caller on hold",
        body=Hold,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/resume",
        handler=SteeringHandlers.resume,
        summary="Take the caller off hold",
        body=Resume,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/bridge",
        handler=SteeringHandlers.bridge,
        summary="Join the callers of two calls",
        body=Bridge,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/participants",
        handler=SteeringHandlers.bring_in,
        summary="Bring somebody into a call: to listen in, to whisper, or to join",
        body=BringIn,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
)
