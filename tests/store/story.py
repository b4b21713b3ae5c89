"""Events of a call as a test tells them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sipagent.core.clock import Stamp
from sipagent.core.events import (
    AgentInterrupted,
    AgentSpeaking,
    AudioTrouble,
    CallbackWanted,
    CallCreated,
    CalleeDetected,
    CallEnded,
    CallerSaid,
    CallerTold,
    CallQuality,
    CallRefused,
    CallResumed,
    DigitReceived,
    Event,
    FlowAnswered,
    Gathered,
    IntentFulfilled,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegHeld,
    LegMuted,
    LegRinging,
    MediaFigures,
    MediaInterrupted,
    MediaSourceChanged,
    PartialTranscript,
    PlaybackEnded,
    PlaybackStarted,
    Problem,
    ProcessEnded,
    ProcessStarted,
    PublicAddressChanged,
    RecordingEnded,
    RecordingStarted,
    RegistrationChanged,
    RouteChosen,
    SipMessage,
    SipMessages,
    StreamEnded,
    StreamFigures,
    StreamStarted,
    ToolCalled,
    ToolReturned,
    TransferChanged,
    TrunkChanged,
    TurnEnded,
    TurnLatency,
    WebhookDue,
)
from sipagent.core.ids import (
    GatherId,
    PlaybackId,
    RecordingId,
    StreamId,
    new_call_id,
    new_leg_id,
    new_tool_call_id,
    new_transfer_id,
    new_turn_id,
)
from sipagent.core.states import Direction, RegistrationState, ToolStatus, TransferState, TrunkState
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination

START = datetime(2026, 3, 29, 0, 59, 58, 123456, tzinfo=UTC)  # two seconds before clocks change in Europe

HUNG_UP = Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.CALLER, sip_status=200)


def at(seconds: float, start: datetime = START) -> Stamp:
    return Stamp(int(seconds * 1e9), start + timedelta(seconds=seconds))


class Story:
    """One call; each method is one thing that happens in it, at so many seconds from its start."""

    def __init__(self, start: datetime = START, from_number: str = "+4930123456", to_number: str = "100") -> None:
        self.call_id = new_call_id()
        self.leg_id = new_leg_id()
        self.transfer_id = new_transfer_id()
        self.at: Callable[[float], Stamp] = lambda seconds: at(seconds, start)
        self.from_number = from_number
        self.to_number = to_number
        self._turns = 0

    def arrives(self, t: float = 0.0) -> list[Event]:
        return [
            CallCreated(
                at=self.at(t),
                call_id=self.call_id,
                direction=Direction.INBOUND,
                from_number=self.from_number,
                to_number=self.to_number,
                trunk="carrier",
            ),
            LegCreated(
                at=self.at(t),
                call_id=self.call_id,
                leg_id=self.leg_id,
                direction=Direction.INBOUND,
                from_number=self.from_number,
                to_number=self.to_number,
                sip_call_id="3848276298220188511@atlanta.example.com",
                remote_address="192.0.2.1:5060",
                role="caller",
                trunk="carrier",
            ),
            RouteChosen(at=self.at(t), call_id=self.call_id, dialplan="front-desk", route="day", agent="desk"),
        ]

    def rings(self, t: float = 0.1) -> list[Event]:
        return [LegRinging(at=self.at(t), call_id=self.call_id, leg_id=self.leg_id, sip_status=180)]

    def is_answered(self, t: float = 1.0) -> list[Event]:
        return [
            LegAnswered(
                sip_call_id="sip-1@peer",
                at=self.at(t),
                call_id=self.call_id,
                leg_id=self.leg_id,
                codec="PCMU",
                local_media="192.0.2.9:20000",
                remote_media="192.0.2.1:30000",
            )
        ]

    def turn(self, t: float, said: str = "", answer: str = "Good morning.") -> list[Event]:
        turn_id = new_turn_id()
        latency = TurnLatency(endpointing_ms=300.0, stt_ms=80.0, tts_ms=120.0, total_ms=500.0) if said else None
        index, self._turns = self._turns, self._turns + 1
        events: list[Event] = []
        if said:
            events += [
                PartialTranscript(at=self.at(t), call_id=self.call_id, text=said[:3]),
                CallerSaid(
                    at=self.at(t + 1),
                    call_id=self.call_id,
                    turn_id=turn_id,
                    text=said,
                    started_at=self.at(t),
                    ended_at=self.at(t + 1),
                    confidence=0.9,
                ),
            ]
        return [
            *events,
            AgentSpeaking(at=self.at(t + 1.5), call_id=self.call_id, text=answer, latency=latency),
            TurnEnded(
                at=self.at(t + 3),
                call_id=self.call_id,
                turn_id=turn_id,
                index=index,
                caller_text=said,
                agent_text=answer,
                heard_text=answer,
                intent="hours" if said else "",
                confidence=0.9,
                interrupted=False,
                started_at=self.at(t),
                agent_started_at=self.at(t + 1.5),
                latency=latency,
                details={"end": {"strategy": "silence", "at": self.at(t)}} if said else {},
            ),
        ]

    def tool(self, t: float, status: ToolStatus = ToolStatus.OK) -> list[Event]:
        tool_call_id = new_tool_call_id()
        return [
            ToolCalled(
                at=self.at(t),
                call_id=self.call_id,
                tool_call_id=tool_call_id,
                turn_id=None,
                name="order_status",
                kind="http",
                arguments='{"order": "1234"}',
            ),
            ToolReturned(
                at=self.at(t + 0.4),
                call_id=self.call_id,
                tool_call_id=tool_call_id,
                name="order_status",
                status=status,
                ms=400.0,
                detail="" if status is ToolStatus.OK else "the server answered 500",
            ),
        ]

    def transfer(self, t: float, step: int, state: TransferState, sip_status: int = 0) -> list[Event]:
        return [
            TransferChanged(
                at=self.at(t),
                call_id=self.call_id,
                leg_id=self.leg_id,
                transfer_id=self.transfer_id,
                step=step,
                kind="blind",
                target="sip:desk@example.com",
                state=state,
                sip_status=sip_status,
            )
        ]

    def messages(self, t: float, first: int = 0, count: int = 2, text: str = "SIP/2.0 200 OK\r\n\r\n") -> list[Event]:
        """So many messages, the last one a repetition of the one before it."""
        seqs = range(first, first + count)
        return [
            SipMessages(
                at=self.at(t),
                call_id=self.call_id,
                dialog=1,
                leg_id=self.leg_id,
                count=count,
                messages=tuple(
                    SipMessage(
                        seq=seq,
                        at=self.at(t + 0.01 * (seq - first)),
                        sent=seq % 2 == 1,
                        transport="UDP",
                        local="192.0.2.9:5060",
                        remote="192.0.2.1:5060",
                        size=len(text),
                        repeats=seq - 1 if seq == seqs[-1] and count > 1 else None,
                        text="" if seq == seqs[-1] and count > 1 else text,
                    )
                    for seq in seqs
                ),
            )
        ]

    def ends(self, t: float = 60.0) -> list[Event]:
        figures = MediaFigures(packets_in=2950, packets_out=2951, lost=2, foreign=1, jitter_ms=1.5, digits_in=1)
        return [
            LegEnded(at=self.at(t), call_id=self.call_id, leg_id=self.leg_id, termination=HUNG_UP, figures=figures),
            CallEnded(at=self.at(t), call_id=self.call_id, termination=HUNG_UP),
        ]

    def other_facts(self, t: float) -> list[Event]:
        """One of each kind that the other methods do not tell."""
        call, leg, stream = self.call_id, self.leg_id, StreamId("strm_1")
        return [
            AgentInterrupted(at=self.at(t), call_id=call, heard_text="Good mor"),
            DigitReceived(at=self.at(t), call_id=call, leg_id=leg, digit="5", duration_ms=120),
            LegHeld(at=self.at(t), call_id=call, leg_id=leg, held=True),
            MediaSourceChanged(at=self.at(t), call_id=call, leg_id=leg, remote_media="192.0.2.1:30002"),
            MediaInterrupted(at=self.at(t), call_id=call, leg_id=leg, gap_ms=80.5),
            IntentFulfilled(at=self.at(t), call_id=call, intent="book", values={"day": "2026-03-30"}),
            CalleeDetected(at=self.at(t), call_id=call, leg_id=leg, callee="human", reason="short", after_ms=900),
            CallResumed(at=self.at(t), call_id=call, gap_ms=460.0, step="agent", turn_lost=True),
            StreamStarted(
                at=self.at(t), call_id=call, stream_id=stream, dialect="twilio", direction="both", host="a:1"
            ),
            StreamEnded(
                at=self.at(t),
                call_id=call,
                stream_id=stream,
                failed=True,
                reason="lost",
                figures=StreamFigures(sent_ms=20),
            ),
            RecordingStarted(
                at=self.at(t),
                call_id=call,
                leg_id=leg,
                recording_id=RecordingId(f"rec_{call}"),
                channels=2,
                rate=8000,
                file="2026-01-01/rec_1.wav",
            ),
            RecordingEnded(
                at=self.at(t),
                call_id=call,
                leg_id=leg,
                recording_id=RecordingId(f"rec_{call}"),
                failed=False,
                ms=9000,
                size=288_044,
                sha256="ab" * 32,
            ),
            LegMuted(at=self.at(t), call_id=call, leg_id=leg, muted=True),
            PlaybackStarted(at=self.at(t), call_id=call, leg_id=leg, playback_id=PlaybackId("play_1")),
            PlaybackEnded(at=self.at(t), call_id=call, leg_id=leg, playback_id=PlaybackId("play_1"), reason="key"),
            Gathered(
                at=self.at(t),
                call_id=call,
                gather_id=GatherId("gather_1"),
                by="digits",
                digits="42",
                text="",
                reason="complete",
            ),
            AudioTrouble(at=self.at(t), call_id=call, leg_id=leg, kind="no_media", active=True, seconds=4.5),
            self.quality(t),
            Problem(at=self.at(t), call_id=call, where="stt", what="timeout"),
            FlowAnswered(
                at=self.at(t), call_id=call, url="https://a/?k=1", fallback=True, action="", status=500, ms=1.5
            ),
            CallbackWanted(at=self.at(t), call_id=call, url="https://a/?k=1", later=True),
            self.webhook(t, 1),
            CallRefused(at=self.at(t), reason="over limit", sip_status=486),
            PublicAddressChanged(at=self.at(t), by="stun", address="203.0.113.9", before="", mapping="same"),
            ProcessStarted(at=self.at(t), process="lane", pid=4711),
            ProcessEnded(at=self.at(t), process="lane", pid=4711, reason="signal 9", calls_affected=1),
            registration(t, RegistrationState.REGISTERED),
        ]

    def webhook(self, t: float, number: int, url: str = "https://a/?k=1") -> WebhookDue:
        return WebhookDue(
            at=self.at(t),
            call_id=self.call_id,
            event_id=f"evt_{number}",
            event_type="call.ended",
            app_id="app_1",
            place=0,
            delivery_id=f"{self.call_id}_{number}",
            url=url,
            payload='{"type": "call.ended"}',
        )

    def quality(self, t: float, final: bool = False) -> CallQuality:
        return CallQuality(
            at=self.at(t),
            call_id=self.call_id,
            leg_id=self.leg_id,
            final=final,
            packets=247,
            lost=3,
            lost_percent=1.2,
            discarded=1,
            discarded_percent=0.4,
            burst_density_percent=66.67,
            burst_ms=60.0,
            gap_density_percent=0.4,
            gap_ms=4940.0,
            jitter_ms=2.25,
            concealed_ms=80,
            playout_delay_ms=42.5,
            round_trip_ms=61.3,
            mos_lq=4.29,
            mos_cq=4.27,
            peer_lost_percent=0.0,
            peer_jitter_ms=1.88,
            peer_mos_lq=None,
            peer_mos_cq=None,
            level_in_dbov=-27.5,
            level_out_dbov=None,
        )

    def told_by_the_trunk(self, t: float) -> list[Event]:
        diversion = {"number": "+49309999", "reason": "no-answer"}
        return [
            CallerTold(
                at=self.at(t),
                call_id=self.call_id,
                name="Ann",
                asserted=True,
                withheld=False,
                diversions=(diversion,),
                headers={"X-Campaign": "spring"},
            ),
            TrunkChanged(at=self.at(t), trunk="carrier", state=TrunkState.DEGRADED, reason="one server is gone"),
        ]

    def whole(self) -> list[Event]:
        """Every type of event once at least."""
        return [
            *self.arrives(),
            *self.told_by_the_trunk(0.05),
            *self.rings(),
            *self.is_answered(),
            *self.turn(2),
            *self.turn(6, said="when do you open"),
            *self.other_facts(12),
            *self.tool(19),
            *self.transfer(20, 0, TransferState.REQUESTED),
            *self.transfer(20.2, 1, TransferState.ACCEPTED, 202),
            *self.transfer(22, 2, TransferState.COMPLETED, 200),
            *self.messages(23),
            *self.ends(),
        ]


def registration(t: float, state: RegistrationState, trunk: str = "carrier", sip_status: int = 200) -> Event:
    return RegistrationChanged(
        at=at(t), trunk=trunk, state=state, sip_status=sip_status, reason="OK", expires_s=300, next_try_s=0.0
    )
