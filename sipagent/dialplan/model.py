"""What a dialplan file says, as values.

Every class is one YAML mapping; its field names are the keys a user writes. Unknown keys are errors.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from sipagent.dialplan.part import Part as _Part
from sipagent.dialplan.tools import McpSpec, ToolSpec

# --- steps ----------------------------------------------------------------------------------------------------


class AnswerStep(_Part, frozen=True):
    """Answer the call. Steps that speak answer by themselves when this one is left out."""


class RingStep(_Part, frozen=True):
    """Let the caller hear that it rings (180), for so long; on an answered call nothing."""

    seconds: float = 0.0


class SayStep(_Part, frozen=True):
    """Speak a text to its end."""

    text: str
    early: bool = False  # before the call is answered, as early media (183); many carriers charge nothing for it


class PlayStep(_Part, frozen=True):
    """Play a WAV file (mono, 16 bit; any rate) to its end: a path, relative to the dialplan file, or a URL."""

    file: str
    early: bool = False  # as of `say`
    times: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1


class PressStep(_Part, frozen=True):
    """Press keys for the other side, as the trunk wants them (`dtmf`). A comma is a pause of half a second."""

    digits: str


class HoldStep(_Part, frozen=True):
    """Put the caller on hold, with music, for so long."""

    seconds: float
    music: str = ""  # as of `transfer`


class RecordStep(_Part, frozen=True):
    """Record the call from here on, both sides, or stop that. A call that is not answered yet is answered."""

    action: Literal["start", "stop"] = "start"


class AgentStep(_Part, frozen=True):
    """Let an agent talk with the caller until one of them ends it; a transfer the agent decides happens inside."""

    agent: str


class Instead(_Part, frozen=True):
    """What the caller gets where nobody could be reached: a file is played or a text is said, or the call is ended."""

    play: str = ""  # as of `play`
    say: str = ""
    times: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1  # that it is played
    hangup: bool = False

    def steps(self) -> "list[Step]":
        spoken: list[Step] = [SayStep(text=self.say)] if self.say else []
        played: list[Step] = [PlayStep(file=self.play, times=self.times)] if self.play else []
        return [*spoken, *played, *([HangupStep()] if self.hangup else [])]


class TransferSpec(_Part, frozen=True):
    """Whom to hand the caller to, and how."""

    target: str  # SIP URI or number
    kind: Literal["", "blind", "attended"] = ""  # "" is attended where there is a whisper, else blind
    whisper: str = ""  # told to the target before the caller comes; "" of an attended one: what the caller said last
    via: Literal["", "auto", "refer", "bridge"] = ""  # "" is what the trunk's `transfer` says
    trunk: str = ""  # for a leg of ours to the target; "" is the caller's trunk
    show: Literal["own", "caller"] = "own"  # whose number the target sees on that leg, as far as the trunk lets us
    timeout_s: float = 0.0  # of ringing; 0 is the node's [limits] ring_timeout_s
    music: str = ""  # for the caller meanwhile: "" hold music, "ringback", "silence", or a WAV file as of `play`
    headers: dict[str, str] = {}  # of the INVITE on that leg, as far as its trunk lets them out; it is no REFER then
    confirm: str = ""  # a WAV file, as of `play`, that the target hears before the caller comes; it is no REFER then

    @property
    def attended(self) -> bool:
        return self.kind == "attended" or (not self.kind and self.whisper != "")


class TransferStep(TransferSpec, frozen=True):
    """Hand the caller to somebody else. When it fails the call goes on with the next step."""


class DialStep(_Part, frozen=True):
    """Ring somebody and join them with the caller. When they have hung up the next step follows.

    A caller who is not answered yet hears it ring, and is answered when somebody answers.
    """

    to: str | tuple[str, ...]  # SIP URIs or numbers; several are tried in turn
    at_once: bool = False  # ring all of them; the first to answer gets the call
    trunk: str = ""  # "" is the node's choice
    show: Literal["own", "caller"] = "own"  # whose number they see, as far as the trunk lets us
    timeout_s: float = 0.0  # of ringing, each; 0 is the node's [limits] ring_timeout_s
    music: str = "ringback"  # for the caller meanwhile, as of `transfer`
    headers: dict[str, str] = {}  # of the INVITE, as far as the trunk lets them out
    whisper: str = ""  # told to whoever answers before the caller is joined
    confirm: str = ""  # a WAV file, as of `play`, that they hear before
    status_callback_url: str = ""  # is told how these legs go
    record: bool = False  # both sides, from when they are joined
    on_busy: str | Instead = ""  # steps to take instead of all that are left
    on_no_answer: str | Instead = ""
    on_failure: str | Instead = ""  # for any reason, where there is no other word for it

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.to,) if isinstance(self.to, str) else self.to


class HangupStep(_Part, frozen=True):
    """End the call."""


class RejectStep(_Part, frozen=True):
    """Refuse a call that is not answered yet."""

    status: int = 603
    reason: str = ""


class StreamStep(_Part, frozen=True):
    """Send the call's audio to an application, and play what it sends, until one of them ends it.

    With `direction: listen` the application only hears, and the next step follows at once.
    """

    url: str  # ws:// or wss://; or tcp://host:port, which speaks Asterisk's AudioSocket
    dialect: Literal["", "teler", "twilio", "audiosocket"] = ""  # "" is teler, and audiosocket for tcp://
    direction: Literal["both", "listen"] = "both"
    track: Literal["caller", "agent", "both"] = "caller"  # what is listened to; of `direction: both`, the caller
    sample_rate: Literal[8000, 16000] = 8000  # of the audio on the way there and back; twilio has 8000 only
    chunk_ms: Annotated[int, msgspec.Meta(ge=20, le=1000, multiple_of=20)] = 20  # of audio in one message
    parameters: dict[str, str] = {}  # told to the application; {call_id}, {from_number}, {to_number} are filled in
    on_failure: str = ""  # steps to take instead of the next one, when it cannot be reached or is lost

    @property
    def spoken(self) -> Literal["teler", "twilio", "audiosocket"]:
        """The dialect."""
        return self.dialect or ("audiosocket" if self.url.startswith("tcp://") else "teler")


class WebhookStep(_Part, frozen=True):
    """Ask a URL what to do with the call; the next step follows after that."""

    url: str
    fallback_url: str = ""  # asked when the first has no answer that can be used


class SetStep(_Part, frozen=True):
    """Keep texts by name, for `if`, `say` and what is asked of a URL."""

    values: dict[str, str]


class IfStep(_Part, frozen=True, rename={"equals": "is", "otherwise": "else"}):
    """Take other steps instead of those that are left, as a value is."""

    value: str  # with places to fill in: "{tier}", "{call.from}"
    equals: str | tuple[str, ...]  # patterns with * and ?
    then: str = ""  # steps; "" goes on
    otherwise: str = ""


class GotoStep(_Part, frozen=True):
    """Take these steps instead of those that are left."""

    steps: str


class WaitStep(_Part, frozen=True):
    """Do nothing for so long; an answered caller hears silence."""

    seconds: float


Step = (
    AnswerStep
    | RingStep
    | SayStep
    | PlayStep
    | AgentStep
    | DialStep
    | PressStep
    | HoldStep
    | RecordStep
    | TransferStep
    | StreamStep
    | HangupStep
    | RejectStep
    | WebhookStep
    | SetStep
    | IfStep
    | GotoStep
    | WaitStep
)


# --- agents ---------------------------------------------------------------------------------------------------


class SlotSpec(_Part, frozen=True):
    """One thing to learn from the caller before an intent can be answered."""

    ask: str  # the question
    kind: str  # "day", "date", "time", "number", "digits", "choice", "yes_no", "name", "spelling", "email" or "text"
    choices: list[str] | dict[str, list[str]] = []  # for kind "choice"; or with other words for each
    again: str = ""  # the question in other words, when the answer was not understood
    min: float | None = None  # for kind "number"
    max: float | None = None
    digits: str = ""  # for kind "digits": how many, as "4" or "4-6"
    confirm: bool = False  # say it back and ask whether it is right


class IntentSpec(_Part, frozen=True):
    """Something a caller may want: example phrases, and what happens then."""

    examples: list[str]
    answer: str = ""  # `{slot}` is replaced by what the caller said
    whole: bool = False  # the answer must be heard whole: nobody interrupts it
    slots: dict[str, SlotSpec] = {}
    confirm: str = ""  # once all is known: a question with all of it, to be agreed to or corrected
    transfer: str | TransferSpec = ""  # SIP URI or number to hand the caller to, after the answer; or more about it
    hangup: bool = False  # say the answer, then end the call


class ChatSpec(_Part, frozen=True):
    """A language model that leads the conversation instead of intents: this one, or what the agent's `llm` names."""

    prompt: str
    base_url: str = ""  # of an OpenAI-compatible server, up to and including /v1; "" where `llm` says it
    model: str = ""
    api_key: str = ""  # better: api_key_env
    api_key_env: str = ""  # name of the environment variable that holds the key
    temperature: float = 0.3
    max_tokens: int = 200
    transfer_targets: dict[str, str | TransferSpec] = {}  # name the model uses: SIP URI or number, or more about it
    tools: dict[str, ToolSpec] = {}  # by the name the model uses
    mcp: dict[str, McpSpec] = {}  # servers of more tools


