import pytest

from sipagent.speech.loopcut import cut_loop, spoken_letters


@pytest.mark.parametrize(
    ("text", "speech_s", "kept"),
    [
        ("Location Location Location Location Location", 1.0, "Location"),
        ("17. 17. 17. 17. 17.", 0.8, "17."),
        ("Press 1 to call this number. Press 1 to call this number.", 2.2, "Press 1 to call this number."),
        # Cut off by the token limit: in the second round, inside a word of it, and behind a sentence said once.
        ("Press 2 for sales today. Press 2 for", 1.5, "Press 2 for sales today."),
        ("Please hold the line now. Please hold the li", 1.5, "Please hold the line now."),
        ("Thank you. Press zero now. Press zero now. Press zero now.", 1.8, "Thank you. Press zero now."),
        ("Yes, yes, yes, yes, yes, yes.", 0.5, "Yes,"),
        # Two words of a second round are enough behind a finished sentence.
        ("Excuse me, where can I park my car? Excuse me", 2.05, "Excuse me, where can I park my car?"),
    ],
)
def test_what_cannot_have_been_said_so_fast_is_cut(text: str, speech_s: float, kept: str) -> None:
    assert cut_loop(text, speech_s) == kept


@pytest.mark.parametrize(
    ("text", "speech_s"),
    [
        ("No, no, no, no.", 1.6),
        ("four two four two", 1.8),
        ("4 2 4 2", 1.8),
        ("I said Tuesday. I said Tuesday.", 2.6),
        ("Goodbye", 0.5),
        ("", 0.0),
        # Fast, but nothing repeats.
        ("The conference will begin when the leader arrives.", 2.0),
    ],
)
def test_what_a_caller_says_twice_is_believed(text: str, speech_s: float) -> None:
    assert cut_loop(text, speech_s) == text


def test_a_long_text_without_repetition_is_quick_to_judge() -> None:
    text = " ".join(f"w{i}" for i in range(200))
    assert cut_loop(text, 1.0) == text


def test_digits_count_as_their_names() -> None:
    assert spoken_letters("Press 12, ok!") == len("press") + 2 * len("four") + len("ok")
