"""What a flow URL answers, as steps of the call: the actions of the Teler SDK 1.0.0 (`teler.flows`), and ours.

    play      a WAV file from a URL, then what `flow_url` says
    dial      ring somebody and join them with the caller
    hangup
    stream    the call's audio over a websocket
    continue  (ours) the next step of the dialplan that asked

Nothing of an answer is trusted: only URLs lead to sounds, never a file of this machine; an unknown field is refused.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from yarl import URL

from sipagent.dialplan.model import DialStep, HangupStep, Instead, PlayStep, RecordStep, Step, StreamStep, WebhookStep
from sipagent.dialplan.variables import kept
from sipagent.web.client import parse_url

MAX_ANSWER = 64 << 10  # bytes
MAX_HEADER = 256  # characters of a value
MAX_CHUNK_MS = 1000
FOREVER = 100  # times, for `"loop": true`
Url = Annotated[str, Meta(max_length=2048)]
Text = Annotated[str, Meta(max_length=1000)]


class _Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action"):
    variables: dict[str, str] = {}  # ours: kept with the call


class Sound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An action within another one. `text` is ours: it is said with the node's voice."""

    action: Literal["play", "say", "hangup"]
    media_url: Url = ""
    text: Text = ""
    voice: Text = ""  # taken for compatibility
    language: Text = ""  # taken for compatibility
    reason: Text = ""  # taken for compatibility
    loop: bool | Annotated[int, Meta(ge=1, le=FOREVER)] = False


class Play(_Answer, tag="play", frozen=True, kw_only=True):
    media_url: Url = ""
    file_url: Url = ""  # the same
    flow_url: Url = ""  # asked for what comes after
    loop: bool | Annotated[int, Meta(ge=1, le=FOREVER)] = False


