"""Many rows by one statement, the way that costs the process least: PostgreSQL is sent one JSON document and makes rows
of it, SQLite has a statement prepared once for all rows.

Measured with `bench.store`: SQLAlchemy's own bulk statements cost two to three times as much per row. Values are those
of unpacked events: text has no lone surrogates.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import JSON, Column, Connection, Table
from sqlalchemy.dialects import postgresql

from sipagent.core.text import storable
from sipagent.store.types import FiniteFloat, StorableText, UtcDateTime

Row = dict[str, Any]

_POSTGRES = postgresql.dialect()  # type: ignore[no-untyped-call]  # names its types


def insert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Rows of the same columns."""
    columns = tuple(rows[0])
    _execute(connection, table, _insert(connection.dialect.name, table, columns), columns, rows)


def upsert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Rows of the same columns, in place of those that have the same key."""
    columns, keys = tuple(rows[0]), [column.name for column in table.primary_key]
    rest = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in keys)
    sql = f"{_insert(connection.dialect.name, table, columns)} ON CONFLICT ({_list(keys)}) DO UPDATE SET {rest}"
    _execute(connection, table, sql, columns, rows)


def change(connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Sets the columns of the rows by the id that each has besides."""
    _execute(connection, table, _update(connection.dialect.name, table, columns), (*columns, "id"), rows)


def fetch(connection: Connection, table: Table, columns: Sequence[str], ids: Iterable[str]) -> list[Any]:
    """The columns of those rows that are there."""
    wanted = list(ids)
    sql = f'SELECT {_list(columns)} FROM "{table.name}" WHERE id '
    if _is_postgres(connection):
        return list(connection.exec_driver_sql(sql + "= ANY(%s)", (wanted,)))
    encoded = msgspec.json.encode(wanted).decode()
    return list(connection.exec_driver_sql(sql + "IN (SELECT value FROM json_each(?))", (encoded,)))


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _execute(connection: Connection, table: Table, sql: str, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    if _is_postgres(connection):
        connection.exec_driver_sql(sql, (_document(table, columns, rows),))
        return
    makers = [(name, _maker(table, name)) for name in columns]
    connection.exec_driver_sql(sql, [tuple([make(row[name]) for name, make in makers]) for row in rows])


def _document(table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> str:
    cut = [(name, longest) for name in columns if (longest := _longest(table.c[name]))]
    if cut:
        rows = [row | {name: row[name][:longest] for name, longest in cut if row[name]} for row in rows]
    text = msgspec.json.encode(rows).decode()
    # PostgreSQL refuses NUL; a backslash before it may be the end of an escaped one, so this only hints at it
    if "\\u0000" in text:
        text = msgspec.json.encode(
            [{name: _without_nul(value) for name, value in row.items()} for row in rows]
        ).decode()
    return text


def _without_nul(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


@cache
def _insert(dialect: str, table: Table, columns: tuple[str, ...]) -> str:
    into = f'INSERT INTO "{table.name}" ({_list(columns)}) '
    if dialect == "postgresql":
        return f"{into}SELECT {_list(columns)} FROM {_rows(table, columns)}"
    return f"{into}VALUES ({', '.join('?' * len(columns))})"


@cache
def _update(dialect: str, table: Table, columns: tuple[str, ...]) -> str:
    if dialect == "postgresql":
        values = ", ".join(f'"{name}" = given."{name}"' for name in columns)
        given = _rows(table, (*columns, "id"))
        return f'UPDATE "{table.name}" SET {values} FROM {given} WHERE "{table.name}".id = given.id'
    values = ", ".join(f'"{name}" = ?' for name in columns)
    return f'UPDATE "{table.name}" SET {values} WHERE id = ?'


def _rows(table: Table, columns: tuple[str, ...]) -> str:
    typed = ", ".join(f'"{name}" {table.c[name].type.compile(_POSTGRES)}' for name in columns)
    return f"json_to_recordset(%s::json) AS given ({typed})"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _longest(column: Column[Any]) -> int | None:
    return column.type.longest if isinstance(column.type, StorableText) else None


@cache
def _maker(table: Table, name: str) -> Callable[[Any], Any]:
    """Makes what SQLite's driver takes of a column's value, as the column's type does."""
    match table.c[name].type:
        case StorableText() as text:
            longest = text.longest
            return lambda value: _text(value)[:longest] if value is not None else None
        case UtcDateTime():
            return _instant
        case FiniteFloat():
            return _finite
        case JSON():
            return lambda value: msgspec.json.encode(value).decode()
        case _:
            return _same


def _text(value: str) -> str:
    return storable(value) if "\0" in value else str(value)


def _instant(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def _same(value: Any) -> Any:
    return value
