"""Keeps what is known of the trunks fresh: their servers by DNS, whether these answer, and our address towards them."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from sipagent.core.clock import mono_ns, now
from sipagent.core.events import EventSink, TrunkChanged
from sipagent.core.states import TrunkState
from sipagent.sip import message
from sipagent.sip.locate import SHORTEST_S, Locator, Unlocated
from sipagent.sip.network import AddressWatch, on_network_change, source_address
from sipagent.sip.protocol import AddressChanged, AnyCommand, LaneReady, OptionsResult, SendOptions
from sipagent.sip.registration import RegistrationView
from sipagent.sip.routing import route_to
from sipagent.sip.servers import Server
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.tls_check import CertificateCheck
from sipagent.sip.trunk_changes import TrunkChanges
from sipagent.sip.trunks import Trunks, as_network

log = logging.getLogger("sipagent.sip")

_TICK_S = 0.25
_ADDRESSES_EVERY_S = 3.0
_LOCATE_S = 12.0  # all look-ups for one trunk together
_RETRY_S = 5.0  # after a look-up that failed
PEERS_EVERY_S = 60.0


class Lane(Protocol):
    """The part of the lane's client that is used here."""

    @property
    def ready(self) -> LaneReady | None: ...
    def send(self, command: AnyCommand) -> None: ...