class Dial(_Answer, tag="dial", frozen=True, kw_only=True):
    to: Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[!#-;=?-\[\]-~]+\Z")]
    timeout: Annotated[int, Meta(ge=1, le=600)] = 30
    record: bool | Literal["stereo", "mono", "per_leg"] = False
    custom_headers: Annotated[dict[str, str], Meta(max_length=16)] = {}
    status_callback_url: Url = ""
    ringback: Literal["passthrough", "suppress"] = "passthrough"
    dial_music: Sound | None = None
    confirm_sound: Sound | None = None
    on_no_answer: Sound | None = None
    on_busy: Sound | None = None
    on_failure: Sound | None = None


class Stream(_Answer, tag="stream", frozen=True, kw_only=True):
    ws_url: Url
    sample_rate: Literal["8k", "16k"] = "8k"
    chunk_size: Annotated[int, Meta(ge=20, le=10_000)] = 400  # ms of audio in one message
    record: bool = True


class Hangup(_Answer, tag="hangup", frozen=True, kw_only=True):
    reason: Text = ""


class Continue(_Answer, tag="continue", frozen=True, kw_only=True):
    pass


Action = Play | Dial | Stream | Hangup | Continue
_decoder = msgspec.json.Decoder(Action)


class BadAnswer(ValueError):
    """One sentence about an answer, without its content: the field, "" for the whole, and what is wrong with it."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}" if field else what)
        self.field, self.what = field, what


def parse(body: bytes) -> Action:
    """Raises BadAnswer, which names the field."""
    if len(body) > MAX_ANSWER:
        raise BadAnswer("", f"the answer is longer than {MAX_ANSWER} bytes")
    try:
        action: Action = _decoder.decode(body)
        kept({}, action.variables)
    except msgspec.ValidationError as error:
        raise BadAnswer(*_named(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadAnswer("", "the answer is not JSON") from None
    except ValueError as error:
        raise BadAnswer("variables", str(error)) from None
    return action


def steps_of(action: Action, flow_url: str, fallback_url: str) -> list[Step]:
    """What is done for it; ``flow_url`` is what was asked, for a URL relative to it. Raises BadAnswer."""
    match action:
        case Play():
            sound = url("media_url", action.media_url or action.file_url, flow_url)
            played: list[Step] = [PlayStep(file=sound, times=_times(action.loop))]
            if action.flow_url:
                after = url("flow_url", action.flow_url, flow_url)
                played.append(WebhookStep(url=after, fallback_url=fallback_url))
            return played
        case Dial():
            return [_dial(action, flow_url)]
        case Stream():
            recorded: list[Step] = [RecordStep(action="start")] if action.record else []
            return [*recorded, _stream(action)]
        case Hangup():
            return [HangupStep()]
        case Continue():
            return []


def _dial(action: Dial, flow_url: str) -> DialStep:
    for name, value in action.custom_headers.items():
        if not name.lower().startswith("x-") or len(value) > MAX_HEADER:
            raise BadAnswer("custom_headers", f"names begin with X-, values have at most {MAX_HEADER} characters")
    music = "ringback" if action.ringback == "passthrough" else "silence"
    if action.dial_music is not None:
        if action.dial_music.action != "play":
            raise BadAnswer("dial_music.action", "is play")
        music = url("dial_music.media_url", action.dial_music.media_url, flow_url)
    confirm, whisper = confirmation(action.confirm_sound, flow_url)
    callback = action.status_callback_url
    return DialStep(
        to=action.to,
        status_callback_url=url("status_callback_url", callback, flow_url) if callback else "",
        timeout_s=action.timeout,
        record=bool(action.record),  # there is one kind: both sides, in stereo
        headers=action.custom_headers,
        music=music,
        confirm=confirm,
        whisper=whisper,
        on_no_answer=instead("on_no_answer", action.on_no_answer, flow_url) or "",
        on_busy=instead("on_busy", action.on_busy, flow_url) or "",
        on_failure=instead("on_failure", action.on_failure, flow_url) or "",
    )


def _stream(action: Stream) -> StreamStep:
    try:
        parse_url(action.ws_url, ("ws", "wss"))
    except ValueError as error:
        raise BadAnswer("ws_url", str(error)) from None
    return StreamStep(
        url=action.ws_url,
        dialect="teler",
        sample_rate=8000 if action.sample_rate == "8k" else 16000,
        chunk_ms=min(action.chunk_size // 20 * 20, MAX_CHUNK_MS),
    )


def confirmation(sound: Sound | None, flow_url: str = "") -> tuple[str, str]:
    """What somebody hears who answers: the URL of a sound and a text, each "" for none. Raises BadAnswer."""
    if sound is None:
        return "", ""
    if sound.action == "hangup":
        raise BadAnswer("confirm_sound.action", "is play or say")
    spoken = instead("confirm_sound", sound, flow_url)
    return (spoken.play, spoken.say) if spoken is not None else ("", "")


def instead(field: str, sound: Sound | None, flow_url: str = "") -> Instead | None:
    """Raises BadAnswer."""
    match sound:
        case None:
            return None
        case Sound(action="hangup"):
            return Instead(hangup=True)
        case Sound(action="say") if not sound.text:
            raise BadAnswer(f"{field}.text", "is missing")
        case Sound(action="say"):
            return Instead(say=sound.text)
    return Instead(play=url(f"{field}.media_url", sound.media_url, flow_url), times=_times(sound.loop))


def _times(loop: bool | int) -> int:
    return FOREVER if loop is True else max(int(loop), 1)


def url(field: str, text: str, base: str = "") -> str:
    """Relative to ``base``, where there is one. Raises BadAnswer."""
    if not text:
        raise BadAnswer(field, "is missing")
    try:
        return str(parse_url(str(parse_url(base).join(URL(text))) if base else text))
    except ValueError as error:
        raise BadAnswer(field, str(error)) from None


def _named(text: str) -> tuple[str, str]:
    """The field that msgspec's sentence is about, and what is wrong with it.

    >>> _named("Expected `int`, got `str` - at `$.timeout`")
    ('timeout', 'Expected `int`, got `str`')
    """
    what, _, path = text[:300].partition(" - at `$")
    return path.strip("`").lstrip("."), what
