"""Keys and audit rows as they go over the wire."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from sipagent.api.types import Cursor, Instant, Label, Request, Response
from sipagent.store.records import MAX_PAGE

Scope = Literal["read", "control", "admin"]


class CreateKey(Request, kw_only=True, frozen=True):
    name: Label  # for people
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=3)]  # each has what the ones before it have
    rate_per_s: Annotated[float, Meta(gt=0, le=100_000)] | None = None  # null is [api] rate_per_s
    expires_at: datetime | None = None  # without a zone it is UTC; null is never


class KeyOut(Response, kw_only=True, frozen=True):
    id: str
    name: str
    scopes: list[str]
    rate_per_s: float | None
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None  # up to some seconds behind


class KeyMade(KeyOut, kw_only=True, frozen=True):
    key: str  # shown this once


class KeysPage(Response, kw_only=True, frozen=True):
    """All keys that were made; there is never a second page."""

    data: list[KeyOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class ListAudit(Request, kw_only=True, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None


class AuditOut(Response, kw_only=True, frozen=True):
    id: str
    at: Instant
    key_id: str
    node: str
    action: str  # the operation's name in the OpenAPI document
    resource: str  # the path
    status: int
    detail: str


class AuditPage(Response, kw_only=True, frozen=True):
    """Newest first; backwards one goes from the start again."""

    data: list[AuditOut]
    next_cursor: str | None
    previous_cursor: str | None = None
    has_more: bool
