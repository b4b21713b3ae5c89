"""Asking a flow URL what to do with a call."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from sipagent.core import clock
from sipagent.core.errors import SipagentError
from sipagent.core.events import FlowAnswered, Problem
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, EndedBy
from sipagent.dialplan import flow
from sipagent.dialplan.flow import Action
from sipagent.dialplan.matching import Match
from sipagent.dialplan.model import Dialplan, Step, WebhookStep
from sipagent.dialplan.variables import kept
from sipagent.web.signing import signed

if TYPE_CHECKING:
    from sipagent.calls.call import Call

ACCOUNT = "default"
ROUTE = "flow"


@dataclass(frozen=True, slots=True)
class _Answered:
    action: Action
    steps: list[Step]


def flow_match(flow_url: str, fallback_url: str = "") -> Match:
    """For a call that is treated by a flow URL, and by no dialplan."""
    plan = Dialplan(name=ROUTE, folder="", routes=[], steps={}, agents={})
    return Match(plan, ROUTE, [WebhookStep(url=flow_url, fallback_url=fallback_url)])


async def ask(call: "Call", step: WebhookStep) -> list[Step] | None:
    """The steps that the answer asks for. None: nobody had an answer that can be used, and the call has been ended."""
    call.flows_asked += 1
    limit = call.services.web_settings.flow_steps
    if call.flows_asked > limit:
        _failed(call, f"a flow URL was asked {limit} times in this call, which is all a call may")
        return None
    answered = await _try(call, step, step.url, fallback=False)
    if answered is None and step.fallback_url:
        answered = await _try(call, step, step.fallback_url, fallback=True)
    if answered is None:
        _failed(call, "no flow URL had an answer that can be used")
        return None
    call.variables = kept(call.variables, answered.action.variables)
    return answered.steps


async def _try(call: "Call", step: WebhookStep, url: str, *, fallback: bool) -> _Answered | None:
    """None when it has no answer that can be used: the record says why."""
    began = clock.now()
    status, action, problem, answered = 0, "", "", None
    try:
        settings = call.services.web_settings
        body = msgspec.json.encode(_question(call))
        key = call.services.key_of(call.voice_app)
        message_id = f"flow_{call.id}_{call.flows_asked}"
        headers = {"Content-Type": "application/json", **signed(key, message_id, began.wall, body)}
        answer = await call.services.web.post(
            url, body, headers, timeout_s=settings.flow_timeout_s, max_bytes=flow.MAX_ANSWER
        )
        status = answer.status
        if answer.ok:
            asked_for = flow.parse(answer.body)
            kept(call.variables, asked_for.variables)
            answered = _Answered(asked_for, flow.steps_of(asked_for, url, step.fallback_url))
            action = type(asked_for).__name__.lower()
        else:
            problem = f"the server answered {status}"
    except (SipagentError, ValueError) as error:
        problem = str(error)
    now = clock.now()
    call.services.events.emit(
        FlowAnswered(
            at=now,
            call_id=call.id,
            url=url,
            fallback=fallback,
            action=action,
            status=status,
            ms=now.ms_since(began),
            problem=problem,
        )
    )
    return answered


def _question(call: "Call") -> dict[str, object]:
    who = call.first_leg.identity
    return {
        "call_id": call.id,
        "account_id": ACCOUNT,
        "from_number": who.from_number,
        "to_number": who.to_number,
        "direction": "inbound" if who.direction is Direction.INBOUND else "outbound",
        **({"variables": call.variables} if call.variables else {}),
    }


def _failed(call: "Call", why: str) -> None:
    call.services.events.emit(Problem(at=clock.now(), call_id=call.id, where="flow", what=why))
    call.hangup(EndedBy.SYSTEM, Cause.ERROR, why)
