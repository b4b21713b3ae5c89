"""Providers in order of preference: whoever fails in whatever way is replaced before the caller notices."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from sipagent.config import load
from sipagent.conversation.chat_model import Delta, Message
from sipagent.conversation.interfaces import OnWords, Pcm, Speech, Transcript, Words
from sipagent.conversation.phrases import PhraseCache
from sipagent.conversation.providers.catalogue import Catalogue
from sipagent.conversation.providers.health import Standing
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.settings import (
    DeepgramSettings,
    ElevenLabsSettings,
    OpenAiChatSettings,
    OpenAiSpeechSettings,
    OpenAiTranscriptionSettings,
    ProviderSettings,
)
from sipagent.conversation.settings import ConversationSettings
from sipagent.core import clock
from sipagent.core.errors import ConfigError, ProviderError
from sipagent.dialplan.loader import load_file
from tests.peers.vendors import EVERY, Trouble, Vendor

SENTENCE = "We are open from eight until six."
LOCAL = 11  # a sample of the local voice, which speaks one second of it
PATIENT = {"first_ms": 10_000, "stall_ms": 10_000, "failures": 3, "pause_s": 0.0}
SHORT = {"first_ms": 250, "stall_ms": 200}  # for the vendor in trouble alone: a busy machine makes a healthy one slow


class LocalVoice:
    """The voice of last resort."""

    def __init__(self) -> None:
        self.asked = 0

    async def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
        self.asked += 1
        yield np.full(rate, LOCAL, np.int16)


@dataclass
class LocalWords:
    """The recogniser of last resort; counts what it is given."""

    frames: int = 0
    begun: int = 0

    def begin(self, on_words: OnWords) -> "LocalWords":
        self.begun += 1
        self.frames = 0
        on_words(Words("local", 1.0))
        return self

    def push(self, frame: Pcm) -> None:
        self.frames += 1

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self) -> None: ...

    async def finish(self) -> Transcript:
        return Transcript("local words", 1.0)


@dataclass
class World:
    catalogue: Catalogue
    first: Vendor
    second: Vendor
    voice: LocalVoice
    words: LocalWords
    ledger: Ledger = field(default_factory=Ledger)

    def standing(self, name: str) -> Standing:
        return self.catalogue.health(name).breaker.standing(clock.mono_ns())


Make = Callable[..., World]


@pytest.fixture
async def world() -> AsyncIterator[Callable[..., World]]:
    async with Vendor() as first, Vendor() as second, aiohttp.ClientSession() as http:
        second.reply = "Second."

        def make(of_first: dict[str, float] | None = None, **both: float) -> World:
            tables: dict[str, ProviderSettings] = {}
            for number, vendor, own in (("1", first, of_first or {}), ("2", second, {})):
                limits = PATIENT | both | own
                tables["chat" + number] = OpenAiChatSettings(base_url=vendor.url, model="m", **limits)  # type: ignore[arg-type]
                tables["speech" + number] = OpenAiSpeechSettings(base_url=vendor.url, model="m", voice="v", **limits)  # type: ignore[arg-type]
                tables["eleven" + number] = ElevenLabsSettings(base_url=vendor.url, voice="v", **limits)  # type: ignore[arg-type]
                tables["words" + number] = OpenAiTranscriptionSettings(base_url=vendor.url, model="m", **limits)  # type: ignore[arg-type]
                tables["deep" + number] = DeepgramSettings(base_url=vendor.url, **limits)  # type: ignore[arg-type]
            voice, words = LocalVoice(), LocalWords()
            catalogue = Catalogue(tables, http, PhraseCache(voice), words, ConversationSettings())
            return World(catalogue, first, second, voice, words)

        yield make


async def reply(world: World, names: list[str]) -> str:
    async with contextlib.aclosing(world.catalogue.llm(names, world.ledger).stream([Message("user", "hi")])) as parts:
        return "".join([part.text async for part in parts if isinstance(part, Delta)])


async def audio(world: World, names: list[str], text: str = SENTENCE) -> Pcm:
    pieces = [piece async for piece in world.catalogue.tts(names, world.ledger).speak(text, 8000)]
    return np.concatenate([piece if isinstance(piece, np.ndarray) else piece.pcm for piece in pieces])


async def words(world: World, names: list[str], frames: int = 40) -> str:
    recognition = world.catalogue.recogniser(names, world.ledger).begin(lambda _: None)
    for _ in range(frames):
        recognition.push(np.ones(160, np.int16))
        await asyncio.sleep(0.001)
    return (await recognition.finish()).text


def failed(world: World) -> list[str]:
    return [note["provider"] for note in world.ledger.take() if "failed" in note]


async def test_the_first_in_the_list_answers_and_nobody_else_is_asked(world: Make):
    here = world()
    assert await reply(here, ["chat1", "chat2"]) == here.first.reply + " "
    await audio(here, ["speech1", "speech2"])
    assert await words(here, ["words1", "words2"]) == here.first.words
    assert here.second.requests == [] and here.voice.asked == here.words.begun == 0
    assert [note["role"] for note in here.ledger.take()] == ["llm", "tts", "stt"]
    assert here.catalogue.figures()["chat1"]["requests"] == 1


@pytest.mark.parametrize("trouble", EVERY)
async def test_a_language_model_in_trouble_is_replaced(world: Make, trouble: Trouble):
    here = world(SHORT)
    here.first.trouble = lambda _: trouble
    problems: list[tuple[str, ProviderError]] = []
    here.ledger.problem = lambda where, error: problems.append((where, error))
    said = await reply(here, ["chat1", "chat2"])
    assert said.endswith("Second. ")
    assert failed(here) == ["chat1"]
    assert [(where, str(error).split(":")[0]) for where, error in problems] == [("llm", "chat1")]
    if len(said) > len("Second. "):  # it broke off: the other one is told what was said, and to go on
        (_, asked) = here.second.requests[0]
        assert [m["role"] for m in asked["messages"]] == ["user", "assistant", "system"]
        assert said.startswith(asked["messages"][1]["content"])


@pytest.mark.parametrize("kind", ["speech", "eleven"])
@pytest.mark.parametrize("trouble", EVERY)
async def test_a_voice_in_trouble_is_replaced_for_the_whole_clause(world: Make, kind: str, trouble: Trouble):
    here = world(SHORT)
    here.first.trouble = lambda _: trouble
    heard = await audio(here, [kind + "1"])
    assert (heard[-8000:] == LOCAL).all()
    assert failed(here) == [kind + "1"]


@pytest.mark.parametrize("kind", ["words", "deep"])
@pytest.mark.parametrize("trouble", EVERY)
async def test_a_recogniser_in_trouble_is_replaced_and_the_other_hears_all(world: Make, kind: str, trouble: Trouble):
    here = world(SHORT)
    here.first.trouble = lambda _: trouble
    said = await words(here, [kind + "1"])
    if kind == "words" and trouble is Trouble.DRIP:
        here.first.trouble = lambda _: Trouble.NONE
    assert said == "local words" and here.words.frames == 40
    assert failed(here) == [kind + "1"]


async def test_all_language_models_in_trouble_is_an_error(world: Make):
    here = world()
    here.first.trouble = here.second.trouble = lambda _: Trouble.ERROR
    with pytest.raises(ProviderError):
        await reply(here, ["chat1", "chat2"])
    assert failed(here) == ["chat1", "chat2"]


async def test_one_that_fails_again_and_again_is_left_alone(world: Make):
    here = world(pause_s=60.0)
    here.first.trouble = lambda _: Trouble.ERROR
    for _ in range(5):
        await reply(here, ["chat1", "chat2"])
    assert here.first.asked("llm") == 3
    assert here.standing("chat1") is Standing.SET_ASIDE
    assert here.catalogue.figures()["chat1"]["failures"] == {"answered 500": 3}
    here.second.trouble = lambda _: Trouble.ERROR  # better asked than nobody
    here.first.trouble = lambda _: Trouble.NONE
    assert await reply(here, ["chat1", "chat2"]) == here.first.reply + " "


async def test_it_comes_back_by_a_trial_that_no_caller_waits_for(world: Make):
    here = world(pause_s=0.05)
    here.first.trouble = lambda _: Trouble.ERROR
    for _ in range(3):
        await reply(here, ["chat1", "chat2"])
    await asyncio.sleep(0.1)
    here.first.trouble = lambda _: Trouble.NONE
    here.first.delay_s = 0.3
    assert await reply(here, ["chat1", "chat2"]) == "Second. "
    async with asyncio.timeout(15):
        while here.standing("chat1") is not Standing.GOOD:
            await asyncio.sleep(0.02)
    assert await reply(here, ["chat1", "chat2"]) == here.first.reply + " "


async def test_the_second_is_asked_when_the_first_is_late_and_the_first_is_cancelled(world: Make):
    here = world(hedge_ms=50)
    here.first.trouble = lambda _: Trouble.TIMEOUT
    assert await reply(here, ["chat1", "chat2"]) == "Second. "
    await asyncio.wait_for(here.first.closed.wait(), 15)
    assert [note.get("late") for note in here.ledger.take()] == [None, True]
    assert here.standing("chat1") is Standing.GOOD


async def test_one_that_is_late_may_still_be_first(world: Make):
    here = world(hedge_ms=20)
    here.first.delay_s = 0.15
    here.second.delay_s = 3.0
    assert await reply(here, ["chat1", "chat2"]) == here.first.reply + " "


async def test_hurrying_asks_the_next_at_once(world: Make):
    here = world()
    here.first.trouble = lambda _: Trouble.TIMEOUT
    answer = asyncio.create_task(reply(here, ["chat1", "chat2"]))
    while not here.first.requests:
        await asyncio.sleep(0.01)
    here.ledger.hurry()
    assert await asyncio.wait_for(answer, 15) == "Second. "


async def test_a_voice_that_took_over_keeps_the_call(world: Make):
    here = world()
    here.first.trouble = lambda _: Trouble.ERROR
    tts = here.catalogue.tts(["speech1", "speech2"], here.ledger)
    for _ in range(2):
        assert [piece async for piece in tts.speak(SENTENCE, 8000)]
        here.first.trouble = lambda _: Trouble.NONE
    assert (here.first.asked("tts"), here.second.asked("tts")) == (1, 2)
    await audio(here, ["speech1", "speech2"])  # another call begins with the first again
    assert here.first.asked("tts") == 2


async def test_what_is_kept_is_spoken_whatever_has_become_of_the_voice(world: Make):
    here = world()
    assert await here.catalogue.phrases(["speech1"]).prepare([SENTENCE]) == 0
    here.first.trouble = lambda _: Trouble.ERROR
    assert not (await audio(here, ["speech1"]) == LOCAL).any()
    assert here.first.asked("tts") == 1 and failed(here) == []


async def test_giving_up_leaves_nobody_asked(world: Make):
    here = world(hedge_ms=10)
    here.first.trouble = here.second.trouble = lambda _: Trouble.TIMEOUT
    answer = asyncio.create_task(reply(here, ["chat1", "chat2"]))
    while not here.second.requests:
        await asyncio.sleep(0.01)
    answer.cancel()
    await asyncio.wait([answer])
    for vendor in (here.first, here.second):
        await asyncio.wait_for(vendor.closed.wait(), 15)
    assert here.catalogue.figures()["chat1"]["late"] == 0


@pytest.mark.parametrize("steps", range(8))
async def test_giving_up_in_the_moment_that_audio_comes_is_giving_up(steps: int):
    gate = asyncio.Event()

    class Gated:
        async def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
            yield np.zeros(160, np.int16)
            await gate.wait()
            yield np.zeros(160, np.int16)
            await asyncio.Event().wait()

    async with aiohttp.ClientSession() as http:
        catalogue = Catalogue({}, http, PhraseCache(Gated()), LocalWords(), ConversationSettings())
        pieces = catalogue.tts([], Ledger()).speak(SENTENCE, 8000)

        async def listen() -> None:
            async for _ in pieces:
                pass

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.02)
        gate.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        listening.cancel()
        await asyncio.wait([listening], timeout=15)
        assert listening.cancelled()


@pytest.mark.parametrize(
    ("role", "names", "said"),
    [
        ("tts", ["speech3"], "there is no [providers.speech3]; a voice would be eleven1, eleven2, speech1, speech2"),
        ("tts", ["chat1"], "`tts` names chat1, which is a language model"),
        ("llm", ["local"], "there is no [providers.local]"),
        ("stt", ["deep1", "local"], ""),
    ],
)
async def test_agents_name_what_there_is(world: Make, role, names, said):
    here = world()
    if not said:
        here.catalogue.check("agent desk", role, names)
        return
    with pytest.raises(ConfigError) as caught:
        here.catalogue.check("agent desk", role, names)
    assert said in str(caught.value) and str(caught.value).startswith("agent desk: ")


async def test_a_vendors_own_address_needs_a_key():
    async with aiohttp.ClientSession() as http:
        with pytest.raises(ConfigError, match=r"\[providers.dg\] has no `key`"):
            Catalogue({"dg": DeepgramSettings()}, http, PhraseCache(LocalVoice()), LocalWords(), ConversationSettings())


async def test_the_example_of_the_documentation(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
    tables, plan = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("toml", "yaml"))
    assert tables is not None and plan is not None
    (tmp_path / "sipagent.toml").write_text(tables.group(1))
    (tmp_path / "desk.yaml").write_text(plan.group(1))
    config = load(tmp_path / "sipagent.toml", dict.fromkeys(re.findall(r"\w+_API_KEY", text), "k"))
    async with aiohttp.ClientSession() as http:
        catalogue = Catalogue(config.providers, http, PhraseCache(LocalVoice()), LocalWords(), config.conversation)
        agent = load_file(tmp_path / "desk.yaml").agents["desk"]
        catalogue.check("agent desk", "stt", agent.stt)
        catalogue.check("agent desk", "llm", agent.llm)
        catalogue.check("agent desk", "tts", agent.tts)
