"""One turn of a conversation: what the caller said, what the agent made of it, and when."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from sipagent.conversation.interfaces import Asked
from sipagent.conversation.listener import Heard
from sipagent.conversation.speaker import Utterance
from sipagent.core.clock import Stamp
from sipagent.core.events import TurnEnded, TurnLatency
from sipagent.core.ids import CallId, TurnId


@dataclass(slots=True, eq=False)
class Turn:
    """Times are monotonic ns, 0 until they are known."""

    id: TurnId
    heard: list[Heard]  # empty when the agent speaks first
    checkpoint: object  # the agent's memory before it
    asked: Asked | None = field(default=None, kw_only=True)  # what the agent is answering, as soon as it is
    utterance: Utterance
    begun_ns: int = 0
    task: asyncio.Task[None] | None = None
    caller_text: str = ""
    confidence: float = 0.0
    words_ns: int = 0  # when the caller's words were final
    answer_ns: int = 0  # when the first words of the agent's answer were there
    clause_ns: int = 0  # when its first clause was
    intent: str = ""
    ending: bool = False  # the call ends after it: it may not be interrupted
    apologising: bool = False
    answered: bool = False  # some of the agent's own words have been queued since it was last looked
    failed: bool = False  # no more than an apology will be said
    announced: bool = False  # that it can be heard
    over: bool = False  # written down, or retracted
    details: dict[str, Any] = field(default_factory=dict)  # how it came about, each feature under its own key

    @property
    def started_ns(self) -> int:
        return self.heard[0].started_ns if self.heard else 0


def ended(turn: Turn, call_id: CallId, index: int, now: Stamp, *, interrupted: bool) -> TurnEnded:
    """The turn as it goes on record."""
    sent_ns = turn.utterance.first_sent_ns
    return TurnEnded(
        at=now,
        call_id=call_id,
        turn_id=turn.id,
        index=index,
        caller_text=turn.caller_text,
        agent_text=turn.utterance.text,
        heard_text=turn.utterance.heard_text,
        intent=turn.intent,
        confidence=turn.confidence,
        interrupted=interrupted,
        started_at=now.at_mono(turn.started_ns or sent_ns or now.mono),
        agent_started_at=now.at_mono(sent_ns) if sent_ns else None,
        latency=latency(turn),
        details=turn.details,
    )


def latency(turn: Turn) -> TurnLatency | None:
    """The contiguous parts from the caller's last voiced packet to the agent's first.

    None when the agent spoke first, or was not heard.
    """
    sent_ns = turn.utterance.first_sent_ns
    if not turn.heard or not sent_ns:
        return None
    heard = turn.heard[-1]
    instants = [
        heard.last_arrival_ns,
        heard.last_handed_ns,
        heard.ended_ns,
        turn.words_ns,
        turn.answer_ns,
        turn.clause_ns,
        turn.utterance.first_audio_ns,
        turn.utterance.due_ns,
        sent_ns,
    ]
    for i in range(1, len(instants)):  # a step that was skipped, or came after a filler, took no time
        instants[i] = min(max(instants[i], instants[i - 1]), max(sent_ns, instants[0]))
    parts = [(later - earlier) / 1e6 for earlier, later in zip(instants, instants[1:], strict=False)]
    return TurnLatency(
        jitter_buffer_ms=parts[0],
        endpointing_ms=parts[1],
        stt_ms=parts[2],
        llm_ms=parts[3],
        clause_ms=parts[4],
        tts_ms=parts[5],
        playout_ms=parts[6],
        pacing_ms=parts[7],
        total_ms=(instants[-1] - instants[0]) / 1e6,
    )
