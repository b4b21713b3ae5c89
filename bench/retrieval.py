"""How well an agent finds what it knows: questions about this project's own documentation, and others.

    python -m bench.retrieval

The folder is `docs`, without decisions, figures and settings; each question has the document that answers it. Nothing
was tuned on them. A question that nothing answers is right when nothing is found.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.rig import ROOT, where
from sipagent.conversation.knowledge.index import Found, Knowledge
from sipagent.dialplan.model import KnowledgeSpec
from sipagent.speech import embedding

ASKED = (
    ("what happens to my calls when the main process is killed", "survival.md"),
    ("how long do callers wait when the agent crashes", "survival.md"),
    ("which codecs can you speak", "media.md"),
    ("how do I turn on G.722", "media.md"),
    ("how do I connect an Asterisk as an extension", "trunks.md"),
    ("what does a trunk's registration do when it is refused", "trunks.md"),
    ("my server is behind a NAT, which address is in the SDP", "nat.md"),
    ("do I need a STUN server", "nat.md"),
    ("how can I take more than four calls", "scaling.md"),
    ("how many lanes can stand behind one edge", "scaling.md"),
    ("which header has the API key", "api.md"),
    ("how do I place a call over REST", "api.md"),
    ("how do I stream the audio of a call to my own bot", "streams.md"),
    ("can I use a bot that was written for Twilio", "streams.md"),
    ("how do I get a report of last month by trunk", "reports.md"),
    ("what is in a call detail record", "reports.md"),
    ("what does the agent do when a speech provider fails", "providers.md"),
    ("how do I use Deepgram for recognition", "providers.md"),
    ("can the model call my own Python functions", "tools.md"),
    ("how do I add an MCP server", "tools.md"),
    ("how does it decide that the caller has finished speaking", "turn-ends.md"),
    ("where can I see the SIP messages of a call", "ladder.md"),
    ("how do I write a route for a called number", "dialplans.md"),
    ("how are slots of an intent asked for", "dialplans.md"),
)
OTHERS = (
    "who won the football game",
    "can you tell me a joke",
    "what is the weather like in Lisbon",
    "how do I bake bread without yeast",
    "is my dog allowed in the restaurant",
    "when was the cathedral built",
    "I would like to order a pizza",
    "what does a tooth cleaning cost",
    "who wrote the Odyssey",
    "where can I buy train tickets",
)


class Local:
    """The local model, here and not in a worker."""

    def __init__(self) -> None:
        self._model = embedding.Embedder()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._model.embed(texts)


async def main() -> None:
    spec = KnowledgeSpec(folder="docs")
    knowledge = Knowledge(Local(), spec.top, spec.threshold)
    with tempfile.TemporaryDirectory() as folder:
        documents = Path(folder) / "docs"
        shutil.copytree(ROOT / "docs", documents, ignore=shutil.ignore_patterns("adr", "performance.md", "settings.md"))
        took: list[float] = []
        for _ in range(2):  # the second time what was made is read
            begun = time.perf_counter()
            await knowledge.read(documents, Path(folder) / "kept")
            took.append(time.perf_counter() - begun)
    asked_ms: list[float] = []

    async def find(question: str) -> list[Found]:
        begun = time.perf_counter()
        found = await knowledge.find(question)
        asked_ms.append((time.perf_counter() - begun) * 1e3)
        return found

    found = [(await find(question), document) for question, document in ASKED]
    first = sum(bool(each) and each[0].document == document for each, document in found)
    among = sum(document in [one.document for one in each] for each, document in found)
    nothing = [await find(question) for question in OTHERS].count([])
    print(f"{knowledge.sentences} sentences, read in {took[0]:.1f} s, again in {took[1]:.2f} s\n")
    print("| questions | right document first | among the first three | nothing found | ms a question p50 / p95 |")
    print("|---|---:|---:|---:|---:|")
    p50, p95 = np.percentile(asked_ms, (50, 95))
    print(f"| {len(ASKED)} that a document answers | {first} | {among} | {sum(not each for each, _ in found)} | |")
    print(f"| {len(OTHERS)} that none does | | | {nothing} | |")
    print(f"| all | | | | {p50:.1f} / {p95:.1f} |\n\n{where()}")


if __name__ == "__main__":
    asyncio.run(main())
