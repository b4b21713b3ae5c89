"""All calls of the node: who may come in, who is up, and how they end when the node stops."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec

from sipagent.calls import referred
from sipagent.calls.call import Call
from sipagent.calls.directory import Directory, passing_on, steps_of
from sipagent.calls.flows import flow_match
from sipagent.calls.ladder import Ladders
from sipagent.calls.leg import Leg, LegIdentity
from sipagent.calls.legs import LegTable
from sipagent.calls.outbound import Outbound, PlaceRequest
from sipagent.calls.saver import Saver
from sipagent.calls.services import Services
from sipagent.core import clock, errors
from sipagent.core.context import current_call
from sipagent.core.errors import CapacityError, ConfigError, NotNow, SipagentError
from sipagent.core.events import CallbackWanted, CallCreated, CallEnded, CallerTold, CallRefused, Problem
from sipagent.core.ids import CallId, LegId, new_call_id
from sipagent.core.rate import RateLimit
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.dialplan import matching
from sipagent.dialplan.model import Dialplan, RecordStep
from sipagent.media.client import MediaPort
from sipagent.sip import identity, numbers, protocol, sdp
from sipagent.sip.edge_script import FINAL
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.trunks import Known, Refusal, Unproven
from sipagent.store.resources import VoiceAppRecord

log = logging.getLogger(__name__)

WATCH_EVERY_S = 5.0


class CallRegistry:
    """Takes the lane's facts, makes calls of them, and answers what is going on."""

    def __init__(
        self,
        services: Services,
        dialplans: Sequence[Dialplan],
        saver: Saver | None = None,
        directory: Directory | None = None,
    ) -> None:
        """``saver`` writes the calls down for a next main."""
        self.services = services
        self._saver = saver
        self.dialplans = dialplans
        self.directory = directory or Directory()
        self._ladders = Ladders(services.events)
        self._legs = LegTable(self._ladders)
        self.trunks = services.trunks
        self._outbound = Outbound(services, self.trunks, self._legs)
        self._calls: dict[CallId, Call] = {}
        self._running: dict[CallId, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Inbound calls admitted but without a media port yet, by handle; with how they ended meanwhile, if they did.
        self._admitting: dict[int, Termination | None] = {}
        self._admitting_for: dict[int, str] = {}  # voice app by handle
        self.draining = False
        self._refusals = RateLimit(per_second=5)

    @property
    def live(self) -> list[Call]:
        return list(self._calls.values())

    @property
    def legs(self) -> list[Leg]:
        return self._legs.all

    @property
    def max_calls(self) -> int:
        """What the node admits: the configured limit, or the library's when none is set or it is lower."""
        ready = self.services.lane.ready
        library = ready.max_calls if ready is not None else 0
        configured = self.services.limits.max_calls
        return min(configured, library) if configured else library

    # --- from the lane ---

    def on_incoming(self, incoming: protocol.IncomingCall) -> None:
        now = clock.now().mono / 1e9
        known = self.trunks.identify(incoming, now)
        if isinstance(known, Unproven):
            self.services.lane.send(protocol.Reject(call=incoming.call, status=401, challenges=known.challenges))
            return
        if isinstance(known, Known):
            known = self._room_for(incoming, known.trunk, now) or known
        if isinstance(known, Refusal):
            self._refuse(incoming.call, known)
            return
        self._admitting[incoming.call] = None
        self._spawn(self._take(incoming, known.trunk), f"incoming/{incoming.call}")

    def _room_for(self, incoming: protocol.IncomingCall, trunk: TrunkSettings | None, now: float) -> Refusal | None:
        """None when one call more can be taken: its channel is taken then."""
        name = trunk.name if trunk is not None else ""
        if self.draining:
            return Refusal(503, "node is stopping", retry_after_s=5)
        if incoming.replaces is not None and self._named(incoming.replaces, name, _host(incoming)) is None:
            return Refusal(481, "no dialog to take the place of")
        if self._full:
            return Refusal(486, "all calls in use")
        return self.trunks.admit(name, Direction.INBOUND, now)

    def on_fact(self, fact: protocol.AnyFact) -> None:
        if isinstance(fact, protocol.SipMessages):
            self._ladders.take(fact)
            return
        handle = getattr(fact, "call", 0)
        leg = self._legs.find(handle)
        if leg is not None:
            leg.on_fact(fact)
        elif handle in self._admitting and isinstance(fact, protocol.Ended):
            self._admitting[handle] = Termination(
                disposition=Disposition.CANCELLED,
                cause=Cause.CANCELLED,
                by=EndedBy.CALLER,
                sip_status=fact.status or 487,
            )

    def on_lane_lost(self, calls: frozenset[int]) -> None:
        """A lane has died, and with it the dialogs of these calls."""
        for handle in calls:
            leg = self._legs.find(handle)
            if leg is not None:
                leg.lane_lost()
        for handle in calls & self._admitting.keys():
            self._admitting[handle] = Termination(
                disposition=Disposition.FAILED, cause=Cause.LANE_DIED, by=EndedBy.SYSTEM
            )

    def on_over_limit(self, fact: protocol.OverLimit) -> None:
        self._refused("all calls of the library in use", fact.status)

    # --- from the operator ---

    async def originate(
        self,
        target: str,
        *,
        trunk: str = "",
        from_number: str = "",
        steps: str = "",
        flow_url: str = "",
        status_callback_url: str = "",
        ring_timeout_s: float = 0.0,
        withhold: bool = False,
        headers: Mapping[str, str] = MappingProxyType({}),
        record: bool = False,
    ) -> CallId:
        """Places a call that takes the named steps (a route's, steps' or dialplan's name; "" is the first route's), or
        asks ``flow_url`` what to do once it is answered.

        Raises CapacityError or ConfigError. Returns once the INVITE is on its way.
        """
        if self.draining:
            raise CapacityError("the node is stopping and takes no new calls")
        if self._full:
            raise CapacityError(f"all {self.max_calls} calls are in use" if self.max_calls else "the lane is not up")
        if flow_url:
            match: matching.Match | None = flow_match(flow_url)
        else:
            match = matching.by_name(self.dialplans, steps or self.dialplans[0].name)
        if match is None:
            raise ConfigError(f"no route or steps named `{steps}` in the dialplans")
        if record:
            match = replace(match, steps=[RecordStep(), *match.steps])
        request = PlaceRequest(
            target=target,
            trunk=trunk,
            from_number=from_number,
            ring_timeout_s=ring_timeout_s,
            withhold=withhold,
            headers=headers,
        )
        attempts = self._outbound.attempts(request)
        call_id = new_call_id()
        leg, attempts = await self._outbound.open_first(call_id, request, attempts)
        if self.draining:
            await leg.port.close()
            raise CapacityError("the node is stopping and takes no new calls")
        self.services.events.emit(
            CallCreated(
                at=clock.now(),
                call_id=call_id,
                direction=Direction.OUTBOUND,
                from_number=leg.identity.from_number,
                to_number=leg.identity.to_number,
                trunk=attempts[0].account,
            )
        )
        if status_callback_url:
            self.services.events.emit(
                CallbackWanted(at=clock.now(), call_id=call_id, url=status_callback_url, later=False)
            )
        call = self.register(call_id, leg, match, attempts[0].account)
        call.place_first(request, attempts)
        self._outbound.ring(leg, request, attempts[0])
        self._spawn(self._run(call), call_id)
        return call_id

    def find(self, call_id: str) -> Call | None:
        return self._calls.get(CallId(call_id))

    def hangup(self, call_id: str) -> bool:
        call = self._calls.get(CallId(call_id))
        if call is None:
            return False
        call.hangup()
        return True

    def refuse_new(self) -> None:
        self.draining = True

    def drain_only(self, on: bool) -> None:
        """New calls are refused, those that are up go on; or new ones are taken again."""
        self.draining = on

    async def watch(self) -> None:
        """Ends what should have ended, again and again: a call that stays on for ever costs money."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now = clock.now()
            for call in self.live:
                late = call.overdue(now)
                if not late:
                    continue
                log.error("a call did not end", extra={"call_id": call.id, "why": late})
                self.services.events.emit(Problem(at=now, call_id=call.id, where="watchdog", what=late))
                call.hangup(EndedBy.SYSTEM, Cause.ERROR, late)
                self._running[call.id].cancel()

    async def drain(self) -> None:
        """Refuses new calls, ends those that are up, waits for their records (bounded)."""
        self.refuse_new()
        for call in self.live:
            call.hangup(EndedBy.SYSTEM, Cause.NODE_STOPPED)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self.services.limits.drain_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2.0)

    # --- inside ---

    def _named(self, replaces: protocol.Replaces, trunk: str, source: str) -> Call | None:
        """The call whose peer is to be replaced, by somebody of the same trunk, or, without any, of the same host."""
        for call in self._calls.values():
            if call.leg.is_named_by(replaces) and call.trunk == trunk and not call.ended.done():
                host = call.leg.identity.remote_address.rpartition(":")[0]
                return call if trunk or host == source else None
        return None

    async def _take(self, incoming: protocol.IncomingCall, settings: TrunkSettings | None) -> None:
        trunk = settings.name if settings is not None else ""
        caller = identity.incoming(settings, incoming.headers, incoming.from_user, incoming.from_name)
        called = numbers.to_e164(incoming.to_user, settings) if settings is not None else incoming.to_user
        incoming = msgspec.structs.replace(incoming, from_user=caller.number, to_user=called)
        try:
            await self._take_from(incoming, trunk, caller)
        finally:
            self.trunks.release(trunk, Direction.INBOUND)

    async def _take_from(self, incoming: protocol.IncomingCall, trunk: str, caller: identity.Caller) -> None:
        try:
            if incoming.replaces is not None:
                await self._replace(incoming, trunk)
                return
            call = await self._admit(incoming, trunk, caller)
        finally:
            self._admitting.pop(incoming.call, None)
            self._admitting_for.pop(incoming.call, None)
        if call is not None:
            await self._run(call)
        else:
            self._ladders.ended(incoming.call)

    async def _admit(self, incoming: protocol.IncomingCall, trunk: str, caller: identity.Caller) -> Call | None:
        """A call with a leg and a media port; or a refusal that is on record."""
        called, calling = incoming.to_user, incoming.from_user
        call_id = new_call_id()
        app = self.directory.app_of(called, trunk)
        self._ladders.belongs(incoming.call, call_id)
        self.services.events.emit(
            CallCreated(
                at=clock.now(),
                call_id=call_id,
                direction=Direction.INBOUND,
                from_number=calling,
                to_number=called,
                trunk=trunk,
                voice_app_id=app.id if app is not None else "",
            )
        )
        self._tell_caller(call_id, caller, incoming, self.trunks.get(trunk))
        if app is not None:
            if (why := self._closed(app)) is not None:
                self._refuse_call(call_id, incoming.call, *why)
                return None
            self._admitting_for[incoming.call] = app.id
        match = self._steps(app, called, calling, trunk)
        if match is None:
            found = "the app's dialplan is not there" if app is not None else "no route takes this number"
            self._refuse_call(call_id, incoming.call, 404, Cause.NO_ROUTE, found)
            return None
        far: tuple[str, int] | None = None
        try:
            terms = self.services.terms(trunk)
            if incoming.sdp:
                agreed = sdp.negotiate(sdp.parse(incoming.sdp), terms)
                far = (agreed.host, agreed.port)
        except ValueError as error:
            self._refuse_call(call_id, incoming.call, 488, Cause.NO_CODEC, str(error))
            return None
        try:
            port = await self.services.media.open(far, ipv6=self._on_ipv6(incoming, far))
        except SipagentError as error:
            self._refuse_call(call_id, incoming.call, 503, Cause.ERROR, str(error))
            return None
        ended = self._admitting[incoming.call]
        if ended is not None or self.draining:
            await port.close()
            if ended is None:
                self._refuse_call(call_id, incoming.call, 503, Cause.NODE_STOPPED, "the node is stopping")
            else:
                self.services.events.emit(CallEnded(at=clock.now(), call_id=call_id, termination=ended))
            return None
        leg = self._leg(incoming, call_id, port, terms, far, trunk)
        call = self.register(call_id, leg, match, trunk, app.id if app is not None else "")
        leg.created(incoming.sip_call_id)
        return call

    def _steps(self, app: VoiceAppRecord | None, called: str, calling: str, trunk: str) -> matching.Match | None:
        if app is not None:
            return flow_match(app.flow_url, app.fallback_url) if app.flow_url else steps_of(app, self.dialplans)
        onward = self.directory.trunk_of(called, trunk)
        return passing_on(onward, called) if onward is not None else matching.match(self.dialplans, called, calling)

    def _closed(self, app: VoiceAppRecord) -> tuple[int, Cause, str] | None:
        """Why the app takes no call now."""
        if app.status != "active":
            return 480, Cause.REJECTED, "the voice app of this number is inactive"
        limit = app.channel_limit
        taken = [*self._admitting_for.values(), *(call.voice_app for call in self._calls.values())]
        if limit is not None and taken.count(app.id) >= limit:
            return 486, Cause.OVER_LIMIT, "as many calls as the voice app's channel_limit are up"
        return None

    async def _replace(self, incoming: protocol.IncomingCall, trunk: str) -> None:
        """One more leg for a call, in place of the one it has."""
        assert incoming.replaces is not None
        try:
            terms = self.services.terms(trunk)
            agreed = sdp.negotiate(sdp.parse(incoming.sdp), terms) if incoming.sdp else None
            far = (agreed.host, agreed.port) if agreed is not None else None
            port = await self.services.media.open(far, ipv6=self._on_ipv6(incoming, far))
        except ValueError:
            self._refuse(incoming.call, Refusal(488, "nothing to agree on"))
            return
        except SipagentError as error:
            self._refuse(incoming.call, Refusal(503, str(error), retry_after_s=5))
            return
        call = self._named(incoming.replaces, trunk, _host(incoming))
        if call is None or self._admitting[incoming.call] is not None:
            await port.close()
            self._refuse(incoming.call, Refusal(481, "no dialog to take the place of"))
            return
        leg = self._leg(incoming, call.id, port, terms, far, trunk, call.leg.id)
        call.adopt(leg)
        leg.created(incoming.sip_call_id)
        try:
            referred.replace(call, leg)
        except NotNow:
            leg.reject(
                480,
                "",
                Termination(disposition=Disposition.REJECTED, cause=Cause.REJECTED, by=EndedBy.SYSTEM, sip_status=480),
            )

    def _on_ipv6(self, incoming: protocol.IncomingCall, far: tuple[str, int] | None) -> bool:
        """Whether the media of a call is on IPv6: as the offer says, without one as its signalling."""
        by_offer = far is not None and ":" in far[0]
        return self.services.media.ipv6 and (by_offer or (far is None and incoming.source.startswith("[")))

    def _leg(
        self,
        incoming: protocol.IncomingCall,
        call_id: CallId,
        port: MediaPort,
        terms: sdp.Terms,
        far: tuple[str, int] | None,
        trunk: str,
        instead_of: LegId | None = None,
    ) -> Leg:
        who = LegIdentity(
            call_id=call_id,
            direction=Direction.INBOUND,
            from_number=incoming.from_user,
            to_number=incoming.to_user,
            remote_address=incoming.source,
            role="caller" if instead_of is None else "transfer",
            trunk=trunk,
            parent=instead_of,
        )
        # Towards the media where that comes by another IP version than the signalling.
        other_version = far is not None and incoming.source.startswith("[") is not port.ipv6
        our_host = self.services.media_host(far[0] if far is not None and other_version else incoming.source)
        leg = Leg(incoming.call, self.services.lane, port, self.services.events, who, our_host, terms)
        leg.take_offer(incoming.sdp)
        return leg

    def register(self, call_id: CallId, leg: Leg, match: matching.Match, trunk: str, voice_app: str = "") -> Call:
        """A call of these; to be run."""
        call = self._calls[call_id] = Call(call_id, leg, match, self.services, self._outbound, self._legs, trunk)
        call.voice_app = voice_app
        if self._saver is not None:
            self._saver.track(call)
        return call

    def forget(self, call_id: CallId) -> None:
        """Nothing is left to do for this call of an earlier main."""
        if self._saver is not None:
            self._saver.forget(call_id)

    def close_port(self, port: MediaPort) -> None:
        """Of no call, or of none any more."""

        async def close() -> None:
            await port.close()

        self._spawn(close(), "port")

    def resume(self, call: Call) -> None:
        """Runs a call that an earlier main has left."""
        self.trunks.keep(call.trunk, call.leg.identity.direction)
        self._spawn(self._run_on(call, call.leg.identity.direction), call.id)

    async def _run_on(self, call: Call, direction: Direction) -> None:
        try:
            await self._run(call)
        finally:
            self.trunks.release(call.trunk, direction)

    async def _run(self, call: Call) -> None:
        current_call.set(call.id)
        running = asyncio.current_task()
        assert running is not None
        self._running[call.id] = running
        try:
            await call.run()
        finally:
            self._calls.pop(call.id, None)
            self._running.pop(call.id, None)

    def _refuse_call(self, call_id: CallId, handle: int, status: int, cause: Cause, detail: str) -> None:
        # Only callers of a known trunk get this far: the reason helps their engineer.
        self.services.lane.send(
            protocol.Reject(
                call=handle,
                status=status,
                headers={"X-Sipagent-Reason": cause.value, FINAL: "node" if status == 503 else "call"},
            )
        )
        self.services.events.emit(
            CallEnded(
                at=clock.now(),
                call_id=call_id,
                termination=Termination(
                    disposition=Disposition.REJECTED,
                    cause=cause,
                    by=EndedBy.SYSTEM,
                    sip_status=status,
                    detail=detail,
                ),
            )
        )

    def _tell_caller(
        self, call_id: CallId, caller: identity.Caller, incoming: protocol.IncomingCall, trunk: TrunkSettings | None
    ) -> None:
        kept = identity.permitted(incoming.headers, trunk.headers_in if trunk is not None else ())
        if caller.name or caller.asserted or caller.withheld or caller.diversions or kept:
            self.services.events.emit(
                CallerTold(
                    at=clock.now(),
                    call_id=call_id,
                    name=caller.name,
                    asserted=caller.asserted,
                    withheld=caller.withheld,
                    diversions=tuple({"number": it.number, "reason": it.reason} for it in caller.diversions),
                    headers=kept,
                )
            )

    def _refuse(self, handle: int, refusal: Refusal) -> None:
        headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
        if refusal.status in (486, 503):
            headers[FINAL] = "node"  # another node may have room
        self.services.lane.send(protocol.Reject(call=handle, status=refusal.status, headers=headers))
        self._refused(refusal.reason, refusal.status)

    def _refused(self, reason: str, status: int) -> None:
        """On record; of a flood only a few a second, the others as a number: strangers must not fill the record."""
        now = clock.now()
        if self._refusals.admit(now.mono):
            self.services.events.emit(
                CallRefused(at=now, reason=reason, sip_status=status, others=self._refusals.take_suppressed())
            )

    @property
    def _full(self) -> bool:
        """A call more would be too many: of calls by our own limit, of legs by the library's."""
        ready = self.services.lane.ready
        coming = len(self._admitting) + self._outbound.opening
        legs = len(self._legs) + coming
        return len(self._calls) + coming >= self.max_calls or ready is None or legs >= ready.max_calls

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call's task failed", extra={"error": errors.where(error)})


def _host(incoming: protocol.IncomingCall) -> str:
    return incoming.source.rpartition(":")[0]
