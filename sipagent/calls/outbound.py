"""Placing a leg: where it may go, one attempt after the other, until somebody answers."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sipagent.calls.leg import Leg, LegIdentity
from sipagent.calls.legs import LegTable
from sipagent.calls.services import Services
from sipagent.core import clock
from sipagent.core.errors import CapacityError, ConfigError
from sipagent.core.events import Problem
from sipagent.core.ids import CallId, LegId
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.media.client import MediaPort
from sipagent.sip import identity, message, routing
from sipagent.sip.addresses import with_port
from sipagent.sip.redirection import Redirections
from sipagent.sip.servers import Server
from sipagent.sip.settings import FAILOVER_ON, TrunkSettings, transport_of
from sipagent.sip.trunks import Trunks

if TYPE_CHECKING:
    from sipagent.calls.call import Call

log = logging.getLogger(__name__)

OUR_HEADERS = ("replaces", "referred-by", "diversion", "history-info", "user-to-user")  # a transfer's, of our making


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRequest:
    """Whom to ring, and how."""

    target: str  # a number of a trunk, or a SIP URI
    trunk: str = ""  # by which to go; "" is the node's choice
    from_number: str = ""  # "" is the trunk's own
    withhold: bool = False  # keep the calling number from the callee (RFC 3323)
    ring_timeout_s: float = 0.0  # of each attempt; 0 is the trunk's or the node's
    headers: Mapping[str, str] = field(default_factory=dict)
    ours: bool = False  # the headers are of our making: OUR_HEADERS may be among them
    beside: MediaPort | None = None  # a port that the new one must be able to hear
    role: str = "callee"  # of the leg, as in core.events.LegCreated
    parent: LegId | None = None  # the leg for which this one is made


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to go."""

    account: str  # the trunk's name, "" for none
    uri: str
    route: tuple[str, ...] = ()  # as MakeCall wants it
    server: Server | None = None
    redirected: bool = False  # a 3xx names it


