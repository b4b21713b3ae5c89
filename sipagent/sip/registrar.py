"""Drives the trunks' registrations through the lane: the clock and the messages around `RegistrationPolicy`."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Sequence

import msgspec

from sipagent.core.clock import mono_ns, now
from sipagent.core.events import EventSink, RegistrationChanged
from sipagent.core.states import RegistrationState
from sipagent.sip.lanes import LanePool
from sipagent.sip.protocol import AddAccount, Register, RegistrationResult, RemoveAccount, Unregister
from sipagent.sip.registration import RegistrationPolicy, RegistrationView
from sipagent.sip.routing import route_to
from sipagent.sip.servers import Server
from sipagent.sip.settings import TrunkSettings

log = logging.getLogger("sipagent.sip")

_TICK_S = 0.25
_STAGGER_S = 0.25  # between the first registrations of two trunks; a registrar that many share counts them
_CLOSE_S = 1.5
_LOST = "the process that held the registration died; registering again"


class Registrar:
    """All trunks' registrations. Wire it up as ``lane.on_ready`` → lane_ready, ``lane.on_registration`` → result."""

    def __init__(self, trunks: Sequence[TrunkSettings], lane: LanePool, events: EventSink) -> None:
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._lane = lane
        self._events = events
        self._policies = {
            trunk.name: RegistrationPolicy(trunk.name, random=random.random) for trunk in trunks if trunk.registers
        }
        self.servers: Callable[[str], Sequence[Server]] = lambda _trunk: ()  # of a trunk's registrar, the best first
        self.distrust: Callable[[str], str] = lambda _trunk: ""  # why nothing may be sent to a trunk
        self._at: dict[str, int] = {}  # which of them, by trunk
        self._added: dict[str, AddAccount] = {}  # as the lane knows them
        self._told: dict[str, tuple[RegistrationState, int, int]] = {}
        self._lane_pid = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._leaving: set[str] = set()  # trunks whose registration is taken back
        self._leave_until = 0.0
        self._changed = asyncio.Event()

    @property
    def states(self) -> dict[str, RegistrationView]:
        """By trunk; only trunks that register."""
        at = _seconds()
        return {name: policy.view(at) for name, policy in self._policies.items()}

    def start(self) -> None:
        """Adds the accounts when a lane is up already, and registers from now on. May be called again."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="registrar")
        if self._lane.ready is not None:
            self.lane_ready()

    def lane_ready(self) -> None:
        """A lane is up: it knows nothing of our accounts yet."""
        ready = self._lane.ready
        if ready is None or ready.pid == self._lane_pid:
            return
        first = not self._lane_pid and not self._told
        self._mark_lost()
        self._lane_pid = ready.pid
        self._added.clear()
        for trunk in self._trunks.values():
            self._add(trunk)
        self._take_over(_seconds())
        if first:
            for position, policy in enumerate(self._policies.values()):
                policy.postpone(_seconds() + position * _STAGGER_S)

    def _take_over(self, now: float) -> None:
        """What is registered already, by an earlier main."""
        for known in self._lane.registered:
            policy, result, since = self._policies.get(known.result.account), known.result, known.at / 1e9
            if policy is None:
                self._lane.send(RemoveAccount(account=result.account))  # its trunk is gone
            elif result.status // 100 == 2 and since + result.expires_s > now:
                policy.result(
                    status=result.status,
                    reason=result.reason,
                    expires_s=result.expires_s,
                    answered=True,
                    retry_after_s=0,
                    now=since,
                )
                self._tell(policy)

    def leave(self, trunks: Sequence[TrunkSettings]) -> None:
        """Begins to take back what is not to be registered so any more where the trunks are these; `follow` ends it."""
        wanted = {trunk.name: trunk for trunk in trunks}
        for name, trunk in self._trunks.items():
            if name not in wanted or _account(wanted[name]) != _account(trunk):
                self._leaving.add(name)
        self._take_back((RegistrationState.REGISTERED, RegistrationState.REGISTERING))

    async def follow(self, trunks: Sequence[TrunkSettings]) -> None:
        """The trunks are these from now on. Waits until the registrars have answered those that leave, 1.5 s at most
        since then; who stays as it was notices nothing."""
        await self._until_left()
        for name in self._leaving:
            policy = self._policies.pop(name, None)
            if policy is not None:
                policy.end()
                self._tell(policy)
            for known in (self._added, self._at, self._told):
                known.pop(name, None)
            self._lane.send(RemoveAccount(account=name))
        self._leaving.clear()
        self._trunks = {trunk.name: trunk for trunk in trunks}
        new = [trunk.name for trunk in trunks if trunk.registers and trunk.name not in self._policies]
        for position, name in enumerate(new):
            policy = self._policies[name] = RegistrationPolicy(name, random=random.random)
            policy.postpone(_seconds() + position * _STAGGER_S)
        if self._lane_pid:
            for trunk in trunks:
                self._add(trunk)

    def _take_back(self, states: Collection[RegistrationState]) -> None:
        self._leave_until = _seconds() + _CLOSE_S
        for name in self._leaving:
            policy = self._policies.get(name)
            if policy is not None and policy.state in states:
                self._lane.send(Unregister(account=name))
            elif policy is not None:
                policy.end()

    async def _until_left(self) -> None:
        def held() -> bool:
            states = [policy.state for name, policy in self._policies.items() if name in self._leaving]
            return any(state in (RegistrationState.REGISTERED, RegistrationState.REGISTERING) for state in states)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._leave_until - _seconds())):
                while held():
                    self._changed.clear()
                    await self._changed.wait()

    def address_changed(self, trunks: Collection[str]) -> None:
        """Our address towards these trunks is another now."""
        for name in trunks:
            policy = self._policies.get(name)
            if policy is not None:
                policy.moved(_seconds())
                self._tell(policy)

    def homeless(self, trunks: Collection[str]) -> None:
        """The process that held these registrations is gone; another takes them."""
        for name in trunks:
            policy = self._policies.get(name)
            if policy is not None:
                policy.lost(_seconds(), _LOST)
                self._tell(policy)

    def _add(self, trunk: TrunkSettings) -> None:
        """Tells the lane of the account, with the server to register at; nothing when it knows."""
        servers = self.servers(trunk.name)
        server = servers[self._at.get(trunk.name, 0) % len(servers)] if servers else None
        account = msgspec.structs.replace(_account(trunk), route=route_to(trunk, server))
        if self._added.get(trunk.name) != account:
            self._added[trunk.name] = account
            self._lane.send(account)

    def result(self, fact: RegistrationResult) -> None:
        policy = self._policies.get(fact.account)
        if policy is None:
            return
        if fact.account in self._leaving:
            if fact.expires_s == 0:
                policy.end()
                self._changed.set()
            else:  # what was under way when it was told to leave
                self._lane.send(Unregister(account=fact.account))
            return
        if not fact.answered and self._barred(policy):
            return
        others = len(self.servers(fact.account)) - 1
        policy.result(
            status=fact.status,
            reason=fact.reason,
            expires_s=fact.expires_s,
            answered=fact.answered,
            retry_after_s=fact.retry_after_s,
            now=_seconds(),
            trouble=fact.trouble,
            min_expires_s=fact.min_expires_s,
            others=max(0, others),
        )
        if policy.state is not RegistrationState.REGISTERED and (not fact.answered or fact.status == 503):
            self._at[fact.account] = self._at.get(fact.account, 0) + 1
        self._tell(policy)

    async def close(self) -> None:
        """Takes the registrations back; waits for the registrars' answers at most 1.5 s."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._leaving |= self._policies.keys()
        if self._lane.ready is not None:
            self._take_back((RegistrationState.REGISTERED,))
            await self._until_left()
        for policy in self._policies.values():
            policy.end()
            self._tell(policy)

    def _mark_lost(self) -> None:
        """The lane we registered through is gone."""
        if self._lane_pid == 0:
            return
        self._lane_pid = 0
        for policy in self._policies.values():
            policy.lost(_seconds(), _LOST)
            self._tell(policy)

    async def _run(self) -> None:
        while True:
            ready = self._lane.ready
            if ready is None or ready.pid != self._lane_pid:
                self._mark_lost()
            else:
                at = _seconds()
                for policy in [policy for name, policy in self._policies.items() if name not in self._leaving]:
                    if policy.overdue(at):
                        policy.result(
                            status=0,
                            reason="the lane gave no result",
                            expires_s=0,
                            answered=False,
                            retry_after_s=0,
                            now=at,
                        )
                        self._tell(policy)
                    waits = policy.due(at) or policy.state is RegistrationState.REGISTERING
                    if waits and not self._barred(policy) and policy.due(at):
                        policy.begin(at)
                        self._add(self._trunks[policy.trunk])
                        self._lane.send(Register(account=policy.trunk))
                        self._tell(policy)
            await asyncio.sleep(_TICK_S)

    def _barred(self, policy: RegistrationPolicy) -> bool:
        why = self.distrust(policy.trunk)
        if why and policy.bar(why):
            self._tell(policy)
        return bool(why)

    def _tell(self, policy: RegistrationPolicy) -> None:
        """One event for each change; a refresh that went well is none."""
        view = policy.view(_seconds())
        facts = (view.state, view.sip_status, view.expires_s)
        failed = view.state in (RegistrationState.REFUSED, RegistrationState.UNREACHABLE)
        if self._told.get(policy.trunk) == facts and not failed:
            return
        self._told[policy.trunk] = facts
        log.log(
            logging.WARNING if failed else logging.INFO,
            "registration",
            extra={"trunk": view.trunk, "state": view.state.value, "sip_status": view.sip_status, "say": view.sentence},
        )
        self._events.emit(
            RegistrationChanged(
                at=now(),
                trunk=view.trunk,
                state=view.state,
                sip_status=view.sip_status,
                reason=view.reason,
                expires_s=view.expires_s,
                next_try_s=view.next_try_s,
            )
        )


def _account(trunk: TrunkSettings) -> AddAccount:
    """Without the way to a server of it, which changes by itself."""
    return AddAccount(
        account=trunk.name,
        id_uri=trunk.identity,
        registrar=trunk.registrar_uri if trunk.registers else "",
        username=trunk.username,
        password=trunk.password,
        realm=trunk.realm,
        expires_s=trunk.expires_s,
    )


def _seconds() -> float:
    return mono_ns() / 1e9
