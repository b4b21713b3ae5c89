"""All lanes of a node as one: as many as the wanted calls need, calls spread over them, the dead ones replaced.

One lane binds the node's SIP address itself. Several listen on loopback behind the edge (edge.py), which then owns
that address; each lane keeps its port for life, so that the edge's list of them seldom changes.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from sipagent.core import doors
from sipagent.core.clock import mono_ns, now
from sipagent.core.errors import SetupError
from sipagent.core.events import CallRefused, EventSink
from sipagent.core.rate import RateLimit
from sipagent.sip import message, names
from sipagent.sip.client import LaneClient, PortTaken
from sipagent.sip.edge import Edge, EdgeMissing, contact_towards, tls_of
from sipagent.sip.nursery import Nursery
from sipagent.sip.protocol import (
    LANE_DOOR,
    AddAccount,
    AddressChanged,
    AnyCommand,
    AnyFact,
    CommandFailed,
    Ended,
    IncomingCall,
    InviteRefused,
    LaneLog,
    LaneReady,
    LaneTls,
    MakeCall,
    OverLimit,
    Pong,
    Register,
    Registered,
    RegistrationResult,
    RemoveAccount,
    Standing,
    Start,
    StartFailed,
    Unregister,
)
from sipagent.sip.settings import SipSettings

log = logging.getLogger("sipagent.sip")

SPARE_LANES = 1  # beyond what max_calls needs: a lane that dies leaves the capacity whole
OWN_ACCOUNTS = 7  # trunks that can register through one lane: PJSIP's 8 accounts, and one is for calls without
_HANDLES_PER_LANE = 1 << 32
_EDGE_LEAVES_S = 5.0  # the one of the main before us, from its death on
_LOOPBACK = "127.0.0.1"


class LanePool:
    """The node's signalling. Callbacks run in the event loop, in the order of each lane's facts, and must not block.

    >>> pool = LanePool(SipSettings(host="127.0.0.1", port=5080), events, max_calls=20)  # doctest: +SKIP
    >>> pool.on_incoming = lambda call: pool.send(Ring(call=call.call))  # doctest: +SKIP
    >>> ready = await pool.start()  # doctest: +SKIP
    """

    def __init__(
        self,
        settings: SipSettings,
        events: EventSink,
        *,
        max_calls: int = 0,
        folder: Path | None = None,
        run: Path | None = None,
    ) -> None:
        """``max_calls``: what the node shall carry, 0 for what one lane does. ``folder``: for the edge's files.
        ``run``: by which a new main finds the lanes again.
        """
        self.settings = settings
        self.on_incoming: Callable[[IncomingCall], None] | None = None
        self.on_fact: Callable[[AnyFact], None] | None = None
        self.on_registration: Callable[[RegistrationResult], None] | None = None
        self.on_over_limit: Callable[[OverLimit], None] | None = None
        self.on_lost: Callable[[frozenset[int]], None] | None = None
        self.on_ready: Callable[[LaneReady], None] | None = None
        # Accounts whose registration went with another lane than the one in `ready`.
        self.on_homeless: Callable[[list[str]], None] = lambda _accounts: None
        # Our learned public address as this host sees it, "" for none; may look the host up.
        self.public_towards: Callable[[str], str] = lambda _host: ""
        self.on_tls_trouble: Callable[[], None] = lambda: None  # see Edge
        self._trusted: frozenset[str] = frozenset()
        self._learned = ""  # that address
        self.notice = ""  # what the operator should know: less capacity than wanted, and what to type
        self.edge: Edge | None = None
        self._max_calls = max_calls
        self._folder = folder
        self._events = events
        self._nursery = Nursery(run)
        self._lanes: list[LaneClient] = []
        self._ports: dict[LaneClient, int] = {}  # where each was last, and shall be again
        self._where: dict[int, LaneClient] = {}  # calls that are up, by handle
        self._sip_call_ids: dict[int, str] = {}  # of inbound calls behind the edge: it counts them by these
        self._accounts: dict[str, AddAccount] = {}
        self._contacts: dict[str, str] = {}  # host:port of our Contact, by account
        self._registering: LaneClient | None = None  # the lane that registrations go through, as far as it has room
        self._homes: dict[str, LaneClient] = {}  # the lane that holds an account's registration
        self._left: dict[str, Registered] = {}  # see `registered`; by account
        self._last_handle = -(mono_ns() // 1_000_000)  # below those that an earlier main has given
        self._generations = 0
        self._refusals = RateLimit(per_second=5)  # strangers must not fill the record
        self._missing = ""  # why there is no edge
        self._started = False
        self._closed = False
        self._background: set[asyncio.Task[None]] = set()

    # --- what main uses -------------------------------------------------------------------------------------

    @property
    def ready(self) -> LaneReady | None:
        """None while no lane is up. Its pid is the registering lane's, its max_calls the sum, its codecs common."""
        up = [lane.ready for lane in self._lanes if lane.ready is not None]
        if not self._started or not up or self._registering is None or self._registering.ready is None:
            return None
        first = self._registering.ready
        return msgspec.structs.replace(
            first,
            max_calls=sum(ready.max_calls for ready in up),
            codecs=tuple(codec for codec in first.codecs if all(codec in ready.codecs for ready in up)),
            host=self.settings.host if self.edge else first.host,
            port=self.settings.port if self.edge else first.port,
        )

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that are up."""
        found = {"zygote": self._nursery.pid} if self._nursery.pid else {}
        for index, lane in enumerate(self._lanes):
            if lane.pid:
                found[f"lane-{index}" if index else "lane"] = lane.pid
        if self.edge is not None and self.edge.pid:
            found["edge"] = self.edge.pid
        return found

    @property
    def registrations(self) -> int:
        """For how many accounts the lanes have room."""
        return len(self._lanes) * OWN_ACCOUNTS

    def next_handle(self) -> int:
        """A handle for MakeCall: negative, never given twice."""
        self._last_handle -= 1
        return self._last_handle

    def send(self, command: AnyCommand) -> None:
        """Never blocks and never raises; what no lane can take is dropped and said so in the log."""
        if isinstance(command, AddAccount):
            self._add_account(command)
            return
        if isinstance(command, RemoveAccount):
            self._remove_account(command)
            return
        if isinstance(command, AddressChanged):
            self._address_changed(command)
            return
        call = int(getattr(command, "call", 0))
        fresh = isinstance(command, MakeCall) or not call
        lane = self._lane_for(command) if fresh else self._where.get(call)
        if lane is not None:
            if isinstance(command, MakeCall):
                self._where[call] = lane
            lane.send(command)
        elif fresh or not self._up():
            log.warning("command dropped: no lane is up", extra={"command": type(command).__name__})
        # Else the call has just ended: its Ended crossed the command on the way.

    async def start(self) -> LaneReady:
        """Returns when calls can come. Raises SetupError when they cannot: a taken port, PJSIP missing."""
        try:
            if not await self._take_over() and not await self._start_behind_edge():
                await self._start_alone()
        except BaseException:
            await self.close()
            raise
        self._started = True
        self._choose_registering()
        ready = self.ready
        if ready is None:
            await self.close()
            raise SetupError("the SIP lanes ended right after they had started")
        return ready

    @property
    def standing(self) -> dict[int, Standing]:
        """The calls that an earlier main has left up, by handle."""
        return {call.call: call for lane in self._up() if lane.ready is not None for call in lane.ready.standing}

    @property
    def registered(self) -> list[Registered]:
        """What an earlier main has left registered, through whichever lane, as long as nothing else is known of it."""
        return list(self._left.values())

    def go_on(self) -> None:
        """Whoever is to hear of the calls that were left is ready: what happened meanwhile is told now."""
        for lane in self._lanes:
            lane.go_on()

    async def drain(self) -> None:
        """From now on the edge refuses new calls (503, to OPTIONS too), so that a front sends them elsewhere."""
        if self.edge is not None:
            await self.edge.drain()

    async def close(self) -> None:
        """Ends every call, takes registrations back, ends the processes. May be called again."""
        if self._closed:
            return
        self._closed = True
        for task in self._background:
            task.cancel()
        await asyncio.gather(*(lane.close() for lane in self._lanes), *self._background, return_exceptions=True)
        if self.edge is not None:
            await self.edge.close()
        await self._nursery.close()

    # --- starting -------------------------------------------------------------------------------------------

    async def _take_over(self) -> bool:
        """The lanes that an earlier main has left; False when there are none that were started as ours would be."""
        run = self._nursery.run
        if run is None or not self._nursery.take_over():
            return False
        for name in doors.names(run, LANE_DOOR):
            lane = LaneClient(self._nursery, self._events, self)
            if await lane.take_over(name):
                self._lanes.append(lane)
        starts = [lane.ready.start for lane in self._lanes if lane.ready is not None and lane.ready.start is not None]
        if not starts or not all(self._suits(start) for start in starts):
            await asyncio.gather(*(lane.close() for lane in self._lanes))
            self._lanes.clear()
            return False
        for lane in self._lanes:
            assert lane.ready is not None
            self._take_registrations(lane, lane.ready.registered)
            for standing in lane.ready.standing:
                self._where[standing.call] = lane
                if standing.call > 0:
                    self._sip_call_ids[standing.call] = standing.sip_call_id
        self._generations = max((start.first_call - 1) // _HANDLES_PER_LANE for start in starts) + 1
        if starts[0].edge:
            # It has died with the main that had started it; where it is to be found, the lanes know.
            self.edge = await self._new_edge(starts[0].edge)
            each = max(lane.ready.max_calls for lane in self._up() if lane.ready is not None)
            missing = self._lanes_wanted(each) - len(self._lanes)
            await asyncio.gather(*(self._new_lane().start() for _ in range(missing)))
            await self.edge.start(self._lane_ports(), _EDGE_LEAVES_S)
        return True

    def _take_registrations(self, lane: LaneClient, registered: list[Registered]) -> None:
        """An account's home is where it was registered last."""
        for each in registered:
            account = each.result.account
            if account not in self._left or each.at > self._left[account].at:
                self._left[account], self._homes[account] = each, lane

    def _suits(self, start: Start) -> bool:
        """Whether the lane was started with the settings that there are now."""
        settings = self.settings
        wanted = (settings.tcp and not start.edge, settings.user_agent, settings.record_messages, settings.t1_ms)
        if (start.tcp, start.user_agent, start.record_messages, start.t1_ms) != wanted:
            return False
        if start.edge:
            return settings.edge != "off"
        return not settings.needs_edge and (start.host, start.port) == (settings.host, settings.port)

    async def _start_alone(self) -> None:
        lane = self._new_lane()
        await lane.start()
        assert lane.ready is not None
        carried = lane.ready.max_calls
        if self._missing and carried < self._max_calls:
            self.notice = (
                f"{self._max_calls} calls need several lanes behind an edge. {self._missing}: until it is, this node"
                f" carries {carried} at a time"
            )
            log.warning("less capacity than wanted", extra={"say": self.notice})

    async def _start_behind_edge(self) -> bool:
        """Lanes and edge; False where one lane that binds our address itself is what there is to be."""
        settings = self.settings
        if settings.edge == "off" or not (self._max_calls or settings.needs_edge):
            return False
        try:
            self.edge = await self._new_edge()
        except EdgeMissing as missing:
            if settings.needs_edge:
                raise SetupError(f"TLS and IPv6 are the edge's work: {missing}") from missing
            self._missing = str(missing)
            return False
        first = self._new_lane()
        await first.start()  # on loopback: it tells how many calls a lane takes
        assert first.ready is not None
        wanted = self._lanes_wanted(first.ready.max_calls)
        if wanted == 1 and not settings.needs_edge:
            await first.close()
            self._lanes.clear()
            await self.edge.close()
            self.edge = None
            return False
        others = [self._new_lane() for _ in range(wanted - 1)]
        await asyncio.gather(*(lane.start() for lane in others))
        await self.edge.start(self._lane_ports())
        return True

    def _lanes_wanted(self, each: int) -> int:
        """Of so many calls each; with one to spare where there are several."""
        needed = max(1, math.ceil(self._max_calls / each))
        return needed + SPARE_LANES if needed > 1 else 1

    async def _new_edge(self, inside: str = "") -> Edge:
        """Raises EdgeMissing. ``inside``: where lanes that are up already expect it."""
        edge = Edge(self.settings, self._events, self._folder, inside=inside)
        edge.on_tls_trouble = lambda: self.on_tls_trouble()
        await edge.trust(self._trusted)
        if self._learned:
            edge.readdress(self._learned)
        return edge

    def _new_lane(self) -> LaneClient:
        lane = LaneClient(self._nursery, self._events, self)
        self._lanes.append(lane)
        return lane

    def _lane_ports(self) -> dict[int, int]:
        """Calls that each lane takes, by its port."""
        return {lane.ready.port: lane.ready.max_calls for lane in self._up() if lane.ready is not None}

    # --- what becomes of a lane -----------------------------------------------------------------------------

    def start_of(self, lane: LaneClient) -> Start:
        self._generations += 1
        settings, edge = self.settings, self.edge
        start = Start(
            host=settings.host,
            port=settings.port,
            public_host=settings.public_host,
            tcp=settings.tcp,
            user_agent=settings.user_agent,
            record_messages=settings.record_messages,
            keepalive_s=settings.keepalive_s,
            t1_ms=settings.t1_ms,
            session_expires_s=settings.session_expires_s,
            name_servers=names.name_servers(),
            first_call=(self._generations - 1) * _HANDLES_PER_LANE + 1,
            trusted=list(settings.fronts),
            run=str(self._nursery.run or ""),
        )
        if edge is None:
            return msgspec.structs.replace(start, tls=_own_tls(settings))
        return msgspec.structs.replace(
            start,
            host=_LOOPBACK,
            port=self._ports.get(lane, 0),
            tcp=False,
            public_host="",
            name_servers=[],
            edge=edge.inside,
            contact=self._contact_of_anyone(),
            trusted=[edge.inside],
        )

    def _contact_of_anyone(self) -> str:
        """The edge's, as it is said to those who are no trunk, and to callers by a lane that registers nowhere."""
        return contact_towards("", msgspec.structs.replace(self.settings, public_host=self._public_host()))

    def _public_host(self) -> str:
        return self.settings.public_host or self._learned

    def lane_up(self, lane: LaneClient) -> None:
        assert lane.ready is not None
        self._ports[lane] = lane.ready.port
        for account in self._accounts.values():
            lane.send(self._as_known_to(lane, account))
        if not self._started:
            return
        if self.edge is not None:
            self._do(self.edge.set_lanes(self._lane_ports()))
        self._choose_registering()

    def lane_lost(self, lane: LaneClient, calls: frozenset[int]) -> None:
        if self.edge is not None and self._started:
            self._do(self.edge.set_lanes(self._lane_ports()))
        gone = [self._sip_call_ids.pop(call, "") for call in calls]
        if self.edge is not None and self._started:
            self._do(self.edge.release(gone))
        for call in calls:
            self._where.pop(call, None)
        homeless = [account for account, home in self._homes.items() if home is lane]
        for account in homeless:
            del self._homes[account]
            self._left.pop(account, None)
        if self._registering is lane:
            self._registering = None
        elif homeless:
            self.on_homeless(homeless)
        if self.on_lost is not None:
            self.on_lost(calls)
        self._choose_registering()

    def lane_failed(self, lane: LaneClient, error: Exception) -> None:
        if isinstance(error, PortTaken) and self.edge is not None:
            self._ports.pop(lane, None)  # any other will do: the edge is told

    def _choose_registering(self) -> None:
        """Registrations stay where they are while that lane lives, and else begin anew through another."""
        if not self._started or (self._registering is not None and self._registering.ready is not None):
            return
        holders = [lane for lane in self._up() if lane.ready is not None and lane.ready.registered]
        self._registering = next(iter([*holders, *self._up()]), None)
        ready = self.ready
        if ready is not None and self.on_ready is not None:
            self.on_ready(ready)

    # --- commands -------------------------------------------------------------------------------------------

    def _up(self) -> list[LaneClient]:
        return [lane for lane in self._lanes if lane.ready is not None]

    def _lane_for(self, command: AnyCommand) -> LaneClient | None:
        """For a new call the lane with the most room; for what is no call's, the one that registers."""
        if isinstance(command, MakeCall):
            return max(self._up(), key=lambda lane: lane.free, default=None)
        if isinstance(command, Register | Unregister):
            return self._home(command.account)
        return self._registering

    def _home(self, account: str) -> LaneClient | None:
        """The lane that registers this account: the registering one while PJSIP has room for it there."""
        home = self._homes.get(account)
        if home is not None and home.ready is not None:
            return home
        held = list(self._homes.values())
        up = sorted(self._up(), key=lambda lane: lane is not self._registering)
        home = next((lane for lane in up if held.count(lane) < OWN_ACCOUNTS), self._registering)
        if home is not None and account in self._accounts:
            self._homes[account] = home
            home.send(self._as_known_to(home, self._accounts[account]))
        return home

    def _as_known_to(self, lane: LaneClient, account: AddAccount) -> AddAccount:
        """Only its home is told where to register, as that takes one of the few accounts that PJSIP has."""
        known = self._with_contact(account)
        return known if self._homes.get(account.account) is lane else msgspec.structs.replace(known, registrar="")

    def _add_account(self, account: AddAccount) -> None:
        self._accounts[account.account] = account
        for lane in self._up():
            lane.send(self._as_known_to(lane, account))
        if self._learned or (self.edge is not None and account.registrar):
            self._do(self._find_contact(account))

    def _remove_account(self, command: RemoveAccount) -> None:
        for known in (self._accounts, self._contacts, self._homes, self._left):
            known.pop(command.account, None)
        for lane in self._up():
            lane.send(command)

    def _address_changed(self, command: AddressChanged) -> None:
        """Lanes on loopback have nothing to bind anew; the edge has, and our Contact may be another."""
        if self.edge is None:
            for lane in self._up():
                lane.send(command)
            return
        self._do(self.edge.address_changed())
        for account in self._accounts.values():
            if account.registrar:
                self._do(self._find_contact(account))

    async def _find_contact(self, account: AddAccount) -> None:
        """Every lane says the same Contact, the edge's as this registrar sees it: its binding outlives a lane."""
        contact = await asyncio.to_thread(self._contact_towards, account)
        if contact != self._contacts.get(account.account, "") and self._accounts.get(account.account) == account:
            self._contacts[account.account] = contact
            for lane in self._up():
                lane.send(self._as_known_to(lane, account))

    def _contact_towards(self, account: AddAccount) -> str:
        """host:port that we say to this account's registrar; "" leaves it to PJSIP. May look names up."""
        peer = account.registrar or account.id_uri
        learned = self.public_towards(message.parse_address(peer).host)
        if self.edge is None and not self.settings.stun_servers:
            return ""  # PJSIP knows from the registrar, and the port besides
        settings = msgspec.structs.replace(self.settings, public_host=self.settings.public_host or learned)
        return contact_towards(peer, settings) if self.edge is not None or learned else ""

    def trust(self, uris: frozenset[str]) -> None:
        """The servers that trunks' requests may go to over TLS."""
        self._trusted = uris
        if self.edge is not None:
            self._do(self.edge.trust(uris))

    def learned_address(self, host: str) -> None:
        """The world sees us as this, and no public_host is set: Contact follows, and what the edge says of itself."""
        if host == self._learned:
            return
        self._learned = host
        if self.edge is not None:
            self.edge.readdress(host)
            for lane in self._up():
                lane.send(AddAccount(account="", id_uri="", contact=self._contact_of_anyone()))
        for account in self._accounts.values():
            self._do(self._find_contact(account))

    def _with_contact(self, account: AddAccount) -> AddAccount:
        contact = self._contacts.get(account.account, "")
        if not contact and self.edge is not None and account.registrar:
            # The first REGISTER does not wait until the address is known, but must not name another transport.
            contact = contact_towards(account.registrar, self.settings, look_up=False)
        return msgspec.structs.replace(account, contact=contact) if contact else account

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="lanes")
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the lanes failed", exc_info=error)

    # --- facts ----------------------------------------------------------------------------------------------

    def lane_fact(self, lane: LaneClient, fact: AnyFact) -> None:
        match fact:
            case LaneLog():
                log.log(logging.WARNING if fact.level <= 2 else logging.INFO, "pjsip", extra={"line": fact.text})
            case RegistrationResult():
                if lane is self._homes.get(fact.account):
                    self._registration(fact)
            case OverLimit():
                self._over_limit(fact)
            case InviteRefused():
                self._invite_refused(fact)
            case IncomingCall():
                self._where[fact.call] = lane
                if self.edge is not None:
                    self._sip_call_ids[fact.call] = fact.sip_call_id
                if self.on_incoming is not None:
                    self.on_incoming(fact)
            case Pong() | LaneReady() | StartFailed():
                pass
            case CommandFailed(command="AddAccount" | "Register" as command) if lane is self._homes.get(fact.account):
                self._registration(
                    RegistrationResult(
                        account=fact.account,
                        status=0,
                        reason=f"{command} failed: {fact.reason}",
                        expires_s=0,
                        answered=False,
                    )
                )
            case CommandFailed(call=0):
                log.warning(
                    "lane could not carry out a command",
                    extra={"command": fact.command, "account": fact.account, "reason": fact.reason},
                )
            case _:
                if isinstance(fact, Ended) or (isinstance(fact, CommandFailed) and fact.command == "MakeCall"):
                    self._where.pop(fact.call, None)
                    self._sip_call_ids.pop(fact.call, None)
                if self.on_fact is not None:
                    self.on_fact(fact)

    def _registration(self, fact: RegistrationResult) -> None:
        self._left.pop(fact.account, None)
        if self.on_registration is not None:
            self.on_registration(fact)

    def _over_limit(self, fact: OverLimit) -> None:
        """Behind the edge a full lane is no refusal: the INVITE goes on to the next, unless all are full."""
        if self.edge is not None and any(lane.free > 0 for lane in self._up()):
            return
        if self.on_over_limit is not None:
            self.on_over_limit(fact)

    def _invite_refused(self, fact: InviteRefused) -> None:
        at = now()
        if self._refusals.admit(at.mono):
            reason = f"the SIP library answered {fact.status} {fact.reason}".rstrip()
            others = self._refusals.take_suppressed()
            self._events.emit(CallRefused(at=at, reason=reason, sip_status=fact.status, others=others))


def _own_tls(settings: SipSettings) -> LaneTls | None:
    """Without an edge. Raises SetupError about a file that cannot be read."""
    tls = tls_of(settings)
    if tls is None:
        return None
    files = {"certificate": tls.certificate, "key": tls.key, "ca": tls.ca}
    return LaneTls(port=settings.tls_port, clients_verified=tls.clients_verified, **files)
