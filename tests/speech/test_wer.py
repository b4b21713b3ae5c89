import pytest

from tests.wer import errors, normalise, wer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Press 1, then #.", "press one then pound"),
        ("It's the 3rd voice-mail box", "its the third voicemail box"),
        ("Your 20th e-mail", "your twentieth email"),
        ("1000 people, 42 lines, 300 calls", "one thousand people forty two lines three hundred calls"),
        ("extension 4711", "extension four seven one one"),
        ("Okay \u2019til 5%", "OK til five percent"),
        ("beep [tone] (long)", "beep"),
    ],
)
def test_one_way_to_write_it(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_errors_count_wrong_missing_and_added_words() -> None:
    assert errors("a b c d", "a b c d") == (0, 4)
    assert errors("a b c d", "a x c") == (2, 4)
    assert errors("a", "a a a") == (2, 1)
    assert errors("", "hello") == (1, 0)
    assert wer([("a b", "a b"), ("c d", "c")]) == 0.25
