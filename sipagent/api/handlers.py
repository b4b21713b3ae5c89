"""One method a route: read the request, ask the backend, write the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from sipagent.api.auth import HEADER as KEY_HEADER
from sipagent.api.auth import Gate
from sipagent.api.backend import Backend, Guest, Originate, Transfer
from sipagent.api.errors import ApiError, field_error, invalid
from sipagent.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from sipagent.api.idempotency import Answer, IdempotencyTable
from sipagent.api.keys import hash_key
from sipagent.api.shapes import call_out as shaped
from sipagent.api.shapes import calls_page, fresh_call_out, health_out, legs_page, live_call_out, record_out
from sipagent.api.sip_messages import sip_messages_page
from sipagent.api.stream import EventStreams
from sipagent.api.types import (
    Bridge,
    BringIn,
    CallStarted,
    CreateCall,
    FieldError,
    Hangup,
    HealthOut,
    Hold,
    ListCalls,
    LiveCallsPage,
    MutationOut,
    NoParameters,
    RegistrationsPage,
    Resume,
    TransferCall,
    TransferStarted,
    TrunksPage,
    WatchEvents,
)
from sipagent.core.clock import mono_ns
from sipagent.core.errors import ConfigError
from sipagent.store.records import CallFilter, FullCall

_Type = TypeVar("_Type", bound=msgspec.Struct)
Work = Callable[[], Coroutine[Any, Any, Answer]]
# How long to wait for the record of a call that was placed just now.
RECORDED_TRIES = 20
RECORDED_WAIT_S = 0.05

DIALPLAN_URL = "dialplan:"


class Handlers:
    def __init__(self, backend: Backend, streams: EventStreams, gate: Gate) -> None:
        self._backend = backend
        self._streams = streams
        self._gate = gate
        self._once = IdempotencyTable()
        self.openapi = b"{}"

    # --- calls ------------------------------------------------------------------------------------------------

    async def initiate(self, request: web.Request) -> web.Response:
        body, raw = await _body(request, CreateCall)
        wanted = _originate(body)

        async def work() -> Answer:
            try:
                call_id = await self._backend.originate(wanted)
            except (ConfigError, ValueError) as error:
                raise ApiError(422, str(error)) from error
            started = CallStarted(
                id=call_id,
                from_number=wanted.from_number,
                to_number=wanted.to_number,
                status_callback_url=None,
                record=False,
            )
            return Answer(201, msgspec.json.encode(started))

        return await self._done_once(request, raw, work)

    async def list_calls(self, request: web.Request) -> web.Response:
        wanted = _parameters(request, ListCalls)
        if wanted.cursor_after is not None and wanted.cursor_before is not None:
            raise field_error("cursor_after", "cannot be used together with cursor_before")
        page = await self._backend.list_calls(msgspec.convert(wanted, CallFilter, from_attributes=True))
        return _json(calls_page(page))

    async def get_call(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        call_id = request.match_info["call_id"]
        full = await self._backend.get_call(call_id)
        if full is not None:
            return _json(shaped(full.call))
        # The record is some 200 ms behind: whoever just placed a call shall find it.
        for live in self._backend.live_calls():
            if live.call_id == call_id:
                return _json(fresh_call_out(live))
        raise _no_such_call()

    async def get_legs(self, request: web.Request) -> web.Response:
        return _json(legs_page((await self._recorded(request)).call.legs))

    async def get_record(self, request: web.Request) -> web.Response:
        return _json(record_out(await self._recorded(request)))

    async def get_sip(self, request: web.Request) -> web.Response:
        full = await self._recorded(request)
        return _json(sip_messages_page(await self._backend.sip_messages(full.call.id)))

    async def hangup(self, request: web.Request) -> web.Response:
        body, raw = await _body(request, Hangup)
        leg_id = body.leg_id
        if leg_id is not None:
            if self._backend.call_of_leg(leg_id) != request.match_info["call_id"]:
                raise field_error("leg_id", "is no leg of this call that is up")
            return await self._ordered(request, raw, lambda call_id: self._backend.hangup_leg(call_id, leg_id))
        return await self._ordered(request, raw, self._backend.hangup)

    async def transfer(self, request: web.Request) -> web.Response:
        body, raw = await _body(request, TransferCall)
        wanted = _transfer(body)
        if body.target.kind == "leg":
            other = self._backend.call_of_leg(body.target.leg_id)
            if not other:
                raise field_error("target.leg_id", "is no leg of a call that is up on this node")
            return await self._ordered(request, raw, lambda call_id: self._backend.bridge(call_id, other))

        async def start(call_id: str) -> bytes:
            transfer_id = await self._backend.transfer(call_id, wanted)
            started = TransferStarted(
                id=transfer_id,
                call_id=call_id,
                status="requested",
                target_leg_id=None,
                mode=body.mode,
                request_id=_request_id(),
            )
            return msgspec.json.encode(started) if transfer_id else b""

        return await self._ordered(request, raw, start)

    async def hold(self, request: web.Request) -> web.Response:
        body, raw = await _body(request, Hold)
        return await self._ordered(request, raw, lambda call_id: self._backend.hold(call_id, body.music))

    async def resume(self, request: web.Request) -> web.Response:
        _, raw = await _body(request, Resume)
        return await self._ordered(request, raw, self._backend.resume)

    async def bridge(self, request: web.Request) -> web.Response:
        body, raw = await _body(request, Bridge)
        if all(live.call_id != body.call_id for live in self._backend.live_calls()):
            raise field_error("call_id", "is no call that is up on this node")
        return await self._ordered(request, raw, lambda call_id: self._backend.bridge(call_id, body.call_id))

    async def bring_in(self, request: web.Request) -> web.Response:
        body, raw = await _body(request, BringIn)
        guest = Guest(
            to_number=body.to_number, part=body.part, trunk=body.trunk, timeout_s=float(body.timeout_s or 0.0)
        )
        return await self._ordered(request, raw, lambda call_id: self._backend.bring_in(call_id, guest))

    async def _ordered(
        self, request: web.Request, raw: bytes, order: Callable[[str], Awaitable[bool | bytes]]
    ) -> web.Response:
        """Asks something of the call in the path, once. What comes back of it is the body, where it is one."""
        call_id = request.match_info["call_id"]

        async def work() -> Answer:
            done = await order(call_id)
            if done:
                body = done if isinstance(done, bytes) else msgspec.json.encode(MutationOut(request_id=_request_id()))
                return Answer(200, body)
            if await self._backend.get_call(call_id) is None:
                raise _no_such_call()
            raise ApiError(409, "this call is not up any more")

        return await self._done_once(request, raw, work)

    async def live_calls(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        return _json(LiveCallsPage(data=[live_call_out(call) for call in self._backend.live_calls()]))

    # --- the node ---------------------------------------------------------------------------------------------

    async def registrations(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        return _json(RegistrationsPage(data=self._backend.health().registrations))

    async def trunks(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        return _json(TrunksPage(data=self._backend.health().trunks))

    async def events(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, _parameters(request, WatchEvents).call_id)

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the process can answer at all; with a key it tells more."""
        health = self._backend.health()
        if KEY_HEADER in request.headers:
            self._gate.check(request)
            return _json(health_out(health))
        return _json(HealthOut(status=health.status))

    async def readyz(self, request: web.Request) -> web.Response:
        """503 while new calls should go elsewhere."""
        status = self._backend.health().status
        return _json(HealthOut(status=status), status=503 if status == "draining" else 200)

    async def openapi_document(self, request: web.Request) -> web.Response:
        return web.json_response(body=self.openapi)

    # ----------------------------------------------------------------------------------------------------------

    async def _recorded(self, request: web.Request) -> FullCall:
        _parameters(request, NoParameters)
        call_id = request.match_info["call_id"]
        for _ in range(RECORDED_TRIES):
            full = await self._backend.get_call(call_id)
            if full is not None:
                return full
            if all(live.call_id != call_id for live in self._backend.live_calls()):
                raise _no_such_call()
            await asyncio.sleep(RECORDED_WAIT_S)  # the record is some 200 ms behind
        raise ApiError(503, "the call is up and not recorded yet", retry_after_s=1)

    async def _done_once(self, request: web.Request, raw: bytes, work: Work) -> web.Response:
        scope = f"{hash_key(request.headers[KEY_HEADER])} {request.path}"
        answer = await self._once.once(scope, request.headers.get(IDEMPOTENCY_HEADER), raw, mono_ns(), work)
        return web.json_response(body=answer.body, status=answer.status)


