"""Erasures as they go over the wire."""

from typing import Annotated

from msgspec import Meta

from sipagent.api.types import Cursor, Dialled, Instant, Request, Response
from sipagent.store.records import MAX_PAGE


class EraseCaller(Request, kw_only=True, frozen=True):
    number: Dialled  # as the record has it, or with another of "+", "00" and nothing before it


class ListErasures(Request, kw_only=True, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None  # older than this


class ErasureOut(Response, kw_only=True, frozen=True):
    """The proof. `counts`: rows changed or deleted by table, `files` of recordings, and what could not be erased:
    `calls_up` (erase again when they have ended) and `recordings_elsewhere` (on other nodes)."""

    id: str
    at: Instant
    what: str
    number_hash: str
    counts: dict[str, int]
    by: str  # id of the API key


class ErasuresPage(Response, kw_only=True, frozen=True):
    data: list[ErasureOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False