class Outbound:
    """Places legs of calls, whatever they are for."""

    def __init__(self, services: Services, trunks: Trunks, table: LegTable) -> None:
        self._services = services
        self._table = table
        self._trunks = trunks
        self.opening = 0  # ports on their way: they count as legs already

    def attempts(self, request: PlaceRequest) -> Sequence[Attempt]:
        """The ways to go, in order. Raises ConfigError or CapacityError when there is none."""
        own = OUR_HEADERS if request.ours else ()
        for name, value in request.headers.items():
            if name.lower() not in own and not identity.settable(name, value):
                raise ConfigError(f"the header `{name[:64]}` cannot be set: it is SIP's own, or its value is none")
        trunks = _trunks_for(self._trunks, request.target, request.trunk)
        if not trunks:
            return [Attempt("", request.target)]
        for name in request.headers:
            if not any(identity.permitted({name: ""}, (*trunk.headers_out, *own)) for trunk in trunks):
                raise ConfigError(f"no trunk lets the header `{name[:64]}` out: add it to its `headers_out`")
        named = bool(request.trunk) or _is_uri(request.target)
        ways = routing.candidates(request.target, trunks, self._trunks.states, random.random, named=named)
        if not ways and (distrust := [why for trunk in trunks if (why := self._trunks.health[trunk.name].distrust)]):
            raise CapacityError(f"no trunk can be used: {'; '.join(distrust)}")
        if not ways:
            raise ConfigError("no trunk takes this number: none places calls, or its prefix is in no trunk's `rates`")
        return [Attempt(way.trunk.name, way.uri, tuple(way.route), way.server) for way in ways]

    async def open_first(
        self, call_id: CallId, request: PlaceRequest, attempts: Sequence[Attempt]
    ) -> tuple[Leg, Sequence[Attempt]]:
        """A leg by the first way that has room, and the ways from there on. Raises CapacityError or ConfigError."""
        for number, attempt in enumerate(attempts):
            try:
                return await self.open(call_id, request, attempt), attempts[number:]
            except (CapacityError, ConfigError):
                if number == len(attempts) - 1:
                    raise
        raise ConfigError("there is no way to go")

    async def open(self, call_id: CallId, request: PlaceRequest, attempt: Attempt) -> Leg:
        """A leg with its media port and a channel of its trunk, and nothing sent yet.

        Raises CapacityError or ConfigError.
        """
        ready = self._services.lane.ready
        if ready is None:
            raise CapacityError("the node cannot place calls at the moment")
        if attempt.account and self._trunks.get(attempt.account) is None:
            raise ConfigError(f"trunk `{attempt.account}` has been removed")
        if len(self._table) + self.opening >= ready.max_calls:
            raise CapacityError(f"all {ready.max_calls} legs that this node carries are in use")
        refusal = self._trunks.admit(attempt.account, Direction.OUTBOUND, clock.now().mono / 1e9)
        if refusal is not None:
            raise CapacityError(refusal.reason)
        try:
            leg = await self._open(call_id, request, attempt)
        except BaseException:
            self._trunks.release(attempt.account, Direction.OUTBOUND)
            raise
        leg.ended.add_done_callback(lambda _: self._trunks.release(attempt.account, Direction.OUTBOUND))
        return leg

    async def _open(self, call_id: CallId, request: PlaceRequest, attempt: Attempt) -> Leg:
        services = self._services
        try:
            terms = services.terms(attempt.account)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        remote = attempt.server.host if attempt.server is not None else _host_of(attempt.uri)
        self.opening += 1
        try:
            # In a thread: a name may have to be looked up, and the loop belongs to every call.
            our_host = await asyncio.to_thread(services.media_host, remote)
            port = await services.media.open(beside=request.beside, ipv6=services.media.ipv6 and ":" in our_host)
        finally:
            self.opening -= 1
        if services.lane.ready is None:
            await port.close()
            raise CapacityError("the node cannot place calls at the moment")
        who = LegIdentity(
            call_id=call_id,
            direction=Direction.OUTBOUND,
            from_number=request.from_number or attempt.account,
            to_number=message.parse_address(attempt.uri).user or attempt.uri,
            remote_address=remote,
            role=request.role,
            trunk=attempt.account,
            parent=request.parent,
        )
        return Leg(services.lane.next_handle(), services.lane, port, services.events, who, our_host, terms)

    def ring(self, leg: Leg, request: PlaceRequest, attempt: Attempt) -> None:
        """The INVITE."""
        leg.created("")
        from_value, headers = self._shown(attempt, request, leg.media_host)
        leg.call(attempt.account, attempt.uri, from_value, headers, attempt.route)

    async def place(
        self, call: "Call", request: PlaceRequest, attempts: Sequence[Attempt] = (), first: Leg | None = None
    ) -> Leg:
        """Rings one way after the other; the leg that was answered, or the last one, which has ended.

        Each attempt is a leg of the call on its own record. With ``first``, the leg of the first attempt that rings
        already, it is the call itself that is placed: it speaks on the leg of the present attempt. Raises ConfigError
        or CapacityError when there is not even a leg.
        """
        main = first is not None
        if not main:
            request = replace(request, parent=call.leg.id)
        leg: Leg | None = first
        waiting = deque(attempts or self.attempts(request))
        redirections: dict[str, Redirections] = {}  # by trunk
        last: CapacityError | ConfigError | None = None
        number = 0
        while waiting:
            attempt = waiting.popleft()
            if number or leg is None:
                try:
                    opened = await self.open(call.id, request, attempt)
                except (CapacityError, ConfigError) as error:
                    last = error
                    continue
                leg = opened
                if main:
                    call.trunk = attempt.account
                call.adopt(leg, main=main)
                self.ring(leg, request, attempt)
            with let_go_if_left(call, leg):
                outcome = await until_answered(leg, self._ring_timeout(attempt, request), self._silent_s(attempt))
            number += 1
            if outcome == "answered":
                break
            sent_on = self._sent_on(call, leg, attempt, redirections)
            waiting.extendleft(reversed(sent_on))
            # Of the places that one 3xx names all are tried (RFC 3261 section 8.1.3.4), of our own ways as policy says.
            among = attempt.redirected and bool(waiting) and waiting[0].redirected
            if not sent_on and not among and not self._goes_on(leg, attempt, outcome):
                break
        if leg is None:
            raise last or ConfigError("there is no way to go")
        return leg

    def _sent_on(self, call: "Call", leg: Leg, attempt: Attempt, known: dict[str, Redirections]) -> list[Attempt]:
        """Where a 3xx sent this attempt, when its trunk follows such."""
        trunk = self._trunks.get(attempt.account)
        if not leg.redirected_to or trunk is None or trunk.redirects != "follow":
            return []
        redirections = known.setdefault(trunk.name, Redirections(trunk, attempt.uri))
        refused = redirections.refused
        places = redirections.follow(leg.redirected_to)
        if refused := redirections.refused - refused:
            self._trunks.redirect_refused(trunk.name, refused)
            what = f"trunk `{trunk.name}` is spoken to over TLS, and its redirection leads to {refused} places without"
            self._services.events.emit(Problem(at=clock.now(), call_id=call.id, where="redirect", what=what))
        return [Attempt(attempt.account, uri, redirected=True) for uri in places]

    def _goes_on(self, leg: Leg, attempt: Attempt, outcome: str) -> bool:
        """Whether the next way is tried after this one; what we have learnt of the server is kept."""
        trunk = self._trunks.get(attempt.account)
        policy = trunk.failover_on if trunk is not None else FAILOVER_ON
        end = leg.ended.result()
        if outcome == "no_answer":
            return "no_answer" in policy
        if end.by in (EndedBy.OPERATOR, EndedBy.AGENT, EndedBy.CALLER) or end.cause is Cause.LANE_DIED:
            return False
        unreached = outcome == "silent" or (end.by is EndedBy.SYSTEM and end.sip_status in (0, 408, 502, 503))
        if unreached and trunk is not None and attempt.server is not None:
            self._trunks.health[trunk.name].call_failed(attempt.server, clock.now().mono / 1e9)
        log.info("a way did not lead to an answer", extra={"trunk": attempt.account, "sip_status": end.sip_status})
        return routing.fails_over(end.sip_status, policy)

    def _ring_timeout(self, attempt: Attempt, request: PlaceRequest) -> float:
        trunk = self._trunks.get(attempt.account)
        own = trunk.ring_timeout_s if trunk is not None else 0.0
        return request.ring_timeout_s or own or self._services.limits.ring_timeout_s

    def _silent_s(self, attempt: Attempt) -> float:
        trunk = self._trunks.get(attempt.account)
        return trunk.silent_s if trunk is not None else 0.0

    def _shown(self, attempt: Attempt, request: PlaceRequest, our_host: str) -> tuple[str, dict[str, str]]:
        """What the INVITE says of who calls: From ("" leaves it to the account), and headers."""
        trunk = self._trunks.get(attempt.account)
        if trunk is None:
            from_value = f"sip:{request.from_number}@{our_host}" if request.from_number else ""
            return from_value, dict(request.headers)
        shown = identity.outgoing(trunk, request.from_number, withhold=request.withhold)
        return shown.from_value, {
            **identity.permitted(request.headers, (*trunk.headers_out, *(OUR_HEADERS if request.ours else ()))),
            **trunk.extra_headers,
            **shown.headers,
        }


