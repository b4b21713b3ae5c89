"""Which events are webhooks, and for whom."""

import json
from dataclasses import replace

from sipagent.calls.hooks import MOST_RECEIVERS, Hooks
from sipagent.calls.saver import FIRST_EVENTS, LAST_EVENTS, LAST_NS, _Notes
from sipagent.core.events import CallbackWanted, CallCreated, Event, LegAnswered, LegCreated, LegEnded, WebhookDue
from sipagent.core.ids import new_leg_id
from sipagent.core.states import Direction
from sipagent.store.encoding import event_id
from sipagent.store.redaction import redactor
from sipagent.store.settings import RedactionSettings
from tests.store.story import Story

APP = "https://crm.example/hooks"
CALLBACK = "https://bot.example/status"


class Outbox:
    def __init__(self) -> None:
        self.due: list[WebhookDue] = []
        self.hooks = Hooks(lambda app_id: APP if app_id == "app_1" else "", self.due.append)

    def told(self, *events: Event) -> "Outbox":
        for event in events:
            self.hooks.take(event)
        return self

    def of(self, url: str) -> list[str]:
        return [one.event_type for one in self.due if one.url == url]


def created(story: Story, app_id: str) -> CallCreated:
    return CallCreated(
        at=story.at(0),
        call_id=story.call_id,
        direction=Direction.INBOUND,
        from_number="+4930",
        to_number="100",
        trunk="",
        voice_app_id=app_id,
    )


async def test_the_apps_webhook_gets_what_happens_in_its_calls() -> None:
    story = Story()
    middle = [*story.arrives()[1:], *story.is_answered(), *story.turn(2, said="hello")]
    outbox = Outbox().told(created(story, "app_1"), *middle, *story.ends(9))
    assert outbox.of(APP)[0] == "call.created" and outbox.of(APP)[-1] == "call.ended"
    assert {"leg.created", "leg.answered", "call.turn", "leg.ended"} <= set(outbox.of(APP))
    turn = json.loads(next(one.payload for one in outbox.due if one.event_type == "call.turn"))
    assert turn["call_id"] == story.call_id and turn["data"]["caller_text"] == "hello" and "details" not in turn["data"]
    assert [one.delivery_id for one in outbox.due] == sorted(one.delivery_id for one in outbox.due)


async def test_calls_of_no_app_are_nobodys() -> None:
    story = Story()
    assert Outbox().told(created(story, ""), *story.arrives()[1:], *story.ends(9)).due == []


async def test_a_callback_gets_how_the_call_goes_from_its_beginning() -> None:
    story = Story()
    wanted = CallbackWanted(at=story.at(0), call_id=story.call_id, url=CALLBACK, later=False)
    outbox = Outbox().told(created(story, ""), wanted, *story.arrives()[1:], *story.turn(2, said="x"), *story.ends(9))
    kinds = outbox.of(CALLBACK)
    assert kinds[0] == "call.created" and kinds[-1] == "call.ended" and "call.turn" not in kinds
    assert {one.app_id for one in outbox.due} == {""}


async def test_a_later_callback_is_about_later_legs() -> None:
    story = Story()
    leg = next(event for event in story.arrives() if isinstance(event, LegCreated))
    wanted = CallbackWanted(at=story.at(1), call_id=story.call_id, url=CALLBACK, later=True)
    outbox = Outbox().told(created(story, ""), leg, wanted, *story.ends(9))
    assert outbox.of(CALLBACK) == ["call.ended"]


async def test_the_same_events_again_are_the_same_webhooks() -> None:
    story = Story()
    events = [created(story, "app_1"), *story.arrives()[1:], *story.ends(9)]
    first, again = Outbox().told(*events), Outbox().told(*events)
    assert [one.event_id for one in first.due] == [one.event_id for one in again.due]


async def test_receivers_of_a_call_are_bounded() -> None:
    story = Story()
    outbox = Outbox().told(created(story, ""))
    for number in range(3 * MOST_RECEIVERS):
        outbox.told(CallbackWanted(at=story.at(number), call_id=story.call_id, url=f"{CALLBACK}/{number}", later=False))
    assert len(outbox.due) == MOST_RECEIVERS


