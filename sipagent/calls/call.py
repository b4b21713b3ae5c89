"""One call: its steps run beside one wait that lists every way it may end.

    ended by        what completes `leg.ended`
    the other side  Ended from the lane
    the dialplan    hangup step, end of steps, agent's goodbye, transfer
    an operator     hangup()
    limits          maximum duration, ring timeout, media timeout, the caller's silence
    a failure       lane lost, media lost, an error in our own code

Whatever it was: BYE first, then the media port, then the record.
"""

import asyncio
import logging
from typing import Any

from sipagent.calls import steps
from sipagent.calls.leg import Leg
from sipagent.calls.services import Services
from sipagent.conversation.speaker import Utterance
from sipagent.core import clock, errors
from sipagent.core.events import CallEnded, Problem, RouteChosen, TurnEnded
from sipagent.core.ids import CallId, new_turn_id
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.matching import Match
from sipagent.dialplan.model import AgentStep

log = logging.getLogger(__name__)


class Call:
    def __init__(
        self, call_id: CallId, leg: Leg, match: Match, services: Services, ring_timeout_s: float = 0.0
    ) -> None:
        self._ring_timeout_s = ring_timeout_s or services.limits.ring_timeout_s
        self.id = call_id
        self.leg = leg
        self.match = match
        self.services = services
        self.started = clock.now()
        self.answered_at: clock.Stamp | None = None
        self.turns = 0  # written down so far
        leg.port.on_silent = self._media_silent
        leg.port.on_lost = self._media_lost

    @property
    def agent(self) -> str:
        return next((step.agent for step in self.match.steps if isinstance(step, AgentStep)), "")

    def hangup(self, by: EndedBy = EndedBy.OPERATOR, cause: Cause = Cause.NORMAL, detail: str = "") -> None:
        if self.leg.is_answered:
            disposition, status = Disposition.ANSWERED, 200
        else:
            # What the other side gets: a refusal when it rang us, a CANCEL when we rang it.
            status = 480 if self.leg.identity.direction is Direction.INBOUND else 487
            disposition = Disposition.CANCELLED if by is EndedBy.OPERATOR else Disposition.FAILED
        self.leg.hangup(Termination(disposition=disposition, cause=cause, by=by, sip_status=status, detail=detail))

    async def run(self) -> None:
        """Until the call is over and written down."""
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
            either: set[asyncio.Future[Any]] = {work, self.leg.ended}
            await asyncio.wait(
                either,
                timeout=self.services.limits.max_duration_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not self.leg.ended.done():
                if not work.done():
                    self.hangup(EndedBy.SYSTEM, Cause.MAX_DURATION)
                elif error := work.exception():
                    self.hangup(EndedBy.SYSTEM, Cause.ERROR, f"the call's steps failed ({type(error).__name__})")
                else:
                    self.hangup(EndedBy.AGENT)
        finally:
            await self._close(work)

    async def _work(self) -> None:
        if self.leg.identity.direction is Direction.OUTBOUND:
            await self._until_answered()
        await steps.run(self)

    async def _until_answered(self) -> None:
        try:
            await asyncio.wait_for(self.leg.answered.wait(), self._ring_timeout_s)
        except TimeoutError:
            self.leg.hangup(
                Termination(disposition=Disposition.NO_ANSWER, cause=Cause.NO_ANSWER, by=EndedBy.SYSTEM, sip_status=487)
            )
            await asyncio.sleep(self.services.limits.end_timeout_s)  # run() cancels this at once

    async def _close(self, work: "asyncio.Task[None]") -> None:
        if not self.leg.ended.done():  # run() itself was cancelled: the node stops without patience
            self.hangup(EndedBy.SYSTEM, Cause.NODE_STOPPED)
        try:
            work.cancel()
            await asyncio.wait([work])
            if not work.cancelled() and (error := work.exception()) is not None:
                log.error("the steps of a call failed", extra={"error": errors.where(error)})
                self.services.events.emit(
                    Problem(at=clock.now(), call_id=self.id, where="steps", what=type(error).__name__)
                )
            await self.leg.close(self.services.limits.end_timeout_s)
        finally:
            assert self.leg.ended_at is not None
            self.services.events.emit(
                CallEnded(at=self.leg.ended_at, call_id=self.id, termination=self.leg.ended.result())
            )

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

    def _media_silent(self, seconds: float) -> None:
        self.hangup(EndedBy.SYSTEM, Cause.MEDIA_TIMEOUT, f"no RTP from the peer for {seconds:.0f} s")

    def _media_lost(self) -> None:
        self.hangup(EndedBy.SYSTEM, Cause.MEDIA_DIED, "the media process died and could not be started again")
