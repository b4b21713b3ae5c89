"""Who has the floor when the caller is heard while the agent speaks.

    caller     ...#.##########...............#####################......
    acts          DUCK     HOLD         RESUME   DUCK   HOLD        CUT
                           "mm-hm"                      "no, Tuesday"

The agent gets softer with the first sign of a voice, stops where it is once that lasts, and is cut short when it is
certain that the caller wants the floor: by the words, or by how long it lasts. After a cough, a backchannel ("mm-hm")
or the like it goes on where it stopped. A "yes" is a backchannel too, unless a question was asked: then it is
an answer.

Pure: frames and words in, acts out; a frame is 20 ms and the only clock.
"""

import re
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Protocol

from sipagent.conversation.interfaces import FRAME_MS
from sipagent.conversation.languages import Backchannels

LONGEST_PHRASE = 4  # words of a backchannel


class Act(Enum):
    DUCK = auto()
    HOLD = auto()
    RESUME = auto()
    CUT = auto()  # the agent's turn is over


class Verdict(StrEnum):
    """What an utterance of the caller's beside the agent's was."""

    INTERRUPTION = "interruption"
    LATER = "later"  # meant, and answered once the agent has finished
    BACKCHANNEL = "backchannel"
    NOISE = "noise"  # no words


class Said(Enum):
    NOTHING = auto()
    BACKCHANNEL = auto()  # and never an answer
    CONSENT = auto()  # a backchannel, or an answer
    SPEECH = auto()


