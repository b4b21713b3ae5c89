"""Who has the floor, decided frame by frame: one letter of a script is 20 ms, `#` voice and `.` none."""

import pytest

from sipagent.conversation.floor import Act, Floor, Policy, Said, Saying, Verdict, kind_of
from sipagent.conversation.languages import language

ENGLISH = language("en").backchannels
SPEAKING = Saying(audible=True, left_ms=5000)
ASKING = Saying(audible=True, asked=True, left_ms=5000)
ENDING = Saying(audible=True, left_ms=400)
START = 3  # voiced frames in a row that make an utterance


class Scene:
    """Acts by the ms at which they came."""

    def __init__(self, agent=SPEAKING, **policy):
        self.floor = Floor(Policy(**policy), ENGLISH)
        self.agent = agent
        self.ms = self.speech_ms = self.run = 0
        self.acts = []

    def plays(self, script):
        for letter in script:
            voiced = letter == "#"
            self.run = self.run + 1 if voiced else 0
            if not self.speech_ms and self.run == START:
                self.floor.begin()
                self.speech_ms = 20 * START
            elif self.speech_ms and voiced:
                self.speech_ms += 20
            self.ms += 20
            act = self.floor.frame(voiced, self.speech_ms, self.agent)
            if act is not None:
                self.acts.append((act, self.ms))
        return self

    def says(self, ms, pause_ms=140):
        return self.plays("#" * (ms // 20) + "." * (pause_ms // 20))

    def is_heard(self, text, final=True):
        return self.floor.hear(text, self.agent, self.speech_ms, final=final)

    @property
    def names(self):
        return [act for act, _ in self.acts]


def test_the_first_voiced_frame_ducks_and_a_click_leaves_no_more_than_that():
    scene = Scene().plays("#.....")
    assert scene.acts == [(Act.DUCK, 20), (Act.RESUME, 120)]


def test_a_short_cough_ducks_and_the_agent_goes_on():
    scene = Scene().says(200, 320)
    assert scene.acts == [(Act.DUCK, 20), (Act.RESUME, 500)]


def test_a_longer_sound_without_words_holds_the_agent_until_that_is_known():
    scene = Scene().says(400)
    assert scene.names == [Act.DUCK, Act.HOLD]
    assert scene.is_heard("") is Verdict.NOISE
    assert scene.plays("." * 100).names == [Act.DUCK, Act.HOLD], "the verdict has let the agent go on"


@pytest.mark.parametrize("words", ["Mm-hmm.", "Yes.", "Okay, right.", "Uh-huh, I see.", "Yeah. Yeah, sure.", "Hmm..."])
def test_a_backchannel_is_no_interruption(words):
    scene = Scene().says(500)
    assert scene.is_heard("Yeah", final=False) is None
    assert scene.is_heard(words) is Verdict.BACKCHANNEL


@pytest.mark.parametrize("words", ["No.", "Stop.", "Yes, but not on Tuesday", "Okay wait", "I see a problem"])
def test_words_of_any_length_interrupt(words):
    scene = Scene().says(180)
    assert scene.is_heard(words) is Verdict.INTERRUPTION


@pytest.mark.parametrize(
    ("agent", "ms", "confidence", "verdict"),
    [
        (SPEAKING, 400, 0.2, Verdict.NOISE),  # a shout that was taken for a word
        (SPEAKING, 400, 0.7, Verdict.INTERRUPTION),
        (SPEAKING, 900, 0.2, Verdict.INTERRUPTION),
        (ASKING, 400, 0.2, Verdict.INTERRUPTION),
        (ENDING, 400, 0.2, Verdict.INTERRUPTION),
        (Saying(audible=False), 400, 0.2, Verdict.INTERRUPTION),  # the caller had not finished
    ],
)
def test_a_short_word_of_which_the_recogniser_is_not_sure_is_none(agent, ms, confidence, verdict):
    scene = Scene(agent).says(ms)
    assert scene.floor.hear("Boss!", agent, scene.speech_ms, final=True, confidence=confidence) is verdict


def test_words_interrupt_as_they_come():
    scene = Scene().says(500, 0)
    assert scene.is_heard("No, I", final=False) is Verdict.INTERRUPTION
    assert scene.plays("####").names == [Act.DUCK, Act.HOLD], "it is being cut: nothing more to say about it"


def test_a_yes_to_a_question_is_an_answer_and_hm_is_not():
    assert Scene(ASKING).says(300).is_heard("Yes.") is Verdict.INTERRUPTION
    assert Scene(ASKING).says(300).is_heard("Mm-hm.") is Verdict.INTERRUPTION
    assert Scene(ASKING).says(300).is_heard("Hmm.") is Verdict.BACKCHANNEL


def test_a_yes_at_the_very_end_is_answered_once_the_agent_has_finished():
    assert Scene(ENDING).says(300).is_heard("Okay.") is Verdict.LATER
    assert Scene(ENDING).says(300).is_heard("Mm.") is Verdict.BACKCHANNEL
    assert Scene(ENDING).says(300).is_heard("No, Tuesday.") is Verdict.INTERRUPTION
    assert Scene(None).says(300).is_heard("Okay.") is Verdict.LATER


def test_speech_that_goes_on_needs_no_words():
    scene = Scene().says(1400, 0)
    assert scene.names == [Act.DUCK, Act.HOLD, Act.CUT]


def test_what_follows_a_backchannel_is_judged_by_itself():
    scene = Scene().says(300)
    assert scene.is_heard("Okay.") is Verdict.BACKCHANNEL
    scene.plays("#" * 12)
    assert scene.names == [Act.DUCK, Act.HOLD, Act.DUCK]
    scene.plays("#")
    assert scene.names[-1] is Act.HOLD
    assert scene.is_heard("Okay, but when", final=False) is Verdict.INTERRUPTION


def test_words_that_do_not_come_hold_the_agent_for_a_second_only():
    scene = Scene().says(400, 2000)
    assert scene.acts[-1] == (Act.RESUME, 1400)
    assert scene.is_heard("I have a question") is Verdict.INTERRUPTION, "late, and still meant"


def test_by_words_alone_no_sound_interrupts_and_it_holds_for_two_seconds_at_most():
    scene = Scene(by_words=True).says(5000, 0)
    assert scene.names == [Act.DUCK, Act.HOLD, Act.RESUME]
    held = scene.acts[2][1] - scene.acts[1][1]
    assert held == 2000
    assert scene.is_heard("Listen", final=False) is Verdict.INTERRUPTION


def test_an_agent_that_yields_to_nobody_is_neither_ducked_nor_held():
    scene = Scene(never=True).says(2000)
    assert scene.acts == []
    assert scene.is_heard("No, wait!") is Verdict.LATER
    assert scene.says(300).is_heard("Okay") is Verdict.BACKCHANNEL


def test_a_sentence_that_must_be_heard_whole_is_and_the_next_one_may_be_interrupted():
    scene = Scene(Saying(audible=True, whole=True)).says(1000, 0)
    assert scene.acts == [] and scene.is_heard("But", final=False) is None
    scene.agent = SPEAKING
    scene.plays("#")
    assert scene.names == [Act.HOLD]


def test_a_sentence_that_must_be_heard_whole_goes_on_at_once():
    scene = Scene().says(300, 0)
    scene.agent = Saying(audible=True, whole=True)
    assert scene.plays("#").names == [Act.DUCK, Act.HOLD, Act.RESUME]


def test_only_after_so_many_ms():
    scene = Scene(after_ms=800).says(780)
    assert scene.names == [Act.DUCK]
    assert scene.is_heard("Yes but I want") is Verdict.LATER
    scene = Scene(after_ms=800).says(800)
    assert scene.names == [Act.DUCK, Act.HOLD]
    assert scene.is_heard("Yes but I want") is Verdict.INTERRUPTION


def test_an_agent_that_is_not_heard_yet_is_taken_back_by_speech():
    scene = Scene(Saying(audible=False)).says(240)
    assert scene.acts == []
    assert scene.says(260, 0).names == [Act.CUT]


def test_without_the_agents_turn_nothing_is_ducked():
    scene = Scene(None).says(2000)
    assert scene.acts == []
    scene.agent = SPEAKING
    scene.plays("#")
    scene.agent = None
    assert scene.plays("#").names[-1] is Act.RESUME, "the agent's turn is over"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", Said.NOTHING),
        (" ... ", Said.NOTHING),
        ("Hmm.", Said.BACKCHANNEL),
        ("That\N{RIGHT SINGLE QUOTATION MARK}s right!", Said.CONSENT),
        ("Oh, okay.", Said.CONSENT),
        ("Of course not", Said.SPEECH),
        ("no", Said.SPEECH),
        ("yes sir yes sir", Said.CONSENT),
    ],
)
def test_kinds_of_words(text, kind):
    assert kind_of(text, ENGLISH) is kind


def test_german_is_data_too():
    german = language("de").backchannels
    assert kind_of("Ja, genau.", german) is Said.CONSENT
    assert kind_of("Ach so.", german) is Said.BACKCHANNEL
    assert kind_of("Nein, am Dienstag.", german) is Said.SPEECH
