"""Who or what has answered a call of ours: told from cadence, tones and words. Pure; a frame is 20 ms.

    human        a short "hello", then silence: they wait for us
    voicemail    speaks on and on, or says so; then a beep
    menu         offers keys
    screening    asks who calls and why
    fax, music   by their sound

A verdict may be revised: who says "hello", a pause, and "leave a message" is no person. Thresholds by bench/callee.py.
"""

from dataclasses import dataclass
from enum import StrEnum

from sipagent.conversation.agents.slots import plain, says
from sipagent.conversation.beep import Tone
from sipagent.conversation.interfaces import FRAME_MS
from sipagent.conversation.languages import CalleePhrases


class Callee(StrEnum):
    HUMAN = "human"
    VOICEMAIL = "voicemail"
    MENU = "menu"
    SCREENING = "screening"
    FAX = "fax"
    MUSIC = "music"


@dataclass(frozen=True, slots=True)
class Verdict:
    callee: Callee
    reason: str
    after_ms: int  # since the answer


SHORT_MS = 1900  # people say less than this before they wait
WAITS_MS = 440  # silence after that in which nothing more comes
LONG_MS = 3300  # nobody speaks for so long without a pause who has just picked up
PAUSE_MS = 300  # shorter ones belong to one utterance
BUSINESS_MS = 5200  # with words that no machine says, a company's greeting may be this long
FAX_HZ, FAX_MS = (1100.0, 2100.0), 400  # CNG and CED, ITU-T T.30
FAX_NEAR_HZ = 40.0
BEEP_MS = (120, 2500)
MUSIC_MS = 3000  # of sound that is hardly speech
MUSIC_VOICED = 0.35
LOUD_DBFS = -45.0
QUIETER_DB = 10.0  # people who wait are quieter than their speech by this; music goes on
REVISED_WITHIN_MS = 30_000  # and no longer: who has talked with us for so long is a person
AFTER_GREETING_MS = 2400  # silence after which a message is left although no beep came
KEPT_WORDS = 600  # characters
BEEP = "a beep"
ITS_WORDS = "its words"


