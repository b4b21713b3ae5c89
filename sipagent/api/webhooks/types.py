"""Webhooks over the wire, in the shape of the Teler SDK 1.0.0 (`teler.resources.events`)."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from sipagent.api.types import Cursor, Instant, Request, Response, Short
from sipagent.store.records import MAX_PAGE

Status = Literal["pending", "delivered", "failed", "disabled"]


class ListWebhooks(Request, kw_only=True, frozen=True):
    """Newest first. At most one of the cursors."""

    call_id: Cursor | None = None
    type: Short | None = None  # such as "call.ended"
    occurred_after: datetime | None = None  # inclusive; without a zone it is UTC
    delivery_status: Status | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None
    cursor_before: Cursor | None = None


class WebhookOut(Response, kw_only=True, frozen=True):
    """One webhook to one receiver; `payload` is what was sent, or is to be."""

    id: str  # also its `webhook-id`
    account_id: str
    call_id: str | None
    sip_trunk_id: str | None
    leg_id: str | None
    type: str
    api_version: str
    occurred_at: Instant
    payload: dict[str, Any]
    delivery_status: Status
    attempt_count: int
    last_attempt_at: Instant | None
    last_status_code: int | None
    last_error: str | None
    delivered_at: Instant | None
    created_at: Instant
    # ours
    voice_app_id: str | None
    next_attempt_at: Instant | None


class WebhooksPage(Response, kw_only=True, frozen=True):
    data: list[WebhookOut]
    next_cursor: str | None  # for `cursor_after`
    previous_cursor: str | None  # for `cursor_before`
    has_more: bool


class Redelivered(Response, kw_only=True, frozen=True):
    event_id: str
    redelivered_at: Instant
