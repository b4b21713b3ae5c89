"""What a voice is given to say: plain words, whatever a language model wrote around them."""

import re
import unicodedata

LONGEST = 600  # characters; about 40 s of speech. A clause has under 150; more than this in one piece is a mistake.

_TAG = re.compile(r"<[^<>]{0,200}>")
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
_MARKUP = str.maketrans(dict.fromkeys("*_#`~|<>[]{}\\^", " "))
# Control and format characters, private use, unassigned, surrogates; and symbols other than currency and arithmetic,
# among them every emoji.
_UNSPOKEN = {"Cc", "Cf", "Co", "Cn", "Cs", "So", "Sk", "Me"}


def speakable(text: str) -> str:
    """`text` without markup, emoji and control characters, in one line, at most 600 characters; may be "".

    Square brackets go too: Piper would take "[[...]]" for phonemes.
    """
    text = _LINK.sub(r"\1", unicodedata.normalize("NFKC", text))
    text = _TAG.sub(" ", text).translate(_MARKUP)
    text = "".join(c if unicodedata.category(c) not in _UNSPOKEN or c == "°" else " " for c in text)
    text = re.sub(r"\s+([.,;:?!])", r"\1", " ".join(text.split()))
    if len(text) > LONGEST:
        text = text[:LONGEST].rsplit(" ", 1)[0]
    return text if any(c.isalnum() for c in text) else ""
