"""Settings of the conversation, in milliseconds and seconds as their names say."""

import msgspec


class ConversationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpointing_ms: int = 340  # silence that ends the caller's turn; shorter cuts off slow speakers, longer feels slow
    pause_ms: int = 140  # silence after which the words so far are recognised ahead, so that they are ready in time
    start_ms: int = 60  # speech needed before it counts as speech; shorter lets clicks through
    barge_in_ms: int = 260  # speech of the caller that stops the agent; shorter lets "mm-hm" stop it
    partial_ms: int = 500  # how often the words so far are recognised while the caller speaks
    max_utterance_s: float = 28.0  # a longer one is cut here: the recogniser's window
    preroll_ms: int = 240  # audio before the detected start that still belongs to the utterance
    speculations: int = 2  # answers begun at pauses of one turn before it is sure that the caller has finished; 0: none
    ahead_ms: int = 5000  # audio queued beyond which synthesis waits, so that an interruption wastes little
    reply_limit_s: float = 10.0  # an agent that has said nothing by then gets its apology spoken instead
    dead_air_ms: int = 2500  # no silence that is not the caller's turn lasts longer (docs/providers.md)
    # What the caller may wait for an answer: when turns run over, silences that end them get shorter, second providers
    # are asked earlier and fillers come sooner, until turns are well within again; 0 never does that.
    latency_budget_ms: int = 1200
    lead_ms: int = 200  # between the answer and the first word, while the far end's audio path opens
    tail_ms: int = 240  # between the agent's last word and the end of the call, so that the far end hears all of it
