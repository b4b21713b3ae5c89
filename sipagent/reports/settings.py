"""Settings of reports and prices."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

PRICED = Literal["call", "minute", "stt_minute", "tts_character", "llm_prompt_token", "llm_answer_token", "tool_call"]
Name = Annotated[str, Meta(max_length=64)]


class ReportSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    # whose days and hours reports count, such as "Europe/Berlin"; "" is the machine's own time zone
    time_zone: str = ""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "EUR"  # of all [[prices]], by ISO 4217
    # hours are closed for reports, and their costs fixed, by every node that has a record of its own to write
    close_hours: bool = True

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.time_zone or "UTC")
        except (ValueError, OSError, KeyError):
            raise ValueError(f'there is no time zone {self.time_zone!r}: write it like "Europe/Berlin"') from None


class PriceSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    # what is paid for: "minute" and "call" of an answered leg, "stt_minute" of a call with an agent, "tts_character"
    # the agent spoke, "llm_prompt_token", "llm_answer_token", "tool_call"
    of: PRICED
    price: Annotated[float, Meta(ge=0, le=1e6)]  # of `per` units
    per: Annotated[float, Meta(gt=0, le=1e9)] = 1.0  # so many units
    trunk: Name = ""  # only legs by this trunk; "" is any
    direction: Literal["", "inbound", "outbound"] = ""  # only such legs; "" is both
    prefix: Name = ""  # only numbers that begin so: of the price of legs the longest that fits counts
    agent: Name = ""  # only calls of this agent; "" is any
    first_s: Annotated[int, Meta(ge=0, le=3600)] = 1  # of "minute": this much is paid at once ...
    step_s: Annotated[int, Meta(ge=1, le=3600)] = 1  # ... and then every step that is begun
