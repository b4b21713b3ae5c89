"""What a node's crash has left in the record: calls without an end, states of registrations that are no more."""

from sqlalchemy import Connection, Row, delete, func, select

from sipagent.core.clock import Stamp
from sipagent.core.events import CallEnded
from sipagent.core.ids import CallId
from sipagent.core.states import LegState
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.store.changes import CALLS, EVENTS, LEGS, RECORDINGS, REGISTRATIONS, Changes, states_of
from sipagent.store.rows import LIVE_STATES, ended, event_values

CUT_OFF = "the node ended before the recording did: the file holds what was written until then"


def close_orphans(connection: Connection, now: Stamp, node: str = "", but: frozenset[str] = frozenset()) -> int:
    """End the calls this node left open when it crashed, `but` those that go on; returns how many.

    A call's end is its last recorded sign of life, not `now`: a night without power is not billed. The event that
    tells of it stands at `now`, when it was found out.
    """
    live = select(CALLS).where(CALLS.c.state.in_(LIVE_STATES), CALLS.c.node == node)
    orphans = [call for call in connection.execute(live) if call.id not in but]
    for call in orphans:
        _close(connection, call, now)
    return len(orphans)


def _close(connection: Connection, call: Row[tuple[object, ...]], now: Stamp) -> None:
    of_call = select(func.max(EVENTS.c.at), func.max(EVENTS.c.seq)).where(EVENTS.c.call_id == call.id)
    last_at, last_seq = connection.execute(of_call).one()
    last_seen = last_at or call.setup_at
    legs = connection.execute(select(LEGS).where(LEGS.c.call_id == call.id, LEGS.c.state != LegState.ENDED)).all()
    changes = Changes(states_of(connection, [call.id], [leg.id for leg in legs]))
    for table, row in ((CALLS, call), *((LEGS, leg) for leg in legs)):
        changes.change(table, row.id, ended(_crashed(row.answered_at is not None)) | {"ended_at": last_seen})
    found_out = CallEnded(call_id=CallId(call.id), at=now, termination=_crashed(call.answered_at is not None))
    changes.insert(EVENTS, event_values(found_out, (last_seq or 0) + 1))
    recorded = select(RECORDINGS.c.id).where(RECORDINGS.c.call_id == call.id, RECORDINGS.c.state == "recording")
    for (recording_id,) in connection.execute(recorded):
        cut_off = {"state": "failed", "ended_at": last_seen, "detail": CUT_OFF}
        changes.change(RECORDINGS, recording_id, cut_off)
    changes.write(connection)


def _crashed(answered: bool) -> Termination:
    disposition = Disposition.ANSWERED if answered else Disposition.FAILED
    return Termination(disposition=disposition, cause=Cause.NODE_CRASHED, by=EndedBy.SYSTEM)


def forget_registrations(connection: Connection, node: str = "") -> None:
    """Drop the states that an earlier run of this node left: they are not the present any more."""
    connection.execute(delete(REGISTRATIONS).where(REGISTRATIONS.c.node == node))
