"""What callers hear while there is no main: a phrase that main has left for their line, then music, until one is back.

Meanwhile the engine is the one that queues: main, whose part that is, is not there. Lines that hear each other are left
alone, for their call goes on by itself.
"""

import numpy as np
from numpy.typing import NDArray

from sipagent.media.ducking import TxMode
from sipagent.media.lines import Lines
from sipagent.media.protocol import LeaveSound, StandIn
from sipagent.media.rings import Rings
from sipagent.media.rtp import FRAME, RATE

MUSIC = "music"  # the sound that is played over and over when the phrase is over
MOST_SOUNDS = 64
_AHEAD = 20  # frames queued at most: what a new main has to throw away is heard no more
_NOTHING = np.zeros(0, np.int16)


class StandIns:
    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._sounds: dict[tuple[str, int], NDArray[np.int16]] = {}  # by name and rate
        self._phrases: dict[int, str] = {}  # by slot
        self._since = 0
        self._at: dict[int, int] = {}  # samples played of the phrase and the music after it

    def keep(self, command: LeaveSound) -> None:
        """Beyond `MOST_SOUNDS` nothing is kept."""
        for rate, pcm in ((RATE, command.narrow), (2 * RATE, command.wide)):
            if len(self._sounds) < 2 * MOST_SOUNDS or (command.name, rate) in self._sounds:
                self._sounds[command.name, rate] = np.frombuffer(pcm[: len(pcm) // 2 * 2], np.int16)

    def choose(self, command: StandIn) -> None:
        self._phrases[command.slot] = command.sound

    def forget(self, slot: int) -> None:
        self._phrases.pop(slot, None)

    def play(self, lines: Lines, lost_at: int) -> None:
        """Queues what is due on each line that would be silent; to be called at least every 100 ms.

        ``lost_at``: when main went, in ns.
        """
        if lost_at != self._since:
            self._since = lost_at
            self._at.clear()
            self._rings.tx_mode[:] = TxMode.FULL  # nobody would let it go on
        slots = lines.slots[~lines.mixing.joined[lines.slots]]
        for slot in slots[lines.outgoing.sending[slots]].tolist():
            missing = _AHEAD - int(self._rings.tx_head[slot] - self._rings.tx_tail[slot])
            if missing > 0:
                self._queue(slot, missing)

    def _queue(self, slot: int, frames: int) -> None:
        rings, rate = self._rings, int(self._rings.rate[slot])
        each = FRAME * rate // RATE
        pcm = self._next(slot, rate, frames * each).reshape(frames, each)
        ring = rings.tx_pcm[slot] if rate == RATE else rings.tx_wide[slot]
        head = int(rings.tx_head[slot])
        places = np.arange(head, head + frames) % len(ring)
        ring[places] = pcm
        rings.tx_sent[slot, places] = 0
        rings.tx_head[slot] = head + frames

    def _next(self, slot: int, rate: int, count: int) -> NDArray[np.int16]:
        """The next samples: the phrase, then music for ever; silence where there is neither."""
        at = self._at.get(slot, 0)
        self._at[slot] = at + count
        phrase = self._sounds.get((self._phrases.get(slot, ""), rate), _NOTHING)
        music = self._sounds.get((MUSIC, rate), _NOTHING)
        part = phrase[at : at + count]
        rest = count - len(part)
        if not len(music):
            return np.concatenate((part, np.zeros(rest, np.int16)))
        begun = max(at - len(phrase), 0)
        return np.concatenate((part, music.take(np.arange(begun, begun + rest), mode="wrap")))
