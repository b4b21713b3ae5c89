"""How late packets come, per slot, and the delay that follows: a quantile of relative delay with forgetting.

The floor is the least transit (arrival minus place in the stream) of the last seconds; it follows a skewed clock. How
much later than that each 20 ms came goes into a histogram whose old entries fade (NetEQ's idea). *Lag* here is how much
later than by the floor's packets a frame is played: 0 means that it leaves as its fastest packet comes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_MS = 1_000_000
BIN_NS = 5 * _MS
_FIRST_NS = 10 * _MS  # lag until something is known
QUANTILE = 0.98
KEPT = 0.996  # of a histogram per frame: half of it is gone after 3.5 s
FLOOR_NS = 2_000 * _MS  # half of the window for the least transit
_MARGIN_NS = 4 * _MS  # the least lag, for small delays of the packets and of ourselves
SLACK_NS = 2 * _MS  # of lateness that is not worth a whole frame of delay
EASE_NS = 6 * _MS  # of delay beyond a whole frame too much before one is taken back, and a 19th of the lag
TICK_NS = 20 * _MS
FAR_NS = 1 << 62


class Lateness:
    """Arrays over slots; `target_ns` is what the delay of a frame should be, between `min_ms` and `max_ms`."""

    def __init__(self, capacity: int, rate: int, min_ms: int, max_ms: int) -> None:
        self.least = max((min_ms - 20) * _MS, _MARGIN_NS)
        self.most = max((max_ms - 20) * _MS, self.least)
        self.bins = self.most // BIN_NS + 2
        self._ns = 1_000_000_000 // rate
        self._frame, self._block = rate // 50, rate // 100
        self._histogram = np.zeros((capacity, self.bins), np.float32)
        self._count = np.zeros(capacity, np.int64)
        self._floor = np.zeros(capacity, np.int64)  # of this window and the last
        self._lowest = np.zeros((capacity, 2), np.int64)  # of this window, of the last
        self._window_to = np.zeros(capacity, np.int64)  # position at which this window ends
        self._learned_to = np.zeros(capacity, np.int64)
        self._phase = np.zeros(capacity, np.int64)  # of the clock by which the slot is played
        self._lag = np.full(capacity, _FIRST_NS, np.int64)
        self.target_ns = np.zeros(capacity, np.int64)
        for slot in range(capacity):
            self.reset(slot)

    def looked_at(self) -> dict[str, NDArray[Any]]:
        """What `native_looks.h` knows, by its names."""
        return {
            **{"histogram": self._histogram, "entered": self._count, "floor": self._floor, "lowest": self._lowest},
            **{"window_to": self._window_to, "learned_to": self._learned_to, "phase": self._phase},
            **{"lag": self._lag, "target": self.target_ns},
        }

    def reset(self, slot: int) -> None:
        self._histogram[slot] = 0
        self._histogram[slot, _FIRST_NS // BIN_NS] = 1
        self._count[slot] = 0
        self._lag[slot] = min(max(_FIRST_NS, self.least), self.most)
        self.target_ns[slot] = self._lag[slot] + TICK_NS
        self.restart(slot)

    def restart(self, slot: int) -> None:
        """Positions or timestamps have started over; what is known of the spread stays."""
        self._window_to[slot] = -1

    def ticked(self, slots: Ints, now_ns: int | Ints) -> None:
        self._phase[slots] = now_ns % TICK_NS

    def since(self, slots: Ints, now_ns: int) -> Ints:
        """How long ago these slots were played, in ns."""
        since = (now_ns - self._phase[slots]) % TICK_NS
        return np.where(since > TICK_NS - 2 * _MS, since - TICK_NS, since)

    def due_ns(self, slot: int, start: int, size: int, arrival_ns: int) -> int:
        """When the frame at `start` should be played, which a packet of `size` samples begins; never 0."""
        self._see(np.array([slot]), np.array([start + size]), np.array([arrival_ns - (start + size) * self._ns]))
        self._learned_to[slot] = start
        return max(int(self._floor[slot] + self._lag[slot]) + (start + self._frame) * self._ns, 1)

    def note(self, slot: int, transit_ns: int) -> None:
        """A packet came too late to be played."""
        if self._window_to[slot] >= 0:
            self._enter(np.array([slot]), np.array([[transit_ns]]), np.ones((1, 1), np.bool_))

    def learn(self, slots: Ints, arrived: Ints, solid: Ints, ns: int, block: int) -> None:
        """The arrivals, per block, of the frames that became solid since the last call."""
        slots, solid = slots[self._window_to[slots] >= 0], solid[self._window_to[slots] >= 0]
        if not len(slots):
            return
        blocks, most = arrived.shape[1], arrived.shape[1] // 2 - 4
        newest = solid // block * block
        frames = np.clip((newest - self._learned_to[slots]) // self._frame, 0, most)
        back = np.arange(int(frames.max(initial=0)) - 1, -1, -1)
        stop = newest[:, None] - back * self._frame
        came = arrived[slots[:, None], (stop // block - 1) % blocks]
        got = (frames[:, None] > back) & (came > 0)
        some = got.any(axis=1)
        if some.any():
            rows, got, transit = slots[some], got[some], (came - stop * ns)[some]
            self._see(rows, newest[some], np.where(got, transit, FAR_NS).min(axis=1))
            self._enter(rows, transit, got)
        some = frames > 0
        self._learned_to[slots[some]] = newest[some]
        self._decide(slots[some])

    def change(self, slots: Ints, position: Ints, spare: Ints, now_ns: int) -> Ints:
        """By how many samples the delay should grow (positive) or shrink; `spare` is what lies ahead of `position`.

        Whole frames of change are wanted: a delay that ends in the midst of a packet protects no better than one that
        ends before it.
        """
        lag = now_ns - self.since(slots, now_ns) - self._floor[slots] - position * self._ns
        part = np.maximum(spare, 0) % self._frame
        safe = lag - part * self._ns
        wanted = self._lag[slots]
        frame_ns = self._frame * self._ns
        grow = np.maximum(-(-(wanted - safe - SLACK_NS) // frame_ns), 0) * self._frame
        # Where lateness varies little, so does its quantile.
        ease = np.minimum(SLACK_NS + wanted // 4, EASE_NS + wanted // 19)
        shrink = np.maximum((safe - wanted - ease) // frame_ns, 0) * self._frame
        result: Ints = np.where(grow > 0, grow - part, -shrink - part)
        result[self._window_to[slots] < 0] = 0
        return np.where(np.abs(result) < self._block // 2, 0, result)

    def _see(self, slots: Ints, stop: Ints, transit: Ints) -> None:
        """The floor: the least transit of this window and the one before."""
        first = self._window_to[slots] < 0
        size = FLOOR_NS // self._ns
        if first.any():
            rows = slots[first]
            self._lowest[rows] = transit[first, None]
            self._window_to[rows] = stop[first] + size
        over = stop > self._window_to[slots]
        if over.any():
            rows = slots[over]
            self._lowest[rows, 1] = self._lowest[rows, 0]
            self._lowest[rows, 0] = transit[over]
            self._window_to[rows] = stop[over] + size
        self._lowest[slots, 0] = np.minimum(self._lowest[slots, 0], transit)
        self._floor[slots] = self._lowest[slots].min(axis=1)

    def _enter(self, slots: Ints, transit: Ints, got: NDArray[np.bool_]) -> None:
        """Frames (n, k) in their order, those that `got` says, as if the old entries had faded by each in turn."""
        relative = np.clip((transit - self._floor[slots, None]) // BIN_NS, 0, self.bins - 1)
        number = self._count[slots, None] + np.cumsum(got, axis=1)
        kept = np.where(got, np.minimum(KEPT, number / (number + 2)), 1.0)  # the first frames count for more
        fading = np.cumprod(kept[:, ::-1], axis=1)[:, ::-1]  # by this frame and all after it
        weight = fading * (1 / kept - 1)
        self._histogram[slots] *= fading[:, :1].astype(np.float32)
        places = (np.arange(len(slots))[:, None] * self.bins + relative)[got]
        added = np.bincount(places, weight[got], len(slots) * self.bins).reshape(len(slots), self.bins)
        self._histogram[slots] += added.astype(np.float32)
        self._count[slots] = number[:, -1]

    def _decide(self, slots: Ints) -> None:
        summed = self._histogram[slots].cumsum(axis=1)
        reached = (summed >= QUANTILE * summed[:, -1:]).argmax(axis=1)
        self._lag[slots] = np.clip(reached * BIN_NS, self.least, self.most)
        self.target_ns[slots] = self._lag[slots] + TICK_NS
