"""Writes down, as it changes, what each call needs to be taken up by another main.

A change is an event of the call, or its own word (`Call.progressed`). Some milliseconds later the call is described on
the event loop and handed to a thread that writes (`bench.saving` tells what both cost): newer descriptions replace
those that wait, so a slow disk delays and never piles up.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING

from sipagent.calls import saved
from sipagent.calls.hooks import MOST_RECEIVERS
from sipagent.calls.saved import SavedCall, SavedEvent, SavedStep, SavedTalk, SavedTool, SavedTurn
from sipagent.core import clock
from sipagent.core.events import (
    AgentSpeaking,
    CallbackWanted,
    CallCreated,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallQuality,
    Event,
    LegCreated,
    PartialTranscript,
    PlaybackEnded,
    PlaybackStarted,
    SipMessages,
    StreamEnded,
    StreamStarted,
    ToolCalled,
    ToolReturned,
    TurnEnded,
)
from sipagent.core.ids import CallId
from sipagent.core.states import ToolStatus

if TYPE_CHECKING:
    from sipagent.calls.call import Call

log = logging.getLogger(__name__)

AFTER_S = 0.05  # between a change and its writing
AGAIN_S = 0.25  # between two writings of one call
FIRST_EVENTS = 8  # of each call: without them the record has nothing that the others belong to
LAST_EVENTS = 32
MOST_LEGS = 64  # the last ones, of which it is known which webhooks they are in
MOST_UNDER_WAY = 32  # streams and playbacks
LAST_NS = 3_000_000_000  # the record is 0.2 s behind, as a rule
KEPT_AFTER_END_S = 1.0  # by then the record has the call's end
MOST_TEXT = 64  # entries of the history
MOST_TOOLS = 32  # in one turn, with those still at work from turns before
_CLOSE_S = 2.0
_MAY_BE_REPEATED = ("collect", "transfer", "end")  # kinds of tools
_PASSED_OVER = (PartialTranscript, SipMessages, CallQuality)


class _Notes:
    """What is known of one call besides what it tells itself."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self.first: list[SavedEvent] = []
        self.last: deque[tuple[int, int, SavedEvent]] = deque(maxlen=LAST_EVENTS)  # with number, and time in ns
        # Who gets webhooks of what, which another main has to know; with their numbers.
        self.callbacks: list[tuple[int, SavedEvent]] = []
        self.legs: deque[tuple[int, SavedEvent]] = deque(maxlen=MOST_LEGS)
        self.seen = 0  # events
        self.under_way: dict[str, SavedEvent] = {}  # beginnings of streams and playbacks without an end, by id
        self.steps: list[SavedStep] | None = None
        self.saved_at = 0.0
        self.turn: SavedTurn | None = None
        self.talk: SavedTalk | None = None
        self.tools: dict[str, SavedTool] = {}
        self.turns = 0
        self.ended = False
        self.complained = False

    def add(self, event: Event) -> None:
        kept = SavedEvent.of(event)
        self.seen += 1
        if len(self.first) < FIRST_EVENTS:
            self.first.append(kept)
        elif isinstance(event, CallbackWanted) and len(self.callbacks) < MOST_RECEIVERS:
            self.callbacks.append((self.seen, kept))
        elif isinstance(event, LegCreated):
            self.legs.append((self.seen, kept))
        else:
            self.last.append((self.seen, event.at.mono, kept))

    def began(self, what: str, event: Event) -> None:
        self.under_way[what] = SavedEvent.of(event)
        if len(self.under_way) > MOST_UNDER_WAY:
            del self.under_way[next(iter(self.under_way))]

    def called(self, event: ToolCalled) -> None:
        self.tools[event.tool_call_id] = SavedTool(name=event.name)
        if len(self.tools) > MOST_TOOLS:
            del self.tools[next(iter(self.tools))]

    def returned(self, event: ToolReturned) -> None:
        if event.status is ToolStatus.REFUSED:
            self.tools.pop(event.tool_call_id, None)
        elif event.tool_call_id in self.tools:
            self.tools[event.tool_call_id].status = event.status

    def events(self, now: int) -> list[SavedEvent]:
        last = ((number, kept) for number, at, kept in self.last if now - at < LAST_NS)
        in_order = merge(self.callbacks, self.legs, last, key=lambda numbered: numbered[0])
        return [*self.first, *(kept for _, kept in in_order)]


