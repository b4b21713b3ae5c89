"""The media process: one loop, one tick of 10 ms, every call's RTP in arrays.

Each tick receives for all calls and plays half of them: even slots on even ticks, odd slots on odd ticks, so each call
moves 20 ms of audio every 20 ms and the packets of many calls do not leave in one burst. Ticks are absolute deadlines:
a late one is done at once and the schedule stays. With no call up the process sleeps in the kernel.

Started by `client` with three inherited descriptors: control socket, shared memory, eventfd. It ends when the control
socket closes.
"""

import argparse
import gc
import os
import select
import signal
import socket
import sys
import time

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.core.errors import ProcessDied
from sipagent.core.ipc import FrameBuffer, die_with_parent, frame
from sipagent.media.g711 import ALAW_TO_LINEAR, ULAW_TO_LINEAR
from sipagent.media.lines import Lines
from sipagent.media.protocol import (
    AnyCommand,
    ClosePort,
    Connect,
    Notice,
    OpenPort,
    Ready,
    Stop,
    command_decoder,
    encoder,
)
from sipagent.media.rings import RX_FRAMES, Counter, Header, Rings
from sipagent.media.rtp import FRAME, HEADER, PCMA
from sipagent.media.settings import MediaSettings
from sipagent.media.sockets import ROW, CallSockets

Ints = NDArray[np.int64]

TICK_NS = 10_000_000
TICKS_A_FRAME = 2
LATE_NS = 5_000_000
RESYNC_NS = 200_000_000  # further behind, catching up would only burst: the schedule starts over
PASSES = 16  # packets taken from one port in a tick; more wait in its socket buffer, where the kernel bounds them
WATCH_TICKS = 10
FIFO_PRIORITY = 10
MAX_NOTICES = 1 << 20  # bytes waiting for main to read; beyond, notices are dropped and counted
_RX_MASK = RX_FRAMES - 1
_PLAIN = HEADER + FRAME  # bytes of the packet nearly everybody sends