TurnEndName = Literal["adaptive", "silence", "words", "melody", "provider"]
ExpectedName = Literal["anything", "yes_no", "choice", "number", "digits", "spelling", "date", "name", "text"]
Patience = Annotated[float, msgspec.Meta(ge=0.25, le=5.0)]


class TurnEndSpec(_Part, frozen=True):
    """Who decides that the caller has finished, and how patiently."""

    strategy: TurnEndName = "adaptive"
    silence_ms: Annotated[int, msgspec.Meta(ge=0, le=5000)] = 0  # for `silence`; 0 is [conversation] endpointing_ms
    patience: Patience = 1.0  # 2 waits half a second longer, 0.8 a fifth less
    answers: dict[ExpectedName, Patience] = {}  # times another while such an answer is expected


DeadAirAct = Literal["provider", "filler", "sorry", "transfer", "goodbye"]


class BargeInSpec(_Part, frozen=True):
    """Nothing the caller says interrupts the agent before it has lasted this long."""

    after_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)]


class KnowledgeSpec(_Part, frozen=True):
    """Documents that an agent answers from."""

    folder: str  # of .txt, .md, .html and .pdf files, and folders of them; relative to the dialplan
    top: int = 3  # passages that a chat model is given with a question
    threshold: float = 0.3  # cosine below which a passage has nothing to do with the question