class Saver:
    """Subscribes to the node's events; `track` tells which call they are about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes: dict[str, _Notes] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._over: set[CallId] = set()  # calls that have just ended
        self._writer = _Writer(folder)
        self._boot = saved.boot()

    def start(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._writer.start()

    async def close(self) -> None:
        """What waits is written, and no file is left of a call that is over."""
        for handle in self._due.values():
            handle.cancel()
        for call_id in self._over:
            self._writer.put(call_id, None)
        await asyncio.to_thread(self._writer.close)

    def track(self, call: "Call") -> None:
        self._notes_of(call.id).call = call
        call.on_progress = lambda: self._soon(call.id)
        self._soon(call.id)

    def replay(self, event: Event) -> None:
        """One that an earlier main may have failed to record: it is kept, and nothing follows from it."""
        if isinstance(event, CallEvent):
            self._notes_of(event.call_id).add(event)

    def emit(self, event: Event) -> None:
        """For the event hub."""
        if not isinstance(event, CallEvent) or isinstance(event, _PASSED_OVER):
            return
        if not isinstance(event, CallCreated) and event.call_id not in self._notes:
            return
        notes = self._notes_of(event.call_id)
        notes.add(event)
        match event:
            case CallerSaid():
                notes.turn = SavedTurn(id=event.turn_id, caller_text=event.text)
            case AgentSpeaking():
                notes.turn = notes.turn or SavedTurn()
                notes.turn.agent_text = event.text
            case TurnEnded():
                notes.turn, notes.turns = None, event.index + 1
                # Once the conversation has put it into its history.
                asyncio.get_running_loop().call_soon(self._turn_over, notes)
            case ToolCalled(kind=kind) if kind not in _MAY_BE_REPEATED:
                notes.called(event)
            case ToolReturned():
                notes.returned(event)
            case StreamStarted():
                notes.began(event.stream_id, event)
            case PlaybackStarted():
                notes.began(event.playback_id, event)
            case StreamEnded():
                notes.under_way.pop(event.stream_id, None)
            case PlaybackEnded():
                notes.under_way.pop(event.playback_id, None)
            case CallEnded():
                notes.ended = True
                self.forget(event.call_id)
            case _:
                pass
        self._soon(event.call_id)

    def forget(self, call_id: CallId) -> None:
        """The call is over, and the record has been told."""
        self._over.add(call_id)
        asyncio.get_running_loop().call_later(KEPT_AFTER_END_S, self._forget, call_id)

    def _notes_of(self, call_id: str) -> _Notes:
        return self._notes.setdefault(call_id, _Notes())

    def _turn_over(self, notes: _Notes) -> None:
        self._remember(notes)
        notes.tools = {name: tool for name, tool in notes.tools.items() if tool.status is None}

    def _remember(self, notes: _Notes) -> None:
        talk = notes.call.talk if notes.call is not None else None
        if talk is None:
            notes.talk = None
            return
        entries = [(entry.speaker, entry.text) for entry in talk.history.entries[-MOST_TEXT:]]
        notes.talk = SavedTalk(memory=talk.agent.checkpoint(), history=entries)

    def _soon(self, call_id: CallId) -> None:
        if call_id not in self._due:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + AFTER_S, self._notes_of(call_id).saved_at + AGAIN_S)
            self._due[call_id] = loop.call_at(at, self._save, call_id)

    def _save(self, call_id: CallId) -> None:
        self._due.pop(call_id, None)
        notes = self._notes.get(call_id)
        if notes is None or notes.call is None:
            return
        notes.saved_at = asyncio.get_running_loop().time()
        try:
            if any(tool.status is not None for tool in notes.tools.values()):
                self._remember(notes)  # what they answered is in the agent's memory before its turn ends
            data = saved.encoded(self._describe(notes.call, notes))
        except Exception:  # the call goes on, unsaved
            if not notes.complained:
                log.exception("a call could not be described")
            notes.complained = True
            return
        if len(data) <= saved.MAX_FILE:
            self._writer.put(call_id, data)

    def _forget(self, call_id: CallId) -> None:
        self._over.discard(call_id)
        self._notes.pop(call_id, None)
        handle = self._due.pop(call_id, None)
        if handle is not None:
            handle.cancel()
        self._writer.put(call_id, None)

    def _describe(self, call: "Call", notes: _Notes) -> SavedCall:
        talk = None
        if call.talk is not None:
            talk = notes.talk or SavedTalk(memory=None, history=[])
            talk.under_way = notes.turn
            talk.tools = list(notes.tools.values())
        if notes.steps is None:
            notes.steps = [SavedStep.of(step) for step in call.match.steps]
        other = call.room.other
        return SavedCall(
            boot=self._boot,
            id=call.id,
            trunk=call.trunk,
            voice_app=call.voice_app,
            dialplan=call.match.dialplan.name,
            route=call.match.route,
            steps=notes.steps,
            todo=[SavedStep.of(step) for step in call.todo],
            started=call.started,
            answered_at=call.answered_at,
            turns=max(call.turns, notes.turns),
            variables=call.variables,
            flows_asked=call.flows_asked,
            talk=talk,
            legs=[leg.saved() for leg in call.legs if not leg.ended.done()],
            speaks_on=call.leg.id,
            joined=other.id if other is not None else "",
            met=call.met.id if call.met is not None else "",
            guests={guest.id: part.value for guest, part in call.room.guests.items()},
            held=call.held.music if call.held is not None else None,
            recording=call.recording.saved if call.recording is not None and not call.recording.ended else None,
            listening=[SavedStep.of(step) for step in call.listening],
            asking=list(call.asking),
            under_way=list(notes.under_way.values()),
            ended=notes.ended,
            events=notes.events(clock.mono_ns()),
        )


class _Writer:
    """The thread; None for a call means that its file is to go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, bytes | None] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
        self._failed: Callable[[OSError], None] = _complain_once()

    def start(self) -> None:
        self._thread.start()

    def put(self, call_id: str, data: bytes | None) -> None:
        with self._changed:
            self._waiting[call_id] = data
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                work, self._waiting = self._waiting, {}
                if not work:
                    return
            for call_id, data in work.items():
                try:
                    if data is None:
                        saved.forget(self._folder, call_id)
                    else:
                        saved.write(self._folder, call_id, data)
                except OSError as error:
                    self._failed(error)


def _complain_once() -> Callable[[OSError], None]:
    told: set[int | None] = set()

    def complain(error: OSError) -> None:
        if error.errno not in told:
            told.add(error.errno)
            log.error("calls cannot be saved: they would not outlive a crash", extra={"reason": str(error)})

    return complain
