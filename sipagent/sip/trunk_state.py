"""How a trunk is: up, degraded or down, from what its servers answer and from its registration. Pure; time is given.

A server is taken for good until two OPTIONS in a row fail, and is good again after one that does not. A 503 to OPTIONS
is a server's way to say that it takes no calls now (RFC 3261 section 21.5.4); any other answer shows that it lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sipagent.core.states import RegistrationState, TrunkState
from sipagent.sip.servers import Server

FAILURES_TO_DOWN = 2
ANSWER_S = 4.0  # an OPTIONS not answered by then has failed; PJSIP itself waits 32 s
RECHECK_S = 5.0  # after a failure the next OPTIONS comes sooner
CERTIFICATE_S = 300.0  # between two looks at a certificate; the edge verifies its chain at each connection
DISTRUST_S = 5.0  # after a look that found something wrong, and ever more slowly up to that
SUSPECT_S = 3.0  # a suspicion asks no sooner than so long after the last look
UNASKED = "its certificate has not been looked at yet"
_LOST = (RegistrationState.REFUSED, RegistrationState.UNREACHABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    address: str
    up: bool
    reason: str  # "" while it is up


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkView:
    """A trunk as it stands, for the API, for routing and for the log."""

    trunk: str
    state: TrunkState
    reason: str  # what is wrong, and what to look at; "" while it is up
    since: float
    servers: tuple[ServerView, ...] = ()
    usable: tuple[Server, ...] = ()  # the servers that are up
    # Where to go when none is up: what we know may be old. None is where DNS leads whoever sends it.
    last_resort: tuple[Server | None, ...] = (None,)


@dataclass(slots=True)
class _ServerState:
    failures: int = 0
    reason: str = ""
    sent_at: float | None = None  # the OPTIONS that is out
    token: int = 0
    next_at: float = 0.0
    distrust: str = ""  # why its certificate forbids to speak to it
    looked_at: float = float("-inf")  # its certificate
    look_at: float = 0.0
    pause: float = DISTRUST_S

    @property
    def up(self) -> bool:
        return self.failures < FAILURES_TO_DOWN and not self.distrust

    @property
    def trouble(self) -> str:
        return self.distrust or self.reason


@dataclass(slots=True)
class TrunkHealth:
    """One trunk. ``options_s``: 0 sends no OPTIONS. ``spread``: 0..1, where in the first interval this trunk begins.
    ``secure``: nothing may be sent to a server before its certificate is found good.
    """

    trunk: str
    options_s: float
    spread: float = 0.0
    secure: bool = False
    _servers: dict[Server, _ServerState] = field(default_factory=dict)
    _unresolved: str = ""
    _registration: RegistrationState | None = None
    _registration_reason: str = ""
    _state: TrunkState = TrunkState.UP
    _since: float = 0.0

    def located(self, servers: Sequence[Server], problem: str, now: float) -> None:
        """What DNS said; ``problem``: why there is nothing, "" when there is no need to say it."""
        if servers or not self._servers:
            self._unresolved = "" if servers else problem
        if servers:
            known = self._servers
            # Gently: not all trunks of a node at the same moment.
            first = now + self.spread * min(self.options_s, 2.0)
            distrust = UNASKED if self.secure else ""
            self._servers = {
                server: known.get(server, _ServerState(next_at=first, distrust=distrust)) for server in servers
            }
        self._settle(now)

    def to_look_at(self, now: float) -> list[Server]:
        """The servers whose certificate is to be asked for now."""
        return [server for server, state in self._servers.items() if now >= state.look_at] if self.secure else []

    def looked_at(self, server: Server, trusted: bool | None, sentence: str, now: float) -> None:
        """What its certificate is worth; None: it could not be asked, and what was known of it stands."""
        state = self._servers.get(server)
        if state is None:
            return
        if trusted is not None or state.distrust:
            state.distrust = "" if trusted else sentence
        state.looked_at = now
        state.look_at = now + (CERTIFICATE_S if trusted else state.pause)
        state.pause = DISTRUST_S if trusted else min(state.pause * 2, CERTIFICATE_S)
        self._settle(now)

    def suspect(self, now: float) -> None:
        """A connection over TLS has failed: its certificate is looked at again soon."""
        for state in self._servers.values():
            state.look_at = min(state.look_at, max(now, state.looked_at + SUSPECT_S))

    @property
    def distrust(self) -> str:
        """Why no server of it may be spoken to; "" where one may, or where there is nothing to trust."""
        if not self.secure:
            return ""
        if not self._servers:
            return self._unresolved or "its servers are not known yet"
        if any(not state.distrust for state in self._servers.values()):
            return ""
        return "; ".join(state.distrust for state in self._servers.values())

    def registration(self, state: RegistrationState | None, sentence: str, now: float) -> None:
        """``None``: the trunk takes no registration."""
        self._registration, self._registration_reason = state, sentence
        self._settle(now)

    def due(self, now: float) -> list[Server]:
        """The servers to send OPTIONS to now."""
        if not self.options_s:
            return []
        return [
            server
            for server, state in self._servers.items()
            if state.sent_at is None and now >= state.next_at and not state.distrust
        ]

    def asked(self, server: Server, token: int, now: float) -> None:
        state = self._servers[server]
        state.sent_at, state.token = now, token

    def answered(self, token: int, status: int, real: bool, now: float) -> None:
        """The answer to an OPTIONS; one that came too late or of a server that is gone does not count.

        ``real``: a server sent it, it is not PJSIP's own.
        """
        for server, state in self._servers.items():
            if state.token == token and state.sent_at is not None:
                if real and status != 503:
                    self._good(state, now)
                elif real:
                    self._bad(state, f"{server.address} answers 503 to OPTIONS: it takes no calls now", now)
                else:
                    self._bad(state, _silent(server), now)
        self._settle(now)

    def passes(self, now: float) -> None:
        """Time goes by: OPTIONS without an answer have failed."""
        for server, state in self._servers.items():
            if state.sent_at is not None and now - state.sent_at >= ANSWER_S:
                self._bad(state, _silent(server), now)
        self._settle(now)

    def call_failed(self, server: Server, now: float) -> None:
        """A call found nobody there: as good as an OPTIONS that failed, and the next one is sent at once."""
        state = self._servers.get(server)
        if state is not None and self.options_s:
            self._bad(state, f"{server.address} did not answer a call", now)
            state.next_at = now
            self._settle(now)

    def lane_lost(self, now: float) -> None:
        """Nobody will tell about the OPTIONS that are out: ask again later."""
        for state in self._servers.values():
            if state.sent_at is not None:
                state.sent_at, state.next_at = None, now + 1.0

    def servers(self) -> list[Server]:
        """All of them, those that are up first."""
        return sorted(self._servers, key=lambda server: (not self._servers[server].up, server.priority))

    def trusted(self) -> list[Server]:
        """Those that may be spoken to, in that order."""
        return [server for server in self.servers() if not self._servers[server].distrust]

    def view(self) -> TrunkView:
        return TrunkView(
            trunk=self.trunk,
            state=self._state,
            reason=self._reason(),
            since=self._since,
            servers=tuple(
                ServerView(address=server.address, up=state.up, reason=state.trouble)
                for server, state in self._servers.items()
            ),
            usable=tuple(server for server, state in self._servers.items() if state.up),
            last_resort=tuple(self.trusted()) if self.secure else (None,),
        )

    def _good(self, state: _ServerState, now: float) -> None:
        state.failures, state.reason, state.sent_at = 0, "", None
        state.next_at = now + self.options_s

    def _bad(self, state: _ServerState, reason: str, now: float) -> None:
        state.failures, state.reason, state.sent_at = state.failures + 1, reason, None
        state.next_at = now + min(RECHECK_S, self.options_s)

    def _settle(self, now: float) -> None:
        state = self._judge()
        if state is not self._state or self._since == 0.0:
            self._state, self._since = state, now

    def _judge(self) -> TrunkState:
        up = [state for state in self._servers.values() if state.up]
        if self._unresolved or (self._servers and not up):
            return TrunkState.DOWN
        if len(up) < len(self._servers) or self._registration in _LOST:
            return TrunkState.DEGRADED
        return TrunkState.UP

    def _reason(self) -> str:
        if self._state is TrunkState.UP:
            return ""
        parts = [self._unresolved] if self._unresolved else []
        parts += [state.trouble for state in self._servers.values() if not state.up]
        if self._registration in _LOST and self._registration_reason not in parts:
            parts.append(self._registration_reason)
        return "; ".join(parts)


def _silent(server: Server) -> str:
    return f"{server.address} does not answer OPTIONS: check the address, a firewall, or set `options_s = 0`"
