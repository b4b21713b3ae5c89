"""Placing a leg: where it may go, one attempt after the other, until somebody answers."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sipagent.calls.leg import Leg, LegIdentity
from sipagent.calls.services import Services
from sipagent.core.errors import CapacityError, ConfigError
from sipagent.core.ids import CallId
from sipagent.core.states import Direction
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.media.client import MediaPort
from sipagent.sip import message
from sipagent.sip.redirection import Redirections

if TYPE_CHECKING:
    from sipagent.calls.call import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRequest:
    """Whom to ring, and how."""

    target: str  # a number of a trunk, or a SIP URI
    trunk: str = ""  # by which to go; "" is the node's choice
    from_number: str = ""  # "" is the trunk's own
    ring_timeout_s: float = 0.0  # of each attempt; 0 is the node's
    headers: Mapping[str, str] = field(default_factory=dict)
    beside: MediaPort | None = None  # a port that the new one must be able to hear


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to go."""

    account: str  # the trunk's name, "" for none
    uri: str


class Outbound:
    """Places legs of calls, whatever they are for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.opening = 0  # ports on their way: they count as legs already

    def attempts(self, request: PlaceRequest) -> Sequence[Attempt]:
        """The ways to go, in order. Raises ConfigError when there is none."""
        account, uri = _destination(self._services, request.target, request.trunk)
        return [Attempt(account, uri)]

    async def open(self, call_id: CallId, request: PlaceRequest, attempt: Attempt) -> Leg:
        """A leg with its media port, and nothing sent yet. Raises CapacityError or ConfigError."""
        services = self._services
        try:
            terms = services.terms(attempt.account)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        remote = _host_of(attempt.uri)
        self.opening += 1
        try:
            # In a thread: a name may have to be looked up, and the loop belongs to every call.
            our_host = await asyncio.to_thread(services.media_host, remote)
            port = await services.media.open(beside=request.beside)
        finally:
            self.opening -= 1
        if services.lane.ready is None:
            await port.close()
            raise CapacityError("the node cannot place calls at the moment")
        identity = LegIdentity(
            call_id=call_id,
            direction=Direction.OUTBOUND,
            from_number=request.from_number or attempt.account,
            to_number=message.parse_address(attempt.uri).user or attempt.uri,
            remote_address=remote,
        )
        return Leg(services.lane.next_handle(), services.lane, port, services.events, identity, our_host, terms)

    def ring(self, leg: Leg, request: PlaceRequest, attempt: Attempt) -> None:
        """The INVITE."""
        leg.created("")
        from_uri = self._from_uri(attempt, request, leg.media_host)
        leg.call(attempt.account, attempt.uri, from_uri, dict(request.headers))

    async def place(
        self, call: "Call", request: PlaceRequest, attempts: Sequence[Attempt] = (), first: Leg | None = None
    ) -> Leg:
        """Rings one way after the other; the leg that was answered, or the last one, which has ended.

        Each attempt is a leg of the call on its own record. With ``first``, the leg of the first attempt that rings
        already, it is the call itself that is placed: it speaks on the leg of the present attempt. Raises ConfigError
        or CapacityError when there is not even a leg.
        """
        main = first is not None
        leg: Leg | None = first
        waiting = deque(attempts or self.attempts(request))
        redirections: dict[str, Redirections] = {}  # by trunk
        number = 0
        while waiting:
            attempt = waiting.popleft()
            if number or leg is None:
                try:
                    opened = await self.open(call.id, request, attempt)
                except (CapacityError, ConfigError):
                    if leg is None:
                        raise
                    break
                leg = opened
                call.adopt(leg, main=main)
                self.ring(leg, request, attempt)
            with let_go_if_left(call, leg):
                await until_answered(leg, request.ring_timeout_s or self._services.limits.ring_timeout_s)
            if leg.is_answered:
                break
            waiting.extendleft(reversed(self._sent_on(leg, attempt, redirections)))
            number += 1
        assert leg is not None
        return leg

    def _sent_on(self, leg: Leg, attempt: Attempt, known: dict[str, Redirections]) -> list[Attempt]:
        """Where a 3xx sent this attempt, when its trunk follows such."""
        trunk = self._services.trunk(attempt.account)
        if not leg.redirected_to or trunk is None or trunk.redirects != "follow":
            return []
        places = known.setdefault(trunk.name, Redirections(trunk, attempt.uri)).follow(leg.redirected_to)
        return [Attempt(attempt.account, uri) for uri in places]

    def _from_uri(self, attempt: Attempt, request: PlaceRequest, our_host: str) -> str:
        """Our address with another number in it; "" leaves it to the trunk's own."""
        if not request.from_number:
            return ""
        trunk = self._services.trunk(attempt.account)
        host = message.parse_address(trunk.identity).host if trunk is not None else our_host
        return f"sip:{request.from_number}@{host}"


@contextmanager
def let_go_if_left(call: "Call", leg: Leg) -> Iterator[None]:
    """Hangs the leg up when what is done with it is broken off, and the call goes on with something else."""
    try:
        yield
    except asyncio.CancelledError:
        if not call.ended.done():  # else it ends as the call did
            disposition = Disposition.ANSWERED if leg.is_answered else Disposition.CANCELLED
            leg.hangup(Termination(disposition=disposition, cause=Cause.CANCELLED, by=EndedBy.SYSTEM, sip_status=487))
        raise


async def until_answered(leg: Leg, timeout_s: float) -> None:
    """Until somebody answers, refuses or has let it ring too long: then it is cancelled, and has ended."""
    answered = asyncio.ensure_future(leg.answered.wait())
    try:
        either: set[asyncio.Future[Any]] = {answered, leg.ended}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        answered.cancel()
    if not leg.is_answered and not leg.ended.done():
        leg.hangup(
            Termination(disposition=Disposition.NO_ANSWER, cause=Cause.NO_ANSWER, by=EndedBy.SYSTEM, sip_status=487)
        )


def _destination(services: Services, target: str, trunk: str) -> tuple[str, str]:
    """The account to call with and the URI to call."""
    named = services.trunk(trunk)
    if trunk and named is None:
        raise ConfigError(f"no trunk named `{trunk}`")
    if target.startswith(("sip:", "sips:")):
        host = message.parse_address(target).host
        if not host:
            raise ConfigError("the SIP URI to call has no host")
        if named is not None and host != message.parse_address(named.target_uri("x")).host:
            raise ConfigError(f"trunk `{trunk}` does not serve the host of this URI: give a number, or no trunk")
        return trunk, target
    chosen = named or next(iter(services.trunks), None)
    if chosen is None:
        raise ConfigError("a number can only be called through a trunk, and none is configured: give a SIP URI")
    if not target.strip("+*#").isalnum():
        raise ConfigError("the number to call may only have digits, letters, +, * and #")
    return chosen.name, chosen.target_uri(target)


def _host_of(uri: str) -> str:
    """`host` or `host:port` of a SIP URI."""
    address = message.parse_address(uri)
    return f"{address.host}:{address.port}" if address.port else address.host
