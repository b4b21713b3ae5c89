"""Calls as Teler's `sip.calls` shows them: with the trunk they came by or went over."""

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import field_error, no_such_call
from sipagent.api.http import json_answer, read_parameters
from sipagent.api.resources.trunk_types import ListSipCalls, SipCallOut, SipCallsPage
from sipagent.api.routing import V1, Route
from sipagent.api.shared import ACCOUNT, Shared
from sipagent.api.types import NoParameters
from sipagent.calls.inventory import Inventory
from sipagent.store.records import CallFilter, CallRecord


class SipCallHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._resources = backend.resources
        self._calls = backend.calls

    async def list_sip_calls(self, request: web.Request) -> web.Response:
        query = read_parameters(request, ListSipCalls)
        if query.cursor_after is not None and query.cursor_before is not None:
            raise field_error("cursor_after", "cannot be used together with cursor_before")
        inventory = await self._resources.inventory()
        trunk = None
        if query.trunk_id is not None:
            known = inventory.trunks.get(query.trunk_id)
            if known is None:
                raise field_error("trunk_id", "is no trunk's id")
            trunk = known.name
        fields = {name: value for name, value in msgspec.structs.asdict(query).items() if name != "trunk_id"}
        page = await self._calls.list_calls(CallFilter(trunk=trunk, **fields))
        return json_answer(
            SipCallsPage(
                data=[sip_call_out(call, inventory) for call in page.calls],
                next_cursor=page.next_cursor,
                previous_cursor=page.previous_cursor,
                has_more=page.has_more,
            )
        )

    async def get_sip_call(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        full = await self._calls.get_call(request.match_info["call_id"])
        if full is None:
            raise no_such_call()
        return json_answer(sip_call_out(full.call, await self._resources.inventory()))


def sip_call_out(call: CallRecord, inventory: Inventory) -> SipCallOut:
    both = call.answered_at is not None and call.ended_at is not None
    return SipCallOut(
        id=call.id,
        account_id=ACCOUNT,
        sip_trunk_id=next((trunk.id for trunk in inventory.trunks.values() if trunk.name == call.trunk), None),
        state=call.state,
        direction=call.direction,
        from_number=call.from_number,
        to_number=call.to_number,
        created_at=call.setup_at,
        answered_at=call.answered_at,
        ended_at=call.ended_at,
        duration_seconds=round((call.ended_at - call.answered_at).total_seconds()) if both else None,  # type: ignore[operator]
        reason=call.cause,
        ended_by=call.ended_by,
        recordings=[],
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/sip/calls",
        handler=SipCallHandlers.list_sip_calls,
        summary="Calls with their trunk, newest first",
        query=ListSipCalls,
        answers={200: SipCallsPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/sip/calls/{{call_id}}",
        handler=SipCallHandlers.get_sip_call,
        summary="One call with its trunk",
        answers={200: SipCallOut},
        refusals=(404, 422, 503),
    ),
)