async def test_what_the_record_may_not_keep_is_not_sent_either() -> None:
    story = Story()
    redact = redactor(RedactionSettings(digits=3))
    due: list[WebhookDue] = []
    hooks = Hooks(lambda _app: APP, due.append, redact)
    for event in (created(story, "app_1"), *story.turn(2, said="my code is 123456")):
        hooks.take(event)
    assert redact is not None
    turn = next(redact(one) for one in due if one.event_type == "call.turn")
    assert isinstance(turn, WebhookDue)
    read = json.loads(turn.payload)
    assert read["data"]["caller_text"] == "my code is xxxxxx" and read["id"] == turn.delivery_id


async def test_another_main_knows_who_gets_webhooks_of_what() -> None:
    """The dialled legs' callbacks, however long ago they were asked for; and what is due is due once."""
    story = Story()
    leg = next(event for event in story.arrives() if isinstance(event, LegCreated))
    answered = next(event for event in story.is_answered() if isinstance(event, LegAnswered))
    turns = [event for second in range(2, 2 + 2 * LAST_EVENTS, 4) for event in story.turn(second, said="x")]
    dialled = [new_leg_id(), new_leg_id()]
    before: list[Event] = [created(story, "app_1"), leg, *turns]
    for number, other in enumerate(dialled):
        at = story.at(200 + number)
        before += [
            CallbackWanted(at=at, call_id=story.call_id, url=f"{CALLBACK}/{number}", later=True),
            replace(leg, at=at, leg_id=other),
            *(replace(event, at=replace(at, mono=at.mono + 1)) for event in turns[-3:]),
        ]
    over = next(event for event in story.ends(300) if isinstance(event, LegEnded))
    ends = [*(replace(over, leg_id=other) for other in dialled), *story.ends(301)]
    lived, notes = Outbox().told(*before), _Notes()
    for event in before:
        notes.add(event)
    assert len(before) > FIRST_EVENTS + LAST_EVENTS
    replayed = [kept.event() for kept in notes.events(story.at(250).mono)]
    assert story.at(250).mono - before[-1].at.mono > LAST_NS
    another = Outbox().told(*replayed)
    assert {event_id(one) for one in another.due} <= {event_id(one) for one in lived.due}
    told = len(lived.due), len(another.due)
    for outbox in (lived, another):
        outbox.told(*(replace(answered, at=story.at(299), leg_id=other) for other in dialled), *ends)
    after = [
        [(event_id(one), one.url, one.event_type) for one in outbox.due[count:]]
        for outbox, count in zip((lived, another), told, strict=True)
    ]
    assert after[0] == after[1]
    assert another.of(f"{CALLBACK}/1") == ["leg.answered", "leg.ended", "call.ended"]
    assert another.of(f"{CALLBACK}/0") == ["leg.answered", "leg.answered", "leg.ended", "leg.ended", "call.ended"]


async def test_a_receiver_is_the_same_whatever_others_there_are() -> None:
    story = Story()
    wanted = CallbackWanted(at=story.at(0), call_id=story.call_id, url=CALLBACK, later=False)
    with_app = Outbox().told(created(story, "app_1"), wanted, *story.ends(9))
    no_app = Hooks(lambda _app: "", (due := list[WebhookDue]()).append)
    for event in (created(story, "app_1"), wanted, *story.ends(9)):
        no_app.take(event)
    ids = [{event_id(one) for one in these if one.url == CALLBACK} for these in (with_app.due, due)]
    assert ids[0] == ids[1]


async def test_a_url_that_is_asked_for_twice_is_told_twice() -> None:
    story = Story()
    wanted = CallbackWanted(at=story.at(0), call_id=story.call_id, url=CALLBACK, later=False)
    outbox = Outbox().told(created(story, ""), wanted, wanted, *story.ends(9))
    assert len({one.place for one in outbox.due}) == 2
