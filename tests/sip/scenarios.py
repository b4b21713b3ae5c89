"""Many scenarios against a few lanes at once: each is a call of its own, told apart by the number it dials."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sipagent.sip import sdp
from sipagent.sip.protocol import Answered, AnyCommand, EarlyMedia, Ended, Hangup, IncomingCall, SetMedia
from tests.peers.sipp import Sipp, SippResult
from tests.sip.agent import MEDIA_PORT, Agent

T = TypeVar("T")
T1_MS = 50  # so that what is given up after 64 of it takes 3.2 s
AT_ONCE = 3  # of a lane's four calls: one is free for whoever needs a second


class Bench:
    """One lane and the scenarios that play against it."""

    def __init__(self) -> None:
        self.agent = Agent(t1_ms=T1_MS)
        self.agent.on_call = self._incoming
        self.behaviours: dict[str, Callable[[IncomingCall], None]] = {}
        self.room = asyncio.Semaphore(AT_ONCE)

    def _incoming(self, call: IncomingCall) -> None:
        self.behaviours.get(call.to_user, self.agent.answer)(call)


class Play:
    """One scenario: SIPp, the lane, and what the lane says about this call."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench = bench
        self.agent = bench.agent
        self.name = name  # also the number dialled
        self.call = 0

    def send(self, command: AnyCommand) -> None:
        self.agent.lane.send(command)

    def on_call(self, behaviour: Callable[[IncomingCall], None]) -> None:
        self.bench.behaviours[self.name] = behaviour

    def sipp(self, scenario: str, **options: Any) -> Sipp:
        """A caller; with ``target=None`` a callee."""
        given: dict[str, Any] = {"target": self.agent.address, "timeout_s": 20.0, "service": self.name} | options
        return Sipp(scenario, **given)

    async def caller(self, scenario: str, **options: Any) -> SippResult:
        """Its scenario from start to end, as written."""
        async with self.sipp(scenario, **options) as sipp:
            result = await sipp.wait()
        result.check()
        if self.calls:
            self.call = self.calls[0].call
        return result

    def dial(self, callee: Sipp, **options: Any) -> int:
        self.call = self.agent.dial(callee.uri, **options)
        self.send(SetMedia(call=self.call, host="127.0.0.1", port=MEDIA_PORT, session_id=abs(self.call)))
        return self.call

    async def answered(self, callee: Sipp) -> int:
        """Dials and waits for the answer."""
        self.dial(callee)
        await self.fact(Answered)
        return self.call

    async def incoming(self) -> IncomingCall:
        await self.agent.until(lambda: bool(self.calls), f"call to {self.name}", 10)
        self.call = self.calls[0].call
        return self.calls[0]

    @property
    def calls(self) -> list[IncomingCall]:
        return [call for call in self.agent.all(IncomingCall) if call.to_user == self.name]

    async def fact(self, kind: type[T], nth: int = 1, within_s: float = 30.0) -> T:
        if not self.call:
            await self.incoming()
        return await self.agent.fact(kind, call=self.call, nth=nth, within_s=within_s)

    def all(self, kind: type[T]) -> list[T]:
        return self.agent.all(kind, self.call)

    async def ended(self, within_s: float = 30.0) -> Ended:
        return await self.fact(Ended, within_s=within_s)

    # --- what the lane may do ---

    def hang_up(self) -> None:
        self.send(Hangup(call=self.call))

    def answer(self, call: IncomingCall) -> None:
        self.agent.answer(call)

    def early(self, call: IncomingCall) -> None:
        """183 with SDP."""
        text = sdp.build_answer(sdp.parse(call.sdp), host="127.0.0.1", port=MEDIA_PORT, session_id=1)
        self.send(SetMedia(call=call.call, host="127.0.0.1", port=MEDIA_PORT, session_id=1))
        self.send(EarlyMedia(call=call.call, sdp=text))


Case = Callable[[Play], Awaitable[None]]


async def run_all(cases: dict[str, Case], benches: int) -> dict[str, BaseException | None]:
    """What became of each: None, or what it raised."""
    outcomes: dict[str, BaseException | None] = {}
    pool = [Bench() for _ in range(benches)]

    async def run(index: int, name: str, case: Case) -> None:
        bench = pool[index % len(pool)]
        async with bench.room:
            try:
                async with asyncio.timeout(100):
                    await case(Play(bench, name.replace("_", "-")))
                outcomes[name] = None
            except BaseException as error:
                outcomes[name] = error

    async with asyncio.TaskGroup() as starting:
        for bench in pool:
            starting.create_task(bench.agent.lane.start())
    try:
        await asyncio.gather(*(run(index, name, case) for index, (name, case) in enumerate(cases.items())))
        for bench in pool:
            if len(bench.agent.readies) > 1:
                outcomes["lanes"] = AssertionError("a lane died")
    finally:
        for bench in pool:
            await bench.agent.registrar.close()
            await bench.agent.lane.close()
    return outcomes
