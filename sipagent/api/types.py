"""What all topics' messages are made of. The OpenAPI document is made from the types of all topics."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

# Printable ASCII without quote, angle bracket and backslash: nothing that could end a SIP header.
# Patterns end in "nothing follows": Python's $ would let a newline through, and JSON Schema does not know \Z.
END = r"(?![\s\S])"
_DIALLED = r"[!#-;=?-\[\]-~]"
Dialled = Annotated[str, Meta(pattern=rf"^{_DIALLED}+{END}", min_length=1, max_length=256)]
DialledOrNone = Annotated[str, Meta(pattern=rf"^{_DIALLED}*{END}", max_length=256)]
Name = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.-]*{END}", max_length=64)]
Label = Annotated[str, Meta(pattern=rf"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*{END}", min_length=1, max_length=64)]
Short = Annotated[str, Meta(max_length=512)]
Instant = Annotated[datetime, Meta(tz=True)]  # always UTC
Cursor = Annotated[str, Meta(min_length=1, max_length=64)]


class Request(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class Response(msgspec.Struct, kw_only=True, frozen=True):
    pass


class NoParameters(Request, kw_only=True, frozen=True):
    pass


class FieldError(Response, kw_only=True, frozen=True):
    field: str  # dotted path, "" for the whole
    message: str


class ErrorOut(Response, kw_only=True, frozen=True):
    """Every answer from 400 up."""

    message: str
    errors: list[FieldError] = []
