"""Which events are webhooks, for whom, and what they say.

A subscriber of the event hub: what is to be sent becomes an event itself, and so a row of the record that nothing can
be sent without. Derived from the same events again, after a crash, they are the same again, and recorded once.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sipagent.core.events import CallbackWanted, CallCreated, CallEnded, CallEvent, Event, LegCreated, WebhookDue
from sipagent.core.ids import CallId, new_id
from sipagent.store.encoding import event_data, event_id, leg_of

log = logging.getLogger(__name__)

API_VERSION = "2026-06-01"
ACCOUNT = "default"
# By the event's class. Words that come and go, and what only an operator needs, are not sent.
TYPES = {
    "CallCreated": "call.created",
    "CallEnded": "call.ended",
    "LegCreated": "leg.created",
    "LegRinging": "leg.ringing",
    "LegAnswered": "leg.answered",
    "LegHeld": "leg.held",
    "LegEnded": "leg.ended",
    "DigitReceived": "leg.digit",
    "CalleeDetected": "leg.callee_detected",
    "TurnEnded": "call.turn",
    "IntentFulfilled": "call.intent",
    "TransferChanged": "call.transfer",
    "RecordingStarted": "recording.started",
    "RecordingEnded": "recording.ended",
    "StreamStarted": "stream.started",
    "StreamEnded": "stream.ended",
}
CALLBACKS = frozenset({"call.created", "call.ended", "leg.ringing", "leg.answered", "leg.ended"})
LEFT_OUT = frozenset({"details"})  # of a turn: how it came about, as large as it is
KEPT_AFTER_END_S = 60.0  # a recording may be ready after its call
MOST_RECEIVERS = 10  # of one call


@dataclass(frozen=True, slots=True)
class _Receiver:
    url: str
    app_id: str = ""  # "" for a callback, which gets `CALLBACKS` only
    without: frozenset[str] = frozenset()  # legs
    times: int = 0  # that it was a receiver of this call before, for other legs

    @property
    def place(self) -> int:
        """Tells its deliveries from those of the call's others: made of what stands however the others change."""
        what = f"{self.app_id} {self.times} {self.url}".encode("utf-8", "replace")
        return int.from_bytes(hashlib.blake2b(what, digest_size=6).digest())


@dataclass(slots=True)
class _Watched:
    created: CallCreated
    receivers: list[_Receiver] = field(default_factory=list)
    legs: set[str] = field(default_factory=set)


class Hooks:
    """``webhook_of``: where an app wants the events of its calls, "" for nowhere. ``emit`` is told what is due."""

    def __init__(
        self,
        webhook_of: Callable[[str], str],
        emit: Callable[[WebhookDue], None],
        redact: Callable[[Event], Event] | None = None,
    ) -> None:
        self._webhook_of = webhook_of
        self._emit = emit
        self._redact = redact  # what stands in the record is also what is sent
        self._calls: dict[CallId, _Watched] = {}

    def take(self, event: Event) -> None:
        """For the event hub, and for what an earlier main may have failed to record."""
        if not isinstance(event, CallEvent) or isinstance(event, WebhookDue):
            return
        match event:
            case CallCreated():
                url = self._webhook_of(event.voice_app_id) if event.voice_app_id else ""
                receivers = [_Receiver(url, event.voice_app_id)] if url else []
                self._calls[event.call_id] = _Watched(event, receivers)
            case CallbackWanted():
                self._callback(event)
            case CallEnded():
                asyncio.get_running_loop().call_later(KEPT_AFTER_END_S, self._calls.pop, event.call_id, None)
            case _:
                pass
        watched = self._calls.get(event.call_id)
        if watched is None:
            return
        if isinstance(event, LegCreated):
            watched.legs.add(event.leg_id)
        if watched.receivers and (kind := TYPES.get(type(event).__name__)):
            for receiver in watched.receivers:
                self._send(receiver, event, kind)

    def _callback(self, event: CallbackWanted) -> None:
        watched = self._calls.get(event.call_id)
        if watched is None:
            return
        if len(watched.receivers) >= MOST_RECEIVERS:
            log.warning("a call has as many receivers of webhooks as it may", extra={"call_id": event.call_id})
            return
        without = frozenset(watched.legs if event.later else ())
        times = sum(one.url == event.url and not one.app_id for one in watched.receivers)
        receiver = _Receiver(event.url, without=without, times=times)
        watched.receivers.append(receiver)
        if not event.later:
            self._send(receiver, watched.created, TYPES["CallCreated"])

    def _send(self, receiver: _Receiver, event: CallEvent, kind: str) -> None:
        if not receiver.app_id and kind not in CALLBACKS:
            return
        if leg_of(event) in receiver.without:
            return
        delivery = new_id("evt")
        shown = self._redact(event) if self._redact is not None else event
        self._emit(
            WebhookDue(
                at=event.at,
                call_id=event.call_id,
                event_id=event_id(event),
                event_type=kind,
                app_id=receiver.app_id,
                place=receiver.place,
                delivery_id=delivery,
                url=receiver.url,
                payload=msgspec.json.encode(_payload(delivery, kind, event, event_data(shown))).decode(),
            )
        )


def _payload(delivery: str, kind: str, event: CallEvent, data: dict[str, Any]) -> dict[str, Any]:
    """What a receiver reads."""
    return {
        "id": delivery,
        "type": kind,
        "api_version": API_VERSION,
        "timestamp": event.at.wall.isoformat(),
        "account_id": ACCOUNT,
        "call_id": event.call_id,
        "leg_id": leg_of(event),
        "data": {name: value for name, value in data.items() if name not in LEFT_OUT},
    }
