"""What a call that is up can be made to hear, to say and to answer."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error, no_such_call
from sipagent.api.http import read_body, request_id
from sipagent.api.idempotency import Answer
from sipagent.api.mutations.backend import Ask, DigitsAsked, Play
from sipagent.api.mutations.types import (
    AnswerCall,
    Dtmf,
    Gather,
    GatherOut,
    Mute,
    PlayMedia,
    RejectCall,
    Say,
)
from sipagent.api.routing import CALL, Route
from sipagent.api.shared import Shared
from sipagent.api.steering.types import MutationOut
from sipagent.core.errors import ConfigError

KEY_MS = 160


class MutationHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._calls = backend.calls
        self._steering = backend.steering
        self._mutations = backend.mutations
        self._shared = shared

    async def mute(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Mute)
        leg_id = self._leg(request, body.leg_id)
        return await self._ordered(request, raw, lambda call_id: _plain(self._mutations.mute(call_id, leg_id, body.on)))

    async def dtmf(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Dtmf)
        leg_id = self._leg(request, body.leg_id)

        async def press(call_id: str) -> msgspec.Struct | None:
            try:
                pressed = self._mutations.press(call_id, leg_id, body.digits, body.duration_ms or KEY_MS)
                return await _plain(pressed)
            except ValueError as error:
                raise field_error("digits", str(error)) from error

        return await self._ordered(request, raw, press)

    async def play(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, PlayMedia)
        leg_id = self._leg(request, body.leg_id)
        wanted = Play(source=body.media_url, loops=body.loop or 1, until_key=body.on_dtmf == "stop")

        async def start(call_id: str) -> msgspec.Struct | None:
            playback_id = await self._mutations.play(call_id, leg_id, wanted)
            return MutationOut(request_id=request_id(), playback_id=playback_id) if playback_id else None

        return await self._ordered(request, raw, start)

    async def say(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Say)
        leg_id = self._leg(request, body.leg_id)
        return await self._ordered(
            request, raw, lambda call_id: _plain(self._mutations.say(call_id, leg_id, body.text))
        )

    async def gather(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, Gather)
        if body.digits is None and not body.speech:
            raise field_error("digits", "is needed, or speech: nothing would be an answer")
        if body.digits is not None and body.digits.least > body.digits.most:
            raise field_error("digits.least", "is more than digits.most")
        keys = DigitsAsked(**msgspec.structs.asdict(body.digits)) if body.digits is not None else None
        wanted = Ask(
            text=body.text,
            digits=keys,
            speech=body.speech,
            language=body.language,
            first_s=body.first_s,
            limit_s=body.limit_s,
        )

        async def ask(call_id: str) -> msgspec.Struct | None:
            try:
                answered = await self._mutations.gather(call_id, wanted, body.wait_s)
            except ConfigError as error:
                raise field_error("language", str(error)) from error
            if answered is None:
                return None
            return GatherOut(request_id=request_id(), **msgspec.structs.asdict(answered))

        return await self._ordered(request, raw, ask)

    async def answer(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, AnswerCall)

        async def pick_up(call_id: str) -> msgspec.Struct | None:
            try:
                return await _plain(self._mutations.answer(call_id, body.dialplan))
            except ConfigError as error:
                raise field_error("dialplan", str(error)) from error

        return await self._ordered(request, raw, pick_up)

    async def reject(self, request: web.Request) -> web.Response:
        body, raw = await read_body(request, RejectCall)
        return await self._ordered(
            request, raw, lambda call_id: _plain(self._mutations.reject(call_id, body.status, body.reason))
        )

    def _leg(self, request: web.Request, leg_id: str | None) -> str:
        """The leg that is named, "" for the caller's."""
        if leg_id is None:
            return ""
        if self._steering.call_of_leg(leg_id) != request.match_info["call_id"]:
            raise field_error("leg_id", "is no leg of this call that is up")
        return leg_id

    async def _ordered(
        self, request: web.Request, raw: bytes, order: Callable[[str], Awaitable[msgspec.Struct | None]]
    ) -> web.Response:
        """Asks something of the call in the path, once; None is that it is not up."""
        call_id = request.match_info["call_id"]

        async def work() -> Answer:
            answer = await order(call_id)
            if isinstance(answer, GatherOut):
                kept = msgspec.structs.replace(answer, digits="", text="")
                return Answer(200, msgspec.json.encode(answer), msgspec.json.encode(kept))
            if answer is not None:
                return Answer(200, msgspec.json.encode(answer))
            if await self._calls.get_call(call_id) is None:
                raise no_such_call()
            raise ApiError(409, "this call is not up any more")

        return await self._shared.done_once(request, raw, work)


async def _plain(done: Awaitable[bool]) -> MutationOut | None:
    return MutationOut(request_id=request_id()) if await done else None


REFUSALS = (400, 404, 409, 413, 415, 422, 503, 504)

ROUTES = tuple(
    Route(
        method="POST",
        path=f"{CALL}/{name}",
        handler=handler,
        summary=summary,
        body=body,
        answers={200: answer},
        idempotent=True,
        refusals=REFUSALS,
    )
    for name, handler, summary, body, answer in (
        ("mute", MutationHandlers.mute, "Let nobody hear what a leg's party says, or again", Mute, MutationOut),
        ("dtmf", MutationHandlers.dtmf, "Press keys for the other side", Dtmf, MutationOut),
        ("play", MutationHandlers.play, "Play a WAV file", PlayMedia, MutationOut),
        ("say", MutationHandlers.say, "Say a text", Say, MutationOut),
        ("gather", MutationHandlers.gather, "Ask the caller for keys or speech", Gather, GatherOut),
        ("answer", MutationHandlers.answer, "Answer a call that rings here", AnswerCall, MutationOut),
        ("reject", MutationHandlers.reject, "Refuse a call that rings here", RejectCall, MutationOut),
    )
)
