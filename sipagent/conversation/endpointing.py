"""Where speech starts, pauses and ends, from voice activity per frame.

    voiced     ....####.########...##########..................
    changes       STARTED      PAUSED  RESUMED   PAUSED   ENDED
                                |<- pause_ms ->|     |<- as long as the strategy waits ->|

Pure: frames in, changes out; a frame is 20 ms and its position is the only clock.
"""

from enum import Enum, auto

from sipagent.conversation import turn_end
from sipagent.conversation.interfaces import FRAME_MS, Expecting, Words
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import Known, TurnEnd, Wait


class Change(Enum):
    STARTED = auto()
    PAUSED = auto()
    RESUMED = auto()
    ENDED = auto()


class Endpointer:
    def __init__(self, settings: ConversationSettings, strategy: TurnEnd | None = None) -> None:
        self._strategy = strategy if strategy is not None else turn_end.make(settings)
        self._start_frames = max(1, settings.start_ms // FRAME_MS)
        self._pause_frames = max(1, settings.pause_ms // FRAME_MS)
        self._max_frames = int(settings.max_utterance_s * 1000) // FRAME_MS
        self._run = 0  # voiced frames in a row before speech has started
        self._paused = False
        self._silent = False  # at the last frame
        self.speaking = False
        self.start = 0  # position of the first voiced frame
        self.last_voiced = 0
        self.voiced_frames = 0  # of this utterance
        self.expecting = Expecting.ANYTHING
        self.words: Words | None = None  # up to the pause that is on
        self.decided: Wait | None = None  # why the last utterance ended; None when it was cut for its length

    @property
    def voiced_ms(self) -> int:
        return self.voiced_frames * FRAME_MS

    def hear(self, words: Words) -> None:
        """What the recogniser makes of the utterance; matters to its end when it is all up to the pause that is on."""
        if words.paused and self._silent:
            self.words = words

    def push(self, position: int, voiced: bool) -> Change | None:
        """Takes the decision for one frame; returns what changed with it, if anything."""
        self._silent = not voiced
        if not self.speaking:
            if not voiced:
                self._run = 0
                return None
            self._run += 1
            if self._run < self._start_frames:
                return None
            self.speaking, self._paused = True, False
            self.start, self.last_voiced = position - self._run + 1, position
            self.voiced_frames, self._run = self._run, 0
            self.words = None
            return Change.STARTED
        if position - self.start >= self._max_frames:
            return self._end(None)
        if voiced:
            self.last_voiced = position
            self.voiced_frames += 1
            self.words = None
            if self._paused:
                self._paused = False
                return Change.RESUMED
            return None
        silent = position - self.last_voiced
        if not self._paused:
            if silent < self._pause_frames:
                return None
            self._paused = True
            return Change.PAUSED
        wait = self._strategy.wait(Known(silent * FRAME_MS, self.voiced_ms, self.words, self.expecting))
        return self._end(wait) if silent * FRAME_MS >= wait.ms else None

    def _end(self, decided: Wait | None) -> Change:
        self.speaking = False
        self.decided = decided
        return Change.ENDED
