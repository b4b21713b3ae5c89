"""Reads dialplan files; every mistake is reported with file, line and, where one is near, the word that was meant."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from sipagent.core import templates
from sipagent.core.errors import ConfigError
from sipagent.dialplan import streams, tools
from sipagent.dialplan.model import (
    AgentSpec,
    AgentStep,
    AnswerStep,
    Dialplan,
    DialStep,
    GotoStep,
    HangupStep,
    HoldStep,
    IfStep,
    Instead,
    KnowledgeSpec,
    PlayStep,
    PressStep,
    RecordStep,
    RejectStep,
    RingStep,
    RouteSpec,
    SayStep,
    SetStep,
    Step,
    StreamStep,
    TransferSpec,
    TransferStep,
    WaitStep,
    WebhookStep,
)
from sipagent.dialplan.variables import FACTS, NAME
from sipagent.web.client import parse_url

MAX_FILE_BYTES = 1 << 20
MAX_PATH = 400  # characters of `$.agents.desk.intents…`; a real one has about 60
MAX_HOLD_S = 3600
MAX_WAIT_S = 600
MAX_RING_S = 180  # RFC 3261 section 13.3.1.1: longer needs a 1xx every minute
_KEYS = re.compile("[0-9*#A-Da-d,]{1,64}")
MUSIC = ("", "ringback", "silence")
SLOT_KINDS = ("day", "date", "time", "number", "digits", "choice", "yes_no", "name", "spelling", "email", "text")
_HOW_MANY = re.compile(r"[1-9]\d?(?:-[1-9]\d?)?")
Manners = Mapping[str, Mapping[str, Any]]  # by language: texts of an agent that is silent about them
ENGLISH: Manners = {"en": {}}  # the defaults of `AgentSpec`

# The step's word, its class, and the field that a plain value goes to (`say: "Hello"`).
_STEPS: dict[str, tuple[type[Step], str]] = {
    "answer": (AnswerStep, ""),
    "ring": (RingStep, "seconds"),
    "say": (SayStep, "text"),
    "play": (PlayStep, "file"),
    "agent": (AgentStep, "agent"),
    "dial": (DialStep, "to"),
    "press": (PressStep, "digits"),
    "hold": (HoldStep, "seconds"),
    "record": (RecordStep, "action"),
    "transfer": (TransferStep, "target"),
    "stream": (StreamStep, "url"),
    "hangup": (HangupStep, ""),
    "reject": (RejectStep, "status"),
    "webhook": (WebhookStep, "url"),
    "set": (SetStep, "values"),
    "if": (IfStep, ""),
    "goto": (GotoStep, "steps"),
    "wait": (WaitStep, "seconds"),
}
_TOP = ("routes", "steps", "agents", "tts")

T = TypeVar("T")


def load_folder(folder: Path, manners: Manners = ENGLISH) -> list[Dialplan]:
    """Every ``*.yaml`` of the folder, by name. Raises ConfigError for the first mistake or when there is no file."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ConfigError(
            f"no dialplan (*.yaml) in {folder}: put one there, or set [node] dialplans to a folder that has one"
        )
    return [load_file(file, manners) for file in files]


