"""What a batch of events changes, gathered without I/O, and written with as few statements as there are kinds of rows.

A batch says many things about few rows: what is said of a row that the batch itself makes goes into that row, and
several changes of an old row become one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from sqlalchemy import Connection, Table, delete

from sipagent.core.errors import SipagentError
from sipagent.store import bulk
from sipagent.store.bulk import Row
from sipagent.store.models import (
    Call,
    EventRow,
    Leg,
    Quality,
    Registration,
    SipMessageRow,
    ToolCallRow,
    Transfer,
    Turn,
)
from sipagent.store.resource_models import Recording, ReportHour, WebhookDelivery

CALLS = cast(Table, Call.__table__)
LEGS = cast(Table, Leg.__table__)
TURNS = cast(Table, Turn.__table__)
TRANSFERS = cast(Table, Transfer.__table__)
TOOL_CALLS = cast(Table, ToolCallRow.__table__)
RECORDINGS = cast(Table, Recording.__table__)
SIP_MESSAGES = cast(Table, SipMessageRow.__table__)
QUALITY = cast(Table, Quality.__table__)
REGISTRATIONS = cast(Table, Registration.__table__)
EVENTS = cast(Table, EventRow.__table__)
WEBHOOKS = cast(Table, WebhookDelivery.__table__)
REPORT_HOURS = cast(Table, ReportHour.__table__)

_STATEFUL = (CALLS, LEGS)


class MissingCall(SipagentError):
    """The call that a row belongs to is not in the record."""


class Changes:
    """`states`: of the calls and legs that the record has, by id, as `states_of` reads them."""

    def __init__(self, states: Mapping[str, str]) -> None:
        self._states = dict(states)
        self._inserts: dict[Table, list[Row]] = {}
        self._new: dict[str, Row] = {}  # rows of `_inserts` that may yet change, by id
        self._updates: dict[Table, dict[str, Row]] = {}
        self._registrations: dict[tuple[str, str], Row] = {}

    def insert(self, table: Table, row: Row) -> None:
        """A new row. Raises MissingCall when it belongs to a call that is not there."""
        if table is not CALLS and table is not EVENTS and row["call_id"] not in self._states:
            raise MissingCall("the call it belongs to is not in the record")
        self._inserts.setdefault(table, []).append(row)
        if table in _STATEFUL or table in (TOOL_CALLS, RECORDINGS):
            self._new[row["id"]] = row
        if table in _STATEFUL:
            self._states[row["id"]] = row["state"]

    def change(self, table: Table, key: str, values: Row, states: Sequence[str] | None = None) -> None:
        """Set columns of one row, if it is there and its state is one of `states`."""
        if table in _STATEFUL:
            state = self._states.get(key)
            if state is None or (states is not None and state not in states):
                return
            self._states[key] = values.get("state", state)
        row = self._new.get(key)
        if row is not None:
            row.update(values)
        else:
            self._updates.setdefault(table, {}).setdefault(key, {}).update(values)

    def registration(self, row: Row) -> None:
        self._registrations[row["node"], row["trunk"]] = row

    def write(self, connection: Connection) -> None:
        if CALLS in self._inserts:  # one that comes late opens its hour again
            hours = {row["setup_at"].replace(minute=0, second=0, microsecond=0) for row in self._inserts[CALLS]}
            connection.execute(delete(REPORT_HOURS).where(REPORT_HOURS.c.hour.in_(hours)))
        for table in sorted(self._inserts, key=lambda table: table is not CALLS):  # which the others refer to
            bulk.insert(connection, table, _of_one_shape(self._inserts[table]))
        for table, changed in self._updates.items():
            by_columns: dict[tuple[str, ...], list[Row]] = {}
            for key, values in changed.items():
                by_columns.setdefault(tuple(sorted(values)), []).append(values | {"id": key})
            for columns, rows in by_columns.items():
                bulk.change(connection, table, columns, rows)
        if self._registrations:
            bulk.upsert(connection, REGISTRATIONS, list(self._registrations.values()))


def states_of(connection: Connection, calls: Iterable[str], legs: Iterable[str]) -> dict[str, str]:
    """The states of those that the record has."""
    found: dict[str, str] = {}
    for table, ids in ((CALLS, set(calls)), (LEGS, set(legs))):
        if ids:
            found |= {row.id: row.state for row in bulk.fetch(connection, table, ("id", "state"), ids)}
    return found


def known_events(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Those that are in the record already."""
    return {key for (key,) in bulk.fetch(connection, EVENTS, ("id",), ids)}


def _of_one_shape(rows: list[Row]) -> list[Row]:
    """With the same columns in each: one statement needs that. Those that a row lacks are null."""
    columns = {name for row in rows for name in row}
    if all(len(row) == len(columns) for row in rows):
        return rows
    empty = dict.fromkeys(columns)
    return [empty | row for row in rows]
