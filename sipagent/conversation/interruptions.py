"""What the caller says while it is the agent's turn: `Floor` decides, here it is carried out and recorded."""

from typing import Any

from sipagent.conversation.floor import Act, Floor, Saying, Verdict
from sipagent.conversation.interfaces import FRAME_MS, AudioOut
from sipagent.conversation.listener import Heard
from sipagent.conversation.turn import Turn

MOST_RECORDED = 16  # utterances beside one turn of the agent's


class Interruptions:
    """One call."""

    def __init__(self, out: AudioOut, floor: Floor) -> None:
        self._out = out
        self._floor = floor
        self._holding = False
        self._held_ms = 0  # in this utterance

    def begin(self) -> None:
        """An utterance of the caller's begins."""
        self._floor.begin()
        self._held_ms = 0

    def frame(self, voiced: bool, speech_ms: int, turn: Turn | None) -> bool:
        """As `Floor.frame`; whether the caller takes the floor with this one."""
        if not voiced and not speech_ms and self._floor.at_rest:  # as mostly
            return False
        self._held_ms += FRAME_MS * self._holding
        act = self._floor.frame(voiced, speech_ms, saying(turn))
        if act is None:  # as mostly
            return False
        match act:
            case Act.DUCK:
                self._out.duck(True)
            case Act.HOLD:
                self._hold(True)
            case Act.RESUME:
                self.release()
            case Act.CUT if turn is not None:
                self._record(turn, Verdict.INTERRUPTION, speech_ms)
        return act is Act.CUT

    def hear(self, heard: Heard, text: str, turn: Turn | None, *, final: bool, confidence: float) -> Verdict | None:
        """As `Floor.hear`."""
        verdict = self._floor.hear(
            text, saying(turn), heard.voiced_ms, final=final, over=heard.ended_ns > 0, confidence=confidence
        )
        if verdict is not None and verdict is not Verdict.INTERRUPTION:
            self.release()
        if verdict is not None and turn is not None:
            self._record(turn, verdict, heard.voiced_ms, text)
        return verdict

    def may_yield(self, turn: Turn) -> bool:
        """The turn may be interrupted just now."""
        agent = saying(turn)
        return agent is not None and self._floor.may_yield(agent)

    def release(self) -> None:
        """The agent speaks at its full level from now on."""
        self._floor.release()
        self._out.duck(False)
        self._hold(False)

    def _hold(self, on: bool) -> None:
        self._holding = on
        self._out.hold(on)

    def _record(self, turn: Turn, verdict: Verdict, voiced_ms: int, text: str = "") -> None:
        recorded: list[dict[str, Any]] = turn.details.setdefault("barge_in", [])
        if len(recorded) < MOST_RECORDED:
            recorded.append(
                {
                    "what": verdict.value,
                    "words": text,
                    "voiced_ms": voiced_ms,
                    "held_ms": self._held_ms,
                    "heard_until": turn.utterance.heard_text,
                }
            )


def saying(turn: Turn | None) -> Saying | None:
    if turn is None or turn.over:
        return None
    utterance = turn.utterance
    audible = utterance.audible and not utterance.done
    return Saying(
        audible=audible,
        whole=turn.ending or (audible and utterance.whole),
        asked=utterance.asked,
        left_ms=utterance.left_ms,
    )
