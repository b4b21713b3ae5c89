"""What calls that are up are made to hear, to say and to answer."""

import asyncio
from typing import Any

from sipagent.api.mutations.backend import Answered, Ask, Play
from sipagent.calls import asking, playing
from sipagent.calls.asking import Question
from sipagent.calls.call import Call
from sipagent.calls.leg import Leg
from sipagent.calls.registry import CallRegistry
from sipagent.conversation.interfaces import DigitsWanted
from sipagent.conversation.languages import codes
from sipagent.core.errors import ConfigError, NotNow
from sipagent.core.events import Gathered
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan import matching


class LiveMutations:
    """`api.mutations.backend.MutationsBackend` on a live node."""

    def __init__(self, registry: CallRegistry) -> None:
        self._registry = registry

    async def mute(self, call_id: str, leg_id: str, on: bool) -> bool:
        call = self._registry.find(call_id)
        if call is not None:
            call.check_up()
            _leg(call, leg_id).mute(on)
        return call is not None

    async def press(self, call_id: str, leg_id: str, digits: str, duration_ms: int) -> bool:
        call = self._registry.find(call_id)
        if call is not None:
            playing.press(call, _leg(call, leg_id), digits, duration_ms)
        return call is not None

    async def play(self, call_id: str, leg_id: str, wanted: Play) -> str:
        call = self._registry.find(call_id)
        if call is None:
            return ""
        return playing.play(call, _leg(call, leg_id), wanted.source, wanted.loops, until_key=wanted.until_key)

    async def say(self, call_id: str, leg_id: str, text: str) -> bool:
        call = self._registry.find(call_id)
        if call is not None:
            playing.speak(call, _leg(call, leg_id), text)
        return call is not None

    async def gather(self, call_id: str, wanted: Ask, wait_s: float) -> Answered | None:
        if wanted.language not in codes():
            raise ConfigError(f"there is no such language: there is {', '.join(codes())}")
        call = self._registry.find(call_id)
        if call is None:
            return None
        keys = wanted.digits
        question = Question(
            text=wanted.text,
            digits=DigitsWanted(least=keys.least, most=keys.most, end=keys.end, between_s=keys.between_s)
            if keys is not None
            else None,
            speech=wanted.speech,
            language=wanted.language,
            first_s=wanted.first_s,
            limit_s=wanted.limit_s,
        )
        gather_id, answer = asking.gather(call, question)
        either: set[asyncio.Future[Any]] = {answer, call.ended}
        await asyncio.wait(either, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return _answered(answer.result())
        if call.ended.done():
            return Answered(gather_id=gather_id, by="nothing", reason="ended")
        return Answered(gather_id=gather_id)

    async def answer(self, call_id: str, dialplan: str) -> bool:
        call = self._registry.find(call_id)
        if call is None:
            return False
        match = matching.by_name(self._registry.dialplans, dialplan) if dialplan else None
        if dialplan and match is None:
            raise ConfigError("is no route, steps or dialplan of this node")
        call.answer_with(match.steps if match is not None else ())
        if match is not None:
            call.match = match
        return True

    async def reject(self, call_id: str, status: int, reason: str) -> bool:
        call = self._registry.find(call_id)
        if call is None:
            return False
        call.check_ringing()
        by = EndedBy.OPERATOR
        call.leg.reject(
            status,
            reason,
            Termination(disposition=Disposition.REJECTED, cause=Cause.REJECTED, by=by, sip_status=status),
        )
        return True


def _leg(call: Call, leg_id: str) -> Leg:
    """Raises NotNow."""
    if not leg_id:
        return call.leg
    leg = next((leg for leg in call.legs if leg.id == leg_id and not leg.ended.done()), None)
    if leg is None:
        raise NotNow("the leg is not up")
    return leg


def _answered(told: Gathered) -> Answered:
    return Answered(gather_id=told.gather_id, by=told.by, digits=told.digits, text=told.text, reason=told.reason)