class CalleeSpec(_Part, frozen=True):
    """What an agent does where no person answers a call that was placed for it."""

    message: str = ""  # left on a voicemail after its beep; "" hangs up
    keys: str = ""  # pressed where a menu answers; "" leaves it to the agent
    name: str = ""  # who calls and why, for those who ask before they put a call through; "" leaves it to the agent
    limit_s: float = 45.0  # for the machine's own words


class AgentSpec(_Part, frozen=True):
    """An agent: intents answered from this file, or a chat model, and its manners."""

    greeting: str
    whole_greeting: bool = False  # it must be heard whole: nobody interrupts it
    language: str = "en"  # ISO 639-1, of its words and the caller's
    start: str = ""  # the intent that the greeting has begun, with the question for its first slot
    intents: dict[str, IntentSpec] = {}
    chat: ChatSpec | None = None
    knowledge: KnowledgeSpec | None = None
    # Providers of sipagent.toml in order of preference; the local models follow by themselves.
    stt: tuple[str, ...] = ()
    llm: tuple[str, ...] = ()  # of `chat`, whose own model comes first
    tts: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ("Sorry, I did not understand that. Could you say it another way?",)
    unknown_limit: int = 3  # so many in a row, then `give_up`
    give_up: str = "I am sorry, I cannot help you with that. Goodbye."
    silence_prompt: str = "Are you still there?"
    silence_s: float = 8.0  # of the caller, before the prompt
    silence_prompts: int = 2  # then goodbye
    goodbye: str = "Goodbye."
    filler: str | tuple[str, ...] = "One moment, please."  # several are said in turn
    filler_after_s: float = 1.8  # of silence while the caller waits: the filler
    # What is done about such silence, one after the other until the answer comes.
    dead_air: tuple[DeadAirAct, ...] = ("provider", "filler", "sorry", "transfer", "goodbye")
    sorry: str = "I am sorry, this is taking longer than it should. Please stay on the line."
    human: str | TransferSpec = ""  # whom to hand the caller to when there is no answer; SIP URI or number, or more
    handover: str = "I will put you through to somebody who can help."
    apology: str = "Sorry, something went wrong here."
    away: str = "One moment, please."  # while the node's main process has died and is coming back; then music
    resumed: str = "Sorry, I lost you for a moment. Where were we?"  # when it is back
    transfer_failed: str = "I am sorry, {reason}. Can I help you with anything else?"  # back from a failed transfer
    barge_in: Literal["always", "words", "never"] | BargeInSpec = "always"
    turn_end: TurnEndName | TurnEndSpec = "silence"
    max_duration_s: float = 900.0
    record: bool = False  # the call is recorded from here on
    callee: CalleeSpec | None = None  # of calls placed for it: who answers is found out


