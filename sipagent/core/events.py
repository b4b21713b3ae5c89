"""The one event vocabulary: facts that happened, for the record, the API and whoever watches.

Events never steer a call; they are emitted beside it. A new fact is a new event, not a new flag on an old one.
Fields marked ``PRIVATE`` (numbers, words, digits) reach the store and key holders, never the log.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from sipagent.core.clock import Stamp
from sipagent.core.errors import where
from sipagent.core.ids import CallId, GatherId, LegId, PlaybackId, RecordingId, StreamId, ToolCallId, TransferId, TurnId
from sipagent.core.states import Direction, RegistrationState, ToolStatus, TransferState, TrunkState
from sipagent.core.termination import Termination

log = logging.getLogger(__name__)

PRIVATE = {"private": True}
# Kept in a table of its own: neither in the event's row nor on the event stream. Private as well.
APART = {"private": True, "apart": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    at: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent(Event):
    call_id: CallId


@dataclass(frozen=True, slots=True, kw_only=True)
class LegEvent(CallEvent):
    leg_id: LegId


# --- calls and legs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCreated(CallEvent):
    direction: Direction
    from_number: str = field(metadata=PRIVATE)
    to_number: str = field(metadata=PRIVATE)
    trunk: str  # the trunk's name, "" for a call from an address that is no trunk
    voice_app_id: str = ""  # the app that takes it, "" where a dialplan's route does


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerTold(CallEvent):
    """What the INVITE says besides the two numbers."""

    name: str = field(metadata=PRIVATE)
    asserted: bool  # the trunk vouches for the calling number
    withheld: bool  # the caller wants it kept private
    diversions: tuple[dict[str, str], ...] = field(metadata=PRIVATE)  # number and reason, the newest first
    headers: dict[str, str] = field(metadata=PRIVATE)  # those that the trunk's `headers_in` admits


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChosen(CallEvent):
    dialplan: str
    route: str
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResumed(CallEvent):
    """The main process has died, and another one goes on with the call."""

    gap_ms: float  # without a main
    step: str  # that it goes on with, "" when it has none left
    turn_lost: bool  # a turn of the conversation was under way


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(CallEvent):
    termination: Termination


@dataclass(frozen=True, slots=True, kw_only=True)
class LegCreated(LegEvent):
    direction: Direction
    from_number: str = field(metadata=PRIVATE)
    to_number: str = field(metadata=PRIVATE)
    sip_call_id: str
    remote_address: str  # host:port of the SIP peer
    role: str = ""  # who the other side is to the call: "caller", "callee", "transfer", "dial", "listen", ...
    trunk: str = ""  # the trunk's name, "" for an address that is no trunk
    parent_leg_id: LegId | None = None  # the leg that this one was made for


@dataclass(frozen=True, slots=True, kw_only=True)
class LegRinging(LegEvent):
    sip_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LegAnswered(LegEvent):
    sip_call_id: str  # an outbound leg has none before
    codec: str  # "PCMU" or "PCMA"
    local_media: str  # host:port of our RTP
    remote_media: str  # host:port as the SDP says


@dataclass(frozen=True, slots=True, kw_only=True)
class LegHeld(LegEvent):
    """The peer has put us on hold, or taken us back: it hears us no more, and what it sends is no speech."""

    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFigures:
    """Counters of one leg's RTP, from the media process. Counts are packets unless named otherwise."""

    packets_in: int = 0
    packets_out: int = 0
    lost: int = 0  # expected minus received, RFC 3550 A.3
    late: int = 0
    duplicate: int = 0
    reordered: int = 0
    malformed: int = 0
    foreign: int = 0  # from an address that may not speak on this call
    concealed_ms: int = 0
    dropped_ms: int = 0  # audio that main was too slow to take
    jitter_ms: float = 0.0  # RFC 3550 A.8
    digits_in: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegEnded(LegEvent):
    termination: Termination
    figures: MediaFigures
    sip_call_id: str = ""  # of an outbound leg that nobody answered, too; "" when the peer never said anything


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefused(Event):
    """An INVITE turned away before it became a call."""

    reason: str
    sip_status: int
    others: int = 0  # of a flood: so many more since the last event of this kind


@dataclass(frozen=True, slots=True, kw_only=True)
class SipMessage:
    """One SIP message of a call as the lane saw it, secrets masked."""

    seq: int  # within its dialog, from 0; a gap is of messages that were not kept
    at: Stamp
    sent: bool  # by us
    transport: str  # "UDP", "TCP", "TLS"
    local: str  # host:port
    remote: str  # host:port of the packet's other end
    size: int  # bytes on the wire
    repeats: int | None  # seq of the message that this one repeats to the byte; its text is not kept again
    text: str  # at most 4000 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class SipMessages(CallEvent):
    """What went over the wire in one dialog of a call since the last event of this kind."""

    dialog: int  # the lane's handle
    leg_id: str  # "" when the call was refused before it had a leg
    count: int
    messages: tuple[SipMessage, ...] = field(metadata=APART, repr=False)


