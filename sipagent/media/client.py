"""Main's side of the media process: open ports, tell them what it says, and bring it back when it dies.

One that an earlier main has left, with its calls, is taken over (`core.doors`).
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from sipagent.core import doors
from sipagent.core.clock import now
from sipagent.core.doors import status_text
from sipagent.core.errors import CapacityError, ProcessDied, SetupError
from sipagent.core.events import EventSink, ProcessEnded, ProcessStarted
from sipagent.core.ipc import FrameBuffer, frame
from sipagent.media.handover import HandOver, call_back
from sipagent.media.launching import Process, launch, meet, reap
from sipagent.media.port import Frames, MediaPort
from sipagent.media.protocol import (
    AnyNotice,
    ClosePort,
    Command,
    Digit,
    DigitsSent,
    LeaveSound,
    LineTrouble,
    OpenLine,
    OpenPort,
    PortClosed,
    PortFailed,
    PortOpened,
    Quality,
    Ready,
    Resumed,
    Silent,
    SourceChanged,
    StandIn,
    Stop,
    encoder,
    notice_decoder,
)
from sipagent.media.rings import (
    FLAG_CONCEALED,
    FLAG_DIGIT,
    FLAG_SILENCE,
    Header,
    Rings,
    create_memory,
)
from sipagent.media.settings import MediaSettings

__all__ = ["FLAG_CONCEALED", "FLAG_DIGIT", "FLAG_SILENCE", "Frames", "MediaClient", "MediaPort"]

START_LIMIT_S = 10.0
OPEN_LIMIT_S = 2.0
CLOSE_LIMIT_S = 2.0
FLUSH_LIMIT_S = 0.1
WATCH_S = 1.0
MAX_RESTARTS = 3  # within RESTART_WINDOW_S; then the machine has another problem than bad luck
RESTART_WINDOW_S = 10.0
CALL_LOAD = 0.0006  # of a core, what one call more takes; among MANY_CALLS their mean says it better
MANY_CALLS = 100
ONE_PHASE = 128  # calls up to which all are served in one tick of 20 ms: two of 10 ms cost more, and pace many better


class _Channel(asyncio.Protocol):
    """The control socket of one engine."""

    def __init__(self, client: "MediaClient", early: bytes | None = None) -> None:
        """``early``: what has been read before; then nothing more is until `go_on`."""
        self._client = client
        self._buffer = FrameBuffer()
        self._early = early
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport
        if self._early is not None:
            transport.pause_reading()

    def go_on(self) -> None:
        if self._early is not None and self._transport is not None:
            early, self._early = self._early, None
            self._transport.resume_reading()
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        for message in self._buffer.feed(data):
            self._client._on_notice(notice_decoder.decode(message))

    def connection_lost(self, error: Exception | None) -> None:
        self._client._on_engine_gone(self)


class _Engine:
    """A running media process as main sees it."""

    def __init__(self, process: Process, transport: asyncio.Transport, channel: _Channel) -> None:
        self.process = process
        self.transport = transport
        self.channel = channel


class MediaClient:
    """Owns the media process. The memory outlives it, so that calls go on in its successor."""

    def __init__(self, settings: MediaSettings, events: EventSink, door: Path | None = None) -> None:
        """``door``: where the engine may be found again after our death; without one it dies with us."""
        self._settings = settings
        self._events = events
        self._door = door
        self._left: dict[int, OpenLine] = {}  # what an earlier main had open, until somebody claims it
        self._sounds: dict[str, LeaveSound] = {}
        self._memory = create_memory(settings.capacity)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rings = Rings(self._memory, settings.capacity)
        self._engine: _Engine | None = None
        self._ready: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ports: dict[int, MediaPort] = {}
        self._opening: dict[int, asyncio.Future[int]] = {}
        self._closing: dict[int, tuple[MediaPort, asyncio.Future[None]]] = {}
        self._abandoned: set[int] = set()  # slots whose opening or closing was never answered
        self._flushing: list[tuple[int, int, asyncio.Future[None]]] = []  # slot, position to reach
        self._hand_over = HandOver(self._rings, self._ports)
        self._attempts: deque[float] = deque(maxlen=MAX_RESTARTS)
        self._restarting: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._heartbeat = -1
        self._watcher: asyncio.TimerHandle | None = None
        self._closed = False
        self._load = 0.0  # measured over the last second
        self._cpu = (0, 0)  # ns of the clock and of the engine's CPU time, then
        self._opened = self._closed_ports = 0  # since then

    @property
    def pid(self) -> int:
        """Of the running engine; 0 while there is none."""
        return self._engine.process.pid if self._engine else 0

    @property
    def calls(self) -> int:
        """Ports that are open."""
        return len(self._ports)

    @property
    def load(self) -> float:
        """Share of a core that the engine is using, with what the calls since the last look will add."""
        each = self._load / self.calls if self.calls >= MANY_CALLS else CALL_LOAD
        return self._load + max(self._opened - self._closed_ports, 0) * each

    async def start(self) -> None:
        """Starts the engine; raises SetupError when it is not ready within 10 s."""
        if self._closed:
            raise SetupError("the media client is closed")
        async with self._starting:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                await self._take_over()
                self._loop.add_reader(self._wake, self._on_wake)
                self._watcher = self._loop.call_later(WATCH_S, self._watch)
            if self._engine is None:
                await self._spawn()

    def has(self, port: MediaPort) -> bool:
        """Whether the port is one of this process."""
        return self._ports.get(port.slot) is port

    async def open(
        self, far: tuple[str, int] | None = None, beside: MediaPort | None = None, *, ipv6: bool = False
    ) -> MediaPort:
        """A bound port. Raises CapacityError when no slot is free, SetupError when no port can be had.

        `far` is where the peer's SDP says its RTP is, when that is known already: such a call may share a port.
        `beside` is a port that this one will be joined with: both are then played in the same ticks.
        """
        if self._restarting is not None:
            await asyncio.wait([self._restarting])
        if self._engine is None:
            await self.start()
        if self.load > self._settings.max_load:
            raise CapacityError(
                f"the media process uses {self.load:.0%} of a core, and {self._settings.max_load:.0%} is the limit: "
                "raise [media] processes where there are cores"
            )
        slot = self._free_slot(beside)
        self._opened += 1
        opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._opening[slot] = opened
        self._rings.reset(slot)
        self.send(OpenPort(slot=slot, far=far, ipv6=ipv6))
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                port = await opened
        except BaseException as error:
            if not opened.done() or opened.cancelled() or opened.exception() is None:
                self._abandoned.add(slot)  # the answer is still to come, or nobody wants it any more
                self.send(ClosePort(slot=slot))
            if isinstance(error, TimeoutError):
                raise SetupError(f"the media process did not open a port within {OPEN_LIMIT_S:g} s") from error
            raise
        finally:
            del self._opening[slot]
        host = self._settings.host6 if ipv6 else self._settings.host
        self._ports[slot] = MediaPort(self, self._rings, host, slot, port)
        self._hand_over.begin(slot)
        self._hand_over.settle()
        return self._ports[slot]

    async def close(self) -> None:
        """Stops the engine and frees all ports; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        for port in list(self._ports.values()):
            self._release(port)
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.transport.write(frame(encoder.encode(Stop())))
            code = await reap(engine.process, CLOSE_LIMIT_S)
            engine.transport.close()
            stopped = code in (0, doors.UNKNOWN)
            self._emit_ended(engine, "stopped" if stopped else f"ended with {code} when told to stop", 0)
        if self._loop is not None:
            self._loop.remove_reader(self._wake)
        if self._watcher is not None:
            self._watcher.cancel()
        os.close(self._wake)
        os.close(self._memory)
        if self._door is not None:
            doors.take_away(self._door.parent, self._door.name)

    # --- what an earlier main has left ------------------------------------------------------------------------

    def claim(self, slot: int, port: int) -> MediaPort | None:
        """The port of a call that goes on; None when it is not open any more."""
        line = self._left.get(slot)
        if line is None or line.port != port:
            return None
        del self._left[slot]
        host = self._settings.host6 if line.ipv6 else self._settings.host
        claimed = MediaPort(self, self._rings, host, slot, port)
        claimed.go_on(line.connect, line.source)
        self._ports[slot] = claimed
        self._hand_over.begin(slot)
        self._hand_over.settle()
        return claimed

    def close_unclaimed(self) -> None:
        """Whatever nobody has claimed is nobody's. What the engine has had to say meanwhile is heard now."""
        if self._engine is not None:
            self._engine.channel.go_on()
        for slot in list(self._left):
            del self._left[slot]
            self._abandoned.add(slot)
            self.send(ClosePort(slot=slot))

    def leave_sound(self, name: str, narrow: NDArray[np.int16], wide: NDArray[np.int16]) -> None:
        """For lines that are to hear it while there is no main; mono at 8 and at 16 kHz."""
        self._sounds[name] = LeaveSound(name=name, narrow=narrow.tobytes(), wide=wide.tobytes())
        self.send(self._sounds[name])

    async def _take_over(self) -> None:
        """The engine behind the door, when there is one that was started as ours would be."""
        if self._door is None:
            return
        met = await asyncio.to_thread(meet, self._door)
        if met is None:
            return
        sock, process, ready, rest, (memory, wake) = met
        if ready.settings != self._settings:
            sock.sendall(frame(encoder.encode(Stop())))
            sock.close()
            os.close(memory)
            os.close(wake)
            await reap(process, CLOSE_LIMIT_S)
            return
        os.close(self._memory)
        os.close(self._wake)
        self._memory, self._wake = memory, wake
        self._rings = Rings(memory, self._settings.capacity)
        self._hand_over = HandOver(self._rings, self._ports)
        self._left = {line.slot: line for line in ready.lines}
        channel = _Channel(self, rest)
        assert self._loop is not None
        sock.setblocking(False)
        transport, _ = await self._loop.create_unix_connection(lambda: channel, sock=sock)
        self._engine = _Engine(process, transport, channel)
        self._events.emit(ProcessStarted(at=now(), process="media", pid=process.pid))
        for sound in self._sounds.values():
            self.send(sound)

    # --- the process ------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        """A new engine over the same memory; raises SetupError."""
        assert self._loop is not None
        try:
            process, ours = launch(self._settings, self._memory, self._wake, self._door)
        except OSError as error:
            raise SetupError(f"the media process cannot be started: {error}") from error
        self._ready = self._loop.create_future()
        channel = _Channel(self)
        transport, _ = await self._loop.create_unix_connection(lambda: channel, sock=ours)
        engine = _Engine(process, transport, channel)
        self._engine = engine
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._ready
        except (TimeoutError, ProcessDied) as error:
            self._engine = None
            self._forget_questions()
            transport.close()
            code = await reap(process, 0.0 if isinstance(error, TimeoutError) else 1.0)
            raise SetupError(f"the media process did not start (exit code {code}); its messages are above") from error
        except BaseException:
            self._engine = None
            transport.close()
            process.kill()
            process.wait()
            raise
        finally:
            self._ready = None
        self._events.emit(ProcessStarted(at=now(), process="media", pid=process.pid))
        for sound in self._sounds.values():
            self.send(sound)

    def _on_engine_gone(self, channel: _Channel) -> None:
        engine = self._engine
        if engine is None or engine.channel is not channel:
            return
        if self._ready is not None:
            if not self._ready.done():
                self._ready.set_exception(ProcessDied("the media process ended before it was ready"))
            return
        self._engine = None
        self._forget_questions()
        if not self._closed:
            self._restarting = asyncio.create_task(self._restart(engine), name="media/restart")

    def _forget_questions(self) -> None:
        """What the engine that is gone, or never came, has not answered: it opened nothing, and all is closed."""
        for future in self._opening.values():
            if not future.done():
                future.set_exception(SetupError("the media process died while a port was being opened"))
        for slot in list(self._closing):
            self._slot_closed(slot)
        self._abandoned.clear()

    async def _restart(self, dead: _Engine) -> None:
        affected = len(self._ports)
        dead.transport.close()
        code = await reap(dead.process, 0.5)
        self._emit_ended(dead, status_text(code), affected)
        try:
            while not self._closed:
                moment = time.monotonic()
                if len(self._attempts) == MAX_RESTARTS and moment - self._attempts[0] < RESTART_WINDOW_S:
                    self._give_up()
                    return
                self._attempts.append(moment)
                with contextlib.suppress(SetupError):
                    await self.start()
                    self._resume_ports()
                    return
        finally:
            self._restarting = None

    def _resume_ports(self) -> None:
        # Those with a source first: on a shared port one that has none might else take another's packets for its own.
        for slot, port in sorted(self._ports.items(), key=lambda item: item[1].source is None):
            self.send(OpenPort(slot=slot, port=port.port, resume=True, source=port.source, ipv6=port.ipv6))
            if port.connected is not None:
                self.send(port.connected)
            self.send(StandIn(slot=slot, sound=port.stand_in))
        for port in self._ports.values():
            if port.hearing.others or port.hearing.said:
                self.send(port.hearing)

    def _give_up(self) -> None:
        for port in list(self._ports.values()):
            call_back(port.on_lost)

    def _emit_ended(self, engine: _Engine, reason: str, affected: int) -> None:
        pid = engine.process.pid
        self._events.emit(ProcessEnded(at=now(), process="media", pid=pid, reason=reason, calls_affected=affected))

    def _watch(self) -> None:
        """Twice the same heartbeat while calls are up: the engine hangs, and a new one serves better."""
        heartbeat = int(self._rings.header[Header.HEARTBEAT_NS])
        busy = any(port.connected is not None for port in self._ports.values())
        if busy and self._engine is not None and self._ready is None and heartbeat == self._heartbeat:
            self._engine.process.kill()
        self._heartbeat = heartbeat if busy else -1
        cpu_ns, before = int(self._rings.header[Header.CPU_NS]), self._cpu
        self._cpu = (time.monotonic_ns(), cpu_ns)
        # A new process counts from 0 again.
        self._load = max(cpu_ns - before[1], 0) / max(self._cpu[0] - before[0], 1) if self._ports else 0.0
        self._opened = self._closed_ports = 0
        assert self._loop is not None
        self._watcher = self._loop.call_later(WATCH_S, self._watch)

    # --- ports ------------------------------------------------------------------------------------------------

    def _free_slot(self, beside: MediaPort | None) -> int:
        """The even slots first, then both parities alike: see the engine's phases. The parity of the one beside."""
        used = self._ports.keys() | self._opening.keys() | self._closing.keys() | self._abandoned | self._left.keys()
        odd = sum(slot & 1 for slot in used)
        first = 1 if len(used) >= ONE_PHASE and odd < len(used) - odd else 0
        if beside is not None:
            first = beside.slot % 2
        for phase in (first, 1 - first):
            for slot in range(phase, self._settings.capacity, 2):
                if slot not in used:
                    return slot
        raise CapacityError(f"all {self._settings.capacity} media slots are in use: raise [media] capacity")

    async def close_port(self, port: MediaPort) -> None:
        slot = port.slot
        if self._ports.get(slot) is port:
            if self._engine is None:
                self._release(port)
                return
            del self._ports[slot]
            self._closed_ports += 1
            self._hand_over.settle()
            self._closing[slot] = (port, asyncio.get_running_loop().create_future())
            self.send(ClosePort(slot=slot))
        closing, answered = self._closing.get(slot, (None, None))
        if closing is port and answered is not None:
            await asyncio.wait([answered], timeout=CLOSE_LIMIT_S)
            port.finish()

    def _release(self, port: MediaPort) -> None:
        """Without asking an engine."""
        port.finish()
        del self._ports[port.slot]
        self._rings.forget(port.slot)
        self._hand_over.settle()

    def _slot_closed(self, slot: int) -> None:
        self._abandoned.discard(slot)
        if slot in self._closing:
            port, answered = self._closing.pop(slot)
            port.finish()
            self._rings.forget(slot)  # nobody else will when the engine has died, nor what was written meanwhile
            answered.set_result(None)

    async def flushed(self, slot: int, head: int) -> bool:
        """Whether the engine has obeyed within the limit."""
        obeyed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (slot, head, obeyed)
        self._flushing.append(entry)
        try:
            async with asyncio.timeout(FLUSH_LIMIT_S):
                await obeyed
        except TimeoutError:
            return int(self._rings.tx_tail[slot]) >= head
        finally:
            self._flushing.remove(entry)
        return True

    def send(self, command: Command) -> None:
        """To the engine; while there is none nothing is lost, for the restart tells the next one all it needs."""
        if self._engine is not None:
            self._engine.transport.write(frame(encoder.encode(command)))

    # --- what the engine says ---------------------------------------------------------------------------------

    def _on_notice(self, notice: AnyNotice) -> None:
        if isinstance(notice, Ready):
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
                self._cpu = (time.monotonic_ns(), int(self._rings.header[Header.CPU_NS]))
            return
        port = self._ports.get(notice.slot)
        match notice:
            case PortOpened(slot=slot, port=number):
                if slot in self._opening and not self._opening[slot].done():
                    self._opening[slot].set_result(number)
            case PortFailed(slot=slot, reason=reason):
                if slot in self._opening and not self._opening[slot].done():
                    self._opening[slot].set_exception(SetupError(reason))
                elif port is not None:  # after a restart somebody else has the port
                    call_back(port.on_lost)
            case PortClosed(slot=slot):
                self._slot_closed(slot)
            case Quality(final=True, figures=figures) if notice.slot in self._closing:
                call_back(self._closing[notice.slot][0].on_quality, figures, True)
            case _ if port is None:
                pass  # said before the engine knew that the port is closed
            case Quality(final=final, figures=figures):
                call_back(port.on_quality, figures, final)
            case LineTrouble(kind=kind, active=active, seconds=seconds):
                call_back(port.on_trouble, kind, active, seconds)
            case DigitsSent():
                call_back(port.on_digits_sent)
            case Digit(digit=digit, duration_ms=duration_ms):
                call_back(port.on_digit, digit, duration_ms)
            case SourceChanged(host=host, port=number):
                port.source = (host, number)
                call_back(port.on_source, host, number)
            case Silent(seconds=seconds):
                call_back(port.on_silent, seconds)
            case Resumed(gap_ms=gap_ms):
                call_back(port.on_interrupted, gap_ms)
            case _:
                assert_never(notice)

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._hand_over.run()
        for slot, head, obeyed in self._flushing:
            if self._rings.tx_tail[slot] >= head and not obeyed.done():
                obeyed.set_result(None)

    def gather(self, slot: int, count: int) -> None:
        """From now on this port is handed so many frames together."""
        self._hand_over.gather(slot, count)
