"""Keeps the line from falling silent: carries out in a turn what DeadAir decides, and knows the texts for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sipagent.conversation import chunking
from sipagent.conversation.budget import LatencyBudget, Waited
from sipagent.conversation.dead_air import LAST_RESORTS, Act, DeadAir
from sipagent.conversation.interfaces import TransferCall, TransferPlan, Tts, plan_of
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.streams import all_of
from sipagent.conversation.turn import Turn
from sipagent.core.events import TurnLatency

SPEAK_WITHIN_MS = 500  # from the decision to say something until it is on the wire


class BridgeManners(Protocol):
    """What an agent says while the caller waits; texts may be empty."""

    @property
    def filler(self) -> str | Sequence[str]: ...
    @property
    def filler_after_s(self) -> float: ...
    @property
    def sorry(self) -> str: ...
    @property
    def apology(self) -> str: ...
    @property
    def goodbye(self) -> str: ...
    @property
    def dead_air(self) -> Sequence[str]:
        """The order of what is done."""
        ...

    @property
    def human(self) -> str | TransferPlan:
        """Whom the caller is handed to when nothing else helps; "" for nobody."""
        ...

    @property
    def handover(self) -> str:
        """What the caller is told then."""
        ...


def fillers(manners: BridgeManners) -> list[str]:
    texts = [manners.filler] if isinstance(manners.filler, str) else manners.filler
    return [text for text in texts if text]


def dead_air(manners: BridgeManners, bound_ms: int) -> DeadAir:
    """For one call."""
    missing = {
        Act.FILLER: not fillers(manners),
        Act.SORRY: not manners.sorry,
        Act.TRANSFER: not manners.human,
    }
    order = [Act(name) for name in manners.dead_air if not missing.get(Act(name))]
    after_ms = min(int(manners.filler_after_s * 1000), max(bound_ms - SPEAK_WITHIN_MS, 0))
    return DeadAir(order, after_ms, len(fillers(manners)))


@dataclass(frozen=True, slots=True)
class Say:
    """To be said in this turn."""

    turn: Turn
    act: Act
    text: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The turn will not be answered: this is said, and then the call goes somewhere else or ends."""

    turn: Turn
    act: Act
    texts: tuple[str, ...]
    transfer: TransferCall | None


class Bridge:
    """Of one conversation. `voice` has the texts at hand; `budget` may want them earlier."""

    def __init__(
        self,
        manners: BridgeManners,
        silence: DeadAir,
        voice: Tts,
        ledger: Ledger,
        budget: LatencyBudget,
        now: Callable[[], int],
    ) -> None:
        self._now = now
        self._manners = manners
        self._silence = silence
        self._voice = voice
        self._ledger = ledger
        self._budget = budget
        self._usual_ms = silence.act_ms
        self._fillers = 0
        ledger.impatience = budget

    def tick(self, now: int, turn: Turn | None, *, caller_speaks: bool, audible: bool) -> list[Say | GiveUp]:
        """What is to be said about the silence on the line, if anything."""
        if turn is None and not audible:
            return []
        waiting = 0
        if turn is not None and not turn.over and not turn.ending and not caller_speaks:
            waiting = turn.heard[-1].ended_ns if turn.heard else turn.begun_ns
        if turn is not None and turn.asked is not None:
            waiting = 0 if turn.asked.working or not waiting else max(waiting, turn.asked.worked_ns)
        if turn is not None and turn.answered:
            turn.answered = False
            self._silence.answered()
            self._fillers = 0
        self._silence.act_ms = round(self._usual_ms * self._budget.filler_scale)
        acts = self._silence.tick(now, waiting_since=waiting, audible=audible)
        if acts and Act.PROVIDER in self._manners.dead_air:  # the first time and again: another may hang by now
            self._ledger.hurry()
        return [todo for act in acts if turn is not None and (todo := self._todo(turn, act)) is not None]

    def failed(self, turn: Turn) -> GiveUp | None:
        """The turn ends with an apology; more than that when it is not the first."""
        acts = self._silence.failed()
        return self._give_up(turn, acts[0]) if acts else None

    async def say(self, todo: Say) -> None:
        """Into its turn, unless something else has come. A clause that hangs half said goes on behind it.

        Raises ProviderError.
        """
        utterance = todo.turn.utterance
        rate = utterance.rate
        todo.turn.answer_ns = todo.turn.answer_ns or self._now()
        todo.turn.clause_ns = todo.turn.clause_ns or self._now()
        for clause in chunking.split(todo.text):
            pieces = [piece async for piece in self._voice.speak(clause, rate)]
            if todo.turn.over or (utterance.speaking and utterance.queued):
                return
            utterance.set_aside()
            await utterance.say(clause, all_of(pieces), rate, self._now)

    def heard(self, latency: TurnLatency | None) -> None:
        """The agent has begun to be heard, after so long."""
        if latency is not None:
            self._budget.turn(
                Waited(
                    latency.total_ms,
                    latency.endpointing_ms,
                    latency.stt_ms,
                    latency.llm_ms + latency.clause_ms,
                    latency.tts_ms,
                )
            )

    def record(self, turn: Turn) -> None:
        """What was done for it, into its details."""
        if notes := self._ledger.take():
            turn.details["providers"] = notes
        if pulled := self._budget.record():
            turn.details["budget"] = pulled

    def _todo(self, turn: Turn, act: Act) -> Say | GiveUp | None:
        turn.details.setdefault("dead_air", []).append(str(act))
        match act:
            case Act.PROVIDER:
                return None
            case Act.FILLER:
                texts = fillers(self._manners)
                self._fillers += 1
                return Say(turn, act, texts[(self._fillers - 1) % len(texts)])
            case Act.SORRY:
                return Say(turn, act, self._manners.sorry)
            case _:
                return self._give_up(turn, act)

    def _give_up(self, turn: Turn, act: Act) -> GiveUp:
        assert act in LAST_RESORTS
        if act is Act.TRANSFER:
            self._silence.used(act)
            return GiveUp(turn, act, (self._manners.handover,), plan_of(self._manners.human))
        return GiveUp(turn, act, (self._manners.apology, self._manners.goodbye), None)