# --- the conversation -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialTranscript(CallEvent):
    """What the caller seems to be saying; replaced by the next one. Shown live, not stored."""

    text: str = field(metadata=PRIVATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSaid(CallEvent):
    turn_id: TurnId
    text: str = field(metadata=PRIVATE)
    started_at: Stamp
    ended_at: Stamp
    confidence: float  # 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInterrupted(CallEvent):
    heard_text: str = field(metadata=PRIVATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLatency:
    """From the arrival of the caller's last voiced packet to the agent's first voiced packet on the wire, in ms.

    The parts follow one another and add up to the total.
    """

    jitter_buffer_ms: float = 0.0  # until the packet's audio was handed to main
    endpointing_ms: float = 0.0  # until it was decided that the caller had finished
    stt_ms: float = 0.0  # until the words were final
    llm_ms: float = 0.0  # until the first words of the answer were there
    clause_ms: float = 0.0  # until its first clause was
    tts_ms: float = 0.0  # until that clause's first audio was
    playout_ms: float = 0.0  # until that audio was next in the queue to the wire
    pacing_ms: float = 0.0  # until its first voiced packet left
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpeaking(CallEvent):
    """The agent's first audio of an utterance has left on the wire."""

    text: str = field(metadata=PRIVATE)  # as far as known by then
    latency: TurnLatency | None  # of the turn it answers, None when the agent speaks first


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnded(CallEvent):
    """The agent's answer to something the caller said (or its own opening words) is over."""

    turn_id: TurnId
    index: int  # 0 is the greeting
    caller_text: str = field(metadata=PRIVATE)  # "" when the agent spoke first
    agent_text: str = field(metadata=PRIVATE)  # as generated
    heard_text: str = field(metadata=PRIVATE)  # as it went out on the wire
    intent: str  # "" when the agent has no intents
    confidence: float  # of the recogniser, 0..1
    interrupted: bool
    started_at: Stamp  # the caller's first speech, or the agent's for a greeting
    agent_started_at: Stamp | None  # None when nothing was heard
    latency: TurnLatency | None  # None when the agent spoke first or was never heard
    # How it came about, as JSON types, each feature under its own key: "end", "barge_in", "speculation", "tools", ...
    details: dict[str, Any] = field(default_factory=dict, metadata=PRIVATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeDetected(LegEvent):
    """Who or what has answered a call of ours, as far as is known by now."""

    callee: str  # "human", "voicemail", "menu", "screening", "fax" or "music"
    reason: str
    after_ms: int  # since the agent began to listen


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentFulfilled(CallEvent):
    """What the caller wanted was brought to its answer, with what was learnt for it."""

    intent: str
    values: dict[str, str] = field(metadata=PRIVATE)  # by slot, in a form for machines


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitReceived(LegEvent):
    digit: str = field(metadata=PRIVATE)
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled(CallEvent):
    """The agent has something done."""

    tool_call_id: ToolCallId
    turn_id: TurnId | None
    name: str
    kind: str  # "http", "python", "mcp", "collect", "press", "transfer", "end"
    arguments: str = field(metadata=PRIVATE)  # JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReturned(CallEvent):
    tool_call_id: ToolCallId
    name: str
    status: ToolStatus
    ms: float
    detail: str = ""  # one sentence, where it did not do what was asked


# --- streams to applications ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted(CallEvent):
    """An application has been reached, and hears the call."""

    stream_id: StreamId
    dialect: str  # "teler", "twilio" or "audiosocket"
    direction: str  # "both" or "listen"
    host: str  # host:port of the application


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFigures:
    """What went through one stream. Audio in ms."""

    sent_ms: int = 0  # to the application
    unsent_ms: int = 0  # it was too slow to take
    received_ms: int = 0  # from the application
    played_ms: int = 0  # of that, on the wire
    cleared_ms: int = 0  # of that, dropped because the application wanted it
    dropped_ms: int = 0  # of that, more than `[streams] buffer_s`
    underruns: int = 0  # it came too slowly: so often silence was heard in the middle
    malformed: int = 0  # messages that could not be read
    connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded(CallEvent):
    stream_id: StreamId
    failed: bool  # the application was never reached, or was lost
    reason: str
    figures: StreamFigures


# --- flows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowAnswered(CallEvent):
    """A flow URL was asked what to do with the call."""

    url: str = field(metadata=PRIVATE)  # which may hold a secret
    fallback: bool  # it was the fallback URL
    action: str  # "play", "dial", ...; "" when it had no answer that can be used
    status: int  # of HTTP; 0 when there was none
    ms: float
    problem: str = ""  # why its answer cannot be used


# --- recordings and what an operator has done ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted(LegEvent):
    """From now on both sides of the call are written to a file."""

    recording_id: RecordingId
    channels: int
    rate: int  # samples per second
    file: str  # relative to the folder of recordings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEnded(LegEvent):
    """The file is complete, or `failed`: then it holds what could be written until then."""

    recording_id: RecordingId
    failed: bool
    ms: int
    size: int  # bytes of the file
    sha256: str  # of the file, "" when it could not be read
    detail: str = ""  # one sentence, where something is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class LegMuted(LegEvent):
    """What the leg's peer says is heard by nobody from now on, or again."""

    muted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackStarted(LegEvent):
    playback_id: PlaybackId


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackEnded(LegEvent):
    playback_id: PlaybackId
    reason: str  # "played", "key", "ended" (the call, or other orders), or a sentence about why it broke off


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered(CallEvent):
    """What the caller answered to a question that was asked over the API."""

    gather_id: GatherId
    by: str  # "digits", "speech" or "nothing"
    digits: str = field(metadata=PRIVATE)
    text: str = field(metadata=PRIVATE)
    reason: str  # "complete", "silence" or "ended"


# --- transfers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferChanged(LegEvent):
    """One step of a transfer; `leg_id` is the leg of whoever is transferred."""

    transfer_id: TransferId
    step: int  # 0, 1, ...
    kind: str  # "blind", "attended" or "bridge", see `core.states.TransferKind`
    target: str = field(metadata=PRIVATE)
    state: TransferState
    sip_status: int = 0
    reason: str = ""  # one sentence, where it failed
    other_leg_id: LegId | None = None  # to whoever takes over, where we have a leg to them


# --- webhooks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackWanted(CallEvent):
    """Somebody is to be told how the call goes on, besides the webhook of its app."""

    url: str = field(metadata=PRIVATE)  # which may hold a secret
    later: bool  # only about legs that are yet to come


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDue(CallEvent):
    """Another event of the call is to be sent to a URL."""

    event_id: str  # of the other
    event_type: str  # as receivers know it, such as "call.ended"
    app_id: str  # "" for a callback
    place: int  # tells the call's receivers apart
    delivery_id: str = field(metadata=APART)
    url: str = field(metadata=APART)
    payload: str = field(metadata=APART, repr=False)  # JSON


# --- the node -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationChanged(Event):
    trunk: str
    state: RegistrationState
    sip_status: int
    reason: str
    expires_s: int  # 0 unless registered
    next_try_s: float  # 0 when no try is planned by us


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicAddressChanged(Event):
    """The world sees us under another address than before, or we learned it."""

    by: str  # "stun", or "registrar of TRUNK"
    address: str  # host, or host:port where a port is known
    before: str  # "" when it is the first
    mapping: str  # of a NAT: "none", "same" or "varying" for each destination ("symmetric"), "" not known


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkChanged(Event):
    trunk: str
    state: TrunkState
    reason: str  # what is wrong and what to look at; "" when nothing is


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarted(Event):
    process: str  # "lane", "media", "speech", "edge"; "main" ends, too
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnded(Event):
    process: str
    pid: int
    reason: str
    calls_affected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInterrupted(LegEvent):
    """The media process died and a new one took the call over; audio stopped for so long."""

    gap_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSourceChanged(LegEvent):
    remote_media: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTrouble(LegEvent):
    """Something is wrong with a leg's audio, or is no longer."""

    kind: str  # "no_media", "silent", "not_heard" or "one_way", see `media.watch.Trouble`
    active: bool  # false at its end
    seconds: float  # it has lasted


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuality(LegEvent):
    """How good a leg's audio was in the last seconds, or in the whole call. None: not known.

    ``peer_`` figures are what the other side reports of our audio by RTCP.
    """

    final: bool  # of the whole call
    packets: int  # that came, late ones too
    lost: int
    lost_percent: float
    discarded: int  # came too late to be played
    discarded_percent: float
    burst_density_percent: float  # packets missing within bursts, RFC 3611 section 4.7.2
    burst_ms: float  # mean length of a burst
    gap_density_percent: float
    gap_ms: float
    jitter_ms: float  # RFC 3550 A.8
    concealed_ms: int
    playout_delay_ms: float
    round_trip_ms: float | None
    mos_lq: float | None  # listening, 1 to 4.5, by the E-model (ITU-T G.107)
    mos_cq: float | None  # in conversation: delay counts too
    level_in_dbov: float | None  # of the speech, pauses left out
    level_out_dbov: float | None
    peer_lost_percent: float | None
    peer_jitter_ms: float | None
    peer_mos_lq: float | None
    peer_mos_cq: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(CallEvent):
    """Something failed during a call and the call went on (a provider, a worker, a refused transfer)."""

    where: str
    what: str


EVENT_TYPES: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Event) and cls not in (Event, CallEvent, LegEvent)
}


def private_fields(event: Event) -> frozenset[str]:
    return frozenset(f.name for f in fields(event) if f.metadata.get("private"))


def fields_apart(event: Event) -> frozenset[str]:
    return frozenset(f.name for f in fields(event) if f.metadata.get("apart"))


class EventSink(Protocol):
    """Takes events without blocking and without raising."""

    def emit(self, event: Event) -> None: ...


class EventHub:
    """Hands each event to every subscriber, in the order of subscription. Subscribers must not block.

    One that raises is a mistake of ours; it is logged, and the others get the event all the same.
    """

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Returns the function that unsubscribes."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def emit(self, event: Event) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                log.error("a subscriber of events failed", extra={"error": where(error)})


def as_fields(event: Event) -> dict[str, Any]:
    """The event's own fields by name, without conversion."""
    return {f.name: getattr(event, f.name) for f in fields(event)}
