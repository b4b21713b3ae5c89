"""The node's trunks: whose call is coming in, may it, and how each trunk is. Decisions; the I/O is `trunk_watch`."""

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sipagent.core.states import Direction
from sipagent.sip import message
from sipagent.sip.digest import Account, Authenticator, Verdict
from sipagent.sip.protocol import IncomingCall
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.trunk_state import TrunkHealth, TrunkView

WRONG_PER_MINUTE = 10  # wrong passwords from one address; beyond, it is refused without a look
_REMEMBERED = 1024  # addresses

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Known:
    """The call is this trunk's; None where the node has no trunks and takes calls from anywhere."""

    trunk: TrunkSettings | None


@dataclass(frozen=True, slots=True)
class Unproven:
    """The caller has to prove who it is: 401 with these challenges."""

    challenges: list[str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """``reason``: for the record; the caller gets the status and, where it is not 0, Retry-After."""

    status: int
    reason: str
    retry_after_s: int = 0


@dataclass(slots=True)
class Counters:
    """Of one trunk, since the node started."""

    calls_in: int = 0
    calls_out: int = 0
    refused_channels: int = 0
    refused_rate: int = 0
    refused_password: int = 0
    refused_redirects: int = 0  # places that would have led out of TLS


@dataclass(slots=True)
class _Use:
    """Of one trunk, now."""

    up: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    rates: dict[Direction, "_CallRate"] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)


