"""The agent step: a conversation, and what it asks for at its end; a failed transfer leads back into it."""

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from sipagent.calls.answering import CalleeCheck, both, check_for, unless_machine
from sipagent.calls.control import AgentControl
from sipagent.calls.saved import SavedTalk, SavedTurn
from sipagent.calls.transfer import transfer
from sipagent.conversation.bridge import dead_air
from sipagent.conversation.dead_air import DeadAir
from sipagent.conversation.happenings import Ending, Outcome
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Agent, TransferCall
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.session import Session
from sipagent.core import clock
from sipagent.core.events import TurnEnded
from sipagent.core.ids import TurnId, new_turn_id
from sipagent.core.states import ToolStatus
from sipagent.core.termination import Cause, EndedBy
from sipagent.dialplan.model import AgentSpec, TransferSpec

if TYPE_CHECKING:
    from sipagent.calls.call import Call

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Talk:
    """A conversation that may be left and taken up again."""

    agent: Agent
    spec: AgentSpec
    history: History
    ledger: Ledger  # what the providers did for it
    silence: DeadAir
    check: CalleeCheck | None = None  # of who has answered
    opening: str | None = None  # None is the greeting

    def back(self, reason: str) -> None:
        """The caller is with the agent again, who shall know why."""
        self.history.note(f"The transfer failed: {reason}. The caller is with you again.")
        self.opening = self.spec.transfer_failed.format(reason=reason)


async def talk(call: "Call", name: str) -> None:
    """Until the conversation has ended the call or handed the caller on."""
    spec = call.match.dialplan.agents[name]
    if call.talk is None:
        history, ledger = History(), Ledger()
        control = AgentControl(call, history)
        agent = await call.services.make_agent(f"{call.match.dialplan.name}/{name}", spec, control, ledger)
        silence = dead_air(spec, call.services.conversation.dead_air_ms)
        call.talk = Talk(
            agent, spec, history, ledger, silence, check=check_for(call, spec) if call.left is None else None
        )
        if call.left is not None:
            take_up(call, call.talk, call.left)
            call.left = None
            await call.leg.port.flush()  # what stood in for us
    call.leg.port.leave(spec.away)
    if spec.record:
        call.start_recording()
    try:
        async with asyncio.timeout(spec.max_duration_s) as limit:
            while True:
                outcome = await _converse(call, call.talk)
                if outcome.transfer is None:
                    break
                limit.reschedule(None)  # whoever it goes to may talk longer
                if await _hand_over(call, call.talk, outcome.transfer):
                    return
                limit.reschedule(asyncio.get_running_loop().time() + spec.max_duration_s)
    except TimeoutError:
        call.hangup(EndedBy.SYSTEM, Cause.MAX_DURATION, "the agent's max_duration_s is over")
        return
    call.talk = None
    match outcome.ending:
        case Ending.HANGUP:
            call.hangup(EndedBy.AGENT)
        case Ending.CALLER_SILENT:
            call.hangup(EndedBy.SYSTEM, Cause.CALLER_SILENT)
        case Ending.FAILED:
            call.hangup(EndedBy.SYSTEM, Cause.ERROR, outcome.why)
        case Ending.TRANSFER:
            pass
        case _:
            assert_never(outcome.ending)


def take_up(call: "Call", going_on: Talk, left: SavedTalk) -> None:
    """A conversation that the death of an earlier main has cut off: what was said holds, but for the turn under way."""
    for speaker, text in left.history:
        going_on.history.add(speaker, text)
    if left.memory is not None:
        _remind(going_on, left.memory)
    going_on.opening = going_on.spec.resumed
    if left.under_way is not None:
        _turn_lost(call, going_on.history, left.under_way)
    for tool in left.tools:
        if tool.status is ToolStatus.FAILED:
            continue
        what = "has answered" if tool.status is ToolStatus.OK else "was at work; whether it has done it is not known"
        going_on.history.note(
            f"Before the line was interrupted you had called the tool {tool.name}, and it {what}. "
            "Do not call it again for the same, unless it only looks something up: ask or tell the caller."
        )


def _turn_lost(call: "Call", history: History, turn: SavedTurn) -> None:
    now = clock.now()
    call.services.events.emit(
        TurnEnded(
            at=now,
            call_id=call.id,
            turn_id=TurnId(turn.id) if turn.id else new_turn_id(),
            index=call.turns,
            caller_text=turn.caller_text,
            agent_text=turn.agent_text,
            heard_text="",  # how much of it is not known
            intent="",
            confidence=0.0,
            interrupted=True,
            started_at=now,
            agent_started_at=None,
            latency=None,
            details={"lost": True},
        )
    )
    call.turns += 1
    if turn.caller_text:
        history.caller(turn.caller_text)
    history.note("The line was interrupted for a moment. What you were saying may not have been heard.")


def _remind(going_on: Talk, memory: object) -> None:
    """The dialplan may have been changed since: what its agent cannot have come to is forgotten."""
    try:
        going_on.agent.rollback(memory)
    except Exception as error:  # an agent may be somebody's own
        log.warning("an agent cannot go on where it was: it begins anew", extra={"reason": type(error).__name__})
        going_on.history.note("What was being asked or done before is not known any more: ask the caller again.")


async def _converse(call: "Call", going_on: Talk) -> Outcome:
    """Until the conversation asks for something, or a machine has answered and left nothing to talk to."""
    check = going_on.check
    while True:
        outcome = await _session(call, going_on, check)
        if outcome is not None:
            return outcome
        assert check is not None
        if not await check.act():
            return Outcome(Ending.HANGUP)
        going_on.opening = None  # a person comes: the greeting again


async def _session(call: "Call", going_on: Talk, check: CalleeCheck | None) -> Outcome | None:
    """None where a machine answered that is dealt with otherwise."""
    services = call.services
    tts, recogniser = services.speech_for(going_on.spec, going_on.ledger)
    session = Session(
        call.id,
        agent=going_on.agent,
        manners=going_on.spec,
        out=call.leg.port,
        make_vad=services.make_vad,
        recogniser=recogniser,
        tts=tts,
        events=check or services.events,
        settings=services.conversation,
        first_turn=call.turns,
        history=going_on.history,
        opening=going_on.opening,
        judge=services.turn_judge,
        ledger=going_on.ledger,
        urgent=tts.urgent,
        silence=going_on.silence,
    )
    leg, port = call.leg, call.leg.port

    def held(on: bool) -> None:
        session.held = on

    held(leg.held or leg.muted)
    leg.on_held = held
    leg.on_digit.append(session.pressed)
    port.on_frames = session.on_frames if check is None else both(session.on_frames, check.on_frames)
    try:
        return await (session.run() if check is None else unless_machine(session.run(), check))
    finally:
        port.on_frames = leg.on_held = None
        leg.on_digit.remove(session.pressed)
        call.turns = session.turns


async def _hand_over(call: "Call", going_on: Talk, wanted: TransferCall) -> bool:
    """False when the caller is back."""
    plan = wanted.plan if isinstance(wanted.plan, TransferSpec) else TransferSpec(target=wanted.target)
    reason = "the call has ended"
    try:
        handed = await transfer(call, plan, wanted.whisper, summary(going_on.history))
        reason = handed.reason
    finally:
        if wanted.outcome is not None:
            wanted.outcome(reason)
    if handed.failed:
        going_on.back(handed.reason)
    return not handed.failed


def summary(history: History) -> str:
    """For whoever takes the caller over."""
    said = history.last_said
    return f"I have a caller for you, who said: {said}" if said else "I have a caller for you."
