"""Recordings of calls."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, no_such_call
from sipagent.api.http import json_answer, read_body, read_parameters, request_id
from sipagent.api.idempotency import Answer
from sipagent.api.recordings.signing import is_signed, sign
from sipagent.api.recordings.types import (
    NoBody,
    RecordingChanged,
    RecordingLink,
    RecordingOut,
    RecordingsPage,
    RetrieveRecording,
    SignedQuery,
)
from sipagent.api.routing import CALL, V1, Route
from sipagent.api.shared import Shared
from sipagent.api.types import NoParameters
from sipagent.core.clock import wall_ms
from sipagent.store.records import RecordingRecord


class RecordingHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._calls = backend.calls
        self._recordings = backend.recordings
        self._shared = shared

    async def start_recording(self, request: web.Request) -> web.Response:
        return await self._changed(request, self._recordings.start_recording)

    async def stop_recording(self, request: web.Request) -> web.Response:
        return await self._changed(request, self._recordings.stop_recording)

    async def list_recordings(self, request: web.Request) -> web.Response:
        read_parameters(request, NoParameters)
        call_id = request.match_info["call_id"]
        found = await self._recordings.recordings(call_id)
        if not found and await self._calls.get_call(call_id) is None:
            raise no_such_call()
        return json_answer(RecordingsPage(data=[_out(recording) for recording in found]))

    async def retrieve_recording(self, request: web.Request) -> web.Response:
        """Redirects to a URL that needs no key."""
        wanted = read_parameters(request, RetrieveRecording)
        recording = await self._there(wanted.recording_id)
        expires = wall_ms() // 1000 + wanted.expires_in
        signature = sign(self._recordings.recording_key, recording.id, expires)
        url = self._shared.public(request, f"{V1}/recordings/{recording.id}/audio")
        url = url.with_query(expires=expires, signature=signature)
        link = RecordingLink(url=str(url), recording_id=recording.id, expires_in=wanted.expires_in)
        return web.json_response(body=msgspec.json.encode(link), status=307, headers={"Location": str(url)})

    async def recording_audio(self, request: web.Request) -> web.StreamResponse:
        """The file, or a part of it (Range)."""
        query = read_parameters(request, SignedQuery)
        recording_id = request.match_info["recording_id"]
        key = self._recordings.recording_key
        if not is_signed(key, recording_id, query.expires, query.signature, wall_ms() / 1000):
            raise ApiError(403, "this URL is not valid, or not any more: ask for a new one")
        recording = await self._there(recording_id)
        name = f"{recording.id}.wav"
        headers = {"Content-Type": "audio/wav", "Content-Disposition": f'attachment; filename="{name}"'}
        return web.FileResponse(self._recordings.recording_file(recording), headers=headers)

    async def _there(self, recording_id: str) -> RecordingRecord:
        recording = await self._recordings.recording(recording_id)
        if recording is None:
            raise ApiError(404, "there is no such recording")
        if recording.state == "erased" or not self._recordings.recording_file(recording).is_file():
            raise ApiError(404, "the file of this recording is not here any more")
        return recording

    async def _changed(self, request: web.Request, order: Callable[[str], Awaitable[str]]) -> web.Response:
        _, raw = await read_body(request, NoBody)
        call_id = request.match_info["call_id"]

        async def work() -> Answer:
            recording_id = await order(call_id)
            if recording_id:
                changed = RecordingChanged(recording_id=recording_id, request_id=request_id())
                return Answer(200, msgspec.json.encode(changed))
            if await self._calls.get_call(call_id) is None:
                raise no_such_call()
            raise ApiError(409, "this call is not up any more")

        return await self._shared.done_once(request, raw, work)


def _out(recording: RecordingRecord) -> RecordingOut:
    return RecordingOut(**{name: getattr(recording, name) for name in RecordingOut.__struct_fields__})


ROUTES = (
    Route(
        method="POST",
        path=f"{CALL}/recordings",
        handler=RecordingHandlers.start_recording,
        summary="Record a call from now on, both sides",
        body=NoBody,
        answers={200: RecordingChanged},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="POST",
        path=f"{CALL}/recordings/stop",
        handler=RecordingHandlers.stop_recording,
        summary="Stop recording a call",
        body=NoBody,
        answers={200: RecordingChanged},
        idempotent=True,
        refusals=(400, 404, 409, 413, 415, 422, 503, 504),
    ),
    Route(
        method="GET",
        path=f"{CALL}/recordings",
        handler=RecordingHandlers.list_recordings,
        summary="The recordings of one call",
        answers={200: RecordingsPage},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/recordings",
        handler=RecordingHandlers.retrieve_recording,
        summary="A short-lived URL that downloads a recording without a key",
        query=RetrieveRecording,
        answers={307: RecordingLink},
        refusals=(404, 422, 503),
    ),
    Route(
        method="GET",
        path=f"{V1}/recordings/{{recording_id}}/audio",
        handler=RecordingHandlers.recording_audio,
        summary="The audio of a recording, by a URL that was signed for it",
        query=SignedQuery,
        answers={200: None},
        media="audio/wav",
        needs_key=False,
        refusals=(403, 404, 422, 503),
    ),
)
