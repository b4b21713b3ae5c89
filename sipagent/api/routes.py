"""The table of routes: the server serves it, and the OpenAPI document is made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from sipagent.api.handlers import Handlers
from sipagent.api.types import (
    Bridge,
    BringIn,
    CallOut,
    CallRecordOut,
    CallsPage,
    CallStarted,
    CreateCall,
    EventOut,
    Hangup,
    HealthOut,
    Hold,
    LegsPage,
    ListCalls,
    LiveCallsPage,
    MutationOut,
    NoParameters,
    RegistrationsPage,
    Resume,
    SipMessagesPage,
    TransferCall,
    TransferStarted,
    TrunksPage,
    WatchEvents,
)

Method = Callable[[Handlers, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str
    path: str
    handler: Method
    summary: str
    answers: dict[int, type[msgspec.Struct] | None]  # by status; None is a document of its own
    query: type[msgspec.Struct] = NoParameters
    body: type[msgspec.Struct] | None = None
    needs_key: bool = True
    idempotent: bool = False  # takes Idempotency-Key
    streams: bool = False  # text/event-stream, without a time limit
    refusals: tuple[int, ...] = field(default=())  # beside those that every route can give


V1 = "/api/v1"
CALL = f"{V1}/voice/calls/{{call_id}}"

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{V1}/voice/calls/initiate",
        handler=Handlers.initiate,
        summary="Place a call",
        body=CreateCall,
        answers={201: CallStarted},
        idempotent=True,
        refusals=(400, 409, 413, 415, 422, 501, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/voice/calls",
        handler=Handlers.list_calls,
        summary="Calls, newest first",
        query=ListCalls,
        answers={200: CallsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=CALL,
        handler=Handlers.get_call,
        summary="One call with its legs",
        answers={200: CallOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{CALL}/legs",
        handler=Handlers.get_legs,
        summary="The legs of one call",
        answers={200: LegsPage},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{CALL}/record",
        handler=Handlers.get_record,
        summary="Everything recorded of one call: turns, transfers, events",
        answers={200: CallRecordOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{CALL}/sip",
        handler=Handlers.get_sip,
        summary="The SIP messages of one call; of one that is up, those older than some 2 s",
        answers={200: SipMessagesPage},
        refusals=(404, 422, 503),
    ),
    Route(
        method="POST",
        path=f"{CALL}/hangup",
        handler=Handlers.hangup,
        summary="End a call",
        body=Hangup,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/transfer",
        handler=Handlers.transfer,
        summary="Hand the caller to somebody else",
        body=TransferCall,
        answers={200: TransferStarted},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 501, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/hold",
        handler=Handlers.hold,
        summary="Put the caller on hold",
        body=Hold,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/resume",
        handler=Handlers.resume,
        summary="Take the caller off hold",
        body=Resume,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/bridge",
        handler=Handlers.bridge,
        summary="Join the callers of two calls",
        body=Bridge,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/participants",
        handler=Handlers.bring_in,
        summary="Bring somebody into a call: to listen in, to whisper, or to join",
        body=BringIn,
        answers={200: MutationOut},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{V1}/live-calls",
        handler=Handlers.live_calls,
        summary="The calls that are up on this node",
        answers={200: LiveCallsPage},
        refusals=(422,),
    ),
    Route(
        method="GET",
        path=f"{V1}/registrations",
        handler=Handlers.registrations,
        summary="This node's registrations at its trunks",
        answers={200: RegistrationsPage},
        refusals=(422,),
    ),
    Route(
        method="GET",
        path=f"{V1}/trunks",
        handler=Handlers.trunks,
        summary="This node's trunks: up, degraded or down, their servers, calls and refusals",
        answers={200: TrunksPage},
        refusals=(422,),
    ),
    Route(
        method="GET",
        path=f"{V1}/events/stream",
        handler=Handlers.events,
        summary="Every event as it happens, as server-sent events; the data of each is an EventOut",
        query=WatchEvents,
        answers={200: EventOut},
        streams=True,
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=Handlers.healthz,
        summary="Is the node alive; with a key, how it is",
        answers={200: HealthOut},
        needs_key=False,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=Handlers.readyz,
        summary="Should new calls come here",
        answers={200: HealthOut, 503: HealthOut},
        needs_key=False,
    ),
    Route(
        method="GET",
        path="/api/openapi.json",
        handler=Handlers.openapi_document,
        summary="This document",
        answers={200: None},
        needs_key=False,
    ),
)
