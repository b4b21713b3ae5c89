"""Recordings over the wire."""

from typing import Annotated, Literal

from msgspec import Meta

from sipagent.api.types import Cursor, Instant, Request, Response

LONGEST_S = 86_400
DEFAULT_S = 900


class RetrieveRecording(Request, kw_only=True, frozen=True):
    recording_id: Cursor
    expires_in: Annotated[int, Meta(ge=1, le=LONGEST_S)] = DEFAULT_S  # seconds


class SignedQuery(Request, kw_only=True, frozen=True):
    expires: Annotated[int, Meta(ge=0, le=2**53)]  # seconds since 1970
    signature: Annotated[str, Meta(min_length=1, max_length=128)]


class NoBody(Request, kw_only=True, frozen=True):
    pass


class RecordingLink(Response, kw_only=True, frozen=True):
    """`url` is the redirect's Location, and good for so many seconds."""

    url: str
    recording_id: str
    expires_in: int


class RecordingOut(Response, kw_only=True, frozen=True):
    """A stereo WAV file: the caller left, what the caller heard right."""

    id: str
    call_id: str
    leg_id: str | None  # that it was begun on
    state: Literal["recording", "done", "failed", "erased"]
    started_at: Instant
    ended_at: Instant | None
    ms: int | None
    channels: int
    rate: int
    bytes: int | None
    sha256: str | None
    detail: str  # where something is missing


class RecordingsPage(Response, kw_only=True, frozen=True):
    """The recordings of one call, oldest first; there is never a second page."""

    data: list[RecordingOut]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    has_more: bool = False


class RecordingChanged(Response, kw_only=True, frozen=True):
    recording_id: str
    request_id: str