async def _body(request: web.Request, kind: type[_Type]) -> tuple[_Type, bytes]:
    """The JSON body and its bytes; no body is the empty object. Raises 400, 413, 415 or 422."""
    raw = await request.read()
    if raw and request.content_type != "application/json":
        raise ApiError(415, "the body must be JSON (content-type: application/json)")
    try:
        return msgspec.json.decode(raw or b"{}", type=kind), raw
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON", FieldError(field="", message=str(error))) from error


def _parameters(request: web.Request, kind: type[_Type]) -> _Type:
    """The query string; raises 422 for what is unknown, repeated or not of its kind."""
    query = request.query
    given = dict(query)
    if len(given) != len(query):
        repeated = next(name for name in given if len(query.getall(name)) > 1)
        raise field_error(repeated, "is given more than once")
    try:
        parameters = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    for name in kind.__struct_fields__:
        value = getattr(parameters, name)
        if isinstance(value, datetime) and value.tzinfo is None:
            parameters = msgspec.structs.replace(parameters, **{name: value.replace(tzinfo=UTC)})
    return parameters


def _originate(body: CreateCall) -> Originate:
    dialplan = body.dialplan
    # A call handled otherwise than was asked would be worse than no call.
    if body.flow_url:
        if not body.flow_url.startswith(DIALPLAN_URL):
            raise field_error("flow_url", 'flow URLs are not supported yet; write "dialplan:NAME"', 501)
        named = body.flow_url.removeprefix(DIALPLAN_URL)
        if dialplan and dialplan != named:
            raise field_error("flow_url", "names another dialplan than the field dialplan")
        dialplan = named
    if body.status_callback_url:
        raise field_error("status_callback_url", "webhooks are not supported yet; leave it empty", 501)
    return Originate(
        to_number=body.to_number,
        from_number=body.from_number,
        dialplan=dialplan,
        trunk=body.trunk,
        timeout_s=body.timeout_s or 0.0,
        withhold=body.withhold,
        headers=body.custom_headers,
    )


