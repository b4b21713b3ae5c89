"""Calls as the record has them, made up."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from sipagent.core.states import Direction, LegState, TransferKind, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.store.records import (
    CallRecord,
    CallStory,
    LegRecord,
    QualityRecord,
    TransferRecord,
    TurnFacts,
)

START = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)  # the night in which clocks change in Europe
NOW = START + timedelta(hours=12)

_COUNTERS: dict[str, Any] = dict.fromkeys(
    "packets_in packets_out lost late duplicate reordered malformed foreign concealed_ms dropped_ms".split()
) | {"jitter_ms": None, "digits_in": None}


def leg(call_id: str, leg_id: str = "leg_1", **values: Any) -> LegRecord:
    own: dict[str, Any] = {
        "id": leg_id,
        "call_id": call_id,
        "direction": Direction.INBOUND,
        "state": LegState.ENDED,
        "from_number": "+4930123456",
        "to_number": "100",
        "sip_call_id": "a@b",
        "remote_address": "192.0.2.1:5060",
        "role": "caller",
        "trunk": "carrier",
        "parent_leg_id": None,
        "codec": "PCMU",
        "local_media": None,
        "remote_media": None,
        "setup_at": START,
        "ringing_at": None,
        "answered_at": None,
        "ended_at": None,
        "disposition": None,
        "cause": None,
        "ended_by": None,
        "sip_status": None,
        "q850": None,
        "detail": None,
    }
    return LegRecord(**_COUNTERS, **own | values)


def story(
    call_id: str = "call_1",
    *,
    legs: list[LegRecord] | None = None,
    turns: list[TurnFacts] | None = None,
    transfers: list[TransferRecord] | None = None,
    quality: list[QualityRecord] | None = None,
    tools: int = 0,
    **values: Any,
) -> CallStory:
    """A call with one leg that is as the call is, unless others are given."""
    own: dict[str, Any] = {
        "id": call_id,
        "node": "a",
        "direction": Direction.INBOUND,
        "from_number": "+4930123456",
        "to_number": "100",
        "trunk": "carrier",
        "dialplan": "desk",
        "route": "day",
        "agent": "desk",
        "state": LegState.ENDED,
        "setup_at": START,
        "ringing_at": None,
        "answered_at": None,
        "ended_at": None,
        "disposition": None,
        "cause": None,
        "ended_by": None,
        "sip_status": None,
        "detail": "",
        "properties": {},
    }
    own |= values
    if legs is None:
        same = (
            "direction from_number to_number trunk setup_at ringing_at answered_at ended_at disposition cause".split()
        )
        same += ["ended_by", "sip_status", "state"]
        role = "caller" if own["direction"] is Direction.INBOUND else "callee"
        legs = [leg(call_id, f"leg_{call_id[5:]}", role=role, **{name: own[name] for name in same})]
    call = CallRecord(**own, legs=legs)
    return CallStory(call=call, turns=turns or [], transfers=transfers or [], quality=quality or [], tools=tools)


def turn(call_id: str, ms: float | None, *, spoke: bool = True, interrupted: bool = False) -> TurnFacts:
    return TurnFacts(
        call_id=call_id,
        caller_spoke=spoke,
        interrupted=interrupted,
        total_ms=ms,
        characters=40,
        tokens={"prompt": 300, "answer": 20},
    )


def transfer(call_id: str, state: TransferState, step: int = 0, transfer_id: str = "xfer_1") -> TransferRecord:
    return TransferRecord(
        id=transfer_id,
        step=step,
        call_id=call_id,
        leg_id="leg_1",
        other_leg_id=None,
        kind=TransferKind.BLIND,
        target="200",
        state=state,
        sip_status=0,
        reason="",
        at=START,
    )


def quality(call_id: str, leg_id: str, mos: float | None) -> QualityRecord:
    return QualityRecord(
        call_id=call_id,
        leg_id=leg_id,
        packets=1000,
        lost=1,
        lost_percent=0.1,
        discarded_percent=0.0,
        jitter_ms=1.0,
        concealed_ms=20,
        round_trip_ms=None,
        mos_lq=mos,
        mos_cq=mos,
    )


ENDS = [
    (Disposition.ANSWERED, Cause.NORMAL, EndedBy.CALLER, 200),
    (Disposition.ANSWERED, Cause.NORMAL, EndedBy.AGENT, 200),
    (Disposition.ANSWERED, Cause.TRANSFERRED, EndedBy.AGENT, 200),
    (Disposition.NO_ANSWER, Cause.NO_ANSWER, EndedBy.SYSTEM, 487),
    (Disposition.BUSY, Cause.BUSY, EndedBy.CALLEE, 486),
    (Disposition.CANCELLED, Cause.CANCELLED, EndedBy.CALLER, 487),
    (Disposition.FAILED, Cause.REFUSED, EndedBy.CALLEE, 503),
]


def many(count: int, seed: int = 1) -> list[CallStory]:
    """Of a night: some before midnight, some across it, some still up."""
    chance = random.Random(seed)
    found = []
    for n in range(count):
        call_id = f"call_{n:04}"
        setup = START + timedelta(seconds=chance.uniform(0, 11.9 * 3600))
        disposition, cause, by, status = chance.choice(ENDS)
        ringing = setup + timedelta(seconds=chance.uniform(0, 4))
        answered = ringing + timedelta(seconds=1) if disposition is Disposition.ANSWERED else None
        ended: datetime | None = ringing + timedelta(seconds=chance.choice([3, 30, 600, 5000]))
        direction = chance.choice(list(Direction))
        end: dict[str, Any] = {"disposition": disposition, "cause": cause, "ended_by": by, "sip_status": status}
        state = LegState.ENDED
        if chance.random() < 0.1 or (ended and ended > NOW):
            ended, end = None, {}
            state = LegState.RINGING if answered is None else LegState.ANSWERED
        found.append(
            story(
                call_id,
                direction=direction,
                to_number=chance.choice(["100", "200", "=1+1"]),
                trunk=chance.choice(["carrier", "other", ""]),
                agent=chance.choice(["desk", "night", None]),
                state=state,
                setup_at=setup,
                ringing_at=ringing,
                answered_at=answered,
                ended_at=ended,
                turns=[
                    turn(call_id, chance.choice([None, chance.uniform(200, 2000)]), spoke=chance.random() < 0.8)
                    for _ in range(chance.randrange(4) if answered else 0)
                ],
                transfers=[transfer(call_id, chance.choice([TransferState.COMPLETED, TransferState.FAILED]))]
                if answered and chance.random() < 0.2
                else [],
                quality=[quality(call_id, f"leg_{n:04}", chance.uniform(2, 4.4))] if answered else [],
                **end,
            )
        )
    return found
