"""What agents know from documents: found by meaning with the local model, kept between starts, told with its source."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from sipagent import app
from sipagent.brains import Brains
from sipagent.conversation.agents.chat import ChatAgent, ChatPlan
from sipagent.conversation.agents.intents import IntentAgent, IntentManners, IntentMatcher
from sipagent.conversation.chat_model import Delta, Message, Part, ToolSpec
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked, Piece, Text
from sipagent.conversation.knowledge import documents, index
from sipagent.conversation.knowledge.index import Knowledge
from sipagent.conversation.knowledge.passages import LONGEST, cut
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.core.errors import ConfigError, ProviderError
from sipagent.dialplan.model import AgentSpec, ChatSpec, Dialplan, IntentSpec, KnowledgeSpec, SlotSpec
from sipagent.speech import embedding
from tests.conversation.control import Control

pytestmark = pytest.mark.models

HANDBOOK = Path(__file__).parent / "handbook"


class Embedder:
    """The local model, as the speech worker has it; counts what it was asked."""

    def __init__(self) -> None:
        self._model = embedding.Embedder()
        self.texts: list[str] = []
        self.broken = False

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.broken:
            raise ProviderError("the speech workers are stopped", retryable=False)
        self.texts += texts
        return self._model.embed(texts)


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder()


@pytest.fixture
def embedder(model: Embedder) -> Embedder:
    model.texts.clear()
    model.broken = False
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HANDBOOK, tmp_path / "handbook"))


async def known(embedder: Embedder, folder: Path, kept: Path | None = None) -> Knowledge:
    knowledge = Knowledge(embedder, 3, 0.3)
    await knowledge.read(folder, kept or folder.parent / "kept")
    return knowledge


@pytest.mark.parametrize(
    ("question", "answer", "document"),
    [
        ("do you have a charger for my electric car", "Two places have a charger for electric cars.", "house.md"),
        ("can my cat stay with us", "Cats cannot stay with us.", "house.md"),
        ("how much is an additional bed", "An extra bed costs thirty-five euros.", "rooms/rooms.html"),
        ("can I pay by credit card", "We take all credit cards and cash.", "payment.txt"),
        ("is breakfast included", "It is included in the price of every room.", "house.md"),
    ],
)
async def test_questions_are_answered_by_meaning(embedder, folder, question, answer, document):
    best, *_ = await (await known(embedder, folder)).find(question)
    assert answer in best.answer and best.document == document and best.source["document"] == document


@pytest.mark.parametrize(
    "question", ["who won the football game", "can you tell me a joke", "my order has not arrived"]
)
async def test_what_is_not_in_them_is_not_found(embedder, folder, question):
    assert await (await known(embedder, folder)).find(question) == []


async def test_only_what_changed_is_worked_out_again(embedder, folder):
    before = await known(embedder, folder)
    assert len(embedder.texts) == before.sentences > 12
    embedder.texts.clear()
    assert (await known(embedder, folder)).sentences == before.sentences and not embedder.texts

    (folder / "payment.txt").write_text("Breakfast can be paid with pearls only.")
    (folder / "house.md").unlink()
    knowledge = await known(embedder, folder)
    assert embedder.texts == ["Breakfast can be paid with pearls only."]
    assert [found.document for found in await knowledge.find("may I pay breakfast with pearls")] == ["payment.txt"]
    assert len(list((folder.parent / "kept").iterdir())) == 2  # nothing is kept of what is gone


async def test_a_kept_file_that_is_damaged_is_made_anew(embedder, folder):
    first = await known(embedder, folder)
    for file in (folder.parent / "kept").iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    embedder.texts.clear()
    assert (await known(embedder, folder)).sentences == first.sentences == len(embedder.texts)


async def test_bounds(embedder, folder, monkeypatch):
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="nothing to read"):
        await known(embedder, folder / "empty")
    outside = folder.parent / "secret.txt"
    outside.write_text("The code of the safe is in here.")
    (folder / "link.txt").symlink_to(outside)
    assert not await (await known(embedder, folder)).find("what is the code of the safe")
    for name, limit in (("MAX_DOCUMENTS", 2), ("MAX_SENTENCES", 5)):
        with monkeypatch.context() as patch, pytest.raises(ConfigError, match="too many"):
            patch.setattr(index, name, limit)
            await known(embedder, folder)
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    with pytest.raises(ConfigError, match="larger than"):
        await known(embedder, folder, folder.parent / "other")


async def test_pdf_files(embedder, folder):
    (folder / "notice.pdf").write_bytes(pdf("The swimming pool is closed in winter."))
    best, *_ = await (await known(embedder, folder)).find("when is the swimming pool closed")
    assert best.document == "notice.pdf" and "winter" in best.answer
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(ConfigError, match=r"broken.pdf: cannot be read as PDF"):
        await known(embedder, folder)


def test_documents_are_cut_into_passages():
    passages = cut((HANDBOOK / "house.md").read_text())
    assert [passage.heading for passage in passages] == ["Breakfast", "Parking", "Pets"]
    assert "Guests with an early departure get a packed breakfast" in passages[0].text  # without its stars
    long = cut("# All\n\n" + "This is a sentence of some length. " * 100)
    assert len(long) > 3 and all(len(passage.text) <= LONGEST + 1 for passage in long)
    assert cut("") == [] and cut("# Only a heading") == []


def test_hostile_documents_are_cut_in_time():
    began = time.monotonic()
    for text in ("*" * 100_000, "[" * 100_000, "a. " * 100_000, "\n" * 200_000, "# " * 100_000, "- \n" * 50_000):
        cut(text)
    assert time.monotonic() - began < 20


# --- agents ---------------------------------------------------------------------------------------------------


class Model:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()):
        self.messages = list(messages)
        parts: list[Part] = [Delta("Dogs cost fifteen euros.")]
        for part in parts:
            yield part


class Providers:
    def __init__(self, model: Model) -> None:
        self._model = model

    def llm(self, *_: object) -> Model:
        return self._model

    def check(self, *_: object) -> None:
        pass


async def answered(agent: ChatAgent | IntentAgent, asked: Asked) -> str:
    pieces: list[Piece] = [piece async for piece in agent.respond(asked)]
    return "".join(piece.text for piece in pieces if isinstance(piece, Text)).strip()


async def test_a_chat_model_gets_the_passages_and_the_turn_their_source(embedder, folder):
    model, knowledge = Model(), await known(embedder, folder)
    plan = ChatPlan(prompt="A hotel.", greeting="Hello.", transfer_targets={}, knowledge=knowledge)
    agent = ChatAgent(model, plan, Control())
    asked = Asked("what does it cost to bring my dog", History())
    await answered(agent, asked)
    note, user = model.messages[-2:]
    assert note.role == "system" and user.role == "user" and user.content.endswith(asked.text)
    quoted = json.loads(user.content.removeprefix("Documents: ").partition("\n")[0])
    assert "Dogs are welcome for fifteen euros a night." in quoted[0]["text"]
    assert not any("Dogs" in message.content for message in model.messages if message.role == "system")
    assert asked.details["sources"][0]["document"] == "house.md"

    history = History()
    history.caller("what does it cost to bring my dog")
    await answered(agent, Asked("and a cat", history))  # means nothing without what was said before
    assert "Cats cannot stay with us." in model.messages[-1].content

    asked = Asked("who won the football game yesterday", History())
    await answered(agent, asked)
    assert "say nothing to this" in model.messages[-2].content and asked.details["sources"] == []
    embedder.broken = True
    asked = Asked("what does it cost to bring my dog", History())
    assert await answered(agent, asked)
    assert asked.details["sources"] == "the speech workers are stopped"


async def test_calls_that_come_before_the_documents_are_read_get_them_when_they_are(embedder, folder, monkeypatch):
    spec = AgentSpec(
        greeting="Hello.",
        llm=("some",),
        chat=ChatSpec(prompt="A hotel."),
        knowledge=KnowledgeSpec(folder=str(folder)),
    )
    dialplan = Dialplan(name="hotel", folder=".", routes=[], steps={}, agents={"desk": spec})
    brains = Brains(cast(Any, embedder), cast(Any, None), cast(Any, Providers(Model())), ToolSettings(), folder.parent)
    early = await brains.make("hotel/desk", spec, Control(), Ledger())
    monkeypatch.setattr(index, "WAIT_S", 0.1)
    question = "what does it cost to bring my dog"
    asked = Asked(question, History())
    await answered(cast(ChatAgent, early), asked)
    assert asked.details["sources"] == "the documents have not been read yet"

    tries = 0

    async def prepare() -> None:
        nonlocal tries
        tries += 1
        embedder.broken = tries == 1  # the speech worker comes a little later
        await brains.prepare([dialplan])

    monkeypatch.setattr(app, "RETRY_S", 0.01)
    await app.until_prepared(prepare)
    assert tries == 2
    for agent in (early, await brains.make("hotel/desk", spec, Control(), Ledger())):
        asked = Asked(question, History())
        await answered(cast(ChatAgent, agent), asked)
        assert asked.details["sources"][0]["document"] == "house.md"
    await brains.close()


async def test_an_agent_of_intents_answers_from_documents_what_no_intent_does(embedder, folder):
    intents = {
        "book": IntentSpec(
            examples=["I would like to book a room", "do you have a room for me"],
            slots={"day": SlotSpec(ask="For which day?", kind="day")},
            answer="Booked for {day}.",
        )
    }
    matcher = IntentMatcher(embedder, intents)
    manners = IntentManners(unknown=("Sorry?",), unknown_limit=3, give_up="Goodbye.", language="en", start="")
    agent = IntentAgent(matcher, intents, manners, lambda *_: None, knowledge=await known(embedder, folder))
    asked = Asked("do you have anything without gluten", History())
    assert await answered(agent, asked) == "We have gluten-free bread and oat milk."
    assert asked.details["sources"][0]["document"] == "house.md"
    assert await answered(agent, Asked("who won the football game", History())) == "Sorry?"
    # An open question is asked again after it.
    assert await answered(agent, Asked("I would like to book a room", History())) == "For which day?"
    aside = await answered(agent, Asked("do you have a charger for my electric car", History()))
    assert aside == "Two places have a charger for electric cars. For which day?"


def pdf(text: str) -> bytes:
    """A document of one page."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources 6 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Font << /F1 5 0 R >> >>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(made)
    made += b"xref\n0 7\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return made + b"trailer << /Size 7 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start
