import pytest

from sipagent.speech.text import LONGEST, speakable


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello   there,\n friend.", "Hello there, friend."),
        ("**Of course!** I'd _love_ to \U0001f600 help.", "Of course! I'd love to help."),
        ("<speak>Hi <break time='1s'/>you</speak>", "Hi you"),
        ("See [our page](http://example.com/a) now", "See our page now"),
        ("# Heading\n- `code`", "Heading - code"),
        ("It costs £20, or 5 % more at 20 °C.", "It costs £20, or 5 % more at 20 °C."),
        ("bell\x07 zero\u200bwidth", "bell zero width"),
        ("[[h@loU]] hello", "h@loU hello"),
        ("Well , then .", "Well, then."),
        ("...", ""),
        ("\U0001f44d\U0001f3fd", ""),
        ("", ""),
    ],
)
def test_only_words_remain(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


def test_a_clause_has_an_end() -> None:
    spoken = speakable("word " * 500)
    assert len(spoken) <= LONGEST and spoken.endswith("word")
    assert len(speakable("a" * 5000)) == LONGEST