class Engine:
    def __init__(self, settings: MediaSettings, control: socket.socket, memory: int, wake: int) -> None:
        self._control = control
        self._wake = wake
        self._buffer = FrameBuffer()
        self._unsent = bytearray()
        self._rings = Rings(memory, settings.capacity)
        self._sockets = CallSockets(settings.host, settings.capacity, self._rings.counters)
        self._lines = Lines(settings, self._rings, self._sockets, self._notify)
        self._packets = [row.data for row in self._lines.outgoing.packets]
        self._rows16 = self._sockets.rows[:, :HEADER].view(">u2")
        self._rows32 = self._sockets.rows[:, :HEADER].view(">u4")
        self._ticks = 0
        self._running = True
        self._groups: list[Ints] = []
        self._attention = select.epoll()  # what is looked at besides the peers' packets
        self._attention.register(control.fileno(), select.EPOLLIN)
        self._attention.register(self._sockets.strays_fd, select.EPOLLIN)

    def run(self, scheduling: str) -> None:
        """Returns when told to stop or when main is gone."""
        self._notify(Ready(pid=os.getpid(), scheduling=scheduling))
        deadline = time.monotonic_ns()
        while self._running:
            if not len(self._lines.slots):
                gc.collect()  # the collector is off while calls are up
                self._attend(-1)
                deadline = time.monotonic_ns()
                continue
            now = time.monotonic_ns()
            if now < deadline:
                time.sleep((deadline - now) / 1e9)
                now = time.monotonic_ns()
            late = now - deadline
            if late > RESYNC_NS:
                deadline += self._skip(late)
            self._tick(now, late)
            deadline += TICK_NS
        self._lines.close_all()

    def _skip(self, late: int) -> int:
        """Whole frames that are given up; returns their time in ns."""
        frames = late // (TICKS_A_FRAME * TICK_NS)
        self._lines.outgoing.skip(self._lines.slots, frames)
        self._rings.header[Header.RESYNCS] += 1
        return frames * TICKS_A_FRAME * TICK_NS

    def _tick(self, now: int, late: int) -> None:
        header = self._rings.header
        self._attend(0)
        for _ in range(PASSES):
            slots, lengths = self._sockets.receive()
            if not slots:
                break
            self._ingest(np.array(slots), np.array(lengths), time.monotonic_ns())
        group = self._groups[self._ticks % TICKS_A_FRAME] if self._groups else self._lines.slots[:0]
        if len(group):
            self._play(group, time.monotonic_ns())
        self._ticks += 1
        if self._ticks % WATCH_TICKS == 0:
            self._lines.watch(now)
        header[Header.TICKS] = self._ticks
        header[Header.HEARTBEAT_NS] = now
        if late > LATE_NS:
            header[Header.LATE_TICKS] += 1
        if late > header[Header.WORST_LATENESS_NS]:
            header[Header.WORST_LATENESS_NS] = late

    def _ingest(self, slots: Ints, lengths: Ints, now: int) -> None:
        """The datagrams in the first rows, one of each slot: plain audio by arrays, anything else one by one."""
        lines, count = self._lines, len(slots)
        rows = self._sockets.rows
        samples = lengths - HEADER
        plain = (
            (rows[:count, 0] == 0x80)
            & (rows[:count, 1] & 0x7F == lines.payload_type[slots])
            & (self._rows32[:count, 2] == lines.reception.ssrc[slots])
            & (samples % 80 == 0)
            & (samples > 0)
            & (lengths < ROW)
            & lines.receiving[slots]
        )
        which = None
        if not plain.all():
            for row in np.flatnonzero(~plain):
                lines.odd(int(slots[row]), rows[row, : lengths[row]].tobytes(), now)
            which = np.flatnonzero(plain)
            if not len(which):
                return
            slots, samples = slots[which], samples[which]
        else:
            which = np.arange(count)
        lines.heard_ns[slots] = now
        self._rings.counters[slots, Counter.PACKETS_IN] += 1
        accepted = lines.reception.accept(slots, self._rows16[which, 1].astype(np.int64))
        for row in np.flatnonzero(accepted.restarted):
            lines.jitter.reset(int(slots[row]))
        contiguous = accepted.contiguous
        if not accepted.fresh.all():
            keep = accepted.fresh
            slots, samples, which, contiguous = slots[keep], samples[keep], which[keep], contiguous[keep]
        if not len(slots):
            return
        timestamps = self._rows32[which, 1].astype(np.int64)
        lines.reception.time(slots, timestamps, now)
        if (samples == samples[0]).all():
            self._insert(slots, which, int(samples[0]), timestamps, contiguous, now)
            return
        for size in np.unique(samples):
            same = samples == size
            self._insert(slots[same], which[same], int(size), timestamps[same], contiguous[same], now)

    def _insert(
        self, slots: Ints, which: Ints, size: int, timestamps: Ints, contiguous: NDArray[np.bool_], now: int
    ) -> None:
        """Audio packets of one size, found in the rows `which`."""
        codes = self._sockets.rows[which, HEADER : HEADER + size]
        pcm = np.take(ULAW_TO_LINEAR, codes)
        alaw = self._lines.payload_type[slots] == PCMA
        if alaw.any():
            pcm[alaw] = np.take(ALAW_TO_LINEAR, codes[alaw])
        self._lines.jitter.insert(slots, timestamps, pcm, contiguous, now)

    def _play(self, slots: Ints, now: int) -> None:
        """One frame both ways for these slots; outgoing first, for it is the one that must be on time."""
        rings = self._rings
        self._sockets.send(self._lines.outgoing.prepare(slots, now), self._packets)
        played = self._lines.jitter.play(slots, now)
        heads = rings.rx_head[slots]
        place = heads & _RX_MASK
        rings.rx_pcm[slots, place] = played.pcm
        rings.rx_flags[slots, place] = played.flags
        rings.rx_arrival[slots, place] = played.arrival
        rings.rx_head[slots] = heads + 1
        rings.ticked_ns[slots] = now
        os.eventfd_write(self._wake, 1)

    def _attend(self, timeout: float) -> None:
        """Commands of main and datagrams of unknown senders; waits for one of them when `timeout` is negative."""
        for fd, _ in self._attention.poll(timeout):
            if fd == self._control.fileno():
                self._read_control()
            else:
                now = time.monotonic_ns()
                for slot, data, sender in self._sockets.strays():
                    self._lines.stray(slot, data, sender, now)
        if self._unsent:
            self._flush_notices()

    def _read_control(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._running = False
            return
        for message in self._buffer.feed(data):
            self._obey(command_decoder.decode(message), time.monotonic_ns())
        slots = self._lines.slots
        self._groups = [slots[slots % TICKS_A_FRAME == group] for group in range(TICKS_A_FRAME)]

    def _obey(self, command: AnyCommand, now: int) -> None:
        match command:
            case OpenPort():
                self._lines.open(command, now)
            case Connect():
                self._lines.connect(command, now)
            case ClosePort():
                self._lines.close(command, now)
            case Stop():
                self._running = False

    def _notify(self, notice: Notice) -> None:
        if len(self._unsent) > MAX_NOTICES:
            self._rings.header[Header.NOTICES_DROPPED] += 1
            return
        self._unsent += frame(encoder.encode(notice))
        self._flush_notices()

    def _flush_notices(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._control.send(self._unsent)]
        except BlockingIOError:
            pass  # main is busy; the next tick tries again
        except ConnectionError:
            self._running = False


def _go_realtime(wanted: bool) -> str:
    """Which scheduling this process has from now on."""
    if wanted:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        except OSError:
            return "other"  # not permitted here: main says so in its log
        return "fifo"
    return "other"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sipagent.media.engine", description="The media process; started by main.")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the control socket")
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--wake", type=int, required=True, help="descriptor of the eventfd that wakes main")
    parser.add_argument("--settings", required=True, help="MediaSettings as JSON")
    options = parser.parse_args(arguments)
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; main decides when to stop
    settings = msgspec.json.decode(options.settings, type=MediaSettings)
    control = socket.socket(fileno=options.control)
    control.setblocking(False)
    engine = Engine(settings, control, options.memory, options.wake)
    scheduling = _go_realtime(settings.realtime)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        engine.run(scheduling)
    except ProcessDied as error:
        print(f"media: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
