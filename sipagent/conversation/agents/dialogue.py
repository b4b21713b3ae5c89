"""What an agent of intents asks next: slots, confirmations, corrections and repairs. Pure; today's date is an argument.

asking a slot ──value──► (confirm it) ──► next slot ... ──► confirm all ──yes──► done
     │ nothing understood: the question again, in other words       │ no: change what?
     └ "no, Tuesday": what was said before is corrected             └ "no, Tuesday": corrected, asked again
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sipagent.conversation.agents import slots
from sipagent.conversation.agents.slots import Value
from sipagent.conversation.interfaces import Expecting, TransferPlan
from sipagent.conversation.languages import Language

CONFIRM, CHANGE = "?confirm", "?change"  # questions about the whole; "?day" is whether a slot was understood
# Kinds whose values cannot be taken for something else, so that they may be corrected while another is asked for.
_PLAIN_TO_SEE = ("day", "date", "time", "choice", "email")
_NUMERIC = ("number", "digits", "time", "day", "date")
_EXPECTED = {
    "day": Expecting.DATE,
    "date": Expecting.DATE,
    "time": Expecting.DATE,
    "number": Expecting.NUMBER,
    "digits": Expecting.DIGITS,
    "choice": Expecting.CHOICE,
    "name": Expecting.NAME,
    "spelling": Expecting.SPELLING,
    "email": Expecting.SPELLING,
    "yes_no": Expecting.YES_NO,
    "text": Expecting.TEXT,
}


class Slot(Protocol):
    @property
    def ask(self) -> str: ...
    @property
    def again(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def choices(self) -> Mapping[str, Sequence[str]] | Sequence[str]: ...
    @property
    def min(self) -> float | None: ...
    @property
    def max(self) -> float | None: ...
    @property
    def digits(self) -> str: ...
    @property
    def confirm(self) -> bool: ...


class Intent(Protocol):
    """As in the dialplan."""

    @property
    def examples(self) -> Sequence[str]: ...
    @property
    def answer(self) -> str: ...
    @property
    def whole(self) -> bool:
        """The answer must be heard whole."""
        ...

    @property
    def slots(self) -> Mapping[str, Slot]: ...
    @property
    def confirm(self) -> str: ...
    @property
    def transfer(self) -> str | TransferPlan: ...
    @property
    def hangup(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class State:
    """Where the dialogue is; plain data."""

    intent: str = ""
    asking: str = ""  # the question that is open: a slot, CONFIRM, CHANGE, or "?slot"
    known: tuple[tuple[str, str, str], ...] = ()  # slot, as it is spoken, for machines
    misses: int = 0  # in a row
    said: str = ""  # the last words, for a caller who has not understood them

    @property
    def spoken(self) -> dict[str, str]:
        return {name: spoken for name, spoken, _ in self.known}

    @property
    def values(self) -> dict[str, str]:
        return {name: plain for name, _, plain in self.known}

    def learn(self, name: str, value: Value) -> "State":
        kept = tuple(each for each in self.known if each[0] != name)
        return replace(self, known=(*kept, (name, value.spoken, value.plain)))

    def forget(self, name: str) -> "State":
        return replace(self, known=tuple(each for each in self.known if each[0] != name))


@dataclass(frozen=True, slots=True)
class Move:
    """What the dialogue does next."""

    state: State
    say: str = ""
    done: bool = False  # everything is known: the intent's answer is due


class Dialogue:
    def __init__(self, intents: Mapping[str, Intent], language: Language) -> None:
        self._intents = intents
        self._language = language
        self._says = language.says

    def check(self, state: State) -> None:
        """Raises ValueError for a state that these intents cannot lead to."""
        if not state.asking:
            return
        intent = self._intents.get(state.intent)
        if intent is None:
            raise ValueError("there is no such intent")
        known = state.values.keys()
        asked = state.asking.removeprefix("?")
        fits = asked in intent.slots and (asked == state.asking or asked in known)
        if state.asking == CONFIRM:
            fits = bool(intent.confirm) and known == intent.slots.keys()
        elif state.asking == CHANGE:
            fits = bool(intent.confirm)
        if not fits or not known <= intent.slots.keys():
            raise ValueError("the intent has other slots")

    def expecting(self, state: State) -> Expecting:
        if not state.asking:
            return Expecting.ANYTHING
        if state.asking == CHANGE:
            return Expecting.ANYTHING
        if state.asking.startswith("?"):
            return Expecting.YES_NO
        return _EXPECTED[self._intents[state.intent].slots[state.asking].kind]

    def most_digits(self, state: State) -> int:
        """Of the answer to the open question; 0 where it is none by digits, or may have any number."""
        asked = self._intents[state.intent].slots.get(state.asking) if state.asking else None
        return int(asked.digits.rpartition("-")[2]) if asked is not None and asked.digits else 0

    def begin(self, intent: str, text: str, today: dt.date) -> Move:
        """The caller wants this; what the words tell besides is taken."""
        state = self._take(State(intent=intent), text, today)
        return self._go_on(state)

    def reply(self, state: State, text: str, today: dt.date) -> Move | None:
        """To an answer to the open question; None when the words are no answer to it."""
        words = self._language
        said = slots.plain(text)
        if slots.says(said, words.dialogue.drop):
            return Move(State(), self._says.dropped)
        if state.said and slots.says(said, words.dialogue.repeat) and len(said.split()) < 8:
            return Move(state, state.said)
        if not state.asking:
            return None
        if state.asking == CONFIRM:
            return self._confirmed(state, text, today)
        if state.asking == CHANGE:
            return self._changed(state, text, today)
        if state.asking.startswith("?"):
            return self._slot_confirmed(state, text, today)
        return self._slot_answered(state, text, today)

    def miss(self, state: State) -> str:
        """The open question once more, for words that were no answer to it."""
        tries = state.misses
        apology = self._says.not_understood[min(tries, len(self._says.not_understood) - 1)]
        return f"{apology} {self.question(state, again=True)}"

    def question(self, state: State, *, again: bool = False) -> str:
        """The one that is open."""
        intent = self._intents[state.intent]
        if state.asking == CONFIRM:
            return intent.confirm.format(**state.spoken)
        if state.asking == CHANGE:
            return self._says.change
        if state.asking.startswith("?"):
            return self._says.confirm.format(value=state.spoken[state.asking[1:]])
        slot = intent.slots[state.asking]
        if not again:
            return slot.ask
        text = slot.again or slot.ask
        if slot.kind == "choice" and slot.choices and not slot.again:
            text += " " + self._says.choices.format(choices=slots.spoken_choices(list(slot.choices), self._language))
        if slot.kind == "yes_no" and not slot.again:
            text += " " + self._says.yes_or_no
        return text

    # --- answers ---

    def _slot_answered(self, state: State, text: str, today: dt.date) -> Move | None:
        slot = self._intents[state.intent].slots[state.asking]
        value = self._find(slot, text, today)
        if value is not None and (wrong := self._wrong(slot, value)):
            return Move(replace(state, misses=state.misses + 1), f"{wrong} {self.question(state, again=True)}")
        corrected = self._correct(state, text, today) if slots.corrects(text, self._language) else state
        if value is None and corrected == state:
            return None
        if value is not None:
            corrected = corrected.learn(state.asking, value)
            if not text.isdigit():  # a key answers one question
                corrected = self._take(corrected, text, today)
            if slot.confirm:
                return self._ask(corrected, f"?{state.asking}")
        return self._go_on(corrected)

    def _slot_confirmed(self, state: State, text: str, today: dt.date) -> Move | None:
        name = state.asking[1:]
        slot = self._intents[state.intent].slots[name]
        agreed = self._agreed(text)
        value = self._find(slot, slots.without_negated(text, self._language), today) if agreed is not True else None
        if slot.kind in ("text", "name") and not slots.corrects(text, self._language):
            value = None
        if value is not None and value.plain != state.values[name] and not self._wrong(slot, value):
            return self._ask(state.learn(name, value), state.asking)
        if agreed:
            return self._go_on(state)
        if agreed is False:
            return self._ask(state.forget(name), name)
        return None

    def _confirmed(self, state: State, text: str, today: dt.date) -> Move | None:
        agreed = self._agreed(text)
        corrected = self._correct(state, text, today) if agreed is not True else state
        if corrected != state:
            return self._go_on(corrected)
        if agreed:
            return Move(replace(state, asking="", misses=0), done=True)
        if agreed is False:
            if len(state.known) == 1:
                return self._go_on(replace(state, known=()))
            return self._ask(state, CHANGE)
        return None

    def _changed(self, state: State, text: str, today: dt.date) -> Move | None:
        corrected = self._correct(state, text, today)
        if corrected != state:
            return self._go_on(corrected)
        said = slots.plain(text)
        for name in state.values:
            if slots.says(said, (name.replace("_", " ").lower(),)):
                return self._go_on(state.forget(name))
        return None

    def _agreed(self, text: str) -> bool | None:
        key = _by_key(text, ("yes", "no"))
        return key.plain == "yes" if key is not None else slots.yes_or_no(text, self._language)

    def _correct(self, state: State, text: str, today: dt.date) -> State:
        """The state with what the words say otherwise than before."""
        text = slots.without_negated(text, self._language)
        only = len(state.known) == 1 and state.asking.startswith("?")
        for name, plain in state.values.items():
            slot = self._intents[state.intent].slots[name]
            if self._plain_to_see(state, slot) or (only and slot.kind not in ("text", "yes_no")):
                value = self._find(slot, text, today)
                if value is not None and value.plain != plain and not self._wrong(slot, value):
                    state = state.learn(name, value)
        return state

    def _plain_to_see(self, state: State, slot: Slot) -> bool:
        """Its values cannot be meant for anything else in the matter."""
        kinds = [each.kind for each in self._intents[state.intent].slots.values()]
        only_number = slot.kind in ("number", "digits") and sum(kind in _NUMERIC for kind in kinds) == 1
        return slot.kind in _PLAIN_TO_SEE or only_number

    # --- questions ---

    def _go_on(self, state: State) -> Move:
        intent = self._intents[state.intent]
        for name in intent.slots:
            if name not in state.values:
                return self._ask(state, name)
        if intent.confirm and intent.slots:
            return self._ask(state, CONFIRM)
        return Move(replace(state, asking="", misses=0), done=True)

    def _ask(self, state: State, question: str) -> Move:
        state = replace(state, asking=question, misses=0)
        return Move(state, self.question(state))

    def _take(self, state: State, text: str, today: dt.date) -> State:
        """Every slot that the words fill besides; only what cannot be mistaken for something else."""
        for name, slot in self._intents[state.intent].slots.items():
            if name not in state.values and self._plain_to_see(state, slot):
                value = self._find(slot, text, today)
                only_one = slot.kind in ("number", "digits") and value is not None and value.plain == "1"
                if value is not None and not only_one and not self._wrong(slot, value):  # "the big one" is no number
                    state = state.learn(name, value)
        return state

    def _find(self, slot: Slot, text: str, today: dt.date) -> Value | None:
        choices = slot.choices if isinstance(slot.choices, Mapping) else dict.fromkeys(slot.choices, ())
        value = slots.find(slot.kind, text, list(choices), lang=self._language.code, today=today)
        if value is None and slot.kind in ("choice", "yes_no"):
            value = _by_key(text, list(choices) or ["yes", "no"])
        if value is not None or slot.kind != "choice":
            return value
        for choice, others in choices.items():
            if slots.find("choice", text, list(others)) is not None:
                return Value(choice, choice)
        return None

    def _wrong(self, slot: Slot, value: Value) -> str:
        """What is wrong with the value, for the caller's ears; "" when nothing is."""
        if slot.kind == "number":
            if slot.min is not None and float(value.plain) < slot.min:
                return self._says.below.format(min=f"{slot.min:g}")
            if slot.max is not None and float(value.plain) > slot.max:
                return self._says.above.format(max=f"{slot.max:g}")
        if slot.kind == "digits" and slot.digits:
            least, _, most = slot.digits.partition("-")
            if not int(least) <= len(value.plain) <= int(most or least):
                wanted = f"{least} {self._says.or_} {most}" if most else least
                return self._says.length.format(digits=wanted, heard=len(value.plain))
        return ""


def _by_key(text: str, choices: Sequence[str]) -> Value | None:
    """What a key stands for: 1 is the first."""
    number = int(text) if text in "123456789" and len(text) == 1 else 0
    return Value(choices[number - 1], choices[number - 1]) if 0 < number <= len(choices) else None


def as_plain(state: State) -> dict[str, Any]:
    """For a checkpoint."""
    return {
        "intent": state.intent,
        "asking": state.asking,
        "known": [list(each) for each in state.known],
        "misses": state.misses,
        "said": state.said,
    }


def from_plain(data: Any) -> State:
    """Of `as_plain`'s. Raises KeyError or TypeError for anything else."""
    return State(
        intent=str(data["intent"]),
        asking=str(data["asking"]),
        known=tuple((str(name), str(spoken), str(plain)) for name, spoken, plain in data["known"]),
        misses=int(data["misses"]),
        said=str(data["said"]),
    )