@contextmanager
def let_go_if_left(call: "Call", leg: Leg) -> Iterator[None]:
    """Hangs the leg up when what is done with it is broken off, and the call goes on with something else."""
    try:
        yield
    except BaseException:
        if not call.ended.done():  # else it ends as the call did
            disposition = Disposition.ANSWERED if leg.is_answered else Disposition.CANCELLED
            leg.hangup(Termination(disposition=disposition, cause=Cause.CANCELLED, by=EndedBy.SYSTEM, sip_status=487))
        raise


async def until_answered(leg: Leg, timeout_s: float, silent_s: float = 0.0) -> str:
    """Until somebody answers, refuses, has let it ring too long ("no_answer") or has not said a thing for so many
    seconds ("silent", 0 waits on): then it is cancelled, and has ended.
    """
    answered, heard = asyncio.ensure_future(leg.answered.wait()), asyncio.ensure_future(leg.heard.wait())
    ends: set[asyncio.Future[Any]] = {answered, leg.ended}
    outcome, status = "no_answer", 487
    try:
        if silent_s:
            await asyncio.wait(ends | {heard}, timeout=min(silent_s, timeout_s), return_when=asyncio.FIRST_COMPLETED)
        if silent_s and silent_s < timeout_s and not (heard.done() or answered.done() or leg.ended.done()):
            outcome, status = "silent", 408
        else:
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        answered.cancel()
        heard.cancel()
    if leg.is_answered:
        return "answered"
    if leg.ended.done():
        return "ended"
    leg.hangup(
        Termination(disposition=Disposition.NO_ANSWER, cause=Cause.NO_ANSWER, by=EndedBy.SYSTEM, sip_status=status)
    )
    return outcome


