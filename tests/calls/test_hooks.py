"""Which events are webhooks, and for whom."""

import json

from sipagent.calls.hooks import MOST_RECEIVERS, Hooks
from sipagent.core.events import CallbackWanted, CallCreated, Event, LegCreated, WebhookDue
from sipagent.core.states import Direction
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
