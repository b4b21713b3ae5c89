"""When the keys that a caller was asked to press are complete. Pure; times are monotonic ns."""

from sipagent.conversation.interfaces import DigitsWanted


class Gathering:
    def __init__(self, wanted: DigitsWanted, now: int) -> None:
        self._wanted = wanted
        self._limit = now + _ns(wanted.limit_s)
        self._deadline = now + _ns(wanted.first_s)
        self.digits = ""
        self._ended = False

    def pressed(self, digit: str, now: int) -> None:
        if self._ended:
            return
        if digit == self._wanted.end:
            self._ended = True
            return
        self.digits += digit
        self._deadline = now + _ns(self._wanted.between_s)
        self._ended = len(self.digits) >= self._wanted.most

    def asking(self, now: int) -> None:
        """The agent still speaks: the caller's time has not begun."""
        if not self.digits:
            self._deadline = now + _ns(self._wanted.first_s)

    def over(self, now: int) -> bool:
        return self._ended or now >= min(self._deadline, self._limit)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
