"""Who has answered, by scripted cadence, tones and words; thresholds on recorded lines are `bench.callee`'s matter."""

import numpy as np
import pytest

from sipagent.conversation.beep import Tone, ToneWatch
from sipagent.conversation.callee import REVISED_WITHIN_MS, Callee, CalleeWatch
from sipagent.conversation.languages import language
from tests.speech.prompts import SOUNDS, prompts, read_wav, through_ulaw, tones


@pytest.fixture
def watch():
    return CalleeWatch(language("en").callee)


def hear(watch, seconds, *, voiced=False, dbfs=None, tone=None):
    """The verdicts that came meanwhile."""
    level = dbfs if dbfs is not None else -25.0 if voiced else -70.0
    verdicts = [watch.frame(voiced, level, tone) for _ in range(round(seconds * 50))]
    return [verdict.callee for verdict in verdicts if verdict is not None]


def test_who_says_hello_and_waits_is_a_person(watch):
    assert hear(watch, 0.5) == []
    assert hear(watch, 0.6, voiced=True) == []
    assert hear(watch, 0.6) == [Callee.HUMAN]
    assert watch.verdict.after_ms < 2000


def test_who_does_not_stop_is_a_machine_and_the_message_is_due_behind_its_beep(watch):
    assert hear(watch, 4.0, voiced=True) == [Callee.VOICEMAIL]
    hear(watch, 0.3)
    assert not watch.message_due
    watch.frame(False, -20.0, Tone(1000.0, 400, over=True))
    assert watch.message_due
    hear(watch, 0.5, voiced=True)  # it was not the last word
    assert not watch.message_due
    hear(watch, 3.0)
    assert watch.message_due, "no beep came, and nothing is said any more"


def test_a_companys_long_greeting_is_a_persons_when_its_words_are(watch):
    for _ in range(4):
        assert hear(watch, 1.0, voiced=True) == []
        assert watch.words("Good morning, Smith and sons, this is Mary speaking", final=False) is None
    assert hear(watch, 0.6) == [Callee.HUMAN]


@pytest.mark.parametrize(
    ("said", "callee"),
    [
        ("You've reached Bob. Please leave a message after the tone.", Callee.VOICEMAIL),
        ("For sales, press one.", Callee.MENU),
        ("Please state your name after the beep, and why you are calling.", Callee.SCREENING),
        ("The mailbox is full.", Callee.VOICEMAIL),
    ],
)
def test_words_decide_at_once(watch, said, callee):
    hear(watch, 0.8, voiced=True)
    verdict = watch.words(said, final=False)
    assert verdict is not None and verdict.callee is callee


@pytest.mark.parametrize(
    ("rest", "callee"), [("please say your name.", Callee.SCREENING), ("leave a message.", Callee.VOICEMAIL)]
)
def test_a_tone_that_is_announced_is_for_a_message_or_a_name(watch, rest, callee):
    hear(watch, 0.8, voiced=True)
    assert watch.words("At the tone,", final=False) is None
    verdict = watch.words(f"At the tone, {rest}", final=False)
    assert verdict is not None and verdict.callee is callee


def test_a_tone_that_is_announced_and_no_more_is_a_voicemails_unless_a_name_is_asked_for_then(watch):
    hear(watch, 0.8, voiced=True)
    assert watch.words("After the tone,", final=False) is None
    assert hear(watch, 0.4) == [Callee.VOICEMAIL]
    hear(watch, 0.8, voiced=True)
    verdict = watch.words("After the tone, say your name.", final=True)
    assert verdict is not None and verdict.callee is Callee.SCREENING


def test_a_person_turns_out_to_be_a_machine_but_not_for_ever(watch):
    hear(watch, 0.5, voiced=True)
    assert hear(watch, 0.6) == [Callee.HUMAN]
    verdict = watch.words("Hello. I am not available, leave a message.", final=True)
    assert verdict is not None and verdict.callee is Callee.VOICEMAIL

    late = CalleeWatch(language("en").callee)
    hear(late, 0.5, voiced=True)
    hear(late, REVISED_WITHIN_MS / 1000 + 1)
    assert late.words("Could you leave a message for my wife?", final=True) is None
    assert late.verdict is not None and late.verdict.callee is Callee.HUMAN


def test_fax_and_music(watch):
    assert hear(watch, 0.1, tone=Tone(2100.0, 500, over=False)) == [Callee.FAX]
    music = CalleeWatch(language("en").callee)
    assert hear(music, 0.1, voiced=True, dbfs=-28.0) == []
    assert hear(music, 4.0, dbfs=-28.0) == [Callee.MUSIC], "what goes on as loud as before is nobody who waits"


def test_german_machines_are_understood():
    watch = CalleeWatch(language("de").callee)
    hear(watch, 1.0, voiced=True)
    verdict = watch.words("Bitte hinterlassen Sie eine Nachricht.", final=False)
    assert verdict is not None and verdict.callee is Callee.VOICEMAIL


# --- tones ----------------------------------------------------------------------------------------------------


def found(pcm):
    watch = ToneWatch()
    frames = through_ulaw(pcm)[: len(pcm) // 160 * 160].reshape(-1, 160)
    return [tone for frame in frames if (tone := watch.push(frame)) is not None and tone.over]


@pytest.mark.parametrize("hz", [425.0, 440.0, 1000.0, 1400.0, 2100.0])
@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_a_beep_is_heard_with_its_frequency(hz, seconds):
    silence = np.zeros(4000, np.int16)
    noise = np.random.default_rng(1).normal(0, 30, 8000 + int(8000 * seconds)).astype(np.int16)
    pcm = np.concatenate([silence, tones(hz, seconds=seconds), silence]) + noise
    (tone,) = found(pcm)
    assert abs(tone.hz - hz) < 10 and abs(tone.ms - seconds * 1000) <= 60


def test_asterisks_own_beep_is_one_and_its_keys_and_speech_are_none():
    assert len(found(np.concatenate([read_wav(SOUNDS / "beep.wav"), np.zeros(1600, np.int16)]))) == 1
    assert found(np.concatenate([tones(697, 1209, seconds=0.5), np.zeros(1600, np.int16)])) == []
    speech = prompts(150)
    assert sum(len(found(prompt.pcm)) for prompt in speech) == 0
