"""Placing calls, and what is recorded of them."""

from sipagent.api.calls.backend import LiveCall, Originate
from sipagent.calls.registry import CallRegistry
from sipagent.store.queries import StoreReads
from sipagent.store.records import CallFilter, CallPage, FullCall, SipMessageRecord


class LiveCalls:
    """`api.calls.backend.CallsBackend` on a live node."""

    def __init__(self, registry: CallRegistry, reads: StoreReads) -> None:
        self._registry = registry
        self._reads = reads

    async def originate(self, request: Originate) -> str:
        return await self._registry.originate(
            request.to_number,
            trunk=request.trunk,
            from_number=request.from_number,
            steps=request.dialplan,
            flow_url=request.flow_url,
            status_callback_url=request.status_callback_url,
            ring_timeout_s=request.timeout_s,
            withhold=request.withhold,
            headers=request.headers,
            record=request.record,
        )

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

    async def list_calls(self, wanted: CallFilter) -> CallPage:
        return await self._reads.list_calls(wanted)

    async def get_call(self, call_id: str) -> FullCall | None:
        return await self._reads.get_call(call_id)

    async def sip_messages(self, call_id: str) -> list[SipMessageRecord]:
        return await self._reads.sip_messages(call_id)