def _transfer(body: TransferCall) -> Transfer:
    for name in ("confirm_sound", "on_failure"):
        if getattr(body, name) is not None:
            raise field_error(name, "is not supported yet; leave it out", 501)
    attended = body.mode in ("attended", "warm")
    headers = body.target.custom_headers
    if headers and (body.target.kind == "leg" or (body.via == "refer" and not attended)):
        raise field_error("target.custom_headers", "go with an INVITE of ours: not to a leg, nor blindly by refer")
    if body.whisper and not attended:
        raise field_error("whisper", "is for mode attended: nobody is asked before a blind transfer")
    field = {"pstn": "number", "sip": "uri", "leg": "leg_id"}[body.target.kind]
    target: str = getattr(body.target, field)
    ringback = "ringback" if body.ringback not in (None, "", "none") else ""
    if not target:
        raise field_error(f"target.{field}", f"is needed for kind {body.target.kind}")
    return Transfer(
        target=target,
        attended=attended,
        whisper=body.whisper,
        via=body.via,
        trunk=body.trunk,
        timeout_s=float(body.timeout or 0.0),
        music=body.dial_music.file if body.dial_music is not None else ringback,
        headers=headers,
    )


def _request_id() -> str:
    return f"req_{token_hex(16)}"


def _json(value: msgspec.Struct, status: int = 200) -> web.Response:
    return web.json_response(body=msgspec.json.encode(value), status=status)


def _no_such_call() -> ApiError:
    return ApiError(404, "there is no such call")
