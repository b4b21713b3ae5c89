"""The strategies for the end of a turn by the names that dialplans use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sipagent.conversation.interfaces import Expecting
from sipagent.conversation.languages import language
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_adaptive import Adaptive, ByMelody, ByWords, Waits
from sipagent.conversation.turn_end import FixedSilence, Patient, Provider, TurnEnd
from sipagent.conversation.turn_words import Lexicon

NAMES = ("adaptive", "silence", "words", "melody", "provider")
LONGEST_MS = 1500  # of silence, for a provider that never tells


class TurnEndPlan(Protocol):
    """As in the dialplan."""

    @property
    def strategy(self) -> str: ...
    @property
    def silence_ms(self) -> int:
        """For `silence`; 0 is the node's setting."""
        ...

    @property
    def patience(self) -> float: ...
    @property
    def answers(self) -> Mapping[Any, float]:
        """More patience, or less, by the name of what is expected."""
        ...


@dataclass(frozen=True, slots=True)
class Named:
    """A plan that says no more than a strategy's name."""

    strategy: str
    silence_ms: int = 0
    patience: float = 1.0
    answers: Mapping[str, float] = field(default_factory=dict)


def make(plan: str | TurnEndPlan, settings: ConversationSettings, code: str = "en") -> TurnEnd:
    """The strategy for one caller, who speaks the language of this code. Raises ConfigError for an unknown language."""
    if isinstance(plan, str):
        plan = Named(plan)
    strategy = _make(plan, settings, code)
    if plan.patience == 1.0 and not plan.answers:
        return strategy
    return Patient(strategy, plan.patience, {Expecting(name): factor for name, factor in plan.answers.items()})


def _make(plan: TurnEndPlan, settings: ConversationSettings, code: str) -> TurnEnd:
    match plan.strategy:
        case "silence":
            return FixedSilence(plan.silence_ms or settings.endpointing_ms)
        case "words":
            return ByWords(Lexicon.of(language(code)), Waits())
        case "melody":
            return ByMelody(Waits())
        case "provider":
            return Provider(told_ms=Waits().told, longest_ms=LONGEST_MS)
        case "adaptive":
            return Adaptive(Lexicon.of(language(code)), Waits())
        case unknown:
            raise ValueError(f"no strategy for the end of a turn is named {unknown!r}")
