"""A second language through the real models: eSpeak says it, the recogniser hears it, the agent understands it.

In 16 kHz: on a narrow line Whisper base mistakes half of what this voice says.
"""

import datetime as dt

import pytest

from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked, Text
from sipagent.dialplan.model import IntentSpec, SlotSpec
from sipagent.speech import models
from sipagent.speech.embedding import Embedder
from sipagent.speech.espeak import Voice
from sipagent.speech.whisper import Recogniser

INTENTS = {
    "termin": IntentSpec(
        examples=["ich möchte einen termin", "kann ich vorbeikommen", "ich brauche einen termin beim zahnarzt"],
        slots={
            "tag": SlotSpec(kind="date", ask="An welchem Tag?"),
            "zeit": SlotSpec(kind="time", ask="Um wie viel Uhr?"),
        },
        confirm="{tag} um {zeit}. Ist das richtig?",
        answer="Vielen Dank.",
    ),
    "preise": IntentSpec(examples=["was kostet eine behandlung", "wie teuer ist das"], answer="Das kommt darauf an."),
}


class Vectors:
    def __init__(self) -> None:
        self._embedder = Embedder()

    async def embed(self, texts):
        return self._embedder.embed(texts)


@pytest.mark.timeout(300)  # the first run fetches 150 MB
async def test_an_appointment_in_german():
    folder = models.pull("whisper-base")
    voice, recogniser = Voice("de"), Recogniser(folder, language="de")
    agent = IntentAgent(
        IntentMatcher(Vectors(), INTENTS),
        INTENTS,
        IntentManners(unknown=["Wie bitte?"], unknown_limit=3, give_up="Leider nein.", language="de"),
        lambda intent, values: done.append(values),
        lambda: dt.date(2026, 11, 22),
    )
    done: list[dict[str, str]] = []
    answers = []
    for said in (
        "Guten Tag. Ich brauche einen Termin.",
        "Am nächsten Dienstag.",
        "Um fünfzehn Uhr dreißig.",
        "Ja, das ist richtig.",
    ):
        heard = recogniser.transcribe(voice.synthesize(said, 16_000), 16_000).text
        pieces = [piece async for piece in agent.respond(Asked(heard, History()))]
        answers.append("".join(piece.text for piece in pieces if isinstance(piece, Text)))
    assert answers == [
        "An welchem Tag?",
        "Um wie viel Uhr?",
        "Dienstag, den 24. November um 15 Uhr 30. Ist das richtig?",
        "Vielen Dank.",
    ]
    assert done == [{"tag": "2026-11-24", "zeit": "15:30"}]


def test_espeak_tells_which_voice_it_lacks():
    from sipagent.core.errors import SetupError

    with pytest.raises(SetupError, match="no voice `klingonisch`"):
        Voice("klingonisch")
