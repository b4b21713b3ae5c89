"""Where speech starts, pauses and ends, from voice activity and loudness per frame.

    voiced     ....####.########...##########..................
    changes       STARTED      PAUSED  RESUMED   PAUSED   ENDED
                                |<- pause_ms ->|     |<- as long as the strategy waits ->|

Pure: frames in, changes out; a frame is 20 ms and its position is the only clock.
"""

from enum import Enum, auto

from sipagent.conversation.caller_pauses import CallerPauses
from sipagent.conversation.interfaces import FRAME_MS, Expecting, Words
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import Known, TurnEnd, Wait

SAME_TURN_FRAMES = 1000 // FRAME_MS  # who speaks again so soon had not finished


class Change(Enum):
    STARTED = auto()
    PAUSED = auto()
    RESUMED = auto()
    ENDED = auto()


class Endpointer:
    def __init__(self, settings: ConversationSettings, strategy: TurnEnd, pauses: CallerPauses | None = None) -> None:
        self._strategy = strategy
        self._start_frames = max(1, settings.start_ms // FRAME_MS)
        self._pause_frames = max(1, settings.pause_ms // FRAME_MS)
        self._max_frames = int(settings.max_utterance_s * 1000) // FRAME_MS
        self._run = 0  # voiced frames in a row before speech has started
        self._paused = False
        self._silent = False  # at the last frame
        self.speaking = False
        self.start = 0  # position of the first voiced frame
        self.last_voiced = -SAME_TURN_FRAMES - 1
        self.voiced_frames = 0  # of this utterance
        self.expecting = Expecting.ANYTHING
        self.digits = 0  # of the answer that is expected, at most; 0 where nobody knows
        self.words: Words | None = None  # up to the pause that is on
        self.prosody: float | None = None  # of it
        self._pauses = pauses if pauses is not None else CallerPauses()
        self.decided: Wait | None = None  # why the last utterance ended; None when it was cut for its length

    @property
    def voiced_ms(self) -> int:
        return self.voiced_frames * FRAME_MS

    def hear(self, words: Words) -> None:
        """What the recogniser makes of the utterance; matters to its end when it is all up to the pause that is on."""
        if words.paused and self._silent:
            self.words = words

    def sounds(self, complete: float) -> None:
        """How finished the speech up to the pause sounds, 0..1."""
        if self._silent:
            self.prosody = complete

    def push(self, position: int, voiced: bool, loud: bool = True) -> Change | None:
        """Takes the decision for one frame; returns what changed with it, if anything.

        A voiced frame that is not `loud` belongs to the silence behind the speech when that is timed.
        """
        self._silent = not (voiced and loud)
        if not self.speaking:
            if not voiced:
                self._run = 0
                return None
            self._run += 1
            if self._run < self._start_frames:
                return None
            self.speaking, self._paused = True, False
            self.start = position - self._run + 1
            if self.start - self.last_voiced <= SAME_TURN_FRAMES:  # it was cut off there, as it now turns out
                self._pauses.add((self.start - self.last_voiced) * FRAME_MS)
            self.last_voiced = position
            self.voiced_frames, self._run = self._run, 0
            self.words = self.prosody = None
            return Change.STARTED
        if position - self.start >= self._max_frames:
            return self._end(None)
        if voiced:
            self.voiced_frames += 1
        if voiced and loud:
            pause, self.last_voiced = position - self.last_voiced, position
            self.words = self.prosody = None
            if self._paused:
                self._paused = False
                self._pauses.add(pause * FRAME_MS)
                return Change.RESUMED
            return None
        silent = position - self.last_voiced
        if not self._paused:
            if silent < self._pause_frames:
                return None
            self._paused = True
            return Change.PAUSED
        wait = self._strategy.wait(self._known(silent))
        return self._end(wait) if silent * FRAME_MS >= wait.ms else None

    def _known(self, silent: int) -> Known:
        return Known(
            silence_ms=silent * FRAME_MS,
            speech_ms=self.voiced_ms,
            words=self.words,
            prosody=self.prosody,
            expecting=self.expecting,
            digits=self.digits,
            own_pause_ms=self._pauses.typical_ms,
        )

    def _end(self, decided: Wait | None) -> Change:
        self.speaking = False
        self.decided = decided
        return Change.ENDED
