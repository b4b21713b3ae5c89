"""Column types that behave alike on SQLite and PostgreSQL."""

import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Double, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from sipagent.core.text import storable


class StorableText(TypeDecorator[str]):
    """Text from anywhere; of any length unless `longest` (characters) cuts it."""

    impl = String
    cache_ok = True

    def __init__(self, longest: int | None = None) -> None:
        super().__init__()
        self.longest = longest

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        # str(): members of a StrEnum are stored by value
        return None if value is None else storable(str(value))[: self.longest]


class FiniteFloat(TypeDecorator[float]):
    """A number, or null where a measurement gave infinity or no number: neither can be averaged or written as JSON."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or not math.isfinite(value) else value


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC instant with microseconds; SQLite has no zones, so it holds the same instant without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant without a time zone cannot be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def json_type() -> TypeEngine[Any]:
    return JSON().with_variant(JSONB(), "postgresql")
