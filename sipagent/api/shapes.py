"""Helps the topics make what goes over the wire."""

from typing import TypeVar

import msgspec

_Out = TypeVar("_Out", bound=msgspec.Struct)


def same_names(source: msgspec.Struct, kind: type[_Out]) -> _Out:
    return kind(**{name: getattr(source, name) for name in kind.__struct_fields__})
