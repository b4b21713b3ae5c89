"""Which trunks and servers a call may go by, in which order, and what makes it go on to the next. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sipagent.core.states import TrunkState
from sipagent.sip.numbers import for_trunk, to_e164
from sipagent.sip.servers import Server, in_order
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.trunk_state import TrunkView

MAX_ATTEMPTS = 6
MAX_PER_TRUNK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way to go."""

    trunk: TrunkSettings
    number: str  # as this trunk wants it
    uri: str  # the request URI
    server: Server | None  # where it is sent; None leaves it to PJSIP
    cost: float  # of a minute; 0 where the trunk has no rates

    @property
    def route(self) -> list[str]:
        """What MakeCall wants."""
        return route_to(self.trunk, self.server)


def candidates(
    number: str,
    trunks: Sequence[TrunkSettings],
    states: Mapping[str, TrunkView],
    random: Callable[[], float],
    *,
    named: bool = False,
) -> list[Attempt]:
    """The ways for a call to this number: by priority, then by cost, then as configured; trunks that are down last.

    ``named``: the trunk was asked for, whatever its rates say.
    A trunk that is down is tried all the same when nothing else is left: what we know of it may be old.
    """
    ranked: list[tuple[bool, int, float, int, TrunkSettings]] = []
    for position, trunk in enumerate(trunks):
        price = cost(number, trunk)
        if named and price is None:
            price = 0.0
        if price is not None and trunk.outbound_host:
            view = states.get(trunk.name)
            down = view is not None and view.state is TrunkState.DOWN
            ranked.append((down, trunk.priority, price, position, trunk))
    found: list[Attempt] = []
    for _, _, price, _, trunk in sorted(ranked, key=lambda entry: entry[:4]):
        found += _by_server(number, trunk, states.get(trunk.name), price, random)
    return found[:MAX_ATTEMPTS]


def cost(number: str, trunk: TrunkSettings) -> float | None:
    """Of a minute over this trunk, by the longest of its prefixes that fits; None when its rates do not name it."""
    if not trunk.rates:
        return 0.0
    international = to_e164(number, trunk)
    fitting = [prefix for prefix in trunk.rates if international.startswith(prefix)]
    return trunk.rates[max(fitting, key=len)] if fitting else None


def fails_over(status: int, policy: Collection[str]) -> bool:
    """Whether a call refused with this status goes on to the next way, by a trunk's ``failover_on``.

    A status of 0 (it could not be sent) always does. The caller sees to it that nobody had answered.
    """
    if status == 0:
        return True
    if not 300 <= status <= 699:
        return False
    return str(status) in policy or f"{status // 100}xx" in policy


def _by_server(
    number: str, trunk: TrunkSettings, view: TrunkView | None, price: float, random: Callable[[], float]
) -> list[Attempt]:
    wanted = for_trunk(number, trunk)
    last_resort = view.last_resort if view is not None else (None,)
    servers = list(in_order(view.usable, random)[:MAX_PER_TRUNK]) if view is not None else []
    return [
        Attempt(trunk=trunk, number=wanted, uri=trunk.target_uri(wanted), server=server, cost=price)
        for server in servers or last_resort
    ]


def route_to(trunk: TrunkSettings, server: Server | None) -> list[str]:
    """The route of a request to this server of the trunk, or, for None, to wherever PJSIP finds it."""
    # An outbound proxy expects to find itself in Route (RFC 3261 section 8.1.2).
    proxy = [f"{trunk.first_hop};lr"] if trunk.outbound_proxy else []
    return [server.route, *proxy] if server is not None else proxy
