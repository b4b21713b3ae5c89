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
from sipagent.core import clock
from sipagent.core.events import CallEnded, Problem, RouteChosen
from sipagent.core.ids import CallId
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.matching import Match
from sipagent.dialplan.model import AgentStep, RejectStep

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
        leg.port.on_silent = self._media_silent
        leg.port.on_lost = self._media_lost

    @property
    def agent(self) -> str:
        return next((step.agent for step in self.match.steps if isinstance(step, AgentStep)), "")

    def hangup(self, by: EndedBy = EndedBy.OPERATOR, cause: Cause = Cause.NORMAL, detail: str = "") -> None:
        self.leg.hangup(
            Termination(
                disposition=Disposition.ANSWERED if self.leg.is_answered else Disposition.CANCELLED,
                cause=cause,
                by=by,
                detail=detail,
            )
        )

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
                    self._failed(error)
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
        work.cancel()
        await asyncio.wait([work])
        if not work.cancelled() and (error := work.exception()) is not None:
            self._report(error)
        await self.leg.close(self.services.limits.end_timeout_s)
        self.services.events.emit(CallEnded(at=clock.now(), call_id=self.id, termination=self.leg.ended.result()))

    def _failed(self, error: BaseException) -> None:
        self._report(error)
        self.hangup(EndedBy.SYSTEM, Cause.ERROR, f"the call's steps failed ({type(error).__name__})")

    def _report(self, error: BaseException) -> None:
        log.error("the steps of a call failed", exc_info=error, extra={"call_id": self.id})
        self.services.events.emit(
            Problem(at=clock.now(), call_id=self.id, where="steps", what=f"{type(error).__name__}")
        )

    def _media_silent(self, seconds: float) -> None:
        self.hangup(EndedBy.SYSTEM, Cause.MEDIA_TIMEOUT, f"no RTP from the peer for {seconds:.0f} s")

    def _media_lost(self) -> None:
        self.hangup(EndedBy.SYSTEM, Cause.MEDIA_DIED, "the media process died and could not be started again")

    @property
    def rejects(self) -> RejectStep | None:
        """The refusal, when that is all the dialplan has for this call."""
        first = self.match.steps[0]
        return first if isinstance(first, RejectStep) else None
