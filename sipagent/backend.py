"""What the REST API asks of a node."""

from collections.abc import Callable

from sipagent import __version__
from sipagent.api.backend import Guest, Health, LiveCall, Originate, Transfer
from sipagent.api.types import RegistrationOut, TrunkOut, TrunkServerOut
from sipagent.calls import orders
from sipagent.calls.bridging import Part
from sipagent.calls.call import Call
from sipagent.calls.outbound import PlaceRequest
from sipagent.calls.registry import CallRegistry
from sipagent.core import clock
from sipagent.core.clock import Stamp
from sipagent.core.states import Direction
from sipagent.dialplan.model import TransferSpec
from sipagent.sip.registrar import Registrar
from sipagent.store.queries import StoreReads
from sipagent.store.recorder import Recorder
from sipagent.store.records import CallFilter, CallPage, FullCall, SipMessageRecord


class NodeBackend:
    """`api.backend.Backend` on a live node. `processes` tells the process ids by role."""

    def __init__(
        self,
        registry: CallRegistry,
        registrar: Registrar,
        recorder: Recorder,
        reads: StoreReads,
        processes: Callable[[], dict[str, int]],
    ) -> None:
        self._registry = registry
        self._registrar = registrar
        self._recorder = recorder
        self._reads = reads
        self._processes = processes
        self._started: Stamp = clock.now()

    async def originate(self, request: Originate) -> str:
        return await self._registry.originate(
            request.to_number,
            trunk=request.trunk,
            from_number=request.from_number,
            steps=request.dialplan,
            ring_timeout_s=request.timeout_s,
            withhold=request.withhold,
            headers=request.headers,
        )

    async def hangup(self, call_id: str) -> bool:
        return self._registry.hangup(call_id)

    async def hangup_leg(self, call_id: str, leg_id: str) -> bool:
        call = self._registry.find(call_id)
        return call is not None and call.hangup_leg(leg_id)

    async def transfer(self, call_id: str, wanted: Transfer) -> str:
        call = self._registry.find(call_id)
        plan = TransferSpec(
            target=wanted.target,
            kind="attended" if wanted.attended else "blind",
            whisper=wanted.whisper,
            via=wanted.via,
            trunk=wanted.trunk,
            timeout_s=wanted.timeout_s,
            music=wanted.music,
            headers=wanted.headers,
        )
        return orders.hand_over(call, plan) if call is not None else ""

    async def hold(self, call_id: str, music: str) -> bool:
        return self._told(call_id, lambda call: orders.hold(call, music))

    async def resume(self, call_id: str) -> bool:
        return self._told(call_id, orders.resume)

    async def bridge(self, call_id: str, other_call_id: str) -> bool:
        other = self._registry.find(other_call_id)
        return other is not None and self._told(call_id, lambda call: orders.bridge(call, other))

    async def bring_in(self, call_id: str, guest: Guest) -> bool:
        def order(call: Call) -> None:
            request = PlaceRequest(
                target=guest.to_number, trunk=guest.trunk, ring_timeout_s=guest.timeout_s, beside=call.leg.port
            )
            orders.bring_in(call, request, Part(guest.part))

        return self._told(call_id, order)

    def _told(self, call_id: str, order: Callable[[Call], None]) -> bool:
        call = self._registry.find(call_id)
        if call is None:
            return False
        order(call)
        return True

    def call_of_leg(self, leg_id: str) -> str:
        return next((call.id for call in self._registry.live if any(leg.id == leg_id for leg in call.legs)), "")

    def live_calls(self) -> list[LiveCall]:
        return [
            LiveCall(
                call_id=call.id,
                direction=call.leg.identity.direction,
                from_number=call.leg.identity.from_number,
                to_number=call.leg.identity.to_number,
                state=call.leg.state,
                started_at=call.started.wall,
                answered_at=call.answered_at.wall if call.answered_at else None,
                agent=call.agent,
            )
            for call in self._registry.live
        ]

    def health(self) -> Health:
        processes = self._processes()
        complete = {"lane", "media"} <= set(processes) and any(name.startswith("speech") for name in processes)
        return Health(
            status="draining" if self._registry.draining else "ok" if complete else "degraded",
            version=__version__,
            uptime_s=clock.now().ms_since(self._started) / 1000,
            calls_active=len(self._registry.live),
            max_calls=self._registry.max_calls,
            processes=processes,
            registrations=[
                RegistrationOut(
                    trunk=trunk,
                    state=view.state,
                    sip_status=view.sip_status,
                    reason=view.reason,
                    expires_s=view.expires_s,
                    next_try_s=view.next_try_s,
                )
                for trunk, view in self._registrar.states.items()
            ],
            trunks=self._trunks(),
            recorder=self._recorder.statistics,
        )

    def _trunks(self) -> list[TrunkOut]:
        trunks = self._registry.trunks
        at = clock.now()
        return [
            TrunkOut(
                name=name,
                state=view.state,
                reason=view.reason,
                since_s=round(max(0.0, at.mono / 1e9 - view.since), 1) if view.since else 0.0,
                servers=[TrunkServerOut(address=it.address, up=it.up, reason=it.reason) for it in view.servers],
                calls_in=trunks.in_use(name)[Direction.INBOUND],
                calls_out=trunks.in_use(name)[Direction.OUTBOUND],
                total_in=trunks.counters[name].calls_in,
                total_out=trunks.counters[name].calls_out,
                refused_channels=trunks.counters[name].refused_channels,
                refused_rate=trunks.counters[name].refused_rate,
                refused_password=trunks.counters[name].refused_password,
            )
            for name, view in trunks.states.items()
        ]

    async def list_calls(self, wanted: CallFilter) -> CallPage:
        return await self._reads.list_calls(wanted)

    async def get_call(self, call_id: str) -> FullCall | None:
        return await self._reads.get_call(call_id)

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]:
        return await self._reads.sip_messages(call_id)
