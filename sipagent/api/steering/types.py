"""What a call that is up can be told."""

from typing import Annotated, Literal

from msgspec import Meta

from sipagent.api.types import Cursor, Dialled, DialledOrNone, Name, Request, Response, Short
from sipagent.dialplan.flow import Sound


class Hangup(Request, kw_only=True, frozen=True):
    leg_id: Short | None = None  # only this leg of it; null ends the call
    reason: Short | None = None  # taken for compatibility; the record says that the operator hung up


class TransferTarget(Request, kw_only=True, frozen=True):
    """`number` for kind "pstn", `uri` for "sip"; `leg_id` of another call that is up for "leg": the two are joined."""

    kind: Literal["pstn", "sip", "leg"]
    number: DialledOrNone = ""
    uri: DialledOrNone = ""
    leg_id: Short = ""
    # Of the INVITE to the target, which is then a leg of ours; the trunk's `headers_out` says which may leave.
    custom_headers: Annotated[dict[str, str], Meta(max_length=16)] = {}


class DialMusic(Request, kw_only=True, frozen=True):
    """What the caller hears until the target answers: `file` or `media_url`."""

    action: Literal["play"] = "play"
    # A WAV file is looked for beside the dialplan.
    file: Annotated[str, Meta(pattern=r"^(ringback|silence|[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.wav)?$")] = ""
    media_url: Annotated[str, Meta(max_length=2048)] = ""  # of a WAV file
    loop: bool = True  # taken for compatibility: it is played over and over


class TransferCall(Request, kw_only=True, frozen=True):
    """Hand the caller to somebody else. When it fails they are back where they were."""

    target: TransferTarget
    mode: Literal["blind", "cold", "attended", "warm"] = "blind"  # cold is blind, warm is attended
    timeout: Annotated[int, Meta(ge=1, le=600)] | None = None  # of ringing; null is the node's
    ringback: Short | None = None  # anything but "" and "none": the caller hears it ring instead of hold music
    record: bool = False  # not served yet
    dial_music: DialMusic | None = None  # null is hold music, or what `ringback` says
    confirm_sound: Sound | None = None  # played or said to the target before the caller comes
    on_failure: Sound | None = None  # for the caller, who is back after that unless it hangs up
    # ours
    via: Literal["", "auto", "refer", "bridge"] = ""  # "" is what the trunk's `transfer` says
    trunk: Name = ""  # of a leg of ours; "" is the caller's
    whisper: Annotated[str, Meta(max_length=1000)] = ""  # told to the target before; only where it is attended


class Hold(Request, kw_only=True, frozen=True):
    music: Literal["", "ringback", "silence"] = ""  # "" is hold music


class Resume(Request, kw_only=True, frozen=True):
    pass


class Bridge(Request, kw_only=True, frozen=True):
    call_id: Cursor  # another call that is up


class BringIn(Request, kw_only=True, frozen=True):
    """Ring somebody, who then listens in, whispers (to everyone but the caller), or joins."""

    to_number: Dialled
    part: Literal["listen", "whisper", "conference"] = "listen"
    trunk: Name = ""
    timeout_s: Annotated[int, Meta(ge=1, le=600)] | None = None  # of ringing; null is the node's


class MutationOut(Response, kw_only=True, frozen=True):
    request_id: str
    playback_id: str | None = None


class TransferStarted(Response, kw_only=True, frozen=True):
    """The transfer is under way; its steps are in the call's record, by its id."""

    id: str
    call_id: str
    status: str  # "requested"
    target_leg_id: str | None
    mode: str
    request_id: str