class TrunkWatch:
    """Wire it up: ``on_fact`` gets OptionsResult, ``registrations`` tells the registrar's states, and ``on_moved`` is
    told of the trunks that see us at another address.
    """

    def __init__(
        self,
        trunks: Trunks,
        lane: Lane,
        events: EventSink,
        locator: Locator,
        *,
        source: Callable[[str], str] = source_address,
        certificates: CertificateCheck | None = None,
    ) -> None:
        """``certificates``: None where no trunk is spoken to over TLS."""
        self.registrations: Callable[[], Mapping[str, RegistrationView]] = dict
        self.on_moved: Callable[[Collection[str]], None] = lambda _trunks: None
        # Hears of all servers (URIs) whose certificates are good for a trunk, whenever that changes.
        self.on_trusted: Callable[[frozenset[str]], None] = lambda _uris: None
        self._certificates = certificates
        self._trusted: frozenset[str] = frozenset()
        self._asking: dict[str, asyncio.Task[None]] = {}  # for certificates, by trunk
        self._trunks = trunks
        self._lane = lane
        self._events = events
        self._locator = locator
        self._source = source
        self._addresses = AddressWatch()
        self._look_at: dict[str, float] = {}  # when to ask DNS again, by trunk
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._addresses_at = 0.0
        self._peers_at = 0.0
        self._peers_task: asyncio.Task[bool] | None = None
        self._token = 0
        self._lane_pid = 0
        self._told: dict[str, tuple[TrunkState, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._end_netlink: Callable[[], None] = lambda: None

    async def prepare(self) -> None:
        """The servers and peers of every trunk, as far as DNS gives them now; waits for it some seconds at most."""
        await self._look_up([trunk.name for trunk in self._trunks.settings])

    async def _look_up(self, names: Collection[str]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOCATE_S):
                await asyncio.gather(*(self._locate(name) for name in names), learn_peers(self._trunks))

    def start(self) -> None:
        self._end_netlink = on_network_change(self._network_changed)
        self._peers_at = _seconds() + PEERS_EVERY_S
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(), name="trunks"))

    async def close(self) -> None:
        self._end_netlink()
        tasks: list[asyncio.Task[Any]] = [*self._tasks, *self._looking.values(), *self._asking.values()]
        if self._peers_task is not None:
            tasks.append(self._peers_task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def follow(self, changes: TrunkChanges) -> None:
        """The trunks are others now: what was under way for those that are gone or changed ends, and the servers of
        the new ones are looked up, for some seconds at most."""
        stale = changes.changed | changes.removed
        under_way: list[asyncio.Task[Any]] = [
            task for tasks in (self._looking, self._asking) for name, task in tasks.items() if name in stale
        ]
        if self._peers_task is not None:
            under_way.append(self._peers_task)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for name in stale:
            for known in (self._looking, self._asking, self._look_at):
                known.pop(name, None)
        for name in changes.removed:
            self._told.pop(name, None)
            self._addresses.forget(name)
        self._tell_trusted()
        await self._look_up(changes.added | changes.changed)

    def on_fact(self, fact: OptionsResult) -> None:
        for health in self._trunks.health.values():
            health.answered(fact.token, fact.status, fact.answered, _seconds())
        self._tell()

    def servers(self, trunk: str) -> list[Server]:
        """To register at, those that answer first; none where calls go elsewhere than to the registrar, nor any whose
        certificate is not good.
        """
        settings = self._trunks.get(trunk)
        if settings is None:
            return []
        elsewhere = settings.domain and settings.domain not in settings.registrar and not settings.outbound_proxy
        return self._trunks.health[trunk].trusted() if settings.registers and not elsewhere else []

    def distrust(self, trunk: str) -> str:
        """Why nothing may be sent to this trunk, as a sentence; "" when it may."""
        health = self._trunks.health.get(trunk)
        return health.distrust if health is not None else ""

    def suspect(self) -> None:
        """The edge complains of TLS."""
        for health in self._trunks.health.values():
            health.suspect(_seconds())

    # --- inside ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            at = _seconds()
            self._renew_names(at)
            self._look_at_certificates(at)
            self._ask_servers(at)
            if at >= self._addresses_at:
                self._addresses_at = at + _ADDRESSES_EVERY_S
                self._look_at_addresses()
            self._tell()
            await asyncio.sleep(_TICK_S)

    def _renew_names(self, at: float) -> None:
        for trunk in self._trunks.settings:
            if at >= self._look_at.get(trunk.name, 0.0):
                task = asyncio.get_running_loop().create_task(self._locate(trunk.name), name=f"locate/{trunk.name}")
                self._looking[trunk.name] = task
        if at >= self._peers_at and (self._peers_task is None or self._peers_task.done()):
            self._peers_at = at + PEERS_EVERY_S
            self._peers_task = asyncio.get_running_loop().create_task(learn_peers(self._trunks), name="peers")

    async def _locate(self, name: str) -> None:
        trunk = self._trunks.get(name)
        self._look_at[name] = _seconds() + SHORTEST_S  # whatever becomes of it
        if trunk is None or not trunk.first_hop:
            return
        health = self._trunks.health[name]
        try:
            async with asyncio.timeout(_LOCATE_S):
                servers, held_s = await self._locator.locate(trunk.first_hop)
        except Unlocated as error:
            health.located([], str(error), _seconds())
            self._look_at[name] = _seconds() + _RETRY_S
        except TimeoutError:
            health.located([], "the name servers take too long to answer: check DNS", _seconds())
            self._look_at[name] = _seconds() + _RETRY_S
        else:
            health.located(servers, "", _seconds())
            self._look_at[name] = _seconds() + held_s
            await self._ask_certificates(trunk)

    def _look_at_certificates(self, at: float) -> None:
        for trunk in self._trunks.settings:
            task = self._asking.get(trunk.name)
            if self._trunks.health[trunk.name].to_look_at(at) and (task is None or task.done()):
                work = self._ask_certificates(trunk)
                self._asking[trunk.name] = asyncio.get_running_loop().create_task(work, name=f"tls/{trunk.name}")

    async def _ask_certificates(self, trunk: TrunkSettings) -> None:
        health = self._trunks.health[trunk.name]
        servers = health.to_look_at(_seconds())
        if not servers or self._certificates is None:
            return
        host = message.parse_address(f"<{trunk.first_hop}>").host
        verdicts = await asyncio.gather(*(self._certificates.ask(server, host, trunk.tls_name) for server in servers))
        for server, verdict in zip(servers, verdicts, strict=True):
            health.looked_at(server, verdict.trusted, verdict.sentence, _seconds())
        self._tell_trusted()

    def _tell_trusted(self) -> None:
        healths = (self._trunks.health[trunk.name] for trunk in self._trunks.settings if trunk.secure)
        trusted = frozenset(server.uri for health in healths for server in health.trusted())
        if trusted != self._trusted:
            self._trusted = trusted
            self.on_trusted(trusted)

    def _ask_servers(self, at: float) -> None:
        ready = self._lane.ready
        pid = ready.pid if ready is not None else 0
        if pid != self._lane_pid:
            for health in self._trunks.health.values():
                health.lane_lost(at)
            self._lane_pid = pid
        registrations = self.registrations()
        for trunk in self._trunks.settings:
            health = self._trunks.health[trunk.name]
            view = registrations.get(trunk.name)
            health.registration(view.state if view is not None else None, view.sentence if view is not None else "", at)
            health.passes(at)
            for server in health.due(at) if ready is not None else ():
                self._token += 1
                health.asked(server, self._token, at)
                target = f"sip:{trunk.outbound_host}"
                route = route_to(trunk, server)
                self._lane.send(SendOptions(account=trunk.name, token=self._token, target=target, route=route))

    def _network_changed(self) -> None:
        self._addresses_at = 0.0

    def _look_at_addresses(self) -> None:
        moved: list[str] = []
        for trunk in self._trunks.settings:
            servers = self._trunks.health[trunk.name].servers()
            if servers and self._addresses.changed(trunk.name, self._source(servers[0].host)):
                moved.append(trunk.name)
        if moved:
            log.warning("our address towards trunks has changed", extra={"trunks": moved})
            self._lane.send(AddressChanged())
            self.on_moved(moved)

    def _tell(self) -> None:
        """One event for each change of state; a trunk that is up from the start is no news."""
        for name, view in self._trunks.states.items():
            before = self._told.get(name, (TrunkState.UP, ""))
            if before[0] is not view.state:
                self._told[name] = (view.state, view.reason)
                log.log(
                    logging.INFO if view.state is TrunkState.UP else logging.WARNING,
                    "trunk",
                    extra={"trunk": name, "state": view.state.value, "say": view.reason},
                )
                self._events.emit(TrunkChanged(at=now(), trunk=name, state=view.state, reason=view.reason))


async def learn_peers(trunks: Trunks) -> bool:
    """Looks up the host names that trunks call from; False when one cannot be: what is known of it is kept."""
    complete = True
    loop = asyncio.get_running_loop()
    found: dict[str, list[str]] = {}
    for trunk in trunks.settings:
        for host in _peer_hosts(trunk):
            try:
                entries = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
                addresses = {str(entry[4][0]) for entry in entries}
            except (OSError, ValueError):  # ValueError: what can be no name, such as one with an empty label
                if not trunks.health[trunk.name].servers():  # SRV may know the name where A does not
                    log.warning("a trunk's address cannot be looked up", extra={"trunk": trunk.name})
                    complete = False
                addresses = trunks.addresses_of(trunk.name)
            for address in addresses:
                found.setdefault(address, []).append(trunk.name)
    trunks.learn(found)
    return complete


def _peer_hosts(trunk: TrunkSettings) -> list[str]:
    """Names to look up by A; where calls are sent is known by way of `Locator`."""
    named = [peer for peer in trunk.peers if as_network(peer) is None]
    registrar = message.parse_address(f"<{trunk.registrar_uri}>").host
    return list(dict.fromkeys(host for host in [*named, registrar] if host))


def _seconds() -> float:
    return mono_ns() / 1e9