class _CallRate:
    """Calls per second, with room for the calls of one second at once. Time in seconds."""

    def __init__(self) -> None:
        self.per_second = 0.0  # no limit
        self._tokens = float("inf")
        self._at = 0.0

    def take(self, now: float) -> bool:
        if not self.per_second:
            return True
        room = max(1.0, self.per_second)
        self._tokens = min(room, self._tokens + max(0.0, now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True


class Trunks:
    """All trunks of the node. Times are seconds of the monotonic clock.

    >>> trunks = Trunks([TrunkSettings(name="pbx", peers=["192.0.2.0/24"])])
    >>> trunks.identify(IncomingCall(call=1, from_uri="", from_user="", to_user="1", sip_call_id="",
    ...     source="192.0.2.7:5060"), now=0.0).trunk.name
    'pbx'
    """

    def __init__(self, settings: Sequence[TrunkSettings], *, closed: bool = False) -> None:
        """``closed``: there have been trunks, in the same node, before another main took over."""
        self.settings: Sequence[TrunkSettings] = ()
        self.health: dict[str, TrunkHealth] = {}
        self._by_name: dict[str, TrunkSettings] = {}
        self._use: dict[str, _Use] = {}  # also of trunks that are gone, while calls of theirs are up
        self._networks: list[tuple[_Network, TrunkSettings]] = []
        self._addresses: dict[str, list[str]] = {}  # trunks by the addresses behind their host names
        self._authenticator = Authenticator()
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address: since when, how many
        self._open = not closed  # to everybody: there has never been a trunk
        self.apply(settings)

    def apply(self, settings: Sequence[TrunkSettings]) -> None:
        """These from now on. Counts of calls, and what is known of servers that stay, are kept.

        Without the last trunk nobody may call in any more: a node is open to everybody only if it never had one.
        """
        before, self.settings = self._by_name, tuple(settings)
        self._by_name = {trunk.name: trunk for trunk in settings}
        self._open = self._open and not settings
        self._networks = [
            (network, trunk) for trunk in settings for peer in trunk.peers if (network := as_network(peer)) is not None
        ]
        same = {name for name, trunk in self._by_name.items() if before.get(name) == trunk}
        self.learn({address: [name for name in names if name in same] for address, names in self._addresses.items()})
        self.health = {trunk.name: self._health_of(trunk, before.get(trunk.name)) for trunk in settings}
        self._use = {name: use for name, use in self._use.items() if name in self._by_name or any(use.up.values())}
        for trunk in settings:
            use = self._use.setdefault(trunk.name, _Use())
            use.rates.setdefault(Direction.INBOUND, _CallRate()).per_second = trunk.calls_per_second_in
            use.rates.setdefault(Direction.OUTBOUND, _CallRate()).per_second = trunk.calls_per_second_out

    def _health_of(self, trunk: TrunkSettings, before: TrunkSettings | None) -> TrunkHealth:
        known = self.health.get(trunk.name)
        if known is not None and before is not None and _way_to(before) == _way_to(trunk):
            known.options_s = trunk.options_s
            return known
        return TrunkHealth(trunk.name, trunk.options_s, spread=_spread(trunk.name), secure=trunk.secure)

    def __getitem__(self, name: str) -> TrunkSettings:
        return self._by_name[name]

    def get(self, name: str) -> TrunkSettings | None:
        return self._by_name.get(name)

    @property
    def states(self) -> dict[str, TrunkView]:
        return {name: health.view() for name, health in self.health.items()}

    @property
    def counters(self) -> dict[str, Counters]:
        return {name: self._use[name].counters for name in self._by_name}

    def learn(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """The names of trunks by the addresses behind their host names."""
        self._addresses = {address: list(names) for address, names in addresses.items() if names}

    def addresses_of(self, trunk: str) -> set[str]:
        """Those known by name, as learnt last."""
        return {address for address, names in self._addresses.items() if trunk in names}

    # --- who is calling -------------------------------------------------------------------------------------

    def identify(self, incoming: IncomingCall, now: float) -> Known | Unproven | Refusal:
        """The trunk that a call belongs to, by the address it comes from, by digest, or both.

        Of several trunks at one address, the one whose user is called; else the first.
        """
        if self._open:
            return Known(None)
        source = _host(incoming.source)
        at_address = self._at(source)
        open_to = [trunk for trunk in at_address if trunk.accept in ("address", "either")]
        provable = [trunk for trunk in self.settings if trunk.accept in ("digest", "either")]
        provable += [trunk for trunk in at_address if trunk.accept == "both"]
        if open_to:
            return Known(_called(open_to, incoming.to_user))
        if not provable:
            return Refusal(403, "address is no trunk's")
        if self._is_guessing(source, now):
            return Refusal(403, "too many wrong passwords from one address")
        return self._prove(incoming, provable, source, now)

    def _prove(
        self, incoming: IncomingCall, trunks: list[TrunkSettings], source: str, now: float
    ) -> Known | Unproven | Refusal:
        realms = list(dict.fromkeys(trunk.inbound_realm for trunk in trunks))
        for realm in realms:
            accounts = [
                Account(trunk.inbound_user, trunk.inbound_secret) for trunk in trunks if trunk.inbound_realm == realm
            ]
            verdict, user = self._authenticator.check(
                incoming.authorization, "INVITE", incoming.request_uri, realm, accounts, now
            )
            if verdict is Verdict.GRANTED:
                proven = [trunk for trunk in trunks if trunk.inbound_user == user and trunk.inbound_realm == realm]
                return Known(_called(proven, incoming.to_user))
            if verdict is Verdict.WRONG:
                self._guessed(source, now)
                for trunk in trunks:
                    self._use[trunk.name].counters.refused_password += 1
                return Refusal(403, "wrong user or password")
            if verdict is Verdict.STALE:
                return Unproven(self._challenges([realm], trunks, now, stale=True))
        return Unproven(self._challenges(realms, trunks, now))

    def _challenges(
        self, realms: list[str], trunks: list[TrunkSettings], now: float, *, stale: bool = False
    ) -> list[str]:
        found: list[str] = []
        for realm in realms:
            first = next(trunk for trunk in trunks if trunk.inbound_realm == realm)
            found += self._authenticator.challenges(realm, first.inbound_algorithms, now, stale=stale)
        return found

    def _at(self, source: str) -> list[TrunkSettings]:
        found = [self._by_name[name] for name in self._addresses.get(source, ()) if name in self._by_name]
        found += [trunk for trunk in self.settings if trunk not in found and self._is_server(trunk, source)]
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return found
        found += [trunk for network, trunk in self._networks if address in network and trunk not in found]
        return sorted(found, key=self.settings.index)

    def _is_server(self, trunk: TrunkSettings, source: str) -> bool:
        return any(server.host == source for server in self.health[trunk.name].servers())

    def _guessed(self, source: str, now: float) -> None:
        since, count = self._wrong.pop(source, (now, 0))
        self._wrong[source] = (now, 1) if now - since > 60.0 else (since, count + 1)
        if len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)

    def _is_guessing(self, source: str, now: float) -> bool:
        since, count = self._wrong.get(source, (now, 0))
        return count >= WRONG_PER_MINUTE and now - since <= 60.0

    # --- how many -------------------------------------------------------------------------------------------

    def admit(self, trunk: str, direction: Direction, now: float) -> Refusal | None:
        """Takes a channel of the trunk, to be given back with `release`; or says why not, and counts it.

        486 says that all channels are busy; 503 with Retry-After that calls come too fast, which makes a peer with
        another way take it (RFC 3261 section 21.5.4).
        """
        settings = self._by_name.get(trunk)
        if settings is None:
            return None
        use = self._use[trunk]
        inbound = direction is Direction.INBOUND
        own = settings.max_calls_in if inbound else settings.max_calls_out
        if (own and use.up[direction] >= own) or (settings.max_calls and sum(use.up.values()) >= settings.max_calls):
            use.counters.refused_channels += 1
            return Refusal(486, f"all channels of trunk {trunk} in use")
        if not use.rates[direction].take(now):
            use.counters.refused_rate += 1
            return Refusal(503, f"calls of trunk {trunk} come too fast", retry_after_s=1)
        use.up[direction] += 1
        if inbound:
            use.counters.calls_in += 1
        else:
            use.counters.calls_out += 1
        return None

    def keep(self, trunk: str, direction: Direction) -> None:
        """The channel of a call that goes on, whatever the limits are by now; given back with `release`."""
        if trunk:
            self._use.setdefault(trunk, _Use()).up[direction] += 1

    def release(self, trunk: str, direction: Direction) -> None:
        use = self._use.get(trunk)
        if use is not None:
            use.up[direction] -= 1
            assert use.up[direction] >= 0, "a channel was given back twice"
            if trunk not in self._by_name and not any(use.up.values()):
                del self._use[trunk]

    def redirect_refused(self, trunk: str, places: int) -> None:
        use = self._use.get(trunk)
        if use is not None:
            use.counters.refused_redirects += places

    def in_use(self, trunk: str) -> dict[Direction, int]:
        return dict(self._use[trunk].up)


def as_network(peer: str) -> _Network | None:
    """An address or a network in CIDR form; None for a host name."""
    try:
        return ipaddress.ip_network(peer.strip("[]"), strict=False)
    except ValueError:
        return None


def _way_to(trunk: TrunkSettings) -> tuple[object, ...]:
    """On what the servers of a trunk, and our trust in them, depend."""
    return trunk.first_hop, trunk.secure, trunk.tls_name


def out_of_reach(trunk: TrunkSettings, sip: SipSettings) -> str:
    """Why this trunk cannot be spoken to as configured, as a sentence; "" when it can.

    PJSIP's wheel has no IPv6, and its OpenSSL is out of support: both are the edge's work.
    """
    for uri in (trunk.registrar_uri, trunk.first_hop):
        address = message.parse_address(f"<{uri}>")
        secure = uri.lower().startswith("sips:") or address.uri_params.get("transport", "").lower() == "tls"
        if secure and not sip.tls_certificate:
            return (
                f"trunk `{trunk.name}` is to be spoken to over TLS, which the edge does: set `tls_certificate` and "
                "`tls_key` in [sip]"
            )
        if secure and not trunk.secure:
            return f"trunk `{trunk.name}` registers over TLS and calls go elsewhere without it: make them two trunks"
        if ":" in address.host and not sip.host6:
            return f"trunk `{trunk.name}` has an IPv6 address, which only the edge can reach: set `host6` in [sip]"
    return ""


def _called(trunks: list[TrunkSettings], called: str) -> TrunkSettings:
    return next((trunk for trunk in trunks if called in (trunk.username, trunk.from_user)), trunks[0])


def _host(source: str) -> str:
    """Of ``host:port`` or ``[host]:port``."""
    return source.rpartition(":")[0].strip("[]")


def _spread(name: str) -> float:
    return hashlib.sha256(name.encode()).digest()[0] / 256
