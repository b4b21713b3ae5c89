"""Answers that the caller gives by the keys: which keys belong together, and when they are all. Pure; times are ns."""

from sipagent.conversation.interfaces import Expecting

MOST = 32  # keys of one answer; more are dropped
END = "#"
# Seconds without another key after which the answer is complete; what is not here takes no keys.
_COMPLETE_AFTER_S = {Expecting.YES_NO: 0.0, Expecting.CHOICE: 0.0, Expecting.NUMBER: 1.2, Expecting.DIGITS: 3.0}


class KeyedAnswer:
    def __init__(self) -> None:
        self._keys = ""
        self._last = 0
        self._ended = False
        self._expecting = Expecting.ANYTHING  # when the first of them was pressed

    @property
    def waiting(self) -> bool:
        """Keys have been pressed for an answer that is not due yet."""
        return self._keys != ""

    def press(self, key: str, expecting: Expecting, now: int, digits: int = 0) -> bool:
        """Whether keys are an answer to what is asked for; `#` ends one and begins none.

        So do as many as the answer has `digits`, where that is known.
        """
        if expecting is not self._expecting:
            self._begin(expecting)
        if expecting not in _COMPLETE_AFTER_S or self._ended:
            return False
        if key == END:
            self._ended = self._keys != ""
        elif len(self._keys) < MOST:
            self._keys += key
            self._ended = expecting is Expecting.DIGITS and len(self._keys) == digits
        self._last = now
        return True

    def due(self, expecting: Expecting, now: int) -> str | None:
        """The answer, once, when it is complete."""
        if expecting is not self._expecting:  # the conversation has gone on: they answered another question
            self._begin(expecting)
        if not self._keys:
            return None
        waited_s = (now - self._last) / 1e9
        if not self._ended and waited_s < _COMPLETE_AFTER_S.get(expecting, 0.0):
            return None
        keys = self._keys
        self._begin(expecting)
        return keys

    def _begin(self, expecting: Expecting) -> None:
        self._keys, self._ended, self._expecting = "", False, expecting
