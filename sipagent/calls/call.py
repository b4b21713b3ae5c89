"""One call: its steps run beside one wait that lists every way it may end.

    ended by        what completes `call.ended`
    the other side  Ended from the lane, of the leg that the call speaks on
    the dialplan    hangup step, end of steps, agent's goodbye, transfer
    an operator     hangup()
    limits          maximum duration, ring timeout, media timeout, the caller's silence
    a failure       lane lost, media lost, an error in our own code

Whatever it was: BYE first, then the media ports, then the record. A call may have several legs, one of which it speaks
on; each ends with a Termination of its own, and the call with one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from sipagent.calls import referred, steps
from sipagent.calls.bridging import Room
from sipagent.calls.holding import Held
from sipagent.calls.leg import Leg
from sipagent.calls.legs import LegTable
from sipagent.calls.outbound import Attempt, Outbound, PlaceRequest
from sipagent.calls.recording import Recording, SavedRecording
from sipagent.calls.saved import SavedTalk
from sipagent.calls.services import Services
from sipagent.calls.talking import Talk
from sipagent.conversation.speaker import Utterance
from sipagent.core import clock, errors
from sipagent.core.errors import NotNow, SipagentError
from sipagent.core.events import CallEnded, Problem, RouteChosen, TurnEnded
from sipagent.core.ids import CallId, GatherId, RecordingId, new_turn_id
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.matching import Match
from sipagent.dialplan.model import AgentStep, Step, StreamStep

GRACE_S = 15.0  # for everything that is slow and no mistake

Order = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


class Call:
    def __init__(
        self,
        call_id: CallId,
        leg: Leg,
        match: Match,
        services: Services,
        outbound: Outbound,
        table: LegTable,
        trunk: str = "",
    ) -> None:
        self.id = call_id
        self.match = match
        self.services = services
        self.outbound = outbound
        self._table = table
        self.trunk = trunk  # the name of the one it came by or goes by first, "" for none
        self.voice_app = ""  # id of the one that takes it
        self.started = clock.now()
        self.answered_at: clock.Stamp | None = None
        self.turns = 0  # written down so far
        self.variables: dict[str, str] = {}  # kept by `set` and by answers of flow URLs
        self.flows_asked = 0
        self.ended: asyncio.Future[Termination] = asyncio.get_running_loop().create_future()
        self._ended_at: clock.Stamp | None = None
        self.todo: list[Step] = list(match.steps)  # the step under way first
        self.talk: Talk | None = None  # the conversation of the agent step under way
        self.left: SavedTalk | None = None  # one that was cut off by the death of an earlier main, to be gone on with
        self.on_progress: Callable[[], None] = lambda: None
        self.legs: list[Leg] = []  # all it ever had, in order
        self._closing: dict[Leg, asyncio.Task[None]] = {}
        self._request: PlaceRequest | None = None
        self._attempts: Sequence[Attempt] = ()
        self._placing = False
        self._resumed: Order | None = None
        self._order: asyncio.Future[Order] | None = None  # what it shall do instead
        self._beside: set[asyncio.Task[None]] = set()
        self.not_reached: Termination | None = None  # how dialling for the caller went last, where nobody answered
        self.held: Held | None = None  # by an operator
        self.met: Call | None = None  # whose caller the caller talks with
        self.leaving: Leg | None = None  # its peer has sent us elsewhere, and may hang up before we are there
        self.recording: Recording | None = None  # under way
        self.listening: list[StreamStep] = []  # streams beside the steps, under way
        self.asking: list[GatherId] = []  # questions of an operator that have no answer yet
        self.room = Room(leg)
        self.leg = leg  # the one it speaks on
        self.adopt(leg, main=True)

    @property
    def first_leg(self) -> Leg:
        return self.legs[0]

    @property
    def known(self) -> dict[str, str]:
        """What texts of the dialplan may have filled in."""
        who = self.first_leg.identity
        facts = {
            "call.id": self.id,
            "call.from": who.from_number,
            "call.to": who.to_number,
            "call.direction": who.direction.value,
            "call.trunk": self.trunk,
        }
        return self.variables | facts

    @property
    def agent(self) -> str:
        return next((step.agent for step in self.match.steps if isinstance(step, AgentStep)), "")

    def adopt(self, leg: Leg, *, main: bool = False) -> None:
        """One more leg; ``main``: the one that the call speaks on from now on, whose end is the call's."""
        self.legs.append(leg)
        self._table.add(leg)
        if main and leg is not self.leg:
            before = self.leg
            self.speak_on(leg)
            if before.ended.done():
                self.retire(before)
        leg.port.on_silent = lambda seconds: self._media_silent(leg, seconds)
        leg.port.on_lost = lambda: self._media_lost(leg)
        leg.ended.add_done_callback(lambda _: self._leg_ended(leg))
        if referred.may_follow(self, leg):
            leg.on_transfer_request = lambda fact: referred.asked(self, leg, fact)

    def shown(self, whose: str) -> str:
        """The calling number on a leg of ours: "" is the trunk's own."""
        who = self.leg.identity
        inbound = who.direction is Direction.INBOUND
        return (who.from_number if inbound else who.to_number) if whose == "caller" else ""

    def speak_on(self, leg: Leg) -> None:
        """Another of its legs is the caller's from now on, whose end is the call's."""
        self.room.take_over(leg)
        self.leg = leg
        if self.recording is not None:
            self.recording.follow(leg.port)

    def record(self) -> RecordingId:
        """Both sides from now on. Raises NotNow, CapacityError."""
        self.check_up()
        if self.recording is not None and not self.recording.ended:
            raise NotNow("the call is being recorded already")
        self.recording = self.services.recordings.begin(self.id, self.leg.id, self.leg.port)
        self.progressed()
        return self.recording.id

    def start_recording(self) -> None:
        """Unless it is recorded already; where it cannot be, that is a problem and the call goes on."""
        if self.recording is None or self.recording.ended:
            try:
                self.record()
            except SipagentError as error:
                self.services.events.emit(Problem(at=clock.now(), call_id=self.id, where="recording", what=str(error)))

    def stop_recording(self) -> RecordingId:
        """Raises NotNow."""
        recording, self.recording = self.recording, None
        if recording is None or recording.ended:
            raise NotNow("the call is not being recorded")
        self.services.recordings.end(recording)
        self.progressed()
        return recording.id

    def go_on_recording(self, saved: SavedRecording) -> None:
        """What an earlier main has begun."""
        self.recording = self.services.recordings.go_on(self.id, saved, self.leg.port)

    def leave(self, leg: Leg) -> None:
        """The end of this leg is not the call's, until `stay`: many who send us elsewhere hang up at once."""
        self.leaving = leg
        self.room.changed.set()

    def stay(self) -> None:
        """Nobody was reached elsewhere, or the call speaks on another leg by now."""
        leg, self.leaving = self.leaving, None
        self.room.changed.set()
        if leg is not None and leg.ended.done():
            self._leg_ended(leg)

    def check_up(self) -> None:
        """Raises NotNow unless the call is answered."""
        if self.ended.done():
            raise NotNow("the call is over")
        if not self.leg.is_answered:
            raise NotNow("the call is not answered yet")

    def check_ringing(self) -> None:
        """Raises NotNow unless it rings here."""
        if self.ended.done():
            raise NotNow("the call is over")
        if not self.leg.may_be_answered:
            raise NotNow("the call does not ring here any more")

    def check_free(self) -> None:
        """Raises NotNow unless it can leave what it is at."""
        self.check_up()
        if self.room.joined:
            raise NotNow("the caller is talking with somebody else already")
        self._check_order()

    def _check_order(self) -> None:
        if self._order is None or self._order.done():
            raise NotNow("the call is about to do something else")

    def obey(self, order: "Order") -> None:
        """Leaves what it is at for this, then goes on where it was. Raises NotNow."""
        self.check_free()
        assert self._order is not None
        self._order.set_result(order)

    def answer_with(self, todo: Sequence[Step]) -> None:
        """Leaves what it is at while it rings for these steps, or with none goes on behind it. Raises NotNow."""
        self.check_ringing()
        self._check_order()
        assert self._order is not None

        async def work() -> None:
            await steps.answer(self)

        if todo:
            self.todo = list(todo)
        else:
            del self.todo[:1]
        self._order.set_result(work)

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Work that goes on beside the steps, at most until the call ends."""
        task = asyncio.create_task(work, name=f"{self.id}/{name}")
        self._beside.add(task)
        task.add_done_callback(self._beside_over)
        return task

    def _beside_over(self, task: "asyncio.Task[None]") -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work beside the steps of a call failed", extra={"error": errors.where(error)})
            self.services.events.emit(
                Problem(at=clock.now(), call_id=self.id, where="beside", what=type(error).__name__)
            )

    def progressed(self) -> None:
        """What it is at has changed, and no event tells of it."""
        self.on_progress()

    def go_on_with(self, order: "Order") -> None:
        """`run` takes the call up where an earlier main has left it, and begins with this."""
        self._resumed = order

    def place_first(self, request: PlaceRequest, attempts: Sequence[Attempt]) -> None:
        """It is we who ring: `run` begins with that."""
        self._request, self._attempts = request, attempts
        self._placing = True

    def hangup(self, by: EndedBy = EndedBy.OPERATOR, cause: Cause = Cause.NORMAL, detail: str = "") -> None:
        """Ends the leg it speaks on, and so the call."""
        wanted = _termination(self.leg, by, cause, detail)
        self.leg.hangup(wanted)
        if self._placing and not self.ended.done():  # between two attempts there is no leg to end
            self._ended_at = clock.now()
            self.ended.set_result(wanted)
        self._end(self.leg)

    def hangup_leg(self, leg_id: str) -> bool:
        """False when it has no such leg that is up."""
        leg = next((leg for leg in self.legs if leg.id == leg_id and not leg.ended.done()), None)
        if leg is None:
            return False
        if leg is self.leg:
            self.hangup()
        else:
            leg.hangup(_termination(leg, EndedBy.OPERATOR, Cause.NORMAL, ""))
        return True

    async def run(self) -> None:
        """Until the call is over and written down."""
        if self._resumed is None:
            self.services.events.emit(
                RouteChosen(
                    at=clock.now(),
                    call_id=self.id,
                    dialplan=self.match.dialplan.name,
                    route=self.match.route,
                    agent=self.agent,
                )
            )
        work = asyncio.create_task(self._work(), name=f"{self.id}/steps")
        try:
            work = await self._until_over(work)
            if not self.ended.done():
                if not work.done():
                    self.hangup(EndedBy.SYSTEM, Cause.MAX_DURATION)
                elif error := work.exception():
                    self.hangup(EndedBy.SYSTEM, Cause.ERROR, f"the call's steps failed ({type(error).__name__})")
                elif self.not_reached is not None and not self.leg.is_answered:
                    self.leg.hangup(_passed_on(self.not_reached))  # never answered: the caller gets what we got
                    self._end(self.leg)
                else:
                    self.hangup(EndedBy.AGENT)
        finally:
            await self._close(work)

    async def _until_over(self, work: "asyncio.Task[None]") -> "asyncio.Task[None]":
        """Until the call or its work has ended, or its time is up; obeys orders meanwhile. What it worked at last."""
        loop = asyncio.get_running_loop()
        lasted_s = clock.now().ms_since(self.started) / 1000
        deadline = loop.time() + self.services.limits.max_duration_s - lasted_s
        while True:
            order = self._order = loop.create_future()
            either: set[asyncio.Future[Any]] = {work, self.ended, order}
            await asyncio.wait(either, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            if self.ended.done() or not order.done():
                return work
            work.cancel()
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is not None:
                return work
            await self.leg.port.flush()  # what it was saying: up to 20 s of it are queued
            work = asyncio.create_task(self._obey(order.result()), name=f"{self.id}/order")

    async def _obey(self, order: "Order") -> None:
        if self.talk is not None:
            self.talk.opening = ""  # whoever comes back to the agent is not greeted again
        await order()
        await steps.run(self)

    async def _work(self) -> None:
        if self._resumed is not None:
            await self._resumed()
        if self._request is not None:
            leg = await self.outbound.place(self, self._request, self._attempts, self.leg)
            self._placing = False
            if leg.ended.done():
                self._end(leg)
                return
        await steps.run(self)

    async def _close(self, work: "asyncio.Task[None]") -> None:
        if not self.ended.done():  # run() itself was cancelled: the node stops without patience
            self.hangup(EndedBy.SYSTEM, Cause.NODE_STOPPED)
        end = self.ended.result()
        if self.recording is not None:  # the ports are open still
            self.services.recordings.end(self.recording)
        try:
            work.cancel()
            for task in self._beside:
                task.cancel()
            await asyncio.wait([work, *self._beside])
            if not work.cancelled() and (error := work.exception()) is not None:
                log.error("the steps of a call failed", extra={"error": errors.where(error)})
                self.services.events.emit(
                    Problem(at=clock.now(), call_id=self.id, where="steps", what=type(error).__name__)
                )
        finally:
            for leg in self.legs:  # those that the call did not speak on end with it
                leg.hangup(_with_call(leg, end))
                self.retire(leg)
            try:
                await asyncio.gather(*self._closing.values())
            finally:
                assert self._ended_at is not None
                self.services.events.emit(CallEnded(at=self._ended_at, call_id=self.id, termination=end))

    def overdue(self, now: clock.Stamp) -> str:
        """Why the call should no longer be here; "" as long as it may."""
        limits = self.services.limits
        if self._ended_at is not None:
            seconds = now.ms_since(self._ended_at) / 1000
            return "its end was decided and never came" if seconds > limits.end_timeout_s + GRACE_S else ""
        seconds = now.ms_since(self.started) / 1000
        return "it has lasted longer than any call may" if seconds > limits.max_duration_s + GRACE_S else ""

    def retire(self, leg: Leg) -> None:
        """Nothing more is to be heard or said on a leg that has ended: gives its port back and writes it down."""
        if leg not in self._closing:
            self._closing[leg] = asyncio.create_task(self._close_leg(leg), name=f"{self.id}/close")

    async def _close_leg(self, leg: Leg) -> None:
        try:
            await leg.close(self.services.limits.end_timeout_s)
        finally:
            self._table.drop(leg)

    def _leg_ended(self, leg: Leg) -> None:
        if leg is self.leaving:
            return
        if leg is not self.leg:
            self.retire(leg)
        elif not self._placing:
            self._end(leg)

    def _end(self, leg: Leg) -> None:
        """The call ends as this leg did."""
        if not self.ended.done():
            self._ended_at = leg.ended_at
            self.ended.set_result(leg.ended.result())

    def spoke(self, utterance: Utterance) -> None:
        """Writes down a text of the dialplan that was spoken outside of any conversation."""
        now = clock.now()
        sent_ns = utterance.first_sent_ns
        self.services.events.emit(
            TurnEnded(
                at=now,
                call_id=self.id,
                turn_id=new_turn_id(),
                index=self.turns,
                caller_text="",
                agent_text=utterance.text,
                heard_text=utterance.heard_text,
                intent="",
                confidence=0.0,
                interrupted=not utterance.done,
                started_at=now.at_mono(sent_ns) if sent_ns else now,
                agent_started_at=now.at_mono(sent_ns) if sent_ns else None,
                latency=None,
            )
        )
        self.turns += 1

    def _media_silent(self, leg: Leg, seconds: float) -> None:
        self._give_up(leg, Cause.MEDIA_TIMEOUT, f"no RTP from the peer for {seconds:.0f} s")

    def _media_lost(self, leg: Leg) -> None:
        self._give_up(leg, Cause.MEDIA_DIED, "the media process died and could not be started again")

    def _give_up(self, leg: Leg, cause: Cause, detail: str) -> None:
        if leg is self.leaving and leg.ended.done():
            return
        if leg is self.leg:
            self.hangup(EndedBy.SYSTEM, cause, detail)
        else:
            leg.hangup(_termination(leg, EndedBy.SYSTEM, cause, detail))


def _termination(leg: Leg, by: EndedBy, cause: Cause, detail: str) -> Termination:
    """How this leg ends now, when it is we who end it."""
    if leg.is_answered:
        disposition, status = Disposition.ANSWERED, 200
    else:
        # What the other side gets: a refusal when it rang us, a CANCEL when we rang it.
        status = 480 if leg.identity.direction is Direction.INBOUND else 487
        disposition = Disposition.CANCELLED if by is EndedBy.OPERATOR else Disposition.FAILED
    return Termination(disposition=disposition, cause=cause, by=by, sip_status=status, detail=detail)


def _passed_on(end: Termination) -> Termination:
    """The end of a leg nobody answered, as the end of the one it was dialled for."""
    status = end.sip_status if end.sip_status >= 400 and end.sip_status != 487 else 480
    return replace(end, sip_status=status, q850=0)


def _with_call(leg: Leg, end: Termination) -> Termination:
    """How a leg ends because the call does."""
    if leg.is_answered:
        return _termination(leg, end.by, end.cause, end.detail)
    return Termination(disposition=Disposition.CANCELLED, cause=Cause.CANCELLED, by=end.by, sip_status=487)
