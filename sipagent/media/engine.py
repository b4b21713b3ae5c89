"""The media process: one loop, one tick of 10 ms, every call's RTP in arrays.

Each tick receives for all calls and plays half of them: even slots on even ticks, odd slots on odd ticks, so each call
moves 20 ms of audio every 20 ms and the packets of many calls do not leave in one burst. A half without calls has no
tick: main fills the even slots first. Ticks are absolute deadlines: a late one is done at once and the schedule stays.
With no call up the process sleeps in the kernel.

Started by `client` with three inherited descriptors: control socket, shared memory, eventfd. When the control socket
closes it plays on and waits for another main, if it has a door for it, and else ends.
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
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.core.doors import try_door
from sipagent.core.errors import ProcessDied
from sipagent.core.ipc import die_with_parent
from sipagent.media import native
from sipagent.media.batch import Batch
from sipagent.media.hot import HotPath
from sipagent.media.jitter import Played
from sipagent.media.lines import Lines
from sipagent.media.main_link import MainLink
from sipagent.media.mixing import Join
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import (
    AnyCommand,
    ClosePort,
    Connect,
    Hear,
    LeaveSound,
    Notice,
    OpenPort,
    Ready,
    SendDigits,
    StandIn,
    Stop,
)
from sipagent.media.rings import FLAG_DIGIT, TICKS_A_FRAME, Counter, Header, Rings
from sipagent.media.settings import MediaSettings
from sipagent.media.shared import SharedPorts
from sipagent.media.sockets import CallSockets
from sipagent.media.stand_in import StandIns
from sipagent.media.tones import ToneDetector

Ints = NDArray[np.int64]
Received = tuple[Batch, list[int]] | None
Begun = tuple[int, int, Received]  # in C: when it sent, rows to be looked at, and those of the shared ports

TICK_NS = 10_000_000
LATE_NS = 5_000_000
RESYNC_NS = 200_000_000  # further behind, catching up would only burst: the schedule starts over
PASSES = 16  # packets taken from one port in a tick; more wait in its socket buffer, where the kernel bounds them
ODD_PACKETS = 16  # of one call's that are looked at one by one in a tick, where a shared port would bring any number
DRAIN_TICKS = 4
FIFO_PRIORITY = 10
STAND_IN_NS = 100_000_000  # between two looks at what lines without a main are to hear
RETRY_S = 0.01  # while main does not read, or is gone, and no call is up that would have ticks
_HEARTBEAT = slice(Header.TICKS, Header.HEARTBEAT_NS + 1)
_NOBODY = np.zeros(0, np.int64)


class Group:
    """The slots of one phase."""

    def __init__(self, lines: Lines, slots: Ints) -> None:
        self.slots = slots
        self.join = lines.mixing.join(slots, lines.is_wide, lines.by_packet, lines.outgoing.sending, lines.listening)
        alone = slots[~lines.mixing.hears[slots]]  # what they send does not depend on others
        sending, by_packet = lines.outgoing.sending[alone], lines.by_packet[alone]
        self.plain = alone[~by_packet]  # whose packets are made in arrays,
        self.sending = alone[~by_packet & sending]  # and those of them that send
        self.by_packet: list[int] = alone[by_packet].tolist()
        slots = slots[~lines.mixing.joined[slots]]
        wide = lines.is_wide[slots]
        self.narrow, self.wide = slots[~wide], slots[wide]
        listening = lines.listening[slots]
        self.listening, self.listening_wide = slots[listening & ~wide], slots[listening & wide]
        self.simple = not (len(self.by_packet) or len(self.wide) or len(self.listening))
        if self.join is not None:
            self.simple &= self.join.simple

    def lists(self) -> dict[str, Ints]:
        """The slots as the compiled path wants them."""
        join = self.join
        lists = {"slots": self.slots, "plain": self.plain, "sending": self.sending, "alone": self.narrow}
        return lists | {
            "joined": join.narrow if join is not None else _NOBODY,
            "listeners": join.plain if join is not None else _NOBODY,
            "speakers": join.sending if join is not None else _NOBODY,
            "saying": join.saying if join is not None else _NOBODY,
        }


class Engine:
    def __init__(
        self,
        settings: MediaSettings,
        control: socket.socket,
        memory: int,
        wake: int,
        door: socket.socket | None = None,
    ) -> None:
        self._settings = settings
        self._wake = wake
        self._rings = rings = Rings(memory, settings.capacity)
        self._attention = select.epoll()  # what is looked at besides the peers' packets
        self._main = MainLink(control, door, self._attention, rings, [memory, wake])
        self._stand_ins = StandIns(rings)
        self._scheduling = "other"
        self._outgoing = Outgoing(rings)
        numbers = range(settings.port_min + settings.port_min % 2, settings.port_max, 2)[: settings.shared_ports]
        shared = SharedPorts(settings.host, numbers, self._outgoing.packets, rings.counters) if numbers else None
        self._sockets = CallSockets(settings.host, settings.capacity, rings.counters, shared, settings.host6)
        self._lines = lines = Lines(settings, rings, self._sockets, shared, self._outgoing, self._notify)
        state = (rings, lines.expected, lines.reception, lines.narrow, self._outgoing, lines.heard_ns, lines.mixing)
        library = native.load() if settings.accelerate else None
        self._hot = HotPath(*state) if library is None else native.NativePath(library, *state)
        lines.reports.levels = self._hot.levels
        if isinstance(self._hot, native.NativePath):
            self._hot.look_for(lines.looks)
        self._ticks = int(rings.header[Header.TICKS])  # goes on from the engine before
        self._flushes = -1
        self._flushed = False  # and main is to be told
        self._simple = False  # all calls are such that the compiled path may run their ticks by itself
        self._running = True
        self._groups = [Group(lines, _NOBODY)] * TICKS_A_FRAME
        self._attention.register(self._sockets.strays_fd, select.EPOLLIN)

    def run(self, scheduling: str) -> None:
        """Returns when told to stop, or when main is gone and no other comes."""
        self._scheduling = scheduling
        self._rings.header[Header.CPU_NS] = time.process_time_ns()  # starting is no load
        self._notify(self._ready())
        deadline = time.monotonic_ns()
        while self._running and not self._main.over:
            if self._main.alone:
                self._do_without_main()
            if not len(self._lines.slots):
                gc.collect()  # the collector is off while calls are up
                self._attend(RETRY_S if self._main.waiting or self._main.alone else -1)
                deadline = time.monotonic_ns()
                continue
            if self._lines.changed or self._lines.mixing.stale:
                self._lines.mixing.settle()
                self._regroup()
            if self._simple and isinstance(self._hot, native.NativePath):
                deadline = self._run_native(self._hot, deadline)
                continue
            now = time.monotonic_ns()
            if now < deadline:
                time.sleep((deadline - now) / 1e9)
                now = time.monotonic_ns()
            late = now - deadline
            if late > RESYNC_NS:
                deadline += self._skip(late)
            self._tick(now, late)
            deadline = self._next(deadline)
        self._lines.close_all()

    def _ready(self) -> Ready:
        return Ready(
            pid=os.getpid(),
            scheduling=self._scheduling,
            accelerated=isinstance(self._hot, native.NativePath),
            settings=self._settings,
            lines=self._lines.open_lines,
        )

    def _do_without_main(self) -> None:
        """Its part of what is played, until there is one again; then that one's queues are its own."""
        if not self._main.look_out(self._ready):
            self._stand_ins.play(self._lines, self._main.lost_at)

    def _next(self, deadline: int) -> int:
        """When the next tick is due, after one that was due at `deadline`."""
        if not len(self._groups[self._ticks % TICKS_A_FRAME].slots):
            self._ticks += 1  # a phase that nobody is in
            deadline += TICK_NS
        return deadline + TICK_NS

    def _run_native(self, hot: native.NativePath, deadline: int) -> int:
        """Ticks in C until one needs us; returns the next deadline."""
        run = hot.state
        run.deadline, run.ticks, run.flushed = deadline, self._ticks, self._flushes
        run.until = 0 if self._main.waiting else self._lines.due_ns()
        if self._main.alone:
            run.until = min(run.until, time.monotonic_ns() + STAND_IN_NS)
        needed = hot.run(self._sockets)
        self._ticks, now, late = run.ticks, run.now, run.lateness
        match needed:
            case native.Needed.BEHIND:
                return int(run.deadline) + self._skip(late)
            case native.Needed.ASKED:
                self._tick(now, late)
                return self._next(int(run.deadline))
            case native.Needed.RECEIVED:
                hot.finish_sending(self._sockets)
                self._tick(now, late, (int(run.at), int(run.kept), hot.left_of_shared(self._sockets)))
                return self._next(int(run.deadline))
            case native.Needed.DUE:
                self._lines.looks.decide(hot.left_of_looks(), now)
            case native.Needed.PLAYED:
                hot.finish(self._sockets, now)
                self._wake_main(self._groups[run.phase].slots)
        self._lines.watch(now)
        self._main.flush()
        return int(run.deadline)

    def _skip(self, late: int) -> int:
        """Whole frames that are given up; returns their time in ns."""
        frames = late // (TICKS_A_FRAME * TICK_NS)
        self._lines.outgoing.skip(self._lines.slots, frames)
        self._rings.header[Header.RESYNCS] += 1
        return frames * TICKS_A_FRAME * TICK_NS

    def _tick(self, now: int, late: int, begun: Begun | None = None) -> None:
        """What goes out first, at the time it is due; then what came in, and what of it main gets to hear."""
        if begun is None:
            self._attend(0)
            if self._rings.flushes[0] != self._flushes:
                self._flushes = self._rings.flushes[0]
                self._outgoing.flush(self._lines.slots)
                self._flushed = True
            if self._lines.changed or self._lines.mixing.stale:
                self._lines.mixing.settle()
                self._regroup()
            sent = time.monotonic_ns()
            self._send(self._groups[self._ticks % TICKS_A_FRAME], sent)
            self._receive(late)
        else:
            sent, read, shared = begun
            if read:
                self._sockets.batch.count = read
                self._take_odd(self._sockets.batch, list(range(read)))
            self._receive(late, shared, again=True)
        if self._sockets.waiting:
            self._take_strays()
        if self._lines.changed:
            self._regroup()  # but who has sent, and who sends after having heard, stays as it was when the tick began
        group = self._groups[self._ticks % TICKS_A_FRAME]
        if len(group.slots):
            self._play(group, sent)
        self._ticks += 1
        self._lines.watch(now)
        header = self._rings.header
        header[_HEARTBEAT] = self._ticks, now
        if late > LATE_NS:
            header[Header.LATE_TICKS] += 1
            header[Header.WORST_LATENESS_NS] = max(late, header[Header.WORST_LATENESS_NS])

    def _receive(self, late: int, shared: Received = None, again: bool = False) -> None:
        """`again`: each socket has been read once, and `shared` is what is left of the shared ports'."""
        # A second packet of a port waits for the next tick, except now and then, and after a pause of ours.
        passes = PASSES if late > LATE_NS or self._ticks // TICKS_A_FRAME % DRAIN_TICKS == 0 else 1
        for _ in range(passes - again):
            received = self._hot.receive(self._sockets)
            if received is None:
                break
            self._take_odd(*received)
        if not again:
            shared = self._hot.receive_shared(self._sockets)
        if shared is not None:
            self._take_odd(shared[0], self._fair(*shared))

    def _fair(self, batch: Batch, rows: list[int]) -> list[int]:
        """Without what one peer sends beyond all measure, lest the others' packets be late: its newest are kept."""
        if len(rows) <= ODD_PACKETS:
            return rows
        kept: list[int] = []
        taken: dict[int, int] = {}
        for row, slot in zip(reversed(rows), batch.slots[rows][::-1].tolist(), strict=True):
            taken[slot] = taken.get(slot, 0) + 1
            if taken[slot] <= ODD_PACKETS:
                kept.append(row)
        for slot, count in taken.items():
            self._rings.counters[slot, Counter.IGNORED] += max(count - ODD_PACKETS, 0)
        return kept[::-1]

    def _take_odd(self, batch: Batch, rows: list[int]) -> None:
        """What does not simply continue its stream, one by one."""
        if rows:
            self._read_control()  # first, for the peer may be answering to what main has said
        for row in rows:
            slot, length = int(batch.slots[row]), int(batch.lengths[row])
            self._lines.odd(slot, batch.rows[row, :length].tobytes(), int(batch.stamps[row]))

    def _send(self, group: Group, now: int) -> None:
        """The next packets of those that hear nobody else."""
        if group.join is not None and len(group.join.saying):
            self._lines.mixing.say(group.join.saying, self._lines.is_wide)
        if len(group.plain):
            self._hot.send(group.plain, group.sending, self._sockets, now)
        for slot in group.by_packet:
            self._lines.transmit(slot, now)

    def _play(self, group: Group, now: int) -> None:
        """The next frames to main; of those that hear or are heard also to the others. `now`: when the tick sent."""
        lines, hot = self._lines, self._hot
        if len(group.narrow):
            hot.play(group.narrow, now)
        if len(group.wide):
            hot.deliver(group.wide, *lines.wide.play(group.wide, now))
        if group.join is not None and group.join.simple:
            hot.converse(group.join, self._sockets, now)
        elif group.join is not None:
            self._play_joined(group.join, now)
        rings = self._rings
        for slots, ring, detector in (
            (group.listening, rings.rx_pcm, lines.detectors[0]),
            (group.listening_wide, rings.rx_wide, lines.detectors[1]),
        ):
            if len(slots):
                self._listen(slots, ring, detector, now)
        self._rings.ticked_ns[group.slots] = now
        self._wake_main(group.slots)

    def _wake_main(self, slots: Ints) -> None:
        """When one of these has as much for it as it waits for, or a queue was dropped."""
        rings = self._rings
        if self._flushed or (rings.rx_head[slots] >= rings.rx_wake[slots]).any():
            self._flushed = False
            os.eventfd_write(self._wake, 1)

    def _play_joined(self, join: Join, now: int) -> None:
        """One frame both ways for slots that hear others or are heard, some of which are not plain."""
        lines, hot = self._lines, self._hot
        came: list[tuple[Ints, Played]] = []
        for slots, buffer, detector in (
            (join.narrow, lines.narrow, lines.detectors[0]),
            (join.wide, lines.wide, lines.detectors[1]),
        ):
            if len(slots):
                played = buffer.play(slots, now)
                self._detect(slots, played, detector, now)
                lines.mixing.played(slots, played)
                came.append((slots, played))
        hot.pass_on(join, self._sockets, now)
        for slot in join.by_packet:
            lines.transmit(slot, now)
        for slots, played in came:
            hot.deliver(slots, *played)

    def _detect(self, slots: Ints, played: Played, detector: ToneDetector, now: int) -> None:
        """Flags the keys that are pressed as tones, on those lines that have no other way."""
        rows = np.flatnonzero(self._lines.listening[slots])
        if len(rows):
            found = detector.detect(slots[rows], played.pcm[rows])
            played.flags[rows[found.active]] |= FLAG_DIGIT
            if found.pressed:
                self._lines.toned(found.pressed, now)

    def _listen(self, slots: Ints, ring: NDArray[np.int16], detector: ToneDetector, now: int) -> None:
        """For keys pressed as tones, in the frames just handed over."""
        place = (self._rings.rx_head[slots] - 1) % ring.shape[1]
        found = detector.detect(slots, ring[slots, place])
        if found.active.any():
            self._rings.rx_flags[slots[found.active], place[found.active]] |= FLAG_DIGIT
        if found.pressed:
            self._lines.toned(found.pressed, now)

    def _take_strays(self) -> None:
        now = time.monotonic_ns()
        for stray in self._sockets.strays():
            self._lines.stray(stray, now)

    def _attend(self, timeout: float) -> None:
        """Commands of main and datagrams of unknown senders; waits for one of them when `timeout` is negative."""
        ready = dict(self._attention.poll(timeout))
        if ready:
            self._read_control()  # first, for the peer may be answering to what main has said
        if self._sockets.strays_fd in ready:
            self._take_strays()
        self._main.flush()

    def _read_control(self) -> None:
        for command in self._main.commands():
            self._obey(command, time.monotonic_ns())

    def _regroup(self) -> None:
        self._lines.changed = False
        slots = self._lines.slots
        self._groups = [Group(self._lines, slots[slots % TICKS_A_FRAME == phase]) for phase in range(TICKS_A_FRAME)]
        self._simple = all(group.simple for group in self._groups)
        if self._simple and isinstance(self._hot, native.NativePath):
            limits = {
                "attention": self._attention.fileno(),
                "wake": self._wake,
                "tick": TICK_NS,
                "late": LATE_NS,
                "resync": RESYNC_NS,
            }
            limits |= {"passes": PASSES, "drain": DRAIN_TICKS}
            joins = [group.join for group in self._groups]
            self._hot.settle([group.lists() for group in self._groups], joins, slots, self._sockets, limits)

    def _obey(self, command: AnyCommand, now: int) -> None:
        match command:
            case OpenPort():
                self._lines.open(command, now)
            case Connect():
                self._lines.connect(command, now)
            case Hear():
                self._lines.hear(command)
            case ClosePort():
                self._lines.close(command, now)
                self._stand_ins.forget(command.slot)
            case SendDigits():
                self._lines.press(command)
            case LeaveSound():
                self._stand_ins.keep(command)
            case StandIn():
                self._stand_ins.choose(command)
            case Stop():
                self._running = False

    def _notify(self, notice: Notice) -> None:
        self._main.send(notice)


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
    parser.add_argument("--door", help="folder and name, as of a path, of the door for a new main")
    options = parser.parse_args(arguments)
    door = try_door(Path(options.door).parent, Path(options.door).name) if options.door else None
    if door is None:
        die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they may reach the whole group; main decides when calls are over
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))  # two sockets a call
    settings = msgspec.json.decode(options.settings, type=MediaSettings)
    control = socket.socket(fileno=options.control)
    engine = Engine(settings, control, options.memory, options.wake, door)
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