def load_file(path: Path, manners: Manners = ENGLISH) -> Dialplan:
    """One dialplan file. Raises ConfigError naming file and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return load_text(path, raw, manners)


def load_text(path: Path, raw: bytes, manners: Manners = ENGLISH) -> Dialplan:
    """What the file at `path` would be with this content. Raises ConfigError naming file and line."""
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; a dialplan is not")
    return _Loader(path, raw, manners).load()


class _Loader:
    def __init__(self, path: Path, raw: bytes, manners: Manners) -> None:
        self._path = path
        self._manners = manners
        self._lines: dict[str, int] = {}
        self._seen: set[int] = set()
        try:
            node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{path}:{line}: {error.problem or 'not valid YAML'}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML") from error
        except RecursionError as error:
            raise ConfigError(f"{path}: nested too deeply for a dialplan") from error
        self._data = self._value(node, "$") if node is not None else {}

    def load(self) -> Dialplan:
        data = self._data
        if not isinstance(data, dict):
            raise self._error("$", "a dialplan is a mapping with `routes`, `steps` and `agents`")
        for key in data:
            if key not in _TOP:
                raise self._error(f"$.{key}", f"unknown key `{key}`{_nearest(key, _TOP)}")
        agents = {
            name: self._convert(self._in_language(spec, f"$.agents.{name}"), AgentSpec, f"$.agents.{name}")
            for name, spec in self._mapping("agents").items()
        }
        steps = {name: self._steps(items, f"$.steps.{name}") for name, items in self._mapping("steps").items()}
        raw_routes = data.get("routes") or []
        if not isinstance(raw_routes, list):
            raise self._error("$.routes", "`routes` is a list")
        routes = [self._convert(route, RouteSpec, f"$.routes[{i}]") for i, route in enumerate(raw_routes)]
        if not routes:
            raise self._error("$.routes", "no routes: a dialplan needs at least one")
        self._check(routes, steps, agents)
        tts = self._convert(data.get("tts") or (), tuple[str, ...], "$.tts")
        folder = str(self._path.parent)
        return Dialplan(name=self._path.stem, folder=folder, routes=routes, steps=steps, agents=agents, tts=tts)

    def _in_language(self, spec: Any, where: str) -> Any:
        """The agent with its language's texts where it has none of its own."""
        if not isinstance(spec, dict):
            return spec
        code = str(spec.get("language", "en"))
        if code not in self._manners:
            known = ", ".join(sorted(self._manners))
            raise self._error(f"{where}.language", f"no language `{code}`: there is {known}")
        return {**self._manners[code], **spec}

    # --- meaning ---

    def _check(self, routes: list[RouteSpec], steps: dict[str, list[Step]], agents: dict[str, AgentSpec]) -> None:
        for i, route in enumerate(routes):
            if route.steps not in steps:
                raise self._error(
                    f"$.routes[{i}].steps", f"no steps named `{route.steps}`{_nearest(route.steps, steps)}"
                )
        for name, items in steps.items():
            for i, step in enumerate(items):
                where = f"$.steps.{name}[{i}]"
                match step:
                    case AgentStep(agent=wanted) if wanted not in agents:
                        raise self._error(where, f"no agent named `{wanted}`{_nearest(wanted, agents)}")
                    case RejectStep(status=status) if not 300 <= status <= 699:
                        raise self._error(where, f"reject with {status}: a final refusal is 300 to 699")
                    case RejectStep() if not _all_early(items[:i]):
                        raise self._error(where, "`reject` must be the first step: an answered call cannot be rejected")
                    case SayStep(early=True) | PlayStep(early=True) if not _all_early(items[:i]):
                        raise self._error(
                            where,
                            "`early` is for a call that is not answered yet",
                        )
                    case PlayStep(file=file):
                        self._check_sound(where, file)
                    case WebhookStep():
                        self._check_url(where, step.url)
                        if step.fallback_url:
                            self._check_url(where, step.fallback_url)
                    case SetStep() | IfStep() | GotoStep() | WaitStep():
                        self._check_logic(where, step, steps)
                    case DialStep():
                        self._check_dial(where, step, steps)
                    case PressStep(digits=digits) if not _KEYS.fullmatch(digits):
                        raise self._error(where, 'the keys to press are 1 to 64 of 0-9, *, #, A-D and a comma, in "…"')
                    case HoldStep(seconds=seconds) if not 0 < seconds <= MAX_HOLD_S:
                        raise self._error(where, f"hold for {seconds:g} s: it is more than 0 and at most {MAX_HOLD_S}")
                    case RingStep(seconds=seconds) if not 0 <= seconds <= MAX_RING_S:
                        raise self._error(where, f"ring for {seconds:g} s: it is 0 to {MAX_RING_S}")
                    case TransferStep():
                        self._check_transfer(where, step)
                    case StreamStep():
                        self._check_stream(where, step, steps)
                    case _:
                        pass
        for name, agent in agents.items():
            self._check_agent(f"$.agents.{name}", name, agent)

    def _check_dial(self, where: str, step: DialStep, steps: dict[str, list[Step]]) -> None:
        if not step.targets or not all(step.targets):
            raise self._error(f"{where}.dial.to", "`dial` needs somebody to ring")
        for key in ("on_busy", "on_no_answer", "on_failure"):
            instead = getattr(step, key)
            if isinstance(instead, Instead):
                self._check_sound(where, instead.play)
            elif instead:
                self._check_named(f"{where}.dial.{key}", instead, steps)
        self._check_sound(where, step.confirm)
        if step.status_callback_url:
            self._check_url(where, step.status_callback_url)
        self._check_music(where, step.music)

    def _check_stream(self, where: str, step: StreamStep, steps: dict[str, list[Step]]) -> None:
        if problem := streams.problem(step):
            raise self._error(where, problem)
        if step.on_failure and step.on_failure not in steps:
            named = step.on_failure
            raise self._error(f"{where}.stream.on_failure", f"no steps named `{named}`{_nearest(named, steps)}")

    def _check_logic(
        self, where: str, step: SetStep | IfStep | GotoStep | WaitStep, steps: Mapping[str, Sequence[Step]]
    ) -> None:
        match step:
            case SetStep(values=values):
                for name, value in values.items():
                    if not NAME.fullmatch(name):
                        raise self._error(where, f"`{name}` is no name: letters, digits and _, no digit first")
                    self._check_places(where, value)
            case IfStep():
                self._check_places(where, step.value)
                if not step.then and not step.otherwise:
                    raise self._error(where, "`if` needs steps to take: `then`, `else` or both")
                for named in (step.then, step.otherwise):
                    if named:
                        self._check_named(where, named, steps)
            case GotoStep():
                self._check_named(where, step.steps, steps)
            case WaitStep() if not 0 < step.seconds <= MAX_WAIT_S:
                raise self._error(where, f"wait for {step.seconds:g} s: it is more than 0 and at most {MAX_WAIT_S}")

    def _check_places(self, where: str, text: str) -> None:
        """Facts of the call are known; other names may be set by then."""
        try:
            for name in templates.names(text):
                if name not in FACTS and not NAME.fullmatch(name):
                    raise self._error(where, f"nothing is called `{name}`{_nearest(name, FACTS)}")
        except ValueError as error:
            raise self._error(where, str(error)) from error

    def _check_named(self, where: str, named: str, steps: Mapping[str, Sequence[Step]]) -> None:
        if named not in steps:
            raise self._error(where, f"no steps named `{named}`{_nearest(named, steps)}")

    def _check_url(self, where: str, url: str) -> None:
        try:
            parse_url(url)
        except ValueError as error:
            raise self._error(where, f"the URL {error}") from error

    def _check_sound(self, where: str, file: str) -> None:
        if file.startswith(("http://", "https://")):
            self._check_url(where, file)
        elif file and not (self._path.parent / file).is_file():
            raise self._error(where, f"no file {file} beside the dialplan")

    def _check_transfer(self, where: str, spec: TransferSpec) -> None:
        if not spec.target:
            raise self._error(where, "`transfer` needs a target")
        if spec.kind == "blind" and spec.whisper:
            raise self._error(where, "a blind transfer has no `whisper`: nobody is asked before; leave out the kind")
        if spec.headers and spec.via == "refer" and not spec.attended:
            raise self._error(where, "`headers` are of a leg of ours: leave out `via: refer`")
        self._check_sound(where, spec.confirm)
        self._check_music(where, spec.music)

    def _check_music(self, where: str, music: str) -> None:
        if music.startswith(("http://", "https://")):
            self._check_url(where, music)
        elif music not in MUSIC and not (self._path.parent / music).is_file():
            raise self._error(where, f"no file {music} beside the dialplan (or write ringback or silence)")

    def _check_agent(self, where: str, name: str, agent: AgentSpec) -> None:
        if not agent.intents and agent.chat is None:
            raise self._error(where, f"agent `{name}` has neither `intents` nor `chat`: it would have nothing to say")
        for intent_name, intent in agent.intents.items():
            at = f"{where}.intents.{intent_name}"
            if not intent.examples:
                raise self._error(at, f"intent `{intent_name}` needs at least one example phrase")
            if not intent.answer and not intent.transfer and not intent.hangup:
                raise self._error(at, f"intent `{intent_name}` needs an `answer`, a `transfer` or `hangup: true`")
            self._check_braces(f"{at}.answer", intent.answer, intent.slots)
            if isinstance(intent.transfer, TransferSpec):
                self._check_transfer(f"{at}.transfer", intent.transfer)
                self._check_braces(f"{at}.transfer.whisper", intent.transfer.whisper, intent.slots)
            for slot_name, slot in intent.slots.items():
                if slot.kind not in SLOT_KINDS:
                    raise self._error(
                        f"{at}.slots.{slot_name}.kind",
                        f"slot kind `{slot.kind}` is unknown{_nearest(slot.kind, SLOT_KINDS)}; there are "
                        + ", ".join(SLOT_KINDS),
                    )
                if (slot.kind == "choice") != bool(slot.choices):
                    raise self._error(f"{at}.slots.{slot_name}", "`choices` and kind `choice` belong together")
                if slot.digits and (slot.kind != "digits" or not _HOW_MANY.fullmatch(slot.digits)):
                    raise self._error(
                        f"{at}.slots.{slot_name}.digits", 'how many digits, as "4" or "4-6", for kind `digits`'
                    )
                if (slot.min is not None or slot.max is not None) and slot.kind != "number":
                    raise self._error(f"{at}.slots.{slot_name}", "`min` and `max` are for kind `number`")
            self._check_braces(f"{at}.confirm", intent.confirm, intent.slots)
            if intent.confirm and not intent.slots:
                raise self._error(f"{at}.confirm", "there is nothing to confirm: the intent has no slots")
        if agent.start and agent.start not in agent.intents:
            raise self._error(
                f"{where}.start", f"no intent named `{agent.start}`{_nearest(agent.start, agent.intents)}"
            )
        if agent.start and not agent.intents[agent.start].slots:
            raise self._error(f"{where}.start", f"the intent `{agent.start}` has no slots to begin with")

        if agent.knowledge is not None:
            self._check_knowledge(f"{where}.knowledge", agent.knowledge)
        self._check_braces(f"{where}.transfer_failed", agent.transfer_failed, {"reason": None}, "`reason`")
        if isinstance(agent.human, TransferSpec):
            self._check_transfer(f"{where}.human", agent.human)
        if agent.llm and agent.chat is None:
            raise self._error(f"{where}.llm", "`llm` is for an agent with a `chat`, which has the prompt")
        if agent.chat is not None:
            self._check_chat(f"{where}.chat", agent)
            for target, spec in agent.chat.transfer_targets.items():
                if isinstance(spec, TransferSpec):
                    self._check_transfer(f"{where}.chat.transfer_targets.{target}", spec)
            for at, what in tools.mistakes(agent.chat.tools, agent.chat.mcp):
                raise self._error(f"{where}.chat.{at}", what)

    def _check_chat(self, where: str, agent: AgentSpec) -> None:
        assert agent.chat is not None
        if bool(agent.chat.base_url) != bool(agent.chat.model):
            raise self._error(where, "`base_url` and `model` belong together")
        if not agent.chat.base_url and not agent.llm:
            raise self._error(where, "no model: `chat` needs `base_url` and `model`, or the agent an `llm`")

    def _check_knowledge(self, where: str, spec: KnowledgeSpec) -> None:
        if not (self._path.parent / spec.folder).is_dir():
            raise self._error(f"{where}.folder", f"no folder {spec.folder} beside the dialplan")
        if not 1 <= spec.top <= 10 or not 0 <= spec.threshold < 1:
            raise self._error(where, "`top` is 1 to 10, `threshold` 0 to less than 1")

    def _check_braces(self, where: str, text: str, known: Mapping[str, Any], kind: str = "a slot's name") -> None:
        for used in re.findall(r"\{(\w*)\}", text):
            if used not in known:
                raise self._error(where, f"no slot named `{used}`{_nearest(used, known)}")
        try:
            text.format(**dict.fromkeys(known, ""))
        except (ValueError, LookupError, AttributeError) as error:
            raise self._error(
                where, f"braces are for slots: write {{name}} with {kind}, and {{{{ for a brace"
            ) from error

    def _steps(self, items: Any, where: str) -> list[Step]:
        if not isinstance(items, list) or not items:
            raise self._error(where, "steps are a list with at least one step")
        return [self._step(item, f"{where}[{i}]") for i, item in enumerate(items)]

    def _step(self, item: Any, where: str) -> Step:
        if isinstance(item, str):
            word, value = item, None
        elif isinstance(item, dict) and len(item) == 1:
            ((word, value),) = item.items()
        else:
            raise self._error(where, "a step is one word, or one `word: value`")
        if word not in _STEPS:
            raise self._error(
                where, f"unknown step `{word}`{_nearest(str(word), _STEPS)}; there are " + ", ".join(_STEPS)
            )
        kind, plain = _STEPS[word]
        if value is None:
            value = {}
        elif kind is SetStep:
            value = {plain: value}
        elif not isinstance(value, dict):
            if not plain:
                raise self._error(where, f"step `{word}` takes no value")
            value = {plain: value}
        return self._convert(value, kind, where)

    # --- YAML nodes to values, remembering lines ---

    def _value(self, node: yaml.Node, path: str) -> Any:
        self._lines[path] = node.start_mark.line + 1
        if len(path) > MAX_PATH:
            raise ConfigError(f"{self._path}:{node.start_mark.line + 1}: nested too deeply for a dialplan")
        if id(node) in self._seen:  # a few lines of them can stand for gigabytes
            raise ConfigError(f"{self._path}:{node.start_mark.line + 1}: aliases (*name) are not allowed in a dialplan")
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in result:
                    raise ConfigError(f"{self._path}:{key_node.start_mark.line + 1}: `{key}` is here twice")
                result[key] = self._value(value_node, f"{path}.{key}")
                self._lines[f"{path}.{key}"] = key_node.start_mark.line + 1
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        # Scalars only: no anchors to objects, no Python tags, whatever the file says.
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a number that looks like a date and is none
            raise ConfigError(
                f"{self._path}:{node.start_mark.line + 1}: cannot be read ({error}); put it in quotes if it is a text"
            ) from error

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self._data.get(key) or {}
        if not isinstance(value, dict):
            raise self._error(f"$.{key}", f"`{key}` is a mapping of names")
        return value

    def _convert(self, value: Any, kind: type[T], where: str) -> T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            text = str(error)
            found = re.search(r" - at `\$(.*)`$", text)
            inner = found.group(1) if found else ""
            text = text[: found.start()] if found else text
            unknown = re.search(r"unknown field `(.+)`", text)
            if unknown:
                word = unknown.group(1)
                text = f"unknown key `{word}`{_nearest(word, _all_fields(kind))}"
                inner = f"{inner}.{word}"
            raise self._error(where + inner, text) from error

    def _error(self, path: str, text: str) -> ConfigError:
        # msgspec writes `[...]` for a mapping's key; the line of the nearest known ancestor is close enough then.
        while path not in self._lines and path != "$":
            path = re.sub(r"(\.[^.\[]*|\[[^\]]*\])$", "", path) or "$"
        return ConfigError(f"{self._path}:{self._lines.get(path, 1)}: {text}")


def _all_early(steps: Sequence[Step]) -> bool:
    """None of them answers the call."""
    return all(isinstance(step, RingStep) or (isinstance(step, SayStep | PlayStep) and step.early) for step in steps)


def _all_fields(kind: type[Any]) -> list[str]:
    names: list[str] = []
    todo, seen = [kind], set()
    while todo:
        cls = todo.pop()
        if cls in seen:
            continue
        seen.add(cls)
        for field in msgspec.structs.fields(cls):
            names.append(field.name)
            todo += list(_struct_types(field.type))
    return names


def _struct_types(annotation: Any) -> Iterable[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _struct_types(argument)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""
