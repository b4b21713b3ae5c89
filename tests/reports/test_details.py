"""A call's detail record: its cause by Q.850, who served the caller, what it cost."""

from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest

from sipagent.core.states import Direction, LegState, TransferState
from sipagent.core.termination import Cause, Disposition, EndedBy
from sipagent.reports.causes import is_effective, q850_of
from sipagent.reports.cdr import call_detail, nearest_rank
from sipagent.reports.prices import paid_s, priced
from sipagent.reports.settings import PriceSettings
from sipagent.store.records import CallStory

from .calls import NOW, START, leg, quality, story, transfer, turn


def later(seconds: float):
    return START + timedelta(seconds=seconds)


@dataclass
class End:
    disposition: Disposition
    cause: Cause
    status: int
    told: int | None
    q850: int
    effective: bool
    answered: bool = False


@pytest.mark.parametrize(
    "end",
    [
        End(Disposition.ANSWERED, Cause.NORMAL, 200, None, 16, True, answered=True),
        End(Disposition.ANSWERED, Cause.NORMAL, 200, 31, 31, True, answered=True),
        End(Disposition.ANSWERED, Cause.UNREACHABLE, 200, None, 102, True, answered=True),
        End(Disposition.BUSY, Cause.BUSY, 486, None, 17, True),
        End(Disposition.NO_ANSWER, Cause.NO_ANSWER, 487, None, 19, True),  # we let it ring no longer
        End(Disposition.NO_ANSWER, Cause.NO_ANSWER, 480, None, 18, True),
        End(Disposition.NO_ANSWER, Cause.NO_ANSWER, 480, 20, 20, True),
        End(Disposition.CANCELLED, Cause.CANCELLED, 487, None, 16, True),
        End(Disposition.REJECTED, Cause.REFUSED, 603, None, 21, True),
        End(Disposition.FAILED, Cause.REFUSED, 403, None, 21, False),  # mapped, not told: the network's
        End(Disposition.FAILED, Cause.REFUSED, 403, 21, 21, True),
        End(Disposition.FAILED, Cause.REFUSED, 404, None, 1, False),
        End(Disposition.FAILED, Cause.REFUSED, 503, None, 41, False),
        End(Disposition.FAILED, Cause.REFUSED, 503, 34, 34, False),
        End(Disposition.FAILED, Cause.NO_CODEC, 488, None, 58, False),
        End(Disposition.FAILED, Cause.REFUSED, 499, None, 31, False),
    ],
)
def test_cause_by_q850(end: End) -> None:
    one = leg(
        "call_1",
        answered_at=later(2) if end.answered else None,
        ended_at=later(9),
        disposition=end.disposition,
        cause=end.cause,
        sip_status=end.status,
        q850=end.told,
    )
    assert (q850_of(one), is_effective(one)) == (end.q850, end.effective)


def test_a_leg_that_is_up_has_no_cause_yet() -> None:
    assert q850_of(leg("call_1", answered_at=later(1))) is None


def answered(**more) -> CallStory:
    values = {"answered_at": later(2), "ended_at": later(62), "disposition": Disposition.ANSWERED}
    values |= {"cause": Cause.NORMAL, "ended_by": EndedBy.CALLER, "sip_status": 200}
    return story(**values | more)


def test_a_call_in_detail() -> None:
    turns = [turn("call_1", None, spoke=False), *(turn("call_1", ms) for ms in (300, 100, 200))]
    found = call_detail(answered(turns=turns, quality=[quality("call_1", "leg_1", 4.1)]), NOW)
    assert (found.billable_s, found.turns, found.q850, found.mos_cq) == (60.0, 3, 16, 4.1)
    assert found.latency is not None
    assert (found.latency.p50, found.latency.p95, found.latencies_ms) == (200, 300, [300, 100, 200])
    assert not found.abandoned and not found.human


def test_a_call_that_is_up_is_billed_until_now() -> None:
    found = call_detail(answered(ended_at=None, disposition=None, ended_by=None, state=LegState.ANSWERED), later(12))
    assert (found.billable_s, found.q850, found.legs[0].billable_s) == (10.0, None, 10.0)


def test_a_leg_without_an_end_is_billed_until_the_call_has_ended() -> None:
    lost = leg("call_1", answered_at=later(2))
    found = call_detail(answered(legs=[lost]), NOW)
    assert (found.legs[0].billable_s, found.legs[0].ended_at) == (60.0, None)


ERASED = msgspec.structs.replace(turn("call_1", 300, spoke=False), characters=0)  # on request: it had words


