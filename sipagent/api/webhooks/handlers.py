"""Webhooks: `events` of the Teler SDK."""

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error
from sipagent.api.http import json_answer, read_body, read_parameters
from sipagent.api.idempotency import Answer
from sipagent.api.routing import V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters, Request
from sipagent.api.webhooks.types import ListWebhooks, Redelivered, WebhookOut, WebhooksPage
from sipagent.calls.hooks import ACCOUNT, API_VERSION
from sipagent.store.outbox import DeliveryFilter, DeliveryRecord, DeliveryState

ONE = f"{V1}/events/{{event_id}}"


class Redeliver(Request, kw_only=True, frozen=True):
    pass


class WebhookHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._webhooks = backend.webhooks
        self._shared = shared

    async def list_webhooks(self, request: web.Request) -> web.Response:
        wanted = read_parameters(request, ListWebhooks)
        if wanted.cursor_after is not None and wanted.cursor_before is not None:
            raise field_error("cursor_after", "cannot be used together with cursor_before")
        page = await self._webhooks.list_deliveries(
            DeliveryFilter(
                call_id=wanted.call_id,
                event_type=wanted.type,
                state=DeliveryState(wanted.delivery_status) if wanted.delivery_status is not None else None,
                occurred_after=wanted.occurred_after,
                limit=wanted.limit,
                cursor_after=wanted.cursor_after,
                cursor_before=wanted.cursor_before,
            )
        )
        return json_answer(
            WebhooksPage(
                data=[_out(one) for one in page.deliveries],
                next_cursor=page.next_cursor,
                previous_cursor=page.previous_cursor,
                has_more=page.has_more,
            )
        )

    async def get_webhook(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        found = await self._webhooks.get_delivery(request.match_info["event_id"])
        if found is None:
            raise _none()
        return json_answer(_out(found))

    async def redeliver(self, request: web.Request) -> web.Response:
        _, raw = await read_body(request, Redeliver)
        delivery_id = request.match_info["event_id"]

        async def work() -> Answer:
            at = await self._webhooks.send_again(delivery_id)
            if at is None:
                raise _none()
            return Answer(200, msgspec.json.encode(Redelivered(event_id=delivery_id, redelivered_at=at)))

        return await self._shared.done_once(request, raw, work)


def _none() -> ApiError:
    return ApiError(404, "there is no such webhook event")


def _out(one: DeliveryRecord) -> WebhookOut:
    again = one.state is DeliveryState.AGAIN
    return WebhookOut(
        id=one.id,
        account_id=ACCOUNT,
        call_id=one.call_id,
        sip_trunk_id=None,
        leg_id=one.payload.get("leg_id"),
        type=one.event_type,
        api_version=API_VERSION,
        occurred_at=one.created_at,
        payload=one.payload,
        delivery_status="pending" if again else one.state.value,  # type: ignore[arg-type]
        attempt_count=one.attempts,
        last_attempt_at=one.last_try_at,
        last_status_code=one.last_status,
        last_error=one.last_error or None,
        delivered_at=one.delivered_at,
        created_at=one.created_at,
        voice_app_id=one.app_id,
        next_attempt_at=one.next_try_at,
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{V1}/events",
        handler=WebhookHandlers.list_webhooks,
        summary="Webhooks, newest first: what was sent to whom, and how that went",
        query=ListWebhooks,
        answers={200: WebhooksPage},
        refusals=(422, 503),
    ),
    Route(
        method="GET",
        path=ONE,
        handler=WebhookHandlers.get_webhook,
        summary="One webhook",
        answers={200: WebhookOut},
        refusals=(404, 422, 503),
    ),
    Route(
        method="POST",
        path=f"{ONE}/redeliver",
        handler=WebhookHandlers.redeliver,
        summary="Send a webhook once more",
        body=Redeliver,
        answers={200: Redelivered},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
)
