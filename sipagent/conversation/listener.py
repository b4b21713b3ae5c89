"""The agent's ears: frames from the caller in, utterances out."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sipagent.conversation.audio import rate_of
from sipagent.conversation.echo_gate import EchoGate
from sipagent.conversation.endpointing import Change, Endpointer
from sipagent.conversation.floor import Verdict
from sipagent.conversation.interfaces import (
    FRAME_MS,
    AudioFrames,
    Expecting,
    MakeDetector,
    Pcm,
    Recogniser,
    Recognition,
    Transcript,
    VoiceDetector,
    Words,
)
from sipagent.conversation.loudness import Loudness
from sipagent.conversation.prosody import NoJudge, Prosody, TurnJudge
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import TurnEnd

VOICED = 0.5  # of a detector that gives probabilities; decisions are 0 or 1
_NO_KEYS: list[bool] = []


@dataclass(slots=True)
class Heard:
    """One utterance of the caller. Times are monotonic ns on the machine's clock."""

    started_ns: int  # when its first voiced packet came
    recognition: Recognition = field(init=False)
    transcript: Transcript | None = None  # once it is final
    last_arrival_ns: int = 0  # when its last voiced packet came
    last_handed_ns: int = 0  # when that audio reached the conversation
    ended_ns: int = 0  # when it was decided that the caller had finished
    voiced_ms: int = 0
    end: dict[str, Any] = field(default_factory=dict)  # how it was decided that it is over, for the record
    aside: Verdict | None = None  # what all of it so far was, where it was said during the agent's turn


class ListenerEvents(Protocol):
    """Called by the listener, on the event loop; must not block."""

    def speech_started(self, heard: Heard) -> None: ...
    def frame(self, voiced: bool, heard: Heard | None) -> None:
        """Each frame, with the utterance that is on."""
        ...

    def speech_paused(self, heard: Heard) -> None:
        """The caller says nothing just now; `words` with all said so far will follow, or `speech_resumed`."""
        ...

    def speech_resumed(self, heard: Heard) -> None: ...
    def speech_ended(self, heard: Heard) -> None: ...
    def words(self, heard: Heard, words: Words) -> None:
        """Of an utterance that has not ended."""
        ...


class Listener:
    def __init__(
        self,
        settings: ConversationSettings,
        make_vad: MakeDetector,
        recogniser: Recogniser,
        events: ListenerEvents,
        turn_end: TurnEnd,
        expecting: Callable[[], tuple[Expecting, int]] = lambda: (Expecting.ANYTHING, 0),
        judge: TurnJudge | None = None,
    ) -> None:
        """``expecting``: what is, when the caller begins to speak, and how many digits of it where they are known."""
        self._make_vad = make_vad
        self._vad: VoiceDetector | None = None
        self._rate = 0
        self._echo = EchoGate()
        self._recogniser = recogniser
        self._events = events
        self._expecting = expecting
        self._turn_end = turn_end
        self._endpointer = Endpointer(settings, turn_end)
        self._prosody = Prosody(judge or NoJudge(), self._endpointer.sounds)
        self._loudness = Loudness()
        self._preroll: deque[Pcm] = deque(maxlen=max(1, (settings.preroll_ms + settings.start_ms) // FRAME_MS))
        self._heard: Heard | None = None

    @property
    def hearing(self) -> bool:
        """The caller is speaking, as far as is known."""
        return self._heard is not None

    def push(self, frames: AudioFrames, sent: Pcm | None, now: int) -> None:
        """Takes the frames of one tick; `sent` left meanwhile, None for silence; `now` is monotonic ns."""
        rate = rate_of(frames.pcm)
        if self._vad is None or rate != self._rate:  # another codec: a sentence may go on across it
            self._vad, self._rate = self._make_vad(rate), rate
        pcm, keys = frames.pcm, _NO_KEYS
        if frames.keyed:
            pressed = frames.pressed
            keys = pressed.tolist()
            pcm = np.where(pressed[:, None], np.int16(0), pcm)  # a key's tone is neither speech nor to be recognised
        # Lists: what is looked at frame by frame costs a third there.
        for i, (voiced, arrival) in enumerate(zip(self._vad.push(pcm).tolist(), frames.arrival.tolist(), strict=True)):
            frame = pcm[i]
            echo = self._echo.feed(frame, None if sent is None else sent[i])
            speaks = voiced >= VOICED and not echo and not (keys and keys[i])
            self._frame(frame, frames.position + i, speaks, arrival, now)
            self._events.frame(speaks, self._heard)

    def take(self) -> Heard | None:
        """No more frames will come: the utterance that was being said, if any."""
        heard, self._heard = self._heard, None
        self._prosody.forget()
        if heard is not None:
            heard.ended_ns = heard.last_handed_ns
        return heard

    def _frame(self, frame: Pcm, position: int, voiced: bool, arrival: int, now: int) -> None:
        # A fixed silence is timed from where the detector lets go, as its setting has always meant.
        loud = voiced and (self._loudness.push(frame) or self._turn_end.name == "silence")
        change = self._endpointer.push(position, voiced, loud)
        self._prosody.push(frame)
        heard = self._heard
        if heard is None:
            self._preroll.append(frame)
            if change is Change.STARTED:
                heard = self._begin(arrival or now)
                for earlier in self._preroll:
                    heard.recognition.push(earlier)
                self._preroll.clear()
                self._mark_voiced(heard, arrival, now, audible=True)
                self._events.speech_started(heard)
            return
        heard.recognition.push(frame)
        if voiced:
            self._mark_voiced(heard, arrival, now, audible=self._loudness.audible)
        if change is Change.PAUSED:
            heard.recognition.pause()
            self._prosody.pause(position - self._endpointer.last_voiced)
            self._events.speech_paused(heard)
        elif change is Change.RESUMED:
            heard.recognition.resume()
            self._prosody.cancel()
            self._events.speech_resumed(heard)
        elif change is Change.ENDED:
            heard.ended_ns = now
            heard.end = self._reason(position)
            self._prosody.forget()
            self._loudness.reset()
            self._heard = None
            self._events.speech_ended(heard)

    def _begin(self, started_ns: int) -> Heard:
        heard = self._heard = Heard(started_ns)
        heard.recognition = self._recogniser.begin(lambda words: self._words(heard, words))
        self._endpointer.expecting, self._endpointer.digits = self._expecting()
        return heard

    def _words(self, heard: Heard, words: Words) -> None:
        if heard is self._heard:  # else they come too late to matter: finish() will tell them
            self._endpointer.hear(words)
            self._events.words(heard, words)

    def _reason(self, position: int) -> dict[str, Any]:
        endpointer = self._endpointer
        reason: dict[str, Any] = {"strategy": self._turn_end.name}
        if endpointer.decided is None:
            return reason | {"why": "length"}
        silence_ms = (position - endpointer.last_voiced) * FRAME_MS
        return reason | {"why": endpointer.decided.why, "wait_ms": endpointer.decided.ms, "silence_ms": silence_ms}

    def _mark_voiced(self, heard: Heard, arrival: int, now: int, *, audible: bool) -> None:
        heard.voiced_ms = self._endpointer.voiced_ms
        if audible:
            heard.last_arrival_ns = arrival or now
            heard.last_handed_ns = now