@pytest.mark.parametrize(
    ("values", "abandoned"),
    [
        ({"answered_at": None}, True),
        ({}, False),  # its turns are gone: what was said is not known any more
        ({"turns": [ERASED]}, False),
        ({"answered_at": None, "turns": [ERASED]}, True),
        ({"turns": [turn("call_1", None)]}, False),
        ({"turns": [turn("call_1", None, spoke=False)]}, True),  # only the agent spoke
        ({"agent": None}, False),  # the dialplan alone: nothing tells whether it served them
        ({"ended_by": EndedBy.AGENT}, False),
        ({"direction": Direction.OUTBOUND}, False),
        ({"transfers": [transfer("call_1", TransferState.COMPLETED)]}, False),
    ],
)
def test_abandonment(values: dict[str, object], abandoned: bool) -> None:
    assert call_detail(answered(**values), NOW).abandoned is abandoned


@pytest.mark.parametrize(
    ("role", "is_answered", "human"),
    [("transfer", True, True), ("transfer", False, False), ("dial", True, True), ("listen", True, False)],
)
def test_a_human_takes_part(role: str, is_answered: bool, human: bool) -> None:
    other = leg("call_1", "leg_2", role=role, answered_at=later(5) if is_answered else None)
    assert call_detail(answered(legs=[leg("call_1"), other]), NOW).human is human


def test_steps_of_a_transfer_are_one() -> None:
    steps = [transfer("call_1", state, at) for at, state in enumerate((TransferState.REQUESTED, TransferState.FAILED))]
    (found,) = call_detail(answered(transfers=steps), NOW).transfers
    assert found.state is TransferState.FAILED


def test_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [nearest_rank(values, percent) for percent in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert nearest_rank([7.0], 1) == nearest_rank([7.0], 99) == 7.0


@pytest.mark.parametrize(
    ("spoken", "first", "step", "paid"),
    [(0.0, 60, 1, 0), (0.2, 60, 1, 60), (60.0, 60, 1, 60), (60.1, 60, 1, 61), (61, 30, 6, 66), (61, 60, 60, 120)],
)
def test_increments_of_billing(spoken: float, first: int, step: int, paid: int) -> None:
    assert paid_s(spoken, first, step) == paid


def test_the_most_particular_price_counts() -> None:
    prices = [
        PriceSettings(of="minute", price=0.05),
        PriceSettings(of="minute", price=0.01, prefix="+49"),
        PriceSettings(of="minute", price=0.2, prefix="+4915", first_s=60, step_s=60),
        PriceSettings(of="minute", price=9, trunk="elsewhere"),
        PriceSettings(of="call", price=0.001, direction="outbound"),
        PriceSettings(of="tts_character", price=15, per=1e6),
        PriceSettings(of="llm_prompt_token", price=2, per=1e6, agent="desk"),
        PriceSettings(of="llm_answer_token", price=8, per=1e6, agent="other"),
        PriceSettings(of="stt_minute", price=0.006),
        PriceSettings(of="tool_call", price=0.5),
    ]
    outbound = answered(direction=Direction.OUTBOUND, to_number="+491511", turns=[turn("call_1", 1.0)], tools=2)
    found = priced(call_detail(outbound, NOW), outbound, prices, "EUR")
    by_kind = {charge.kind: charge for charge in found.charges}
    assert set(by_kind) == {"minute", "call", "tts_character", "llm_prompt_token", "stt_minute", "tool_call"}
    assert by_kind["minute"].amount == 0.2 and by_kind["minute"].leg_id == "leg_1"
    assert by_kind["tts_character"].amount == pytest.approx(40 * 15e-6)
    assert by_kind["llm_prompt_token"].units == 300 and by_kind["tool_call"].amount == 1.0
    assert found.cost == pytest.approx(sum(charge.amount for charge in found.charges))
    # What was fixed does not follow the prices.
    assert priced(found, outbound, [], "EUR") == found
    inbound = answered(to_number="100")
    assert priced(call_detail(inbound, NOW), inbound, prices, "EUR").charges[0].price == 0.05


def test_nobody_pays_for_a_call_that_was_not_answered() -> None:
    missed = answered(answered_at=None, disposition=Disposition.CANCELLED)
    prices = [
        PriceSettings(of="minute", price=1),
        PriceSettings(of="call", price=1),
        PriceSettings(of="stt_minute", price=1),
    ]
    assert priced(call_detail(missed, NOW), missed, prices, "EUR").charges == []
