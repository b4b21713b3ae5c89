"""What call-detail records and reports read, and the hours they keep closed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from sipagent.core.states import LegState, ToolStatus
from sipagent.store.engine import describe, make_engine
from sipagent.store.models import Base, Call, Leg, Quality, ToolCallRow, Transfer, Turn
from sipagent.store.queries import Queries
from sipagent.store.records import (
    CallFilter,
    CallRecord,
    CallStory,
    CostRecord,
    HourRecord,
    LegRecord,
    QualityRecord,
    RecordUnavailable,
    StoryPage,
    TransferRecord,
    TurnFacts,
)
from sipagent.store.resource_models import CallCost, ReportHour

_Record = TypeVar("_Record", bound=msgspec.Struct)

HOUR = timedelta(hours=1)
_LIVE = [state for state in LegState if state is not LegState.ENDED]  # so named there is an index
AT_ONCE = 500  # calls read in one go


class ReportQueries(Queries):
    """`Queries`, and what reports ask besides. Each raises RecordUnavailable as those do."""

    def stories(self, wanted: CallFilter) -> StoryPage:
        """A page of `list_calls` with all that a detail record needs."""
        page = self.list_calls(wanted)
        with self._session() as session:
            return StoryPage(stories=_stories(session, page.calls), page=page)

    def stories_between(self, begin: datetime, end: datetime) -> Iterator[list[CallStory]]:
        """Every call that was set up from `begin` until before `end`, oldest first, some hundred at a time."""
        since: ColumnElement[bool] = Call.setup_at >= begin
        while True:
            with self._session() as session:
                calls = _read(session, CallRecord, _CALL, since & (Call.setup_at < end), order=(Call.setup_at, Call.id))
                stories = _stories(session, _with_legs(session, calls))
            if not stories:
                return
            yield stories
            last = stories[-1].call
            since = (Call.setup_at >= last.setup_at) & ((Call.setup_at > last.setup_at) | (Call.id > last.id))

    def first_call_at(self) -> datetime | None:
        with self._session() as session:
            return session.scalar(select(func.min(Call.setup_at)))

    def live_since(self) -> set[datetime]:
        """When the calls that are up began."""
        with self._session() as session:
            return set(session.scalars(select(Call.setup_at).where(Call.state.in_(_LIVE))))

    def closed_hours(self, begin: datetime, end: datetime) -> list[HourRecord]:
        """Those between the two, and earlier ones with calls that were still up at `begin`; in order."""
        inside = (ReportHour.hour >= begin) & (ReportHour.hour < end)
        reaching = (ReportHour.hour < begin) & (ReportHour.last_end > begin)
        query = select(ReportHour.hour, ReportHour.last_end, ReportHour.data).where(inside | reaching)
        with self._session() as session:
            found = session.execute(query.order_by(ReportHour.hour))
            return [HourRecord(hour=hour, last_end=last_end, data=data) for hour, last_end, data in found]

    def which_closed(self, begin: datetime | None = None, end: datetime | None = None) -> set[datetime]:
        """The first instants of closed hours: of all, or of those from `begin` until before `end`."""
        query = select(ReportHour.hour)
        if begin is not None:
            query = query.where(ReportHour.hour >= begin)
        if end is not None:
            query = query.where(ReportHour.hour < end)
        with self._session() as session:
            return set(session.scalars(query))


class HourWriter:
    """Keeps closed hours, with the costs of their calls. Blocking; raises RecordUnavailable."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)

    def close(self) -> None:
        self._engine.dispose()

    def keep(self, hour: HourRecord, calls: int, costs: Sequence[CostRecord]) -> bool:
        """False when another node has closed it, or it has not so many calls any more."""
        try:
            with Session(self._engine) as session, session.begin():
                session.add(ReportHour(**msgspec.structs.asdict(hour)))
                session.flush()
                inside = (Call.setup_at >= hour.hour) & (Call.setup_at < hour.hour + HOUR)
                if session.scalar(select(func.count()).select_from(Call).where(inside)) != calls:
                    session.rollback()
                    return False
                session.add_all(CallCost(**msgspec.structs.asdict(cost)) for cost in costs)
            return True
        except IntegrityError:
            return False
        except DBAPIError as error:
            raise RecordUnavailable(f"an hour of calls cannot be closed: {describe(error)}") from error


def _stories(session: Session, calls: Sequence[CallRecord]) -> list[CallStory]:
    ids = [call.id for call in calls]
    turns = _by_call(_read(session, TurnFacts, _TURN, Turn.call_id.in_(ids), order=(Turn.turn_index, Turn.id)))
    steps = _read(session, TransferRecord, _TRANSFER, Transfer.call_id.in_(ids), order=(Transfer.id, Transfer.step))
    transfers = _by_call(steps)
    quality = _by_call(_read(session, QualityRecord, _QUALITY, Quality.call_id.in_(ids) & Quality.final))
    costs = _by_call(_read(session, CostRecord, _COST, CallCost.call_id.in_(ids)))
    done = (ToolCallRow.call_id.in_(ids)) & (ToolCallRow.status == ToolStatus.OK)
    counted = select(ToolCallRow.call_id, func.count()).where(done).group_by(ToolCallRow.call_id)
    tools = {call_id: int(count) for call_id, count in session.execute(counted)}
    return [
        CallStory(
            call=call,
            turns=turns.get(call.id, []),
            transfers=transfers.get(call.id, []),
            quality=quality.get(call.id, []),
            costs=costs.get(call.id, []),
            tools=tools.get(call.id, 0),
        )
        for call in calls
    ]


def _with_legs(session: Session, calls: Sequence[CallRecord]) -> list[CallRecord]:
    legs = _by_call(_read(session, LegRecord, _LEG, Leg.call_id.in_([call.id for call in calls]), order=(Leg.id,)))
    return [msgspec.structs.replace(call, legs=legs.get(call.id, [])) for call in calls]


def _columns(kind: type[msgspec.Struct], table: type[Base], **others: ColumnElement[Any]) -> dict[str, Any]:
    """What is read into each field: the column of its name, unless it is among `others`. Fields that are no columns
    keep their defaults."""
    own = {name: getattr(table, name) for name in kind.__struct_fields__ if hasattr(table, name)}
    return own | others


_CALL = _columns(CallRecord, Call)
_LEG = _columns(LegRecord, Leg)
_TRANSFER = _columns(TransferRecord, Transfer)
_QUALITY = _columns(QualityRecord, Quality)
_COST = _columns(CostRecord, CallCost)
_TURN = _columns(
    TurnFacts,
    Turn,
    caller_spoke=Turn.caller_text != "",
    characters=func.length(Turn.agent_text),
    tokens=Turn.details["tokens"],
)


def _read(
    session: Session,
    kind: type[_Record],
    columns: dict[str, Any],
    where: ColumnElement[bool],
    order: Sequence[Any] = (),
) -> list[_Record]:
    """Column by column: mapped objects would take three times as long. At most AT_ONCE calls."""
    query = select(*columns.values()).where(where).order_by(*order)
    if kind is CallRecord:
        query = query.limit(AT_ONCE)
    names = list(columns)
    return [msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in session.execute(query)]


class _OfCall(Protocol):
    @property
    def call_id(self) -> str: ...


_Part = TypeVar("_Part", bound=_OfCall)


def _by_call(records: Iterable[_Part]) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for record in records:
        found.setdefault(record.call_id, []).append(record)
    return found
