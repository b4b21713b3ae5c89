"""What a call that is up can be made to hear, to say and to answer."""

from typing import Annotated, Literal

from msgspec import Meta

from sipagent.api.types import Name, Request, Response, Short

_END = r"(?![\s\S])"
WAV = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.wav"
Spoken = Annotated[str, Meta(min_length=1, max_length=2000)]


class Mute(Request, kw_only=True, frozen=True):
    """What the leg's party says is heard by nobody, the agent included; the party hears on."""

    leg_id: Short
    on: bool


class Dtmf(Request, kw_only=True, frozen=True):
    digits: Annotated[str, Meta(pattern=rf"^[0-9*#A-Da-d,]{{1,64}}{_END}")]  # a comma is a pause of half a second
    leg_id: Short | None = None  # null is the caller's
    duration_ms: Annotated[int, Meta(ge=40, le=2000)] | None = None  # null is 160


class PlayMedia(Request, kw_only=True, frozen=True):
    """A WAV file, 16 bit, of at most 10 minutes. It is mixed in where the caller talks with somebody else."""

    # http or https, or the name of a file beside the dialplan
    media_url: Annotated[str, Meta(pattern=rf"^(https?://[!-~]+|{WAV}){_END}", max_length=2048)]
    leg_id: Short | None = None  # who hears it; null is the caller
    loop: Annotated[int, Meta(ge=1, le=100)] | None = None  # times; null is once
    on_dtmf: Literal["", "none", "ignore", "continue", "stop"] | None = None  # "stop": the first key ends it


class Say(Request, kw_only=True, frozen=True):
    text: Spoken
    leg_id: Short | None = None  # who hears it; null is the caller


class GatherDigits(Request, kw_only=True, frozen=True):
    least: Annotated[int, Meta(ge=1, le=32)] = 1
    most: Annotated[int, Meta(ge=1, le=32)] = 32
    end: Annotated[str, Meta(pattern=rf"^[0-9*#]?{_END}")] = "#"  # this key ends it and is none of them
    between_s: Annotated[float, Meta(ge=0.5, le=60)] = 4.0


class Gather(Request, kw_only=True, frozen=True):
    """Ask the caller for keys, speech, or whichever comes first. An agent waits meanwhile."""

    text: Annotated[str, Meta(max_length=2000)] = ""  # said first
    digits: GatherDigits | None = None
    speech: bool = False
    language: Annotated[str, Meta(pattern=rf"^[a-z]{{2}}{_END}")] = "en"
    first_s: Annotated[float, Meta(ge=1, le=120)] = 8.0  # for the answer to begin
    limit_s: Annotated[float, Meta(ge=1, le=300)] = 60.0
    wait_s: Annotated[float, Meta(ge=0, le=25)] = 25.0  # for the answer; it is an event, too


class AnswerCall(Request, kw_only=True, frozen=True):
    dialplan: Name = ""  # steps to take then, by the name of a route, steps or dialplan; "" the steps that follow


class RejectCall(Request, kw_only=True, frozen=True):
    status: Annotated[int, Meta(ge=400, le=699)] = 603  # SIP
    reason: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9 .,'-]{{0,64}}{_END}")] = ""


class GatherOut(Response, kw_only=True, frozen=True):
    """`by` is "digits", "speech", "nothing", or "" while the answer is still to come (event Gathered)."""

    request_id: str
    gather_id: str
    by: str
    digits: str
    text: str
    reason: str  # "complete", "silence" or "ended"
