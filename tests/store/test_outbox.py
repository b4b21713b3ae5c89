"""The outbox on both databases: the order, who sends what, and what is known afterwards."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from sipagent.store import outbox
from sipagent.store.engine import make_engine
from sipagent.store.outbox import LEASE, DeliveryFilter, DeliveryState, Outcome

from .story import START, Story
from .test_recorder import record

A, B = "https://a.example/hook", "https://b.example/hook"
LATER = START + timedelta(minutes=1)
Ask = Callable[[Callable[[Session], object]], object]


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    engine = make_engine(url)
    with Session(engine) as session:
        yield session
    engine.dispose()


async def told(url: str, *stories: tuple[Story, str]) -> list[str]:
    """Three webhooks of each call; their ids."""
    events = []
    for story, receiver in stories:
        events += [*story.arrives(), *(story.webhook(i, i, receiver) for i in range(3))]
    recorder = await record(url, *events)
    assert recorder.statistics.refused == 0
    return [f"{story.call_id}_{i}" for story, _ in stories for i in range(3)]


def claimed(session: Session, now: datetime = LATER, most: int = 10, **sending: int) -> list[str]:
    by_host = {f"https://{name}.example": count for name, count in sending.items()}
    found = [one.id for one in outbox.claim(session, now, by_host, most, per_host=2)]
    session.commit()
    return found


def settled(session: Session, key: str, outcome: Outcome) -> None:
    outbox.settle(session, key, outcome)
    session.commit()


async def test_those_of_a_call_go_one_after_another(url: str, session: Session) -> None:
    one, other = Story(), Story()
    first, second, third, *others = await told(url, (one, A), (other, A))
    assert set(claimed(session)) == {first, others[0]}
    assert claimed(session) == []  # they are on their way
    settled(session, first, Outcome(state=DeliveryState.DELIVERED, tried_at=LATER, status=204))
    assert claimed(session) == [second]
    again = LATER + timedelta(seconds=30)
    settled(session, second, Outcome(state=DeliveryState.PENDING, tried_at=LATER, status=500, next_try_at=again))
    assert claimed(session, LATER + timedelta(seconds=29)) == []  # the third waits for the second
    assert claimed(session, again) == [second]
    settled(session, second, Outcome(state=DeliveryState.FAILED, tried_at=again, status=500, error="no"))
    assert claimed(session, again) == [third]
    failed = outbox.get(session, second)
    assert failed is not None and (failed.attempts, failed.last_status, failed.last_error) == (2, 500, "no")


async def test_one_whose_sender_died_is_sent_by_another(url: str, session: Session) -> None:
    first, *_ = await told(url, (Story(), A))
    assert claimed(session) == [first]
    assert claimed(session, LATER + LEASE - timedelta(seconds=1)) == []
    assert claimed(session, LATER + LEASE) == [first]


async def test_a_busy_receiver_keeps_nobody_else_waiting(url: str, session: Session) -> None:
    ids = await told(url, (Story(), A), (Story(), A), (Story(), B))
    assert claimed(session, a=2) == [ids[6]]
    assert claimed(session, most=1) == [ids[0]]
    assert claimed(session, a=1) == [ids[3]]


@pytest.mark.parametrize(
    "receiver", ["https://a.example", "https://a.example?x=1", "HTTPS://A.Example:443/x", "https://a.example#x"]
)
async def test_a_busy_receiver_is_known_however_its_url_is_written(url: str, session: Session, receiver: str) -> None:
    ids = await told(url, (Story(), receiver), (Story(), receiver), (Story(), B))
    assert claimed(session, most=1, a=2) == [ids[6]]
    assert claimed(session, a=1) == [ids[0]]


async def test_what_is_no_url_is_left_to_whoever_sends_it(url: str, session: Session) -> None:
    ids = await told(url, (Story(), "http://["), (Story(), "a.example/hook"))
    assert set(claimed(session)) == {ids[0], ids[3]}


async def test_a_replay_makes_no_second_row(url: str, session: Session) -> None:
    story = Story()
    ids = await told(url, (story, A))
    await told(url, (story, A))
    assert [one.id for one in outbox.page(session, DeliveryFilter()).deliveries] == ids[::-1]


async def test_sent_again_whatever_the_order(url: str, session: Session) -> None:
    first, second, _ = await told(url, (Story(), A))
    claimed(session)
    settled(session, first, Outcome(state=DeliveryState.FAILED, tried_at=LATER))
    assert outbox.send_again(session, first, LATER) and not outbox.send_again(session, "evt_none", LATER)
    assert set(claimed(session)) == {first, second}
    settled(session, first, Outcome(state=DeliveryState.DELIVERED, tried_at=LATER, status=200))
    one = outbox.get(session, first)
    assert one is not None and (one.state, one.delivered_at) == (DeliveryState.DELIVERED, LATER)


async def test_refusals_are_counted_since_one_was_taken(url: str, session: Session) -> None:
    first, second, third = await told(url, (Story(), A))
    gone = Outcome(state=DeliveryState.FAILED, tried_at=LATER, status=410)
    for key in (first, second, third):
        settled(session, key, gone)
    assert outbox.refusals(session, A) == 3 and outbox.refusals(session, B) == 0
    settled(session, first, Outcome(state=DeliveryState.DELIVERED, tried_at=LATER, status=200))
    assert outbox.refusals(session, A) == 0


async def test_pages_and_filters(url: str, session: Session) -> None:
    one, other = Story(), Story(from_number="+4940")
    ids = await told(url, (one, A), (other, B))
    everything = sorted(ids, reverse=True)
    page = outbox.page(session, DeliveryFilter(limit=4))
    assert [it.id for it in page.deliveries] == everything[:4] and page.has_more and page.previous_cursor is None
    rest = outbox.page(session, DeliveryFilter(limit=4, cursor_after=page.next_cursor))
    assert [it.id for it in rest.deliveries] == everything[4:] and not rest.has_more
    back = outbox.page(session, DeliveryFilter(limit=4, cursor_before=rest.previous_cursor))
    assert [it.id for it in back.deliveries] == everything[:4]
    assert len(outbox.page(session, DeliveryFilter(call_id=one.call_id)).deliveries) == 3
    assert outbox.page(session, DeliveryFilter(event_type="leg.ended")).deliveries == []
    assert len(outbox.page(session, DeliveryFilter(occurred_after=START + timedelta(seconds=2))).deliveries) == 2
    assert len(outbox.page(session, DeliveryFilter(state=DeliveryState.PENDING)).deliveries) == 6
    assert outbox.page(session, DeliveryFilter(state=DeliveryState.FAILED)).deliveries == []
