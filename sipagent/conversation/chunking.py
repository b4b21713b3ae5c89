"""Cuts a stream of text into clauses, so that speech can start before the text ends.

The first clause is as short as is natural (the caller waits for it); later ones are whole sentences or long clauses
(they sound better in one piece).
"""

import re

FIRST_MIN = 8  # characters; "Yes," alone would leave a gap before the next clause is ready
CLAUSE_MIN = 60  # later clauses are cut at a comma only beyond this
CLAUSE_MAX = 240  # cut at a space even without punctuation

_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s)|\n+")
_CLAUSE_END = re.compile(r"[,;:–—]+(?=\s)")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:mr|mrs|ms|dr|st|no|vs|etc|e\.g|i\.e|[a-z])\.$", re.IGNORECASE)
_ABBREVIATED = 6  # characters: the longest abbreviation, what is before it and a line's end


class Chunker:
    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def push(self, delta: str) -> list[str]:
        """Adds text; returns the clauses that are complete now."""
        self._text += delta
        clauses: list[str] = []
        while (cut := self._cut()) is not None:
            clause, self._text = self._text[:cut].strip(), self._text[cut:].lstrip()
            if clause:
                clauses.append(clause)
                self._first = False
        return clauses

    def flush(self) -> list[str]:
        """What is left, at the end of the text."""
        clause, self._text = self._text.strip(), ""
        return [clause] if clause else []

    def _cut(self) -> int | None:
        """Looks no further than a clause may be long: a model's text has no bound of its own."""
        text = self._text[: CLAUSE_MAX + 1]
        ends = (found.end() for found in _SENTENCE_END.finditer(text))
        sentence = next((end for end in ends if not _ABBREVIATION.search(text, max(0, end - _ABBREVIATED), end)), None)
        limit = FIRST_MIN if self._first else CLAUSE_MIN
        for found in _CLAUSE_END.finditer(text):
            if found.start() >= limit and (sentence is None or found.end() < sentence):
                return found.end()
        if sentence is not None:
            return sentence
        if len(text) > CLAUSE_MAX:
            space = text.rfind(" ", 0, CLAUSE_MAX)
            return space if space > 0 else CLAUSE_MAX
        return None


def split(text: str) -> list[str]:
    """All clauses of a finished text."""
    chunker = Chunker()
    return [*chunker.push(text + " "), *chunker.flush()]
