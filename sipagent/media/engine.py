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
import resource
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
from sipagent.media.g711 import decode_rows
from sipagent.media.jitter import BLOCK, MAX_BLOCKS
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
from sipagent.media.reception import Accepted
from sipagent.media.rings import RX_FRAMES, Counter, Header, Rings
from sipagent.media.rtp import FRAME, HEADER, PCMA, PCMU
from sipagent.media.settings import MediaSettings
from sipagent.media.sockets import CallSockets

Ints = NDArray[np.int64]

TICK_NS = 10_000_000
TICKS_A_FRAME = 2
LATE_NS = 5_000_000
RESYNC_NS = 200_000_000  # further behind, catching up would only burst: the schedule starts over
PASSES = 16  # packets taken from one port in a tick; more wait in its socket buffer, where the kernel bounds them
DRAIN_TICKS = 4
WATCH_TICKS = 10
FIFO_PRIORITY = 10
MAX_NOTICES = 1 << 20  # bytes waiting for main to read; beyond, notices are dropped and counted
_RX_MASK = RX_FRAMES - 1
_HEARTBEAT = slice(Header.TICKS, Header.HEARTBEAT_NS + 1)
_NOT_MARKER = np.uint16(int.from_bytes(b"\xff\x7f", sys.byteorder))
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
        rows = self._sockets.rows
        self._all_rows = np.arange(len(rows))
        self._words = rows[:, :HEADER].view(np.uint16)  # as read: comparing needs no swapping of bytes
        self._longs = rows[:, :HEADER].view(np.uint32)
        self._sequences = rows[:, 2:4].view(">u2")[:, 0]
        self._timestamps = rows[:, 4:8].view(">u4")[:, 0]
        self._ticks = int(self._rings.header[Header.TICKS])  # goes on from the engine before
        self._flushes = -1
        self._running = True
        self._groups: list[tuple[Ints, Ints]] = []  # of each phase: the slots to play, and those of them to send
        self._regroup()
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
        self._attend(0)
        # A second packet of a port waits for the next tick, except now and then, and after a pause of ours.
        passes = PASSES if late > LATE_NS or self._ticks % DRAIN_TICKS == 0 else 1
        for _ in range(passes):
            slots, lengths = self._sockets.receive()
            if not slots:
                break
            self._ingest(slots, lengths, time.monotonic_ns())
        if self._rings.flushes[0] != self._flushes:
            self._flushes = self._rings.flushes[0]
            self._lines.outgoing.flush(self._lines.slots)
        slots_now, sending = self._groups[self._ticks % TICKS_A_FRAME]
        if len(slots_now):
            self._play(slots_now, sending, time.monotonic_ns())
        self._ticks += 1
        if self._ticks % WATCH_TICKS == 0:
            self._lines.watch(now)
        header = self._rings.header
        header[_HEARTBEAT] = self._ticks, now
        if late > LATE_NS:
            header[Header.LATE_TICKS] += 1
            header[Header.WORST_LATENESS_NS] = max(late, header[Header.WORST_LATENESS_NS])

    def _ingest(self, numbers: list[int], lengths: list[int], now: int) -> None:
        """The datagrams in the first rows, one of each slot: plain audio by arrays, anything else one by one."""
        lines, count = self._lines, len(numbers)
        slots = np.array(numbers)
        plain = (self._words[:count, 0] & _NOT_MARKER == lines.plain_header[slots]) & (
            self._longs[:count, 2] == lines.plain_ssrc[slots]
        )
        if lengths.count(_PLAIN) == count:
            samples = None
        else:
            samples = np.array(lengths) - HEADER
            plain &= (samples % BLOCK == 0) & (samples > 0) & (samples <= MAX_BLOCKS * BLOCK)
        rows = self._all_rows[:count]
        if not plain.all():
            for row in np.flatnonzero(~plain):
                lines.odd(numbers[row], self._sockets.rows[row, : lengths[row]].tobytes(), now)
            rows = np.flatnonzero(plain)
            if not len(rows):
                return
            slots, samples = slots[rows], None if samples is None else samples[rows]
        lines.heard_ns[slots] = now
        self._rings.counters[slots, Counter.PACKETS_IN] += 1
        accepted = lines.reception.accept(slots, self._sequences[rows].astype(np.int64))
        if accepted is not None:
            for row in np.flatnonzero(accepted.restarted):
                lines.jitter.reset(numbers[rows[row]])
            fresh = accepted.fresh
            if not fresh.all():
                slots, rows, samples = slots[fresh], rows[fresh], None if samples is None else samples[fresh]
                accepted = Accepted(*(field[fresh] for field in accepted))
                if not len(slots):
                    return
        timestamps = self._timestamps[rows].astype(np.int64)
        lines.reception.time(slots, timestamps, now)
        if samples is None:
            self._insert(slots, rows, FRAME, timestamps, accepted, now)
            return
        for size in np.unique(samples):
            same = samples == size
            part = None if accepted is None else Accepted(*(field[same] for field in accepted))
            self._insert(slots[same], rows[same], int(size), timestamps[same], part, now)

    def _insert(
        self, slots: Ints, rows: Ints, size: int, timestamps: Ints, accepted: Accepted | None, now: int
    ) -> None:
        """Audio packets of one size, found in these rows."""
        codes = self._sockets.rows[rows, HEADER : HEADER + size]
        pcm = decode_rows(PCMU, codes)
        alaw = self._lines.payload_type[slots] == PCMA
        if alaw.any():
            pcm[alaw] = decode_rows(PCMA, codes[alaw])
        self._lines.jitter.insert(slots, timestamps, pcm, accepted, now)

    def _play(self, slots: Ints, sending: Ints, now: int) -> None:
        """One frame both ways for these slots; outgoing first, for it is the one that must be on time."""
        rings, outgoing = self._rings, self._lines.outgoing
        if len(sending):
            outgoing.prepare(slots, sending, now)
            self._sockets.send(sending, self._packets)
            outgoing.sent(sending)
        else:
            outgoing.skip(slots, 1)
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
        self._regroup()

    def _regroup(self) -> None:
        slots, sending = self._lines.slots, self._lines.outgoing.sending
        parts = [slots[slots % TICKS_A_FRAME == group] for group in range(TICKS_A_FRAME)]
        self._groups = [(part, part[sending[part]]) for part in parts]

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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they may reach the whole group; main decides when calls are over
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))  # two sockets a call
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
