"""Calls: placing them, and what is recorded of them."""

import asyncio

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.calls.backend import Originate
from sipagent.api.calls.shapes import call_out, calls_page, fresh_call_out, legs_page, live_call_out, record_out
from sipagent.api.calls.sip_messages import sip_messages_page
from sipagent.api.calls.types import (
    CallOut,
    CallRecordOut,
    CallsPage,
    CallStarted,
    CreateCall,
    LegsPage,
    ListCalls,
    LiveCallsPage,
    SipMessagesPage,
)
from sipagent.api.errors import ApiError, field_error, no_such_call
from sipagent.api.http import check_url, json_answer, read_body, read_parameters
from sipagent.api.idempotency import Answer
from sipagent.api.routing import CALL, V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters
from sipagent.core.errors import ConfigError
from sipagent.store.records import CallFilter, FullCall

# How long to wait for the record of a call that was placed just now.
RECORDED_TRIES = 20
RECORDED_WAIT_S = 0.05

DIALPLAN_URL = "dialplan:"


class CallHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._calls = backend.calls
        self._shared = shared

    async def initiate(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, CreateCall)
        wanted = _originate(body)

        async def work() -> Answer:
            try:
                call_id = await self._calls.originate(wanted)
            except (ConfigError, ValueError) as error:
                raise ApiError(422, str(error)) from error
            started = CallStarted(
                id=call_id,
                from_number=wanted.from_number,
                to_number=wanted.to_number,
                status_callback_url=wanted.status_callback_url or None,
                record=wanted.record,
            )
            return Answer(201, msgspec.json.encode(started))

        return await self._shared.done_once(request, raw, work)

    async def list_calls(self, request: web.Request) -> web.Response:
        wanted = read_parameters(request, ListCalls)
        if wanted.cursor_after is not None and wanted.cursor_before is not None:
            raise field_error("cursor_after", "cannot be used together with cursor_before")
        page = await self._calls.list_calls(msgspec.convert(wanted, CallFilter, from_attributes=True))
        return json_answer(calls_page(page))

    async def get_call(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        call_id = request.match_info["call_id"]
        full = await self._calls.get_call(call_id)
        if full is not None:
            return json_answer(call_out(full.call))
        # The record is some 200 ms behind: whoever just placed a call shall find it.
        for live in self._calls.live_calls():
            if live.call_id == call_id:
                return json_answer(fresh_call_out(live))
        raise no_such_call()

    async def get_legs(self, request: web.Request) -> web.Response:
        return json_answer(legs_page((await self._recorded(request)).call.legs))

    async def get_record(self, request: web.Request) -> web.Response:
        return json_answer(record_out(await self._recorded(request)))

    async def get_sip(self, request: web.Request) -> web.Response:
        full = await self._recorded(request)
        return json_answer(sip_messages_page(await self._calls.sip_messages(full.call.id)))

    async def live_calls(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        return json_answer(LiveCallsPage(data=[live_call_out(call) for call in self._calls.live_calls()]))

    async def _recorded(self, request: web.Request) -> FullCall:
        read_parameters(request, NoParameters)
        call_id = request.match_info["call_id"]
        for _ in range(RECORDED_TRIES):
            full = await self._calls.get_call(call_id)
            if full is not None:
                return full
            if all(live.call_id != call_id for live in self._calls.live_calls()):
                raise no_such_call()
            await asyncio.sleep(RECORDED_WAIT_S)  # the record is some 200 ms behind
        raise ApiError(503, "the call is up and not recorded yet", retry_after_s=1)


def _originate(body: CreateCall) -> Originate:
    dialplan, flow_url = body.dialplan, body.flow_url
    # A call handled otherwise than was asked would be worse than no call.
    if flow_url.startswith(DIALPLAN_URL):
        named = flow_url.removeprefix(DIALPLAN_URL)
        if dialplan and dialplan != named:
            raise field_error("flow_url", "names another dialplan than the field dialplan")
        dialplan, flow_url = named, ""
    elif flow_url:
        if dialplan:
            raise field_error("flow_url", "treats the call instead of a dialplan: give one of the two")
        check_url("flow_url", flow_url)
    if body.status_callback_url:
        check_url("status_callback_url", body.status_callback_url)
    return Originate(
        to_number=body.to_number,
        from_number=body.from_number,
        dialplan=dialplan,
        flow_url=flow_url,
        status_callback_url=body.status_callback_url,
        trunk=body.trunk,
        timeout_s=body.timeout_s or 0.0,
        withhold=body.withhold,
        record=body.record,
        headers=body.custom_headers,
    )


ROUTES = (
    Route(
        method="POST",
        path=f"{V1}/voice/calls/initiate",
        handler=CallHandlers.initiate,
        summary="Place a call",
        body=CreateCall,
        answers={201: CallStarted},
        idempotent=True,
        refusals=(400, 409, 413, 415, 422, 501, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/voice/calls",
        handler=CallHandlers.list_calls,
        summary="Calls, newest first",
        query=ListCalls,
        answers={200: CallsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=CALL,
        handler=CallHandlers.get_call,
        summary="One call with its legs",
        answers={200: CallOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{CALL}/legs",
        handler=CallHandlers.get_legs,
        summary="The legs of one call",
        answers={200: LegsPage},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{CALL}/record",
        handler=CallHandlers.get_record,
        summary="Everything recorded of one call: turns, transfers, events",
        answers={200: CallRecordOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{CALL}/sip",
        handler=CallHandlers.get_sip,
        summary="The SIP messages of one call; of one that is up, those older than some 2 s",
        answers={200: SipMessagesPage},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/live-calls",
        handler=CallHandlers.live_calls,
        summary="The calls that are up on this node",
        answers={200: LiveCallsPage},
        refusals=(422,),
    ),
)
