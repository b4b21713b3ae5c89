"""The OpenAPI 3.1 document, made from the table of routes and the types they name."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from sipagent import __version__
from sipagent.api.auth import HEADER as KEY_HEADER
from sipagent.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from sipagent.api.idempotency import LONGEST_KEY
from sipagent.api.routing import Route
from sipagent.api.types import ErrorOut

REFERENCE = "#/components/schemas/{name}"


def document(routes: Iterable[Route]) -> dict[str, Any]:
    routes = tuple(route for route in routes if route.described)
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sipagent",
            "version": __version__,
            "description": "Calls of a sipagent node. Paths and fields follow the Teler API where it has them.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
                "basic": {"type": "http", "scheme": "basic", "description": "a key is the password"},
            },
        },
    }


class _Schemas:
    def __init__(self, routes: tuple[Route, ...]) -> None:
        named: list[type[msgspec.Struct]] = [ErrorOut]
        for route in routes:
            named += [kind for kind in (route.body, *route.answers.values()) if kind is not None]
        kinds = list(dict.fromkeys(named))
        references, self.components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
        self._references = dict(zip(kinds, references, strict=True))

    def of(self, kind: type[msgspec.Struct]) -> dict[str, Any]:
        return self._references[kind]


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
    }
    if route.needs_key:
        operation["security"] = [{"key": []}, {"basic": []}] if route.basic else [{"key": []}]
    if route.body is not None:
        # required only when some field of the body is
        required = any(field.required for field in msgspec.structs.fields(route.body))
        operation["requestBody"] = {"required": required, "content": _content("application/json", route.body, schemas)}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    _, inlined = msgspec.json.schema_components([route.query], ref_template=REFERENCE)
    described = inlined[route.query.__name__]
    for field in msgspec.structs.fields(route.query):
        schema = _resolve(described["properties"][field.encode_name], inlined)
        found.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    if route.idempotent:
        schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY}
        found.append({"name": IDEMPOTENCY_HEADER, "in": "header", "required": False, "schema": schema})
    return found


def _resolve(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Query parameters are few and flat: their schemas stand in the place of references."""
    if "$ref" in schema:
        return dict(components[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        # a parameter is left out, never null
        options = [_resolve(option, components) for option in schema["anyOf"] if option != {"type": "null"}]
        return options[0] if len(options) == 1 else {"anyOf": options}
    return schema


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in route.answers.items():
        media = "text/event-stream" if route.streams else route.media
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
        }
        if kind is not None or status != HTTPStatus.SWITCHING_PROTOCOLS:
            content = {media: {"schema": _own(media)}} if kind is None else _content(media, kind, schemas)
            responses[str(status)]["content"] = content
    every = (401, 403, 429, 500) if route.needs_key else (500,)
    for status in sorted({*route.refusals, *every} - set(route.answers)):
        content = _content("application/json", ErrorOut, schemas)
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    return responses


def _own(media: str) -> dict[str, Any]:
    return {"type": "object" if media == "application/json" else "string"}


def _content(media: str, kind: type[msgspec.Struct], schemas: _Schemas) -> dict[str, Any]:
    return {media: {"schema": schemas.of(kind)}}
