"""Adaptive playout for every call at once, in arrays over slots; time is an argument.

Samples have absolute positions that only grow; a slot's ring holds one second of them around `position`, the next to
be played. What came without a hole ends at `solid`, the newest at `end`; audio between is an island. Frames of 20 ms
leave at an even rate, so the delay is a matter of where `position` stands: invented or repeated audio that does not
advance it lengthens the delay, audio left out shortens it.

How large the delay should be follows from how late packets come (`sipagent.media.lateness`). A stream that simply
continues needs nothing of this: `hot_in` and `hot_out` say of which slots the engine may itself append packets and
take frames, and what is written then suffices to go on from.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media import concealment, timescale
from sipagent.media.comfort_noise import ComfortNoise
from sipagent.media.lateness import Lateness
from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Counter
from sipagent.media.rtp import timestamp_diff

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Pcm = NDArray[np.int16]
Signal = NDArray[np.float32]

AHEAD_MS = 700  # of audio that may lie ahead of playout; the rest of the ring is the past that concealment needs
_LATE_MS = 1000  # what lies further behind is not late: its timestamps have started over
_DRY_MS = 120  # without anything to play until the stream is let go
_REWIND_MS = 120  # by which a delay may grow when late audio is taken after all
_BACKLOG_MS = 300  # above the target that time-stretching takes back; beyond, playout skips
_MOST_ISLANDS = 24
_MERGE_MS = 4  # of cross-fade from invented into received audio
_BRIDGE_MS = 100  # the longest hole that is bridged from both sides
_QUIET = 100.0  # RMS of audio in which a cut is not heard
URGENT = 6  # frames that the delay must be wrong by for a cut in speech
_ALIKE = 0.9  # normalised correlation that such a cut wants
_FORCED = 12  # so many frames leave no choice
PATIENCE_NS = 100_000_000  # from one try to stretch to the next, doubled each time it finds no place, up to
MOST_PATIENCE_NS = 1_600_000_000
_NEVER = np.iinfo(np.int64).max


class Played(NamedTuple):
    pcm: Pcm  # (n, frame)
    flags: NDArray[np.uint8]  # (n,)
    arrival: Ints  # (n,) ns when the packet of the last sample came, 0 when none did


class JitterBuffer:
    """`pcm`, `arrived`, `position`, `solid`, `end`, `hot_in` and `hot_out` are shared with the engine's hot path.

    The hot path may append a packet of whole blocks whose sequence number and timestamp follow the newest where
    `hot_in` and 0 <= end - position <= AHEAD: it writes `pcm` with its mirror and `arrived`, and solid = end = the new
    end. Where `hot_out` and position + frame <= solid it may take the frame and move `position` on.
    """

    def __init__(self, capacity: int, rate: int, min_ms: int, max_ms: int, counters: Ints) -> None:
        self.rate = rate
        self.block = rate // 100
        self.frame = rate // 50
        self.ring = rate
        self.AHEAD = AHEAD_MS * rate // 1000
        self.pcm = np.zeros((capacity, self.ring + self.frame), np.int16)
        self.arrived = np.zeros((capacity, self.ring // self.block), np.int64)
        self.position = np.zeros(capacity, np.int64)
        self.solid = np.zeros(capacity, np.int64)
        self.end = np.zeros(capacity, np.int64)
        self.hot_in = np.zeros(capacity, np.bool_)
        self.hot_out = np.zeros(capacity, np.bool_)
        self.lateness = Lateness(capacity, rate, min_ms, max_ms)
        self._counters = counters
        self._scale = rate // 8000
        self._ns = 1_000_000_000 // rate  # per sample
        self._windows = np.lib.stride_tricks.sliding_window_view(self.pcm, self.frame, axis=1)
        self._live = np.zeros(capacity, np.bool_)
        self._known = np.zeros(capacity, np.bool_)  # base and end are those of the stream, live or let go
        self._base = np.zeros(capacity, np.int64)
        self._base_timestamp = np.zeros(capacity, np.int64)
        self._due = np.zeros(capacity, np.int64)  # ns, when playout begins; 0 when it has
        self._islands: dict[int, list[tuple[int, int]]] = {}
        self._island = np.full(capacity, _NEVER, np.int64)  # where the first one begins
        self._island_end = np.zeros(capacity, np.int64)
        self._invented_from = np.zeros(capacity, np.int64)  # the newest stretch of invented audio
        self._invented_to = np.zeros(capacity, np.int64)
        self._extending = np.zeros(capacity, np.bool_)  # the invented stretch has no other side yet
        self._extended = np.zeros(capacity, np.int64)  # samples of it that were played
        self._past_end = np.zeros(capacity, np.int64)  # where the past that it repeats ends
        self._lag = np.zeros(capacity, np.int64)  # the pitch of that
        self._unsettled = np.zeros(capacity, np.int64)  # samples invented that may turn out to be a pause
        self._stretch = np.zeros(capacity, np.int64)  # samples by which the delay should grow, or shrink if negative
        self._barren = np.zeros(capacity, np.bool_)  # no place for it was found: the next look will try again
        self._wanted = np.zeros(capacity, np.int64)  # samples to stretch, at the last look
        self._patience_ns = np.full(capacity, PATIENCE_NS, np.int64)  # until the next try to stretch
        self._look_ns = np.zeros(capacity, np.int64)  # when that is
        self._marked_to = np.zeros(capacity, np.int64)
        self._kind = np.zeros(self.arrived.shape, np.uint8)  # flags of blocks that no audio will come for
        self._noise = ComfortNoise(capacity)
        self._noisy = np.zeros(capacity, np.bool_)

    def looked_at(self) -> dict[str, NDArray[Any]]:
        """What `native_looks.h` knows, by its names."""
        mine = {"known": self._known, "live": self._live, "due": self._due, "wanted": self._wanted}
        mine |= {"stretch": self._stretch, "patience": self._patience_ns, "next_try": self._look_ns}
        return mine | {"barren": self._barren} | self.lateness.looked_at()

    # ---- the stream ----

    def reset(self, slot: int) -> None:
        """Forgets the stream and what was learned of it; what is not played yet is dropped."""
        self._known[slot] = self._noisy[slot] = False
        self.lateness.reset(slot)
        self._unsettled[slot] = 0
        self._let_go(slot)

    def anchored(self, slot: int) -> bool:
        return bool(self._live[slot])

    def timestamp_at_end(self, slot: int) -> int:
        """The RTP timestamp of a packet that simply continues, 32 bit."""
        ahead = int(self.end[slot] - self._base[slot]) // self._scale
        return int(self._base_timestamp[slot]) + ahead & 0xFFFFFFFF

    def insert(self, slot: int, timestamp: int, pcm: Pcm, contiguous: bool, arrival_ns: int) -> bool:
        """One packet of up to 60 ms; `timestamp` counts 8 kHz at any rate (RFC 3551 on G.722).

        False when it came too late, or twice, or is empty.
        """
        size = len(pcm)
        if not 0 < size <= self.ring // 8:
            return False
        start = self._place(slot, timestamp)
        if not self._live[slot]:
            start = self._begin(slot, timestamp, start, size, contiguous, arrival_ns)
        elif not -_LATE_MS * self.rate // 1000 < start - int(self.position[slot]) <= self.AHEAD - size:
            if -self.AHEAD < start - int(self.end[slot]) <= 0 or 0 <= start - int(self.end[slot]) < self.AHEAD:
                start = self._skip(slot, start, size)
            else:
                self._counters[slot, Counter.RESYNCS] += 1
                self.lateness.restart(slot)
                self._known[slot] = False
                start = self._begin(slot, timestamp, start, size, contiguous, arrival_ns)
        elif contiguous and start > self.end[slot]:
            self._pause(slot, start)
        self._settle(slot, pause=contiguous and start > int(self.end[slot]))
        self._noisy[slot] = False
        self._unmark(slot, start)
        taken = self._take(slot, start, pcm, arrival_ns)
        if not taken:
            self._counters[slot, Counter.LATE] += 1
            self.lateness.note(slot, arrival_ns - (start + size) * self._ns)
        elif int(self.end[slot]) - int(self.position[slot]) > self._backlog(slot):
            self._skip(slot, int(self.end[slot]) - size, size)
        self._refresh(slot)
        return taken

    def mark(self, slot: int, timestamp: int, samples: int, flag: int, now_ns: int) -> None:
        """No audio will come for `samples` (of the 8 kHz clock) from `timestamp` on, because of `flag`."""
        if not self._live[slot]:
            return
        start = max(self._place(slot, timestamp), int(self.position[slot]))
        stop = min(start + samples * self._scale, int(self.position[slot]) + self.AHEAD)
        start = max(start, int(self.solid[slot]))
        if start >= stop:
            return
        for free_from, free_to in self._free(slot, start, stop):
            if self._take(slot, free_from, np.zeros(free_to - free_from, np.int16), 0):
                self._flag(slot, free_from, free_to, flag)
        self._settle(slot, pause=True)
        self._refresh(slot)

    def _unmark(self, slot: int, start: int) -> None:
        """Audio goes on where none was foreseen: the key is no longer pressed."""
        stop = int(self._marked_to[slot])
        if not self.position[slot] <= start < stop == self.end[slot] or self._islands.get(slot):
            return
        blocks = np.arange(-(-start // self.block), -(-stop // self.block)) % self.arrived.shape[1]
        if not self.arrived[slot, blocks].any() and self._kind[slot, blocks].all():
            self._kind[slot, blocks] = 0
            self.end[slot] = self.solid[slot] = self._marked_to[slot] = start

    def noise(self, slot: int, timestamp: int, payload: bytes, now_ns: int) -> None:
        """A comfort-noise packet (RFC 3389): the sender is silent until its next audio."""
        self._noise.describe(slot, payload)
        self._noisy[slot] = True
        self._settle(slot, pause=True)
        self.hot_in[slot] = self.hot_out[slot] = False

    # ---- playing ----

    def play(self, slots: Ints, now_ns: int) -> Played:
        """The next 20 ms of these slots, each named once."""
        at = self.position[slots]
        odd = np.flatnonzero(~(self.hot_out[slots] & (at + self.frame <= self.solid[slots])))
        flags = np.zeros(len(slots), np.uint8)
        if not len(odd):
            self.position[slots] = at + self.frame
            return Played(self._windows[slots, at % self.ring], flags, self._arrival(slots, at + self.frame))
        plain = np.ones(len(slots), np.bool_)
        plain[odd] = False
        pcm = np.empty((len(slots), self.frame), np.int16)
        arrival = np.zeros(len(slots), np.int64)
        easy = slots[plain]
        pcm[plain] = self._windows[easy, at[plain] % self.ring]
        arrival[plain] = self._arrival(easy, at[plain] + self.frame)
        self.position[easy] += self.frame
        pcm[odd], flags[odd], arrival[odd] = self._play_odd(slots[odd], now_ns)
        return Played(pcm, flags, arrival)

    def adapt(self, slots: Ints, now_ns: int, ticked_ns: Ints) -> None:
        """To be called every 200 ms with all connected slots. `ticked_ns`: when each was played last."""
        self.learn(slots, ticked_ns)
        self.decide(slots, now_ns)

    def learn(self, slots: Ints, ticked_ns: Ints) -> None:
        """How late packets have come since the last call."""
        known = self._known[slots]
        slots, ticked_ns = slots[known], ticked_ns[known]
        if len(slots):
            self.lateness.ticked(slots[ticked_ns > 0], ticked_ns[ticked_ns > 0])
            self.lateness.learn(slots, self.arrived, self.solid[slots], self._ns, self.block)

    def decide(self, slots: Ints, now_ns: int) -> None:
        """Who stretches, after `learn`."""
        running = slots[self._known[slots] & self._live[slots] & (self._due[slots] == 0)]
        if not len(running):
            return
        spare = self.end[running] - self.position[running]
        for slot in running[spare > self.AHEAD // 2]:
            if self.end[slot] - self.position[slot] > self._backlog(int(slot)):
                self._skip(int(slot), int(self.end[slot]), 0)
        change = self.lateness.change(running, self.position[running], spare, now_ns)
        other = running[change != self._wanted[running]]
        self._patience_ns[other], self._look_ns[other] = PATIENCE_NS, 0
        self._wanted[running] = change
        self._stretch[running] = change
        # Where no place for a stretch is found, looking for one in every frame would cost more than the delay is worth.
        wants, urgent = change != 0, np.abs(change) >= URGENT * self.frame
        looks = running[wants & (urgent | (now_ns >= self._look_ns[running]))]
        self.hot_out[looks] = self._barren[looks] = False
        self._look_ns[looks] = now_ns + self._patience_ns[looks]
        self._patience_ns[looks] = np.minimum(2 * self._patience_ns[looks], MOST_PATIENCE_NS)
        self._patience_ns[running[~wants]] = PATIENCE_NS
        played_ns = now_ns - self.lateness.since(running, now_ns)
        delay = played_ns - self._arrival(running, self.position[running])
        heard = (delay >= 0) & (delay < 2_000_000_000)
        self._counters[running[heard], Counter.PLAYOUT_DELAY_US] = delay[heard] // 1000
        self._counters[running, Counter.TARGET_DELAY_US] = self.lateness.target_ns[running] // 1000

    def _play_odd(self, slots: Ints, now_ns: int) -> tuple[Pcm, NDArray[np.uint8], Ints]:
        pcm = np.zeros((len(slots), self.frame), np.int16)
        flags = np.full(len(slots), FLAG_SILENCE, np.uint8)
        arrival = np.zeros(len(slots), np.int64)
        self._due[slots[self._due[slots] <= now_ns]] = 0
        noisy = self._noisy[slots] & (~self._live[slots] | (self.end[slots] - self.position[slots] < self.frame))
        running = np.flatnonzero(self._live[slots] & (self._due[slots] == 0) & ~noisy)
        if noisy.any():
            self._play_noise(slots[noisy])
            pcm[noisy] = self._noise.frame(slots[noisy], self.frame)
        if not len(running):
            return pcm, flags, arrival
        rows = slots[running]
        self.lateness.ticked(rows, now_ns)
        self._fill(rows)
        self._merge(rows)
        frames, moved = self._stretched(rows)
        stop = self.position[rows] + moved
        invented = np.minimum(stop, self._invented_to[rows]) - np.maximum(
            self.position[rows], self._invented_from[rows]
        )
        concealed = 2 * invented >= moved
        flags[running] = np.where(concealed, FLAG_CONCEALED, 0) | self._flags(rows, self.position[rows], stop)
        pcm[running] = frames
        arrival[running] = np.where(concealed, 0, self._arrival(rows, stop))
        self.position[rows] = stop
        self._unsettled[rows] += np.clip(invented, 0, self.frame)
        self._after(rows)
        return pcm, flags, arrival

    def _fill(self, slots: Ints) -> None:
        """Invents what the next frame lacks, in the ring itself."""
        lacking = slots[self.position[slots] + self.frame > self.solid[slots]]
        if not len(lacking):
            return
        known = self._island[lacking] < self.position[lacking] + self.frame + _BRIDGE_MS * self.rate // 1000
        if known.any():
            self._bridge(lacking[known])
        dry = lacking[self.position[lacking] + self.frame > self.solid[lacking]]
        if len(dry):
            self._extend(dry)

    def _extend(self, slots: Ints) -> None:
        """The next frame where nothing is known of what follows: repetition that fades."""
        fresh = slots[~self._extending[slots]]
        if len(fresh):
            start = np.maximum(self.solid[fresh], self.position[fresh])
            self._lag[fresh] = concealment.pitch(self._past(fresh, start), self.rate).lag
            self._past_end[fresh] = self._invented_from[fresh] = start
            self._extended[fresh] = 0
            self._extending[fresh] = True
        first = np.maximum(self.position[slots], self._invented_from[slots])
        stop = self.position[slots] + self.frame
        self._write(slots, first, self._carried_on(slots, self.frame), stop)
        self._extended[slots] += stop - first
        self._invented_to[slots] = stop

    def _carried_on(self, slots: Ints, count: int) -> Signal:
        """What comes next of the repetition that these slots are in."""
        past, done = self._past(slots, self._past_end[slots]), self._extended[slots]
        audio = concealment.extend(past, self._lag[slots], done, count, self.rate)
        audio *= concealment.fade(done, count, self.rate)
        return audio

    def _bridge(self, slots: Ints) -> None:
        """Fills the holes up to the first islands from both sides, and makes them one with what precedes them."""
        start, stop = np.maximum(self.solid[slots], self.position[slots]), self._island[slots]
        count = stop - start
        fresh = (count > 0) & ~self._extending[slots]
        self._past_end[slots[fresh]] = self._invented_from[slots[fresh]] = start[fresh]
        self._extended[slots[fresh]] = 0
        for size in np.unique(count[count > 0]):
            same = np.flatnonzero(count == size)
            rows, begin, end = slots[same], start[same], stop[same]
            past, future = self._past(rows, self._past_end[rows]), self._at(rows, end, self._history())
            future[end[:, None] + np.arange(self._history()) >= self._island_end[rows, None]] = 0
            audio = concealment.bridge(past, future, self._extended[rows], int(size), self.rate)
            self._write(rows, begin, audio, end)
            self._invented_to[rows] = end
        self._extending[slots] = False
        for slot in slots.tolist():
            self._join_island(slot)

    def _merge(self, slots: Ints) -> None:
        """Where received audio follows invented audio that knew nothing of it, one fades into the other."""
        back = slots[
            self._extending[slots]
            & (self.position[slots] + self.frame <= self.solid[slots])
            & (self._invented_to[slots] <= self.position[slots])
        ]
        if not len(back):
            return
        count = _MERGE_MS * self.rate // 1000
        at, carried = self.position[back], self._carried_on(back, count)
        received = self._at(back, at, count)
        self._write(back, at, carried + (received - carried) * concealment.rising(count), at + count)
        self._extending[back] = False

    def _stretched(self, slots: Ints) -> tuple[Pcm, Ints]:
        """The frames, and by how many samples each moves the position on."""
        at = self.position[slots]
        frames = self._windows[slots, at % self.ring]
        moved = np.full(len(slots), self.frame, np.int64)
        wants = self._stretch[slots]
        longest = timescale.LONGEST_MS * self.rate // 1000
        clean = (self._invented_to[slots] <= at) & (self._marked_to[slots] <= at)
        spare = self.solid[slots] - at - self.frame
        for rows, sign in ((np.flatnonzero(clean & (wants > 0)), -1), (np.flatnonzero(clean & (wants < 0)), 1)):
            if not len(rows):
                continue
            limit = np.minimum(np.abs(wants[rows]) + self.block // 2, longest)
            window = self._at(slots[rows], at[rows] - (longest if sign < 0 else 0), self.frame + longest)
            if sign > 0:
                limit = np.minimum(limit, spare[rows])
            part = window[:, longest + self.block - 1 :: -1] if sign < 0 else window[:, : self.block + longest]
            quiet = (timescale.level(part) < _QUIET) & (limit > 0)
            wrong = np.abs(wants[rows])
            lag, do = np.minimum(wrong, limit), quiet.copy()
            serious = np.flatnonzero(~quiet & (wrong >= URGENT * self.frame))
            if len(serious):
                found = timescale.match(part[serious], self.rate, limit[serious])
                lag[serious] = found.lag
                forced = (wrong[serious] >= _FORCED * self.frame) & (limit[serious] >= found.lag)
                do[serious] = (found.likeness > _ALIKE) | forced
            self._barren[slots[rows]] = ~do & (wrong < URGENT * self.frame)
            rows, lag, window = rows[do], lag[do], window[do]
            if not len(rows):
                continue
            changed = timescale.crossfade(window, sign * lag, self.frame, longest if sign < 0 else 0)
            frames[rows] = np.clip(np.rint(changed), -32768, 32767).astype(np.int16)
            moved[rows] += sign * lag
            if sign > 0:
                self._write(slots[rows], at[rows] + lag, changed, at[rows] + lag + self.frame)
            left = wants[rows] + sign * lag
            self._patience_ns[slots[rows]] = PATIENCE_NS
            self._stretch[slots[rows]] = np.where(np.abs(left) < self.rate // 1000, 0, left)
            column = Counter.ACCELERATED_MS if sign > 0 else Counter.EXPANDED_MS
            self._counters[slots[rows], column] += lag * 1000 // self.rate
        return frames, moved

    def _after(self, slots: Ints) -> None:
        """What playing a frame leaves to be looked at: islands reached, streams that dried up, the hot path."""
        position = self.position[slots]
        for slot in slots[self._island[slots] <= np.maximum(position, self.solid[slots])]:
            while self._island[slot] <= max(self.position[slot], self.solid[slot]):
                self._join_island(int(slot))
        lasting = self._unsettled[slots]
        sure = (lasting > 0) & ~self._extending[slots]
        settled = slots[sure]
        if len(settled):
            self._counters[settled, Counter.CONCEALED_MS] += lasting[sure] * 1000 // self.rate
            self._unsettled[settled] = 0
        dry = position - self.end[slots] >= _DRY_MS * self.rate // 1000
        for slot in slots[dry]:
            self._let_go(int(slot))
        solid, end = self.solid[slots], self.end[slots]
        passed = slots[(self._marked_to[slots] > 0) & (self._marked_to[slots] <= position)]
        self._marked_to[passed] = self._kind[passed] = 0
        plain = self._live[slots] & (self._marked_to[slots] == 0) & ~self._noisy[slots]
        self.hot_in[slots] = plain & (solid == end) & (end % self.block == 0)
        self.hot_out[slots] = (
            plain
            & (self._due[slots] == 0)
            & ~self._extending[slots]
            & ((self._stretch[slots] == 0) | self._barren[slots])
            & (self._invented_to[slots] <= position)
        )

    # ---- one packet ----

    def _place(self, slot: int, timestamp: int) -> int:
        return int(self.end[slot]) + timestamp_diff(timestamp, self.timestamp_at_end(slot)) * self._scale

    def _begin(self, slot: int, timestamp: int, start: int, size: int, contiguous: bool, arrival_ns: int) -> int:
        """Playout begins, or begins again after a pause, with this packet; where it lies."""
        if not self._known[slot] or not 0 <= start - int(self.end[slot]) < 1 << 40:
            base = (max(int(self.position[slot]), int(self.end[slot])) // self.ring + 2) * self.ring
            self._base[slot], self._base_timestamp[slot] = base, timestamp
            self._known[slot] = True
            start = base
            self.lateness.restart(slot)
        self._settle(slot, pause=contiguous)
        self._let_go(slot)
        self.pcm[slot] = 0
        self.arrived[slot] = 0
        self.position[slot] = self.solid[slot] = self.end[slot] = start
        self._invented_from[slot] = self._invented_to[slot] = start
        self._marked_to[slot] = self._kind[slot] = 0
        self._live[slot] = True
        self._due[slot] = self.lateness.due_ns(slot, start, size, arrival_ns)
        return start

    def _let_go(self, slot: int) -> None:
        self._live[slot] = self.hot_in[slot] = self.hot_out[slot] = self._extending[slot] = False
        self._islands.pop(slot, None)
        self._island[slot] = _NEVER
        self._stretch[slot] = self._due[slot] = 0
        self._kind[slot] = 0
        self.solid[slot] = self.end[slot]

    def _skip(self, slot: int, start: int, size: int) -> int:
        """A backlog: its oldest audio is not played, so that the delay it brings does not stay."""
        self._counters[slot, Counter.RESYNCS] += 1
        keep = self.lateness.target_ns[slot] // self._ns // self.frame * self.frame
        target = max(int(self.position[slot]), start + size - max(int(keep), self.frame))
        self.position[slot] = target
        if self.end[slot] < target:
            self._clear(slot, int(self.end[slot]), target)
            self.end[slot] = self.solid[slot] = target
        self._refresh(slot)
        return start

    def _backlog(self, slot: int) -> int:
        most = int(self.lateness.target_ns[slot]) // self._ns + _BACKLOG_MS * self.rate // 1000
        return min(most, self.AHEAD)

    def _pause(self, slot: int, start: int) -> None:
        """The sender was silent from the end up to `start`."""
        begin = max(int(self.end[slot]), int(self.position[slot]))
        if begin < start:
            self._take(slot, begin, np.zeros(start - begin, np.int16), 0)
            self._flag(slot, begin, start, FLAG_SILENCE)

    def _settle(self, slot: int, *, pause: bool) -> None:
        """What was invented since the last packet is now known to have been a loss, or a pause."""
        if not pause:
            self._counters[slot, Counter.CONCEALED_MS] += int(self._unsettled[slot]) * 1000 // self.rate
        self._unsettled[slot] = 0

    def _take(self, slot: int, start: int, pcm: Pcm, arrival_ns: int) -> bool:
        """Writes audio to its place and keeps account of what is there; False when its time has passed."""
        stop = start + len(pcm)
        position, end = int(self.position[slot]), int(self.end[slot])
        if start < position:
            nothing_newer = end <= position and start >= end and position - start <= _REWIND_MS * self.rate // 1000
            if nothing_newer and self._extending[slot] and arrival_ns:
                position = start  # late, not lost: the delay grows instead
                self.position[slot] = start
                self._invented_to[slot] = min(int(self._invented_to[slot]), start)
            elif stop <= position:
                return False
        skipped = max(0, position - start)
        pcm, start = pcm[skipped:], start + skipped
        islands = self._islands.get(slot, [])
        if len(islands) >= _MOST_ISLANDS and start > end:
            return False
        solid = max(int(self.solid[slot]), position) if end <= position else int(self.solid[slot])
        if stop <= solid:
            return self._correct(slot, start, pcm, arrival_ns)
        if any(a <= start and stop <= b for a, b in islands):
            return False
        if start > end:
            self._clear(slot, end, start)
        self._put(slot, start, pcm)
        first, last = start // self.block, -(-stop // self.block)
        blocks = np.arange(first, last) % self.arrived.shape[1]
        self.arrived[slot, blocks] = arrival_ns
        self._kind[slot, blocks] = 0
        merged = _union(islands, start, stop)
        if merged[0][0] <= max(solid, position) or self._extending[slot] and end <= position == merged[0][0]:
            solid = max(solid, merged.pop(0)[1])
        self.solid[slot] = solid
        self.end[slot] = max(end, stop, solid)
        self._keep(slot, merged)
        return True

    def _correct(self, slot: int, start: int, pcm: Pcm, arrival_ns: int) -> bool:
        """Audio for a hole that was bridged but not played yet takes the place of what was invented."""
        stop = start + len(pcm)
        if start < self._invented_from[slot] or stop > self._invented_to[slot] or arrival_ns == 0:
            return False
        blocks = np.arange(start // self.block, -(-stop // self.block)) % self.arrived.shape[1]
        if self.arrived[slot, blocks].any():
            return False
        one, at, count = np.array([slot]), np.array([start]), min(_MERGE_MS * self.rate // 1000, len(pcm))
        invented = self._at(one, at, count)
        self._put(slot, start, pcm)
        self._write(one, at, invented + (pcm[:count] - invented) * concealment.rising(count), at + count)
        self.arrived[slot, blocks] = arrival_ns
        if stop == self._invented_to[slot]:
            self._invented_to[slot] = start
        return True

    def _keep(self, slot: int, islands: list[tuple[int, int]]) -> None:
        if islands:
            self._islands[slot] = islands
            self._island[slot], self._island_end[slot] = islands[0]
        else:
            self._islands.pop(slot, None)
            self._island[slot] = _NEVER

    def _join_island(self, slot: int) -> None:
        """The first island has become part of the solid audio."""
        islands = self._islands.get(slot, [])
        self.solid[slot] = max(int(self.solid[slot]), islands[0][1])
        self._keep(slot, islands[1:])

    def _free(self, slot: int, start: int, stop: int) -> list[tuple[int, int]]:
        """What of a stretch ahead of the solid audio has not been received."""
        result = []
        for a, b in self._islands.get(slot, []):
            if start < min(a, stop):
                result.append((start, min(a, stop)))
            start = max(start, b)
        if start < stop:
            result.append((start, stop))
        return result

    def _flag(self, slot: int, start: int, stop: int, flag: int) -> None:
        first, last = start // self.block, -(-stop // self.block)
        self._kind[slot, np.arange(first, last) % self._kind.shape[1]] = flag
        self._marked_to[slot] = max(int(self._marked_to[slot]), stop)

    def _refresh(self, slot: int) -> None:
        """What `_after` does, for one slot whose position stands."""
        position, solid = int(self.position[slot]), int(self.solid[slot])
        while self._island[slot] <= max(position, solid):
            self._join_island(slot)
            solid = int(self.solid[slot])
        end = int(self.end[slot])
        plain = bool(self._live[slot]) and self._marked_to[slot] <= position and not self._noisy[slot]
        self.hot_in[slot] = plain and solid == end and end % self.block == 0
        stretches = self._stretch[slot] and not self._barren[slot]
        busy = self._due[slot] or self._extending[slot] or stretches or self._invented_to[slot] > position
        self.hot_out[slot] = plain and not busy

    # ---- the ring ----

    def _history(self) -> int:
        return concealment.HISTORY_MS * self.rate // 1000

    def _arrival(self, slots: Ints, stop: Ints) -> Ints:
        """When the packet with the last sample before `stop` came."""
        result: Ints = self.arrived[slots, (stop - 1) // self.block % self.arrived.shape[1]]
        return result

    def _at(self, slots: Ints, start: Ints, count: int) -> Signal:
        at = (start[:, None] + np.arange(count)) % self.ring
        audio: Signal = self.pcm[slots[:, None], at].astype(np.float32)
        return audio

    def _past(self, slots: Ints, stop: Ints) -> Signal:
        return self._at(slots, stop - self._history(), self._history())

    def _write(self, slots: Ints, start: Ints, audio: Signal, stop: Ints) -> None:
        """`audio` (n, m) to the ring from `start` on, as much of it as lies before `stop`."""
        at = start[:, None] + np.arange(audio.shape[1])
        row, column = np.nonzero(at < stop[:, None])
        value = np.clip(np.rint(audio[row, column]), -32768, 32767).astype(np.int16)
        place = at[row, column] % self.ring
        self.pcm[slots[row], place] = value
        mirrored = place < self.frame
        self.pcm[slots[row[mirrored]], place[mirrored] + self.ring] = value[mirrored]

    def _put(self, slot: int, start: int, pcm: Pcm) -> None:
        self.pcm[slot, np.arange(start, start + len(pcm)) % self.ring] = pcm
        self.pcm[slot, self.ring :] = self.pcm[slot, : self.frame]

    def _clear(self, slot: int, start: int, stop: int) -> None:
        """No packet brought these samples."""
        first, last = -(-start // self.block), min(-(-stop // self.block), start // self.block + self.arrived.shape[1])
        self.arrived[slot, np.arange(first, last) % self.arrived.shape[1]] = 0

    def _flags(self, slots: Ints, start: Ints, stop: Ints) -> NDArray[np.uint8]:
        """The marks over these frames: a key over any part of one, silence over both ends."""
        result = np.zeros(len(slots), np.uint8)
        marked = self._marked_to[slots] > start
        if not marked.any():
            return result
        rows, blocks = slots[marked], self._kind.shape[1]
        a, b = start[marked] // self.block % blocks, (stop[marked] - 1) // self.block % blocks
        kinds = self._kind[rows, a], self._kind[rows, b]
        result[marked] = kinds[0] & kinds[1] & FLAG_SILENCE | (kinds[0] | kinds[1]) & FLAG_DIGIT
        return result

    def _play_noise(self, slots: Ints) -> None:
        """While noise is played nothing waits; the next packet begins a talkspurt."""
        for slot in slots[self._live[slots]]:
            self._let_go(int(slot))


def _union(islands: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """The stretch added to sorted ones, those that touch made one."""
    result = []
    for a, b in islands:
        if b < start or a > stop:
            result.append((a, b))
        else:
            start, stop = min(a, start), max(b, stop)
    return sorted([*result, (start, stop)])
