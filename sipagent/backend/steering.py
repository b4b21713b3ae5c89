"""Steering the calls that are up."""

from collections.abc import Callable

from sipagent.api.steering.backend import Guest, Transfer
from sipagent.calls import orders
from sipagent.calls.bridging import Part
from sipagent.calls.call import Call
from sipagent.calls.outbound import PlaceRequest
from sipagent.calls.registry import CallRegistry
from sipagent.dialplan.model import TransferSpec


class LiveSteering:
    """`api.steering.backend.SteeringBackend` on a live node."""

    def __init__(self, registry: CallRegistry) -> None:
        self._registry = registry

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
            confirm=wanted.confirm,
        )
        return orders.hand_over(call, plan, wanted.on_failure) if call is not None else ""

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
                target=guest.to_number,
                trunk=guest.trunk,
                ring_timeout_s=guest.timeout_s,
                beside=call.leg.port,
                role=guest.part,
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
