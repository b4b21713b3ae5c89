"""Every refusal in one shape: ``{"message", "errors": [{"field", "message"}]}``."""

import logging
import re
import traceback
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from sipagent.api.types import ErrorOut, FieldError
from sipagent.core.errors import CapacityError, ConfigError, NotNow, ProcessDied, SetupError
from sipagent.store.records import AlreadyThere, RecordUnavailable

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CAPACITY_RETRY_S = 5


class ApiError(Exception):
    """A refusal with its HTTP status; `retry_after_s` tells when asking again may help."""

    def __init__(
        self, status: int, message: str, *errors: FieldError, retry_after_s: float = 0.0, allow: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorOut(message=message, errors=list(errors))
        self.headers: dict[str, str] = {}
        if retry_after_s:
            self.headers["Retry-After"] = str(max(1, round(retry_after_s)))
        if allow:
            self.headers["Allow"] = allow


def field_error(field: str, message: str, status: int = 422) -> ApiError:
    return ApiError(status, f"{field}: {message}", FieldError(field=field, message=message))


def no_such_call() -> ApiError:
    return ApiError(404, "there is no such call")


def invalid(error: msgspec.ValidationError) -> ApiError:
    """422 with the dotted path of the field that is wrong."""
    found = re.search(r"(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?$", str(error), re.DOTALL)
    assert found is not None
    message, path = found.group(1), found.group(2) or ""
    for pattern, wording in (
        (r"unknown field `(.+)`", "is not a known field"),
        (r"missing required field `(.+)`", "is required"),
    ):
        named = re.search(pattern, message)
        if named:
            path, message = f"{path}.{named.group(1)}".lstrip("."), wording
    return field_error(path, message) if path else ApiError(422, message, FieldError(field="", message=message))


def classify(error: Exception) -> ApiError | None:
    """The refusal that stands for one of the node's own errors; None for what nobody expected."""
    match error:
        case ApiError():
            return error
        case CapacityError():
            return ApiError(503, str(error), retry_after_s=CAPACITY_RETRY_S)
        case NotNow() | AlreadyThere():
            return ApiError(409, str(error))
        case ProcessDied() | SetupError() | RecordUnavailable():
            return ApiError(503, str(error))
        case ConfigError():
            return ApiError(422, str(error))
        case TimeoutError():
            return ApiError(504, "the node did not answer in time")
        case web.HTTPRequestEntityTooLarge():
            return ApiError(413, "the body is larger than 1 MiB")
        case web.HTTPMethodNotAllowed():
            return ApiError(405, "this path does not take this method", allow=", ".join(sorted(error.allowed_methods)))
        case web.HTTPNotFound():
            return ApiError(404, "there is nothing at this path")
        case web.HTTPException() if error.status >= 400:
            return ApiError(error.status, error.reason)
    return None


@web.middleware
async def in_one_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        known = classify(error)
        if known is None:
            if isinstance(error, web.HTTPException | ConnectionError):
                raise
            # The route, not the path, which may hold what a stranger typed; the lines of code, not the error's
            # text, which may hold a number.
            route = request.match_info.route.resource
            trace = "".join(traceback.format_tb(error.__traceback__))
            fields = {"route": route.canonical if route else "", "error": type(error).__name__, "trace": trace}
            log.error("api request failed", extra=fields)
            known = ApiError(500, "something went wrong in the node; its log tells what")
        return web.json_response(body=msgspec.json.encode(known.body), status=known.status, headers=known.headers)
