"""What a call has cost, by the price table of the configuration."""

import math
from collections.abc import Sequence

import msgspec

from sipagent.reports.cdr import CallDetail, Charge, LegDetail
from sipagent.reports.settings import PriceSettings
from sipagent.store.records import CallStory

_OF_LEGS = ("minute", "call")
_UNITS = {
    "minute": "minute",
    "call": "call",
    "stt_minute": "minute",
    "tts_character": "character",
    "llm_prompt_token": "token",
    "llm_answer_token": "token",
    "tool_call": "call",
}


def priced(call: CallDetail, story: CallStory, prices: Sequence[PriceSettings], currency: str) -> CallDetail:
    """The record with its charges, unless it has some already: what was fixed once does not follow the prices."""
    if call.charges or call.ended_at is None:
        return call
    charges = [charge for leg in call.legs for charge in _of_leg(leg, call, prices, currency)]
    for kind, units in _used(call, story).items():
        price = _best(kind, prices, call)
        if price is not None and units:
            charges.append(_charge(kind, "", units, price, currency))
    cost = round(sum(charge.amount for charge in charges), 6)
    return msgspec.structs.replace(call, charges=charges, cost=cost)


def paid_s(spoken_s: float, first_s: int, step_s: int) -> int:
    """Seconds that are paid for: the first ones at once, then every step that is begun."""
    whole = math.ceil(spoken_s)
    if whole <= 0:
        return 0
    return first_s + -(-max(0, whole - first_s) // step_s) * step_s


def _of_leg(leg: LegDetail, call: CallDetail, prices: Sequence[PriceSettings], currency: str) -> list[Charge]:
    if leg.answered_at is None:
        return []
    charges = []
    for kind in _OF_LEGS:
        price = _best(kind, prices, call, leg)
        if price is None:
            continue
        units = 1.0 if kind == "call" else paid_s(leg.billable_s, price.first_s, price.step_s) / 60
        if units:
            charges.append(_charge(kind, leg.id, units, price, currency))
    return charges


def _best(
    kind: str, prices: Sequence[PriceSettings], call: CallDetail, leg: LegDetail | None = None
) -> PriceSettings | None:
    """The most particular price that fits: by prefix first, then by trunk, direction and agent; else the first."""

    def fits(price: PriceSettings) -> bool:
        if price.of != kind or (price.agent and price.agent != call.agent):
            return False
        if leg is None:
            return not (price.trunk and price.trunk != call.trunk)
        return (
            (not price.trunk or price.trunk == leg.trunk)
            and (not price.direction or price.direction == leg.direction)
            and leg.to_number.startswith(price.prefix)
        )

    fitting = [price for price in prices if fits(price)]
    return max(
        fitting,
        key=lambda it: (len(it.prefix), bool(it.trunk), bool(it.direction), bool(it.agent)),
        default=None,
    )


def _used(call: CallDetail, story: CallStory) -> dict[str, float]:
    """Units of providers. The recogniser listens as long as a call with an agent is answered."""
    used = {"stt_minute": 0.0, "tts_character": 0.0, "llm_prompt_token": 0.0, "llm_answer_token": 0.0}
    used["tool_call"] = float(story.tools)
    if call.agent:
        used["stt_minute"] = math.ceil(call.billable_s) / 60
    for turn in story.turns:
        used["tts_character"] += turn.characters
        for name in ("prompt", "answer"):
            count = (turn.tokens or {}).get(name)
            if isinstance(count, int) and 0 < count < 1e9:
                used[f"llm_{name}_token"] += count
    return used


def _charge(kind: str, leg_id: str, units: float, price: PriceSettings, currency: str) -> Charge:
    each = price.price / price.per
    return Charge(
        kind=kind,
        leg_id=leg_id,
        units=round(units, 6),
        unit=_UNITS[kind],
        price=each,
        currency=currency,
        amount=round(units * each, 6),
    )