class CalleeWatch:
    def __init__(self, phrases: CalleePhrases) -> None:
        self._phrases = phrases
        self._ms = 0
        self._speech_ms = 0  # of the utterance under way, short pauses included
        self.silence_ms = 0  # nothing has been said for so long
        self.spoken = False  # somebody, or something, has
        self._peak_dbfs = self._pause_dbfs = -96.0  # of the utterance; loudest in the pause behind it
        self._firm = False  # the verdict does not rest on cadence alone
        self._tone_to_come = False  # one was announced, and what it is for has not been said: a message, or a name
        self._words = ""
        self._earlier = ""  # words of utterances that are over
        self._loud: list[bool] = []  # of the last frames, and whether they were voiced
        self._voiced: list[bool] = []
        self.verdict: Verdict | None = None
        self.beeped = False  # and nothing has been said since

    @property
    def said(self) -> str:
        return f"{self._earlier} {self._words}".strip()

    @property
    def sure(self) -> bool:
        """The verdict rests on words or a tone, or the machine that does not stop has stopped."""
        return self._firm or (self.verdict is not None and self.message_due)

    @property
    def message_due(self) -> bool:
        """A machine has said its part."""
        return self.beeped or (self.spoken and self.silence_ms >= AFTER_GREETING_MS)

    def words(self, text: str, *, final: bool) -> Verdict | None:
        """What the callee has said in this utterance so far; the verdict when there is a new one."""
        self._words = text
        if final:
            self._earlier, self._words = self.said[-KEPT_WORDS:], ""
        said = plain(self.said)
        for callee, phrases in (
            (Callee.SCREENING, self._phrases.screening),
            (Callee.VOICEMAIL, self._phrases.voicemail),
            (Callee.MENU, self._phrases.menu),
        ):
            if says(said, phrases):
                self._tone_to_come = False
                return self._decide(callee, ITS_WORDS, firm=True)
        self._tone_to_come = says(said, self._phrases.tone)
        return self._decide(Callee.VOICEMAIL, ITS_WORDS, firm=True) if final and self._tone_to_come else None

    def frame(self, voiced: bool, dbfs: float, tone: Tone | None) -> Verdict | None:
        """One frame of the callee's; the verdict when there is a new one."""
        self._ms += FRAME_MS
        if tone is not None:
            if _is_fax(tone):
                return self._decide(Callee.FAX, f"a tone of {tone.hz:.0f} Hz", firm=True)
            if tone.over and BEEP_MS[0] <= tone.ms <= BEEP_MS[1] and self.spoken:
                self.beeped = True
                return self._decide(Callee.VOICEMAIL, BEEP, firm=True)
        if voiced and tone is None:
            pause_ms = self.silence_ms if self._speech_ms and self.silence_ms < PAUSE_MS else 0
            self._speech_ms += FRAME_MS + pause_ms
            self.silence_ms = 0
            self._peak_dbfs, self._pause_dbfs = max(self._peak_dbfs, dbfs), -96.0
            self.spoken, self.beeped = True, False
        else:
            self.silence_ms += FRAME_MS
            if self.silence_ms > WAITS_MS // 2:  # the end of the last word is no pause yet
                self._pause_dbfs = max(self._pause_dbfs, dbfs)
        return (
            self._judge_announced()
            or self._judge_cadence()
            or self._judge_music(voiced, dbfs > LOUD_DBFS and tone is None)
        )

    # --- inside ---

    def _judge_announced(self) -> Verdict | None:
        if not self._tone_to_come or self.silence_ms < PAUSE_MS:
            return None
        self._tone_to_come = False
        return self._decide(Callee.VOICEMAIL, ITS_WORDS, firm=True)

    def _judge_cadence(self) -> Verdict | None:
        longest = BUSINESS_MS if self.said else SHORT_MS
        if self.silence_ms >= WAITS_MS and self._speech_ms:
            speech_ms, self._speech_ms = self._speech_ms, 0
            quiet = self._pause_dbfs <= self._peak_dbfs - QUIETER_DB
            self._peak_dbfs = -96.0
            if self.verdict is None and quiet and speech_ms <= longest:
                return self._decide(Callee.HUMAN, f"{speech_ms / 1000:.1f} s of speech, then silence")
        elif self.verdict is None and self._speech_ms > max(longest, LONG_MS):
            return self._decide(Callee.VOICEMAIL, "speaks without a pause")
        return None

    def _judge_music(self, voiced: bool, loud: bool) -> Verdict | None:
        span = MUSIC_MS // FRAME_MS
        self._loud.append(loud)
        self._voiced.append(voiced)
        del self._loud[:-span], self._voiced[:-span]
        steady = len(self._loud) == span and sum(self._loud) >= 0.9 * span
        if self.verdict is None and steady and sum(self._voiced) <= MUSIC_VOICED * span:
            return self._decide(Callee.MUSIC, "sound without speech")
        return None

    def _decide(self, callee: Callee, reason: str, *, firm: bool = False) -> Verdict | None:
        before = self.verdict
        if before is not None:
            late = self._ms > REVISED_WITHIN_MS
            beep = before.callee is Callee.MENU and reason is BEEP
            # Who has told of a tone may ask for a name behind it.
            asks = before.callee is Callee.VOICEMAIL and callee is Callee.SCREENING and not self.beeped
            if before.callee is callee or late or not firm or (self._firm and not (beep or asks)):
                self._firm = self._firm or (firm and before.callee is callee)
                return None
        self.verdict, self._firm = Verdict(callee, reason, self._ms), firm
        return self.verdict


def _is_fax(tone: Tone) -> bool:
    return tone.ms >= FAX_MS and any(abs(tone.hz - hz) <= FAX_NEAR_HZ for hz in FAX_HZ)