class RouteSpec(_Part, frozen=True):
    """Calls whose called and calling numbers match take these steps; the first route that matches wins."""

    steps: str
    name: str = ""
    called: tuple[str, ...] = ("*",)  # patterns with * and ?
    calling: tuple[str, ...] = ("*",)


class Dialplan(_Part, frozen=True):
    """One file, loaded."""

    name: str  # the file's name without its ending
    folder: str  # where relative `play` files are
    routes: list[RouteSpec]
    steps: dict[str, list[Step]]
    agents: dict[str, AgentSpec]
    tts: tuple[str, ...] = ()  # voices of what the steps say, in order of preference; the local one is behind them


def said_texts(steps: Sequence[Step]) -> list[str]:
    """What the steps will speak, to the caller or to whoever they are handed to, as far as it is known by now."""
    said = [step.text for step in steps if isinstance(step, SayStep) and "{" not in step.text]
    return said + [step.whisper for step in steps if isinstance(step, DialStep | TransferStep) and step.whisper]


def urgent_texts(agent: AgentSpec) -> list[str]:
    """Texts that must be at hand the moment they are needed: the first words, and those for when something fails."""
    fillers = (agent.filler,) if isinstance(agent.filler, str) else agent.filler
    last = (agent.sorry, agent.apology, agent.goodbye, agent.away, agent.handover if agent.human else "")
    return [text for text in (agent.greeting, *fillers, *last) if text]


def may_transfer(agent: AgentSpec) -> bool:
    by_chat = agent.chat is not None and bool(agent.chat.transfer_targets)
    return by_chat or bool(agent.human) or any(intent.transfer for intent in agent.intents.values())


def fixed_texts(agent: AgentSpec) -> list[str]:
    """All texts that are known before anyone calls, and so can be synthesised beforehand."""
    fixed = [*urgent_texts(agent), agent.resumed, agent.silence_prompt, agent.goodbye, agent.give_up, *agent.unknown]
    for intent in agent.intents.values():
        fixed += [text for slot in intent.slots.values() for text in (slot.ask, slot.again)]
        if not intent.slots:
            fixed.append(intent.answer)
    if agent.chat is not None:
        for tool in agent.chat.tools.values():
            fixed += [tool.saying, tool.again, tool.collect.ask if tool.collect is not None else ""]
        for server in agent.chat.mcp.values():
            fixed += [server.saying, server.again]
    if agent.callee is not None:
        fixed += [agent.callee.message, agent.callee.name]
    return [text for text in fixed if text]
