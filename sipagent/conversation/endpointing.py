"""Where speech starts, pauses and ends, from voice activity per frame.

    voiced     ....####.########...##########..................
    changes       STARTED      PAUSED  RESUMED   PAUSED   ENDED
                                |<- pause_ms ->|     |<- endpointing_ms ->|

Pure: frames in, changes out; a frame is 20 ms and its position is the only clock.
"""

from enum import Enum, auto

from sipagent.conversation.interfaces import FRAME_MS
from sipagent.conversation.settings import ConversationSettings


class Change(Enum):
    STARTED = auto()
    PAUSED = auto()
    RESUMED = auto()
    ENDED = auto()


class Endpointer:
    def __init__(self, settings: ConversationSettings) -> None:
        self._start_frames = max(1, settings.start_ms // FRAME_MS)
        self._pause_frames = max(1, settings.pause_ms // FRAME_MS)
        self._end_frames = max(self._pause_frames + 1, settings.endpointing_ms // FRAME_MS)
        self._max_frames = int(settings.max_utterance_s * 1000) // FRAME_MS
        self._run = 0  # voiced frames in a row before speech has started
        self._paused = False
        self.speaking = False
        self.start = 0  # position of the first voiced frame
        self.last_voiced = 0
        self.voiced_frames = 0  # of this utterance

    @property
    def voiced_ms(self) -> int:
        return self.voiced_frames * FRAME_MS

    def push(self, position: int, voiced: bool) -> Change | None:
        """Takes the decision for one frame; returns what changed with it, if anything."""
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
            return Change.STARTED
        if position - self.start >= self._max_frames:
            return self._end()
        if voiced:
            self.last_voiced = position
            self.voiced_frames += 1
            if self._paused:
                self._paused = False
                return Change.RESUMED
            return None
        silent = position - self.last_voiced
        if silent >= self._end_frames:
            return self._end()
        if silent == self._pause_frames and not self._paused:
            self._paused = True
            return Change.PAUSED
        return None

    def _end(self) -> Change:
        self.speaking = False
        return Change.ENDED
