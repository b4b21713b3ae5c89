"""Reading requests, writing answers."""

import functools
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, TypeVar, get_origin, get_type_hints

import msgspec
from aiohttp import web

from sipagent.api.errors import ApiError, field_error, invalid
from sipagent.api.types import FieldError
from sipagent.web.client import parse_url

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
    """The query string; raises 422 for what is unknown, repeated (but for lists) or not of its kind."""
    query = request.query
    lists = list_fields(kind)
    given: dict[str, Any] = {}
    for name in query:
        values = query.getall(name)
        if len(values) > 1 and name not in lists:
            raise field_error(name, "is given more than once")
        given[name] = values if name in lists else values[0]
    try:
        parameters = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    for name in kind.__struct_fields__:
        value = getattr(parameters, name)
        if value is None and name in given:  # msgspec reads the word "null" so, which is no value of any parameter
            raise field_error(name, "may not be null: leave it out")
        if isinstance(value, datetime) and value.tzinfo is None:
            parameters = msgspec.structs.replace(parameters, **{name: value.replace(tzinfo=UTC)})
    return parameters


@functools.cache
def list_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Those that may be given several times."""
    hints = get_type_hints(kind)
    return frozenset(name for name in kind.__struct_fields__ if get_origin(hints[name]) is tuple)


def check_url(field: str, url: str) -> None:
    """Raises 422 for what is no URL of a web server. Where it leads is looked at when it is asked."""
    try:
        parse_url(url)
    except ValueError as error:
        raise field_error(field, str(error)) from error


def request_id() -> str:
    return f"req_{token_hex(16)}"


def json_answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    return web.json_response(body=msgspec.json.encode(value), status=status)
