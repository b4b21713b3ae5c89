"""The end of a call, asked for as of Twilio: what bots that speak its media streams do when they are through.

POST /2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}.json with `Status=completed`, as a form, by Basic authentication:
the password is one of our keys, the user is not looked at (twilio.com/docs/voice/api/call-resource).
"""

from aiohttp import web

from sipagent.api.backend import Backend
from sipagent.api.errors import ApiError, field_error, no_such_call
from sipagent.api.http import json_answer
from sipagent.api.routing import Route
from sipagent.api.shared import Shared
from sipagent.api.types import Response
from sipagent.calls.streams.twilio import sid

MAX_FIELDS = 20
FORM = "application/x-www-form-urlencoded"
_ENDS = ("completed", "canceled")


class TwilioCall(Response, kw_only=True, frozen=True):
    """The fields of Twilio's call resource that we have."""

    sid: str
    account_sid: str
    status: str
    uri: str


class TwilioHandlers:
    def __init__(self, backend: Backend, shared: Shared) -> None:
        self._calls = backend.calls
        self._steering = backend.steering

    async def end_twilio_call(self, request: web.Request) -> web.Response:
        status = await _status(request)
        if status not in _ENDS:
            raise field_error("Status", "may only become completed or canceled", 400)
        call_sid = request.match_info["call_sid"]
        call_id = next((live.call_id for live in self._calls.live_calls() if _is(call_sid, live.call_id)), "")
        if not call_id or not await self._steering.hangup(call_id):
            raise no_such_call()
        account = request.match_info["account_sid"]
        return json_answer(TwilioCall(sid=call_sid, account_sid=account, status=status, uri=request.path))


async def _status(request: web.Request) -> str:
    """Raises 400 or 415."""
    if request.content_type != FORM:
        raise ApiError(415, f"the body must be a form (content-type: {FORM})")
    try:
        form = await request.post()
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(400, "the body is no form") from error
    if len(form) > MAX_FIELDS:
        raise ApiError(400, f"a form has at most {MAX_FIELDS} fields")
    return str(form.get("Status", "")).lower()


def _is(call_sid: str, call_id: str) -> bool:
    """Our own id serves as well."""
    return call_sid in (call_id, sid("CA", call_id))


ROUTES = (
    Route(
        method="POST",
        path="/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json",
        handler=TwilioHandlers.end_twilio_call,
        summary="End a call as at Twilio: a form with Status=completed; a key is the password of Basic authentication",
        basic=True,
        answers={200: TwilioCall},
        refusals=(400, 404, 413, 415, 422, 503, 504),
    ),
)