class BargeInPlan(Protocol):
    """As in the dialplan."""

    @property
    def after_ms(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which speech of the caller's takes the floor."""

    never: bool = False
    by_words: bool = False  # only what is recognised, however long something is heard
    after_ms: int = 0  # of speech, before that nothing does

    @classmethod
    def of(cls, plan: str | BargeInPlan) -> "Policy":
        if isinstance(plan, str):
            return cls(never=plan == "never", by_words=plan == "words")
        return cls(after_ms=plan.after_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """In ms; of voice in one utterance unless said otherwise."""

    hold_ms: int = 260  # holds the agent: clicks and most coughs are shorter
    sure_ms: int = (
        1200  # interrupts without words: backchannels are shorter, and nothing is lost by waiting, for it is held
    )
    click_ms: int = 100  # of silence behind what was not even an utterance
    release_ms: int = 300  # of silence behind less than `hold_ms`: by then the words of a short one are known
    verdict_ms: int = 1000  # of silence in which the words of a longer one are waited for
    longest_hold_ms: int = 2000  # then the agent goes on whatever is heard: silence of the agent is nobody's turn
    doubtful_ms: int = (
        750  # of voice in which a recogniser that is not sure of its words has heard none: a shout, a laugh
    )
    sure_of_words: float = 0.4  # its confidence from which it is
    near_end_ms: int = 800  # what the agent has left to say is said before it answers


@dataclass(frozen=True, slots=True)
class Saying:
    """What the agent is doing just now."""

    audible: bool  # it has begun to be heard, and there is more to come
    whole: bool = False  # what it says now must be heard whole
    asked: bool = False  # a question has begun to be heard
    left_ms: int | None = None  # until its end; None while more of it is being made


class Floor:
    """One call; `begin` with every utterance of the caller's, then `frame` and `hear` as they come."""

    def __init__(self, policy: Policy, words: Backchannels, limits: Limits | None = None) -> None:
        self._policy = policy
        self._words = words
        self._limits = limits = limits if limits is not None else Limits()
        self._hold_ms = max(limits.hold_ms, policy.after_ms)
        self._sure_ms = max(limits.sure_ms, policy.after_ms)
        self._last = Act.RESUME
        self._silent_ms = 0
        self._held_ms = 0  # in this utterance
        self._settled_ms = 0  # voiced of this utterance when it was last settled
        self._spared = False  # the agent goes on in spite of this utterance, until words tell more

    def begin(self) -> None:
        self._settled_ms = self._held_ms = 0
        self._spared = False

    def release(self) -> None:
        """The agent is at its full level again, whatever was heard."""
        self._last = Act.RESUME

    @property
    def at_rest(self) -> bool:
        """The agent is at its full level: a silent frame without an utterance changes nothing."""
        return self._last is Act.RESUME

    def frame(self, voiced: bool, speech_ms: int, agent: Saying | None) -> Act | None:
        """One frame of the caller's; `speech_ms` are voiced of the utterance that is on, 0 when none is.

        `agent` is None when it is not the agent's turn. An act is returned once.
        """
        self._silent_ms = 0 if voiced else self._silent_ms + FRAME_MS
        unsettled_ms = max(speech_ms - self._settled_ms, 0)
        if self._last is Act.HOLD:
            self._held_ms += FRAME_MS
        if agent is None or not self.may_yield(agent):
            return self._do(Act.RESUME)
        if not agent.audible:  # nothing that could get softer: it is taken back, or comes
            return self._do(Act.CUT if voiced and unsettled_ms >= self._hold_ms else Act.RESUME)
        if self._last is Act.CUT:
            return None  # it is being done
        return self._go_on(unsettled_ms) if voiced else self._wait(speech_ms)

    def hear(
        self,
        text: str,
        agent: Saying | None,
        voiced_ms: int,
        *,
        final: bool,
        over: bool = False,
        confidence: float = 1.0,
    ) -> Verdict | None:
        """What the caller's utterance is by its words, when so much of it is voiced; None while they leave it open.

        `confidence` is the recogniser's in them.

        `final`: they are all that was said up to a pause; `over`: the utterance has ended with it. After a verdict the
        agent is at its full level again, or cut.
        """
        said = kind_of(text, self._words)
        if said is Said.SPEECH and agent is not None and self._doubtful(agent, voiced_ms, confidence):
            said = Said.NOTHING
        if not final and said is not Said.SPEECH:
            return None
        verdict = self._verdict(said, agent, voiced_ms if over else voiced_ms - self._settled_ms)
        if verdict is Verdict.LATER and not final:
            return None
        self._last = Act.CUT if verdict is Verdict.INTERRUPTION else Act.RESUME
        if not over:
            self._settled_ms, self._spared = voiced_ms, False
        return verdict

    def may_yield(self, agent: Saying) -> bool:
        return not (self._policy.never or agent.whole)

    def _doubtful(self, agent: Saying, voiced_ms: int, confidence: float) -> bool:
        """Where the caller's words are due, one that is hard to understand is one all the same."""
        short = voiced_ms < self._limits.doubtful_ms and confidence < self._limits.sure_of_words
        return short and agent.audible and not agent.asked and not self._ends(agent)

    def _ends(self, agent: Saying) -> bool:
        return agent.left_ms is not None and agent.left_ms <= self._limits.near_end_ms

    def _go_on(self, voiced_ms: int) -> Act | None:
        if voiced_ms >= self._sure_ms and not self._policy.by_words:
            return self._do(Act.CUT)
        if self._spared or self._held_ms >= self._limits.longest_hold_ms:
            self._spared = True
            return self._do(Act.RESUME)
        if self._last is Act.HOLD:
            return None
        return self._do(Act.HOLD if voiced_ms >= self._hold_ms else Act.DUCK)

    def _wait(self, speech_ms: int) -> Act | None:
        limits = self._limits
        if self._last is Act.HOLD:
            enough = limits.verdict_ms
        else:
            enough = limits.release_ms if speech_ms else limits.click_ms
        return self._do(Act.RESUME) if self._silent_ms >= enough else None

    def _verdict(self, said: Said, agent: Saying | None, voiced_ms: int) -> Verdict:
        if said is Said.NOTHING:
            return Verdict.NOISE
        if agent is None:  # it has finished meanwhile
            return Verdict.BACKCHANNEL if said is Said.BACKCHANNEL else Verdict.LATER
        ends = self._ends(agent)
        if said is Said.BACKCHANNEL or (said is Said.CONSENT and not (agent.asked or ends)):
            return Verdict.BACKCHANNEL
        meant = self.may_yield(agent) and voiced_ms >= self._policy.after_ms
        return Verdict.INTERRUPTION if meant and not (said is Said.CONSENT and ends) else Verdict.LATER

    def _do(self, act: Act) -> Act | None:
        if act is self._last:
            return None
        self._last = act
        return act


_NO_WORD = re.compile(r"[^\w'-]+")


def kind_of(text: str, words: Backchannels) -> Said:
    """What this is when it is said while somebody else speaks."""
    rest = _NO_WORD.sub(" ", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).split()
    kind = Said.NOTHING
    while rest:
        length, found = _phrase(rest, words)
        if found is Said.SPEECH:
            return found
        kind = found if kind is not Said.CONSENT else kind
        del rest[:length]
    return kind


def _phrase(rest: list[str], words: Backchannels) -> tuple[int, Said]:
    """The longest phrase that these words begin with, and its kind."""
    for length in range(min(len(rest), LONGEST_PHRASE), 0, -1):
        phrase = " ".join(rest[:length]).strip("-'")
        if phrase in words.consent:
            return length, Said.CONSENT
        if phrase in words.listening or not phrase:
            return length, Said.BACKCHANNEL
    return 1, Said.SPEECH
