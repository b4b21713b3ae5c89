"""Who hears whom: lines of the same process joined, so that what one's caller says leaves on another's line.

A line that hears plays its own queued audio and, on top, what the others' callers say, as their jitter buffers hand it
out, and on request what is said to them, out of their queues. Every line plays one frame in every 20 ms, so a listener
finds exactly one new frame of each other line whenever its own time comes: from the same tick where both have the same
phase, else from the tick before, 10 ms earlier. A line that has played none, because it was just joined or is not
connected, is silent.

Where one line hears one other of the same G.711 law and has nothing of its own to say, the peer's codes leave as they
came: decoding and encoding by table gives back the same code. (Of µ-law's two codes for zero, 0xFF leaves for both.)
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sipagent.media.ducking import TxMode, ducked
from sipagent.media.jitter import Played
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import MOST_HEARD, Hear
from sipagent.media.rates import Conversion, saturated
from sipagent.media.rings import FLAG_DIGIT, FLAG_SILENCE, Rings
from sipagent.media.rtp import FRAME

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Pcm = NDArray[np.int16]

VOICES = 2 * MOST_HEARD  # heard by one line


class Join:
    """The slots of one phase that hear others or are heard."""

    def __init__(
        self,
        slots: Ints,
        *,
        hears: Bools,
        says: Bools,
        is_wide: Bools,
        by_packet: Bools,
        sending: Bools,
        simple: bool,
    ) -> None:
        """`hears` and those after it are of all slots."""
        wide = is_wide[slots]
        self.narrow, self.wide = slots[~wide], slots[wide]
        listeners = slots[hears[slots]]
        wide = is_wide[listeners]
        self.narrow_listeners, self.wide_listeners = listeners[~wide], listeners[wide]
        plain = listeners[~by_packet[listeners]]
        self.plain = plain  # listeners whose packets are made in arrays,
        self.sending = plain[sending[plain]]  # and those of them that send
        self.by_packet: list[int] = listeners[by_packet[listeners]].tolist()
        self.saying = slots[says[slots]]  # what is queued for them is heard on other lines too
        self.simple = simple and not (len(self.wide) or self.by_packet)


class Mixing:
    def __init__(self, rings: Rings, outgoing: Outgoing) -> None:
        capacity = rings.capacity
        self._rings = rings
        self._outgoing = outgoing
        self._heard: dict[int, Hear] = {}  # by listener
        self.stale = False  # `hears`, `joined` and `says` are those of before the last changes
        self.hears = np.zeros(capacity, np.bool_)
        self.joined = np.zeros(capacity, np.bool_)  # those that hear, and whom they hear
        # Voices: the slots' callers, then nobody, who is silent, then what is said to each of them.
        self._nobody, voices = capacity, 2 * capacity + 1
        self.others = np.full((capacity, VOICES), self._nobody, np.int64)
        self.taken = np.zeros((capacity, VOICES), np.int64)  # frames of each that the listener has had
        self.count = np.zeros(voices, np.int64)  # frames
        self.silent = np.zeros(voices, np.bool_)  # the newest frame is no audio
        self.pressed = np.zeros(voices, np.bool_)  # a key is held in it
        self.narrow = np.zeros((voices, FRAME), np.int16)  # that frame, at 8 kHz
        self._wide = np.zeros((voices, 2 * FRAME), np.int16)  # and at 16
        self._both = np.zeros(voices, np.bool_)  # it is wanted at the other rate too
        self._conversion = Conversion(voices)
        self.says = np.zeros(capacity, np.bool_)  # what is queued here is heard elsewhere
        self.told = np.full(capacity, -1, np.int64)  # position of the frame of it that was heard last
        self.muting = np.zeros(capacity, np.bool_)  # the listener gets keys as events: not as tones as well
        # What each listener hears in this tick.
        self._mix = np.zeros((capacity, FRAME), np.int16)
        self._wide_mix = np.zeros((capacity, 2 * FRAME), np.int16)
        self.voiced = np.zeros(capacity, np.bool_)  # somebody has audio

    def hear(self, command: Hear, known: Iterable[int]) -> None:
        """From now on this; others than the `known` slots are nobody."""
        slot, before = command.slot, self.others[command.slot].copy()
        present = set(known) - {slot}
        others, said = (
            tuple(other for other in dict.fromkeys(listed) if other in present)[:MOST_HEARD]
            for listed in (command.others, command.said)
        )
        if not others and not said:
            self._heard.pop(slot, None)
        else:
            self._heard[slot] = Hear(slot=slot, others=others, said=said, own=command.own, keys=command.keys)
        taken = dict(zip(before.tolist(), self.taken[slot].tolist(), strict=True))
        self.others[slot] = self._nobody
        self.taken[slot] = 0
        for column, voice in enumerate((*others, *(self._nobody + 1 + other for other in said))):
            self.others[slot, column] = voice
            self.taken[slot, column] = taken.get(voice, self.count[voice])
        self._outgoing.waiting[slot] = slot in self._heard and not command.own
        self.stale = True

    def forget(self, slot: int) -> None:
        """Its call is over, or another's begins: it hears nobody, and nobody hears it."""
        self.told[slot] = -1
        self._outgoing.waiting[slot] = False
        if self._heard.pop(slot, None) is not None:
            self.others[slot] = self._nobody
            self.stale = True
        for command in list(self._heard.values()):
            if slot in (*command.others, *command.said):
                self.hear(command, {*command.others, *command.said} - {slot})

    def keys_to(self, slot: int) -> Iterator[int]:
        """The listeners to which the keys that this slot's peer presses are passed on."""
        return (listener for listener, command in self._heard.items() if command.keys and slot in command.others)

    def gets_keys(self, slot: int) -> bool:
        return slot in self._heard and self._heard[slot].keys

    def join(self, slots: Ints, is_wide: Bools, by_packet: Bools, sending: Bools, listening: Bools) -> Join | None:
        """Those of these slots that are joined; None when there are none."""
        mine = slots[self.joined[slots]]
        if not len(mine):
            return None
        self._convert(is_wide)
        both = self._both[mine] | self._both[self._nobody + 1 + mine]
        return Join(
            mine,
            hears=self.hears,
            says=self.says,
            is_wide=is_wide,
            by_packet=by_packet,
            sending=sending,
            simple=not (both.any() or listening[mine].any()),
        )

    def _convert(self, is_wide: Bools) -> None:
        """Whose audio is wanted at the other rate too."""
        listeners = np.flatnonzero(self.hears)
        others = self.others[listeners]
        row, column = np.nonzero(others != self._nobody)
        voices = others[row, column]
        both = np.zeros_like(self._both)
        both[voices[is_wide[voices % (self._nobody + 1)] != is_wide[listeners[row]]]] = True
        self._conversion.reset(np.flatnonzero(both & ~self._both))
        self._both = both

    def say(self, slots: Ints, is_wide: Bools) -> None:
        """What is said to these slots in this tick, before it leaves."""
        rings, outgoing = self._rings, self._outgoing
        tails, mode, before = rings.tx_tail[slots], rings.tx_mode[slots], outgoing.mode[slots]
        leaves = (rings.tx_head[slots] > tails) & outgoing.sending[slots] & ~outgoing.waiting[slots]
        leaves &= tails != self.told[slots]  # while keys are pressed it waits
        leaves &= mode & before != TxMode.HELD
        slots, tails, mode, before = slots[leaves], tails[leaves], mode[leaves], before[leaves]
        taken = mode != TxMode.HELD
        self.told[slots[taken]] = tails[taken]
        wide = is_wide[slots]
        for queue, which in ((rings.tx_pcm, ~wide), (rings.tx_wide, wide)):
            if which.any():
                pcm = queue[slots[which], tails[which] % queue.shape[1]]
                if (mode | before).any():
                    pcm = ducked(pcm, before[which], mode[which])
                self._add(self._nobody + 1 + slots[which], pcm)

    def played(self, slots: Ints, played: Played) -> None:
        """What the callers of these slots say in this tick: (n, 160), or (n, 320) of lines at 16 kHz."""
        pcm, flags, _ = played
        self.silent[slots] = flags & FLAG_SILENCE != 0
        self.pressed[slots] = flags & FLAG_DIGIT != 0
        self._add(slots, pcm)

    def _add(self, voices: Ints, pcm: Pcm) -> None:
        self.count[voices] += 1
        both = self._both[voices]
        if pcm.shape[1] == FRAME:
            self.narrow[voices] = pcm
            if both.any():
                self._wide[voices[both]] = self._conversion.up(voices[both], pcm[both])
        else:
            self._wide[voices] = pcm
            if both.any():
                self.narrow[voices[both]] = self._conversion.down(voices[both], pcm[both])

    def mix(self, join: Join) -> None:
        """Takes one frame of everybody that each listener hears."""
        if len(join.narrow_listeners):
            self._take(join.narrow_listeners, self.narrow, self._mix)
        if len(join.wide_listeners):
            self._take(join.wide_listeners, self._wide, self._wide_mix)

    def _take(self, listeners: Ints, frames: Pcm, mixes: Pcm) -> None:
        others = self.others[listeners]
        most = int((others != self._nobody).sum(axis=1).max())
        others = others[:, :most]
        count = self.count[others]
        there = count != self.taken[listeners, :most]
        self.taken[listeners, :most] = count
        there &= ~(self.muting[listeners][:, None] & self.pressed[others])
        self.voiced[listeners] = (there & ~self.silent[others]).any(axis=1)
        if most == 1:
            mix = frames[others[:, 0]]
            mix[~there[:, 0]] = 0
        else:
            mix = saturated(np.where(there[:, :, None], frames[others], np.int16(0)).sum(axis=1, dtype=np.int32))
        mixes[listeners] = mix

    def heard(self, slots: Ints) -> Pcm:
        """What these lines at 8 kHz hear in this tick."""
        return self._mix[slots]

    def heard_by(self, slot: int, samples: int) -> Pcm | None:
        """What one line with so many samples a frame hears in this tick; None when it hears nobody."""
        if not self.hears[slot]:
            return None
        mix: Pcm = (self._mix if samples == FRAME else self._wide_mix)[slot]
        return mix

    def settle(self) -> None:
        """Between two ticks: from now on those that hear others send after having heard, all others before."""
        self.stale = False
        voices = self.others[self.others != self._nobody]
        stopped = self.hears & (self.others == self._nobody).all(axis=1) & ~self._outgoing.talking
        for slot in np.flatnonzero(stopped).tolist():
            self._outgoing.silence(slot)  # the packet that waits holds the noise that was heard last
        self.hears[:] = (self.others != self._nobody).any(axis=1)
        self.joined = self.hears.copy()
        self.joined[voices % (self._nobody + 1)] = True
        self.says[:] = False
        self.says[voices[voices > self._nobody] - self._nobody - 1] = True
