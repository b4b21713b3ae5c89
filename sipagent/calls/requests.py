"""What we ask of a peer inside a dialog, and what it answers: REFER, hold and resume."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sipagent.core.termination import Termination
from sipagent.sip import protocol as sip


class LaneSender(Protocol):
    """The part of the lane's client that a leg uses."""

    def send(self, command: sip.AnyCommand) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferOutcome:
    """How far a REFER came."""

    status: int = 0  # the last one told; 0 when it could not even be sent
    accepted: bool = False  # the peer said 202 or how it goes: from then on the outcome is the target's
    told: bool = False  # that it is over

    @property
    def succeeded(self) -> bool:
        return self.told and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """The peer does not take a REFER, this one or any."""
        return self.told and not self.accepted and not self.succeeded


class Requests:
    """Of one dialog; every wait ends with the leg."""

    def __init__(self, handle: int, lane: LaneSender, ended: "asyncio.Future[Termination]") -> None:
        self._handle = handle
        self._lane = lane
        self._ended = ended
        self._referred: asyncio.Future[None] | None = None  # until the outcome is told
        self._on_progress: Callable[[int], None] | None = None
        self.refer_outcome = ReferOutcome()  # of the last REFER
        self._one_offer = asyncio.Lock()
        self._offered: asyncio.Future[bool] | None = None  # until our offer is answered

    async def refer(
        self, target: str, timeout_s: float, progress: Callable[[int], None], replaces: sip.Replaces | None = None
    ) -> ReferOutcome:
        """REFER (RFC 3515) and what became of it; ``progress`` is told how it goes on until then.

        `refer_outcome` is the same, for those who are cancelled meanwhile.
        """
        told = self._referred = asyncio.get_running_loop().create_future()
        self._on_progress, self.refer_outcome = progress, ReferOutcome()
        self._lane.send(sip.Refer(call=self._handle, target=target, replaces=replaces))
        try:
            await self._wait(told, timeout_s)
        finally:
            self._referred = self._on_progress = None
        return self.refer_outcome

    async def hold(self, timeout_s: float) -> bool:
        """Tells the peer that it only hears us from now on; False when it will not have that."""
        return await self._offer(sip.Hold(call=self._handle), timeout_s)

    async def resume(self, timeout_s: float) -> bool:
        return await self._offer(sip.Resume(call=self._handle), timeout_s)

    async def _offer(self, command: sip.Hold | sip.Resume, timeout_s: float) -> bool:
        """Whether it was answered in time; one offer at a time."""
        async with self._one_offer:
            self._offered = asyncio.get_running_loop().create_future()
            self._lane.send(command)
            try:
                await self._wait(self._offered, timeout_s)
                return self._offered.done() and self._offered.result()
            finally:
                self._offered = None

    async def _wait(self, told: asyncio.Future[Any], timeout_s: float) -> None:
        either: set[asyncio.Future[Any]] = {told, self._ended}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    # --- what the lane reports ---

    def on_fact(self, fact: sip.AnyFact) -> None:
        match fact:
            case sip.TransferProgress():
                self._refer_progress(fact)
            case sip.MediaChanged(offered=True):
                self._offer_over(taken=True)
            case sip.OfferRefused() | sip.CommandFailed(command="Hold" | "Resume"):
                self._offer_over(taken=False)
            case sip.CommandFailed(command="Refer") if self._referred is not None and not self._referred.done():
                self.refer_outcome = ReferOutcome(told=True)
                self._referred.set_result(None)
            case _:
                pass

    def _refer_progress(self, fact: sip.TransferProgress) -> None:
        if self._referred is None or self._referred.done():
            return
        if fact.final:
            self.refer_outcome = replace(self.refer_outcome, status=fact.status, told=True)
            self._referred.set_result(None)
        else:
            self.refer_outcome = replace(self.refer_outcome, accepted=True)
            if self._on_progress is not None:
                self._on_progress(fact.status)

    def _offer_over(self, *, taken: bool) -> None:
        if self._offered is not None and not self._offered.done():
            self._offered.set_result(taken)
