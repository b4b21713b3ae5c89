"""A scripted main process for the tests: a LanePool that answers as it is told and remembers what it heard."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sipagent.core.events import Event, EventHub
from sipagent.sip import sdp
from sipagent.sip.lanes import LanePool
from sipagent.sip.protocol import (
    Answer,
    AnyFact,
    Ended,
    IncomingCall,
    LaneReady,
    MakeCall,
    OverLimit,
    RegistrationResult,
    Reject,
    Ring,
    SetMedia,
)
from sipagent.sip.registrar import Registrar
from sipagent.sip.settings import SipSettings, TrunkSettings
from tests.peers.ports import free_port

T = TypeVar("T")
MEDIA_PORT = 40000  # nobody listens: these tests are about signalling


class Agent:
    """Rings and answers every call unless ``on_call`` says otherwise."""

    def __init__(
        self,
        *,
        trunks: Sequence[TrunkSettings] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        tcp: bool = True,
        terms: sdp.Terms = sdp.CLEAR,
        max_calls: int = 0,
        **settings: Any,
    ) -> None:
        self.terms = terms
        self.settings = SipSettings(host=host, port=port or free_port(), tcp=tcp, **settings)
        self.hub = EventHub()
        self.events: list[Event] = []
        self.hub.subscribe(self.events.append)
        self.lane = LanePool(self.settings, self.hub, max_calls=max_calls)
        self.registrar = Registrar(trunks, self.lane, self.hub)
        self.facts: list[AnyFact] = []
        self.results: list[RegistrationResult] = []
        self.lost = 0
        self.lost_calls: frozenset[int] = frozenset()
        self.readies: list[LaneReady] = []
        self.on_call: Callable[[IncomingCall], None] = self.answer
        self._news = asyncio.Event()
        self.lane.on_incoming = self._incoming
        self.lane.on_fact = self._remember
        self.lane.on_over_limit = self._remember
        self.lane.on_registration = self._registration
        self.lane.on_lost = self._lost
        self.lane.on_ready = self._ready

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.settings.port}"

    async def __aenter__(self) -> "Agent":
        await self.lane.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.registrar.close()
        await self.lane.close()

    # --- what it does ---------------------------------------------------------------------------------------

    def answer(self, call: IncomingCall) -> None:
        self.lane.send(Ring(call=call.call))
        session_id = abs(call.call)
        media: dict[str, Any] = {"host": "127.0.0.1", "port": MEDIA_PORT, "session_id": session_id}
        media["terms"] = self.terms
        try:
            text = sdp.build_answer(sdp.parse(call.sdp), **media) if call.sdp else sdp.build_offer(**media)
        except sdp.NoCommonCodec:
            self.lane.send(Reject(call=call.call, status=488))
            return
        self.lane.send(SetMedia(call=call.call, **media))
        self.lane.send(Answer(call=call.call, sdp=text))

    def ring_only(self, call: IncomingCall) -> None:
        self.lane.send(Ring(call=call.call))

    def dial(
        self, target: str, account: str = "", headers: dict[str, str] | None = None, route: Sequence[str] = ()
    ) -> int:
        handle = self.lane.next_handle()
        offer = sdp.build_offer(host="127.0.0.1", port=MEDIA_PORT, session_id=abs(handle), terms=self.terms)
        self.lane.send(
            MakeCall(call=handle, account=account, target=target, sdp=offer, headers=headers or {}, route=list(route))
        )
        return handle

    # --- what it heard --------------------------------------------------------------------------------------

    def all(self, kind: type[T], call: int | None = None) -> list[T]:
        return [fact for fact in self.facts if isinstance(fact, kind) and call in (None, getattr(fact, "call", None))]

    async def fact(self, kind: type[T], *, call: int | None = None, nth: int = 1, within_s: float = 20.0) -> T:
        """The nth fact of this kind (of this call), as soon as it is there."""
        await self.until(lambda: len(self.all(kind, call)) >= nth, f"{kind.__name__} #{nth}", within_s)
        return self.all(kind, call)[nth - 1]

    async def until(self, condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._news.clear()
                    waiter = asyncio.ensure_future(self._news.wait())
                    await asyncio.wait([waiter], timeout=0.05)
                    waiter.cancel()
        except TimeoutError:
            raise AssertionError(f"no {what} within {within_s} s; heard: {self.facts[-8:]} {self.results}") from None

    async def ended(self, call: int, within_s: float = 20.0) -> Ended:
        return await self.fact(Ended, call=call, within_s=within_s)

    def _incoming(self, fact: IncomingCall) -> None:
        self._remember(fact)
        self.on_call(fact)

    def _remember(self, fact: AnyFact | OverLimit) -> None:
        self.facts.append(fact)
        self._news.set()

    def _registration(self, fact: RegistrationResult) -> None:
        self.results.append(fact)
        self.registrar.result(fact)
        self._news.set()

    def _lost(self, calls: frozenset[int]) -> None:
        self.lost_calls |= calls
        self.lost += 1
        self._news.set()

    def _ready(self, ready: LaneReady) -> None:
        self.readies.append(ready)
        self.registrar.lane_ready()
        self._news.set()
