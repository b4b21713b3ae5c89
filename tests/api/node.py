"""A small real backend: scripted live calls, a real record."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from sipagent.api.backend import Backend
from sipagent.api.calls.backend import LiveCall, Originate
from sipagent.api.mutations.backend import Answered, Ask, Play
from sipagent.api.node.backend import Health
from sipagent.api.node.types import RegistrationOut, TrunkOut, TrunkServerOut
from sipagent.api.steering.backend import Guest, Transfer
from sipagent.backend.access import LiveAccess
from sipagent.backend.dialplans import LiveDialplans
from sipagent.backend.erasures import LiveErasures
from sipagent.backend.nodes import LiveNodes
from sipagent.backend.reports import LiveReports
from sipagent.backend.resources import LiveResources
from sipagent.backend.webhooks import Webhooks
from sipagent.core import clock
from sipagent.core.errors import CapacityError
from sipagent.core.events import (
    CallCreated,
    CallEnded,
    EventHub,
    LegAnswered,
    LegCreated,
    LegEnded,
    MediaFigures,
    PartialTranscript,
    RouteChosen,
    TurnEnded,
    TurnLatency,
)
from sipagent.core.ids import CallId, LegId, new_call_id, new_leg_id, new_turn_id
from sipagent.core.resources import shipped_folder
from sipagent.core.states import Direction, LegState, RegistrationState, TrunkState
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan.loader import ENGLISH, load_folder
from sipagent.dialplan.model import Dialplan
from sipagent.store.queries import StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.records import CallFilter, CallPage, FullCall, RecordingRecord, SipMessageRecord
from sipagent.store.writing import StoreWrites

MAX_CALLS = 40


@dataclass
class Live:
    call: LiveCall
    leg_id: LegId


@dataclass
class Node:
    """Places calls that are answered at once; `delay_s` makes it slow, `failure` makes it refuse."""

    hub: EventHub
    recorder: Recorder
    reads: StoreReads
    resources: LiveResources | None = None
    access: LiveAccess | None = None
    writes: StoreWrites | None = None
    webhooks: Webhooks | None = None
    reports: LiveReports | None = None
    status: str = "ok"
    erasures: LiveErasures | None = None
    folder: Path = Path()  # of recordings
    delay_s: float = 0.0
    failure: Exception | None = None
    asked: list[Originate] = field(default_factory=list)
    ordered: list[object] = field(default_factory=list)
    live: dict[str, Live] = field(default_factory=dict)

    @property
    def backend(self) -> Backend:
        assert self.resources is not None and self.access is not None
        assert self.webhooks is not None and self.reports is not None and self.erasures is not None
        return Backend(
            calls=self,
            steering=self,
            mutations=self,
            recordings=self,
            node=self,
            resources=self.resources,
            access=self.access,
            dialplans=LiveDialplans(shipped_folder("dialplans"), ENGLISH, self._dialplans, self._reload),
            nodes=self.nodes(),
            webhooks=self.webhooks,
            reports=self.reports,
            erasures=self.erasures,
        )

    def nodes(self) -> LiveNodes:
        assert self.writes is not None
        return LiveNodes("test", self.reads, self.writes, self, lambda: "http://127.0.0.1:8080", self._drain)

    def _drain(self, on: bool) -> None:
        self.status = "draining" if on else "ok"

    def _dialplans(self) -> list[Dialplan]:
        return load_folder(shipped_folder("dialplans"))

    async def _reload(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def originate(self, request: Originate) -> str:
        self.asked.append(request)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure
        if len(self.live) >= MAX_CALLS:
            raise CapacityError(f"all {MAX_CALLS} calls of this node are in use")
        call_id = new_call_id()
        self.begins(call_id, request.from_number, request.to_number, request.dialplan or "front-desk")
        return call_id

    def begins(self, call_id: CallId, from_number: str, to_number: str, dialplan: str) -> None:
        leg_id, now = new_leg_id(), clock.now
        direction = Direction.OUTBOUND
        at = now()
        self.live[call_id] = Live(
            LiveCall(
                call_id=call_id,
                direction=direction,
                from_number=from_number,
                to_number=to_number,
                state=LegState.ANSWERED,
                started_at=at.wall,
                answered_at=at.wall,
                agent="desk",
            ),
            leg_id,
        )
        self.hub.emit(
            CallCreated(
                at=at,
                call_id=call_id,
                direction=direction,
                from_number=from_number,
                to_number=to_number,
                trunk="carrier",
            )
        )
        self.hub.emit(
            LegCreated(
                at=now(),
                call_id=call_id,
                leg_id=leg_id,
                direction=direction,
                from_number=from_number,
                to_number=to_number,
                sip_call_id="a84b4c76e66710@pc33",
                remote_address="192.0.2.1:5060",
                role="callee",
                trunk="carrier",
            )
        )
        self.hub.emit(RouteChosen(at=now(), call_id=call_id, dialplan=dialplan, route="out", agent="desk"))
        self.hub.emit(
            LegAnswered(
                at=now(),
                call_id=call_id,
                leg_id=leg_id,
                sip_call_id="a84b4c76e66710@pc33",
                codec="PCMA",
                local_media="192.0.2.9:20000",
                remote_media="192.0.2.1:30000",
            )
        )

    def says(self, call_id: str, text: str) -> None:
        at, call = clock.now(), CallId(call_id)
        self.hub.emit(PartialTranscript(at=at, call_id=call, text=text[:5]))
        self.hub.emit(
            TurnEnded(
                at=at,
                call_id=call,
                turn_id=new_turn_id(),
                index=1,
                caller_text=text,
                agent_text="We open at nine.",
                heard_text="We open",
                intent="hours",
                confidence=0.93,
                interrupted=True,
                started_at=at,
                agent_started_at=at,
                latency=TurnLatency(endpointing_ms=300.0, total_ms=480.0),
            )
        )

    async def hangup(self, call_id: str) -> bool:
        live = self.live.pop(call_id, None)
        if live is None:
            return False
        end = Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.OPERATOR, sip_status=200)
        call = CallId(call_id)
        figures = MediaFigures(packets_in=500, packets_out=500)
        self.hub.emit(LegEnded(at=clock.now(), call_id=call, leg_id=live.leg_id, termination=end, figures=figures))
        self.hub.emit(CallEnded(at=clock.now(), call_id=call, termination=end))
        return True

    async def hangup_leg(self, call_id: str, leg_id: str) -> bool:
        return self._ordered(call_id, f"hangup {leg_id}")

    async def transfer(self, call_id: str, wanted: Transfer) -> str:
        return "tr_1" if self._ordered(call_id, wanted) else ""

    async def hold(self, call_id: str, music: str) -> bool:
        return self._ordered(call_id, f"hold {music}".strip())

    async def resume(self, call_id: str) -> bool:
        return self._ordered(call_id, "resume")

    async def bridge(self, call_id: str, other_call_id: str) -> bool:
        return self._ordered(call_id, f"bridge {other_call_id}")

    async def bring_in(self, call_id: str, guest: Guest) -> bool:
        return self._ordered(call_id, guest)

    async def mute(self, call_id: str, leg_id: str, on: bool) -> bool:
        return self._ordered(call_id, f"mute {leg_id} {on}")

    async def press(self, call_id: str, leg_id: str, digits: str, duration_ms: int) -> bool:
        return self._ordered(call_id, f"press {leg_id} {digits} {duration_ms}")

    async def play(self, call_id: str, leg_id: str, wanted: Play) -> str:
        return "play_1" if self._ordered(call_id, wanted) else ""

    async def say(self, call_id: str, leg_id: str, text: str) -> bool:
        return self._ordered(call_id, f"say {leg_id} {text}")

    async def gather(self, call_id: str, wanted: Ask, wait_s: float) -> Answered | None:
        answered = Answered(gather_id="gather_1", by="digits", digits="42", reason="complete")
        return answered if self._ordered(call_id, wanted) else None

    async def answer(self, call_id: str, dialplan: str) -> bool:
        return self._ordered(call_id, f"answer {dialplan}")

    async def reject(self, call_id: str, status: int, reason: str) -> bool:
        return self._ordered(call_id, f"reject {status} {reason}")

    async def start_recording(self, call_id: str) -> str:
        return "rec_1" if self._ordered(call_id, "record") else ""

    async def stop_recording(self, call_id: str) -> str:
        return "rec_1" if self._ordered(call_id, "stop recording") else ""

    async def recordings(self, call_id: str) -> list[RecordingRecord]:
        return await self.reads.recordings(call_id)

    async def recording(self, recording_id: str) -> RecordingRecord | None:
        return await self.reads.recording(recording_id)

    def recording_file(self, recording: RecordingRecord) -> Path:
        return self.folder / recording.file

    @property
    def recording_key(self) -> bytes:
        return b"k" * 32

    def _ordered(self, call_id: str, order: object) -> bool:
        if self.failure is not None:
            raise self.failure
        if call_id in self.live:
            self.ordered.append(order)
        return call_id in self.live

    def call_of_leg(self, leg_id: str) -> str:
        return next((call_id for call_id, live in self.live.items() if live.leg_id == leg_id), "")

    def live_calls(self) -> list[LiveCall]:
        return [live.call for live in self.live.values()]

    def health(self) -> Health:
        registration = RegistrationOut(trunk="carrier", state=RegistrationState.REGISTERED, expires_s=300)
        server = TrunkServerOut(address="192.0.2.1:5060", up=False, reason="it does not answer")
        trunk = TrunkOut(name="carrier", state=TrunkState.DEGRADED, reason=server.reason, servers=[server])
        return Health(
            status=self.status,  # type: ignore[arg-type]
            version="0.1.0",
            uptime_s=12.5,
            calls_active=len(self.live),
            max_calls=MAX_CALLS,
            processes={"lane-0": 4711, "media": 4712},
            registrations=[registration],
            trunks=[trunk],
            recorder=self.recorder.statistics,
        )

    async def list_calls(self, wanted: CallFilter) -> CallPage:
        return await self.reads.list_calls(wanted)

    async def get_call(self, call_id: str) -> FullCall | None:
        return await self.reads.get_call(call_id)

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]:
        return await self.reads.sip_messages(call_id)
