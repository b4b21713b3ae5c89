"""Reading requests, writing answers."""

from datetime import UTC, datetime
from secrets import token_hex
from typing import TypeVar

import msgspec
from aiohttp import web

from sipagent.api.errors import ApiError, field_error, invalid
from sipagent.api.types import FieldError

_Type = TypeVar("_Type", bound=msgspec.Struct)


async def read_body(request: web.Request, kind: type[_Type]) -> tuple[_Type, bytes]:
    """The JSON body and its bytes; no body is the empty object. Raises 400, 413, 415 or 422."""
    raw = await request.read()
    if raw and request.content_type != "application/json":
        raise ApiError(415, "the body must be JSON (content-type: application/json)")
    try:
        return msgspec.json.decode(raw or b"{}", type=kind), raw
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON", FieldError(field="", message=str(error))) from error


def read_parameters(request: web.Request, kind: type[_Type]) -> _Type:
    """The query string; raises 422 for what is unknown, repeated or not of its kind."""
    query = request.query
    given = dict(query)
    if len(given) != len(query):
        repeated = next(name for name in given if len(query.getall(name)) > 1)
        raise field_error(repeated, "is given more than once")
    try:
        parameters = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    for name in kind.__struct_fields__:
        value = getattr(parameters, name)
        if isinstance(value, datetime) and value.tzinfo is None:
            parameters = msgspec.structs.replace(parameters, **{name: value.replace(tzinfo=UTC)})
    return parameters


def request_id() -> str:
    return f"req_{token_hex(16)}"


def json_answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    return web.json_response(body=msgspec.json.encode(value), status=status)
