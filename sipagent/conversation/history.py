"""What was said in a call, as both sides heard it: the agent's words are here only once they were on the wire."""

from sipagent.conversation.interfaces import Entry

MAX_ENTRIES = 400  # the oldest go first; a call that long has other problems


class History:
    def __init__(self) -> None:
        self._entries: list[Entry] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    def caller(self, text: str) -> None:
        self._add(Entry("caller", text))

    def agent(self, heard_text: str) -> None:
        if heard_text:
            self._add(Entry("agent", heard_text))

    def add(self, speaker: str, text: str) -> None:
        """An entry of a history that was kept elsewhere."""
        self._add(Entry(speaker, text))

    def note(self, text: str) -> None:
        """Something that happened to the call."""
        self._add(Entry("note", text))

    @property
    def last_said(self) -> str:
        """By the caller, "" when nothing was."""
        return next((entry.text for entry in reversed(self._entries) if entry.speaker == "caller"), "")

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        del self._entries[:-MAX_ENTRIES]