def _trunks_for(trunks: Trunks, target: str, name: str) -> Sequence[TrunkSettings]:
    """By which a call to this target may go; none for a SIP URI at no trunk's host. Raises ConfigError."""
    named = trunks.get(name)
    if name and named is None:
        raise ConfigError(f"no trunk named `{name}`")
    if _is_uri(target):
        if "?" in target:
            raise ConfigError("the SIP URI to call may have no headers (?...)")
        if not message.parse_address(target).host:
            raise ConfigError("the SIP URI to call has no host")
        return _trunks_at(trunks, target, named)
    elif not trunks.settings:
        raise ConfigError("a number can only be called through a trunk, and none is configured: give a SIP URI")
    elif not target.strip("+*#").isalnum():
        raise ConfigError("the number to call may only have digits, letters, +, * and #")
    return [named] if named is not None else trunks.settings


def _is_uri(target: str) -> bool:
    return target.lower().startswith(("sip:", "sips:"))


def _trunks_at(trunks: Trunks, uri: str, named: TrunkSettings | None) -> Sequence[TrunkSettings]:
    """By which a call to this SIP URI may go. Raises ConfigError."""
    if named is not None and not _serves(named, uri, any_port=True):
        raise ConfigError(f"trunk `{named.name}` does not serve the host of this URI: give a number, or no trunk")
    serving = [named] if named is not None else [trunk for trunk in trunks.settings if _serves(trunk, uri)]
    if not serving:
        return serving
    wanted = message.parse_address(f"<{uri}>")
    # Only the user part goes to the trunk: what else the URI asks for is refused where the trunk does not do it.
    if not wanted.user or "maddr" in wanted.uri_params:
        raise ConfigError("a SIP URI that goes by a trunk needs a user part, and may have no maddr")
    fitting = [trunk for trunk in serving if _by_transport(trunk, transport_of(uri))]
    if not fitting:
        raise ConfigError(f"trunk `{serving[0].name}` is not spoken to by the transport that this URI asks for")
    return fitting


def _serves(trunk: TrunkSettings, uri: str, *, any_port: bool = False) -> bool:
    """Whether the URI is at the very host and port that this trunk's calls go to; `any_port`: or names no port."""
    if not trunk.outbound_host:
        return False
    wanted, own = message.parse_address(f"<{uri}>"), message.parse_address(f"<{trunk.target_uri('x')}>")
    return wanted.host.lower() == own.host.lower() and (wanted.port == own.port or (any_port and not wanted.port))


def _by_transport(trunk: TrunkSettings, asked: str) -> bool:
    """Whether a request over this trunk goes as asked; "" is for the trunk to say."""
    own = transport_of(trunk.target_uri("x"))
    return asked in ("", own) or (not own and asked in ("udp", "tcp"))


def _host_of(uri: str) -> str:
    """`host` or `host:port` of a SIP URI."""
    address = message.parse_address(uri)
    return with_port(address.host, address.port) if address.port else address.host
