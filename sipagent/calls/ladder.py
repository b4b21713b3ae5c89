"""Which call a SIP message belongs to: the lane knows dialogs by its handles, the record wants calls and legs.

Messages go on after a leg's end (the ACK to a refusal, a BYE sent again), so a handle is known for a while longer.
"""

from collections import deque

from sipagent.core import clock
from sipagent.core.events import EventSink, SipMessage, SipMessages
from sipagent.core.ids import CallId
from sipagent.sip import protocol

KEPT_NS = 60_000_000_000  # after the end; the lane itself gives up after 33 s


class Ladders:
    def __init__(self, events: EventSink) -> None:
        self._events = events
        self._owners: dict[int, tuple[CallId, str]] = {}  # by handle: call and leg
        self._ended: deque[tuple[int, int]] = deque()  # until when (ns), handle

    def belongs(self, handle: int, call_id: CallId, leg_id: str = "") -> None:
        """``leg_id`` is "" as long as there is none: a call may be refused before."""
        now = clock.mono_ns()
        while self._ended and self._ended[0][0] < now:
            self._owners.pop(self._ended.popleft()[1], None)
        self._owners[handle] = (call_id, leg_id)

    def ended(self, handle: int) -> None:
        self._ended.append((clock.mono_ns() + KEPT_NS, handle))

    def take(self, fact: protocol.SipMessages) -> None:
        """What the lane saw, as an event; of dialogs that became no call nothing is kept."""
        owner = self._owners.get(fact.call)
        if owner is None:
            return
        call_id, leg_id = owner
        now = clock.now()
        self._events.emit(
            SipMessages(
                at=now,
                call_id=call_id,
                dialog=fact.call,
                leg_id=leg_id,
                count=len(fact.messages),
                messages=tuple(
                    SipMessage(
                        seq=seen.seq,
                        at=now.at_mono(seen.at),
                        sent=seen.sent,
                        transport=seen.transport,
                        local=seen.local,
                        remote=seen.remote,
                        size=seen.size,
                        repeats=seen.repeats,
                        text=seen.text,
                    )
                    for seen in fact.messages
                ),
            )
        )
