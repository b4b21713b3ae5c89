"""Cuts a document into passages, and passages into sentences that can be found and spoken.

>>> [passage.sentences for passage in cut("# Opening\\n\\nOn weekdays we open at nine. On Sundays we are closed.")]
[('On weekdays we open at nine.', 'On Sundays we are closed.')]
"""

import re
from dataclasses import dataclass

LONGEST = 700  # characters of a passage; some 45 s of speech, and what a model reads in no time
LONGEST_HEADING = 120
SHORTEST = 25  # characters: a shorter sentence goes with the next one, for it says too little by itself

# Repetitions are bounded, and nothing is looked for across lines: a document may be anything.
_MARKUP = re.compile(
    r"[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}"  # stress
    r"|^[ \t]{0,20}(?:[-*+•]|\d{1,3}[.)])[ \t]+"  # of a list
    r"|!?\[([^\[\]\n]{0,200})\]\([^)\n]{0,500}\)",  # a link
    re.MULTILINE,
)
_BLOCKS = re.compile(r"\n[ \t]{0,20}\n|\n(?=[ \t]{0,20}#)|(?<=\n)(?=[ \t]{0,20}[-*+•][ \t])")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[^a-z])")


@dataclass(frozen=True, slots=True)
class Passage:
    heading: str  # "" for none
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def cut(text: str) -> list[Passage]:
    """The passages of a document, in order."""
    found: list[Passage] = []
    heading = ""
    for block in _BLOCKS.split(text):
        first, _, rest = block.strip().partition("\n")
        if first.startswith("#"):
            heading, block = _clean(first.lstrip("#"))[:LONGEST_HEADING], rest
        sentences = _sentences(_clean(block))
        while sentences:
            taken, sentences = _upto(sentences)
            last = found[-1] if found else None
            if last is not None and last.heading == heading and len(last.text) + len(" ".join(taken)) < LONGEST:
                found[-1] = Passage(heading, (*last.sentences, *taken))
            else:
                found.append(Passage(heading, tuple(taken)))
    return found


def _clean(text: str) -> str:
    return " ".join(_MARKUP.sub(lambda found: found.group(1) or "", text).split())


def _sentences(text: str) -> list[str]:
    found: list[str] = []
    for sentence in _SENTENCE.split(text):
        sentence = sentence.strip()
        if found and len(found[-1]) < SHORTEST:
            found[-1] = f"{found[-1]} {sentence}"
        elif sentence:
            found.append(sentence[:LONGEST])
    return found


def _upto(sentences: list[str]) -> tuple[list[str], list[str]]:
    """As many as fit into a passage, at least one; and the rest."""
    length = 0
    for number, sentence in enumerate(sentences):
        length += len(sentence) + 1
        if number and length > LONGEST:
            return sentences[:number], sentences[number:]
    return sentences, []
