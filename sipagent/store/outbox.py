"""Webhooks on their way: rows made with the events that they tell of, and what became of each.

pending    to be sent; those of one call to one URL one after another, in the order of their ids
again      to be sent once more because somebody asked for that, whatever the order
delivered, failed
disabled   not sent: the receiver has said several times that it wants no more (410)
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import CursorResult, Select, func, or_, select, update
from sqlalchemy.orm import Session, aliased
from yarl import URL

from sipagent.core.events import WebhookDue
from sipagent.store.bulk import Row
from sipagent.store.resource_models import WebhookDelivery

LEASE = timedelta(seconds=60)  # for the one who sends it; after that somebody else does
GONE = 410


class DeliveryState(StrEnum):
    PENDING = "pending"
    AGAIN = "again"
    DELIVERED = "delivered"
    FAILED = "failed"
    DISABLED = "disabled"


class DeliveryRecord(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    event_id: str
    event_type: str
    call_id: str | None
    app_id: str | None
    url: str
    payload: dict[str, Any]
    state: DeliveryState
    attempts: int
    next_try_at: datetime | None
    last_status: int | None
    last_error: str
    created_at: datetime
    last_try_at: datetime | None
    delivered_at: datetime | None


class DeliveryFilter(msgspec.Struct, kw_only=True, frozen=True):
    call_id: str | None = None
    event_type: str | None = None
    state: DeliveryState | None = None
    occurred_after: datetime | None = None
    limit: int = 50
    cursor_after: str | None = None
    cursor_before: str | None = None


class DeliveryPage(msgspec.Struct, kw_only=True, frozen=True):
    deliveries: list[DeliveryRecord]
    next_cursor: str | None
    previous_cursor: str | None
    has_more: bool


def row(event: WebhookDue) -> Row:
    at = event.at.wall
    return {
        "id": event.delivery_id,
        "event_id": event.event_id,
        "event_type": event.event_type,
        "call_id": event.call_id,
        "app_id": event.app_id or None,
        "url": normal(event.url),
        "payload": msgspec.json.decode(event.payload),
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "next_try_at": at,
        "last_status": None,
        "last_error": "",
        "created_at": at,
        "last_try_at": None,
        "delivered_at": None,
    }


def origin(url: str) -> str:
    """The receiver's host, however many URLs it has: each in its `normal` form begins with this and a slash.

    >>> origin("HTTPS://a.example:443?call=7")
    'https://a.example'
    """
    try:
        return str(URL(url).with_path("/")).removesuffix("/")
    except ValueError:  # whoever sends it says what is wrong with it
        return url


def normal(url: str) -> str:
    """
    >>> normal("HTTPS://a.example:443?call=7"), normal("https://a.example")
    ('https://a.example/?call=7', 'https://a.example/')
    """
    try:
        text = str(URL(url))
    except ValueError:
        return url
    return f"{text}/" if text == origin(url) else text


def claim(
    session: Session, now: datetime, sending: Mapping[str, int], most: int, per_host: int
) -> list[DeliveryRecord]:
    """Those that are due, for the caller to send, who is ``sending`` so many to each `origin` already. Whoever does not
    come back within the LEASE has died, and they are due again."""
    busy = [where for where, count in sending.items() if count >= per_host]
    rows, before = WebhookDelivery, aliased(WebhookDelivery)
    earlier = (
        select(before.id)
        .where(
            before.call_id == rows.call_id,
            before.url == rows.url,
            before.state == DeliveryState.PENDING,
            before.id < rows.id,
        )
        .exists()
    )
    query = (
        select(rows)
        .where(
            rows.state.in_((DeliveryState.PENDING, DeliveryState.AGAIN)),
            rows.next_try_at <= now,
            or_(rows.state == DeliveryState.AGAIN, ~earlier),
        )
        .order_by(rows.next_try_at, rows.id)
        .limit(most)
    )
    for where in busy:  # as many as one sends at once, at most
        query = query.where(~rows.url.startswith(f"{where}/", autoescape=True))
    found: list[DeliveryRecord] = []
    count = Counter(sending)
    for one in [_record(row) for row in session.scalars(query)]:
        if count[origin(one.url)] < per_host and _leased(session, one, now):
            count[origin(one.url)] += 1
            found.append(one)
    return found


def _leased(session: Session, one: DeliveryRecord, now: datetime) -> bool:
    """False where another node was first."""
    rows = WebhookDelivery
    mine = update(rows).where(rows.id == one.id, rows.next_try_at == one.next_try_at, rows.state == one.state)
    result = session.execute(mine.values(next_try_at=now + LEASE).execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """What became of one attempt."""

    state: DeliveryState
    tried_at: datetime | None = None  # None: nothing was sent
    next_try_at: datetime | None = None  # of one that stays to be sent
    status: int | None = None  # of HTTP
    error: str = ""


def settle(session: Session, delivery_id: str, outcome: Outcome) -> None:
    row = session.get(WebhookDelivery, delivery_id)
    if row is None:  # erased meanwhile
        return
    row.state = outcome.state
    row.next_try_at = outcome.next_try_at
    row.last_error = outcome.error
    if outcome.tried_at is not None:
        row.attempts += 1
        row.last_try_at, row.last_status = outcome.tried_at, outcome.status
        if outcome.state is DeliveryState.DELIVERED:
            row.delivered_at = outcome.tried_at


def refusals(session: Session, url: str) -> int:
    """How many have been answered 410 since the URL has taken one."""
    rows = WebhookDelivery
    taken = session.scalar(select(func.max(rows.delivered_at)).where(rows.url == url))
    gone = select(func.count()).where(
        rows.url == url, rows.state == DeliveryState.FAILED, rows.last_status == GONE, rows.delivered_at.is_(None)
    )
    return session.scalar(gone if taken is None else gone.where(rows.created_at > taken)) or 0


def send_again(session: Session, delivery_id: str, now: datetime) -> bool:
    """False when there is none of this id."""
    row = session.get(WebhookDelivery, delivery_id)
    if row is None:
        return False
    row.next_try_at = now
    if row.state != DeliveryState.PENDING:
        row.state = DeliveryState.AGAIN
    return True


def get(session: Session, delivery_id: str) -> DeliveryRecord | None:
    row = session.get(WebhookDelivery, delivery_id)
    return _record(row) if row is not None else None


def page(session: Session, wanted: DeliveryFilter) -> DeliveryPage:
    """Newest first; pages are cut by id, so what arrives meanwhile shifts nothing."""
    rows = WebhookDelivery
    query = _filtered(wanted).limit(wanted.limit + 1)
    if wanted.cursor_before is not None:
        found = list(session.scalars(query.where(rows.id > wanted.cursor_before).order_by(rows.id)))
        newer, found = len(found) > wanted.limit, found[: wanted.limit][::-1]
        older = bool(found)
    else:
        if wanted.cursor_after is not None:
            query = query.where(rows.id < wanted.cursor_after)
        found = list(session.scalars(query.order_by(rows.id.desc())))
        older, found = len(found) > wanted.limit, found[: wanted.limit]
        newer = bool(found) and wanted.cursor_after is not None
    return DeliveryPage(
        deliveries=[_record(row) for row in found],
        next_cursor=found[-1].id if older else None,
        previous_cursor=found[0].id if newer else None,
        has_more=older,
    )


def _filtered(wanted: DeliveryFilter) -> Select[WebhookDelivery]:
    rows = WebhookDelivery
    query = select(rows)
    if wanted.call_id is not None:
        query = query.where(rows.call_id == wanted.call_id)
    if wanted.event_type is not None:
        query = query.where(rows.event_type == wanted.event_type)
    if wanted.occurred_after is not None:
        query = query.where(rows.created_at >= wanted.occurred_after)
    if wanted.state is DeliveryState.PENDING:
        query = query.where(rows.state.in_((DeliveryState.PENDING, DeliveryState.AGAIN)))
    elif wanted.state is not None:
        query = query.where(rows.state == wanted.state)
    return query


def _record(row: WebhookDelivery) -> DeliveryRecord:
    return msgspec.convert({name: getattr(row, name) for name in DeliveryRecord.__struct_fields__}, DeliveryRecord)
