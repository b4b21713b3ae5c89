"""Events as they go out."""

from typing import Any

from sipagent.api.types import Cursor, Instant, Request, Response


class WatchEvents(Request, kw_only=True, frozen=True):
    call_id: Cursor | None = None  # only this call's events


class EventOut(Response, kw_only=True, frozen=True):
    """One event: `data` has the fields of the event's type. Also the data of each message on the stream."""

    id: str
    type: str
    call_id: str | None
    leg_id: str | None
    at: Instant
    data: dict[str, Any]
