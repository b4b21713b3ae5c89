"""Main's side of one lane: starts it, carries commands and facts, replaces it when it dies."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from sipagent.core.clock import mono_ns, now
from sipagent.core.doors import knock
from sipagent.core.errors import ProcessDied, SetupError
from sipagent.core.events import EventSink, ProcessEnded, ProcessStarted
from sipagent.core.ipc import frame, read_frame
from sipagent.sip.nursery import Nursery
from sipagent.sip.protocol import (
    AnyCommand,
    AnyFact,
    CommandFailed,
    Ended,
    IncomingCall,
    LaneReady,
    MakeCall,
    Ping,
    Start,
    StartFailed,
    Stop,
    encoder,
    fact_decoder,
)

log = logging.getLogger("sipagent.sip")

START_S = 15.0
_CLOSE_S = 3.0
_LAST_FACTS_S = 0.5  # what a lane says as it leaves
_GREETING_S = 2.0  # of one that has been without a main
_GREETING_BYTES = 1 << 20
_PING_S = 2.0
_SILENT_PINGS = 4  # a lane that has answered none of so many is stuck, and is replaced
_BACKLOG_BYTES = 8 << 20  # commands the lane has not read: further ones are dropped
_FIRST_PAUSE_S = 0.1  # before a new lane, doubled while lanes die young
_LONGEST_PAUSE_S = 5.0
_YOUNG_S = 5.0


class PortTaken(SetupError):
    """Another program has the port that the lane was told to bind."""


class LaneOwner(Protocol):
    """Who is told what becomes of a lane. Called in the event loop, in the order of the facts; must not block."""

    def start_of(self, lane: "LaneClient") -> Start: ...
    def lane_up(self, lane: "LaneClient") -> None: ...
    def lane_lost(self, lane: "LaneClient", calls: frozenset[int]) -> None: ...
    def lane_failed(self, lane: "LaneClient", error: Exception) -> None: ...
    def lane_fact(self, lane: "LaneClient", fact: AnyFact) -> None: ...


class LaneClient:
    """One lane, kept alive."""

    def __init__(self, nursery: Nursery, events: EventSink, owner: LaneOwner) -> None:
        self.ready: LaneReady | None = None  # None while it is not up
        self.pid = 0
        self.open_calls: set[int] = set()
        self._nursery = nursery
        self._events = events
        self._owner = owner
        self._writer: asyncio.StreamWriter | None = None
        self._unanswered = 0  # pings
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more calls it takes."""
        return self.ready.max_calls - len(self.open_calls) if self.ready is not None else 0

    def send(self, command: AnyCommand) -> None:
        """Never blocks and never raises; without a lane, or with one that does not read, the command is dropped."""
        writer = self._writer
        if writer is None or self.ready is None or writer.is_closing():
            log.warning("command dropped: no lane is up", extra={"command": type(command).__name__})
            return
        if writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            log.error("command dropped: the lane does not read", extra={"command": type(command).__name__})
            return
        if isinstance(command, MakeCall):
            self.open_calls.add(command.call)
        writer.write(frame(encoder.encode(command)))

    async def take_over(self, name: str) -> bool:
        """The lane that an earlier main has left behind this door; False when it is gone. `go_on` when all is ready
        for what it tells."""
        assert self._nursery.run is not None
        met = await asyncio.to_thread(knock, self._nursery.run, name)
        if met is None:
            return False
        sock, self.pid = met
        sock.setblocking(False)
        reader, self._writer = await asyncio.open_unix_connection(sock=sock, limit=_GREETING_BYTES)
        try:
            async with asyncio.timeout(_GREETING_S):
                fact = fact_decoder.decode(await read_frame(reader))
        except (TimeoutError, ProcessDied, msgspec.DecodeError):
            fact = None
        if not isinstance(fact, LaneReady) or fact.start is None:
            self._nursery.kill(self.pid)
            self._drop()
            return False
        self.open_calls = {standing.call for standing in fact.standing}
        self._up(fact)
        self._keeper = asyncio.create_task(self._keep(reader), name="sip-lane")
        return True

    def go_on(self) -> None:
        """What the lane tells is heard from now on; at once, where we have started it ourselves."""
        self._heard.set()

    async def start(self) -> None:
        """Returns when the lane is up. Raises SetupError when it cannot be: a taken port, PJSIP missing."""
        try:
            async with asyncio.timeout(START_S):
                reader = await self._bring_up()
        except TimeoutError as error:
            await self.close()
            raise SetupError(f"the SIP lane was not up within {START_S:.0f} s") from error
        except BaseException:
            await self.close()
            raise
        self.go_on()
        self._keeper = asyncio.create_task(self._keep(reader), name="sip-lane")

    async def close(self) -> None:
        """Ends its calls, takes registrations back, ends the process. May be called again."""
        if self._stopping:
            return
        if self.ready is not None:
            self.send(Stop())
        self._stopping = True
        if self.pid:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._nursery.exit_of(self.pid)
            self._nursery.kill(self.pid)
        if self._keeper is not None:
            await asyncio.wait({self._keeper}, timeout=_LAST_FACTS_S)
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._drop()

    # --- keeping it alive -----------------------------------------------------------------------------------

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        """Serves the lane until it ends, then makes another, for as long as the client is open."""
        pause = _FIRST_PAUSE_S
        await self._heard.wait()
        while True:
            born = mono_ns()
            await self._serve(reader)
            if self._stopping:
                return
            pause = _FIRST_PAUSE_S if (mono_ns() - born) / 1e9 > _YOUNG_S else min(pause * 2, _LONGEST_PAUSE_S)
            while True:
                await asyncio.sleep(pause)
                try:
                    async with asyncio.timeout(START_S):
                        reader = await self._bring_up()
                    break
                except (SetupError, ProcessDied, TimeoutError, OSError) as error:
                    log.error("no new lane yet", extra={"reason": str(error), "again_in_s": pause})
                    self._nursery.kill(self.pid)  # one that hangs while it starts would keep the port
                    self._drop()
                    self._owner.lane_failed(self, error)
                    pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        pinger = asyncio.create_task(self._ping(), name="sip-lane-ping")
        try:
            while True:
                self._take(fact_decoder.decode(await read_frame(reader)))
        except ProcessDied:
            pass
        except msgspec.DecodeError:
            log.exception("the lane sent what cannot be read: replacing it")
        finally:
            pinger.cancel()
            await asyncio.gather(pinger, return_exceptions=True)
        if not self._stopping:
            await self._lost()

    async def _ping(self) -> None:
        """Kills a lane whose PJSIP thread does not turn: its end is then noticed like any other."""
        self._unanswered = 0
        while True:
            # Counted, not timed: when main itself has stood still (a paused machine), the lane is not to blame.
            self._unanswered += 1
            self.send(Ping())
            await asyncio.sleep(_PING_S)
            if self._unanswered > _SILENT_PINGS and self.pid:
                log.error("lane does not answer: replacing it", extra={"pid": self.pid})
                self._nursery.kill(self.pid)
                return

    async def _lost(self) -> None:
        pid, calls = self.pid, frozenset(self.open_calls)
        self.ready = None  # from now on it gets no call
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._nursery.exit_of(pid)
        self._nursery.kill(pid)  # in case it closed its socket and stayed
        reason = self._nursery.exit_text(pid)
        self._drop()
        log.error("lane ended", extra={"pid": pid, "reason": reason, "calls_affected": len(calls)})
        self._events.emit(ProcessEnded(at=now(), process="lane", pid=pid, reason=reason, calls_affected=len(calls)))
        self._guard(lambda: self._owner.lane_lost(self, calls))

    def _drop(self) -> None:
        self.ready = None
        self.pid = 0
        self.open_calls.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _bring_up(self) -> asyncio.StreamReader:
        pid, reader, writer = await self._nursery.fork()
        self.pid, self._writer = pid, writer
        start = self._owner.start_of(self)
        writer.write(frame(encoder.encode(start)))
        while True:
            try:
                fact = fact_decoder.decode(await read_frame(reader))
            except ProcessDied as error:
                raise SetupError("the SIP lane ended while it was starting") from error
            if isinstance(fact, StartFailed):
                raise _start_failure(fact, start)
            if isinstance(fact, LaneReady):
                break
            self._take(fact)
        self._up(fact)
        return reader

    def _up(self, fact: LaneReady) -> None:
        self.ready = fact
        log.info("lane is up", extra={"pid": fact.pid, "max_calls": fact.max_calls, "port": fact.port})
        self._events.emit(ProcessStarted(at=now(), process="lane", pid=fact.pid))
        self._guard(lambda: self._owner.lane_up(self))

    # --- facts ----------------------------------------------------------------------------------------------

    def _take(self, fact: AnyFact) -> None:
        self._unanswered = 0
        if isinstance(fact, IncomingCall):
            self.open_calls.add(fact.call)
        self._guard(lambda: self._owner.lane_fact(self, fact))
        if isinstance(fact, Ended) or (isinstance(fact, CommandFailed) and fact.command == "MakeCall"):
            self.open_calls.discard(fact.call)

    def _guard(self, handler: Callable[[], None]) -> None:
        """A mistake in one call's handling must not cost the others their lane."""
        try:
            handler()
        except Exception:
            log.exception("a fact of the lane could not be handled")


def _start_failure(fact: StartFailed, start: Start) -> SetupError:
    port = start.tls.port if fact.what == "TLS" and start.tls is not None else start.port
    where = f"{fact.what} port {port} on {start.host}"
    if fact.port_taken:
        return PortTaken(
            f"{where} is taken by another program: stop it (find it with `ss -lntup 'sport = :{port}'`) "
            "or set another port in [sip]"
        )
    if fact.what in ("UDP", "TCP", "TLS"):
        return SetupError(f"{where} cannot be bound: {fact.reason}; check `host` in [sip]")
    return SetupError(f"PJSIP did not start: {fact.reason}")
