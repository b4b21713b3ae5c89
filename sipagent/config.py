"""`sipagent.toml` and the environment, as one value. Each plane owns its settings class; this module only composes.

A setting comes, in rising order, from its class's default, from the file, from `SIPAGENT_<SECTION>_<SETTING>`.
A text may be `{ env = "NAME" }` or `{ file = "path" }`, so that secrets need not stand in the file.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from sipagent.api.settings import ApiSettings
from sipagent.calls.settings import (
    AclSettings,
    AppSettings,
    LimitSettings,
    NumberSettings,
    RecordingSettings,
    StreamSettings,
    WaitingSettings,
)
from sipagent.conversation.providers.settings import KINDS, LOCAL, ProviderSettings
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.tools.settings import ToolSettings
from sipagent.core.errors import ConfigError
from sipagent.media.settings import MediaSettings
from sipagent.reports.settings import PriceSettings, ReportSettings
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.speech.settings import SpeechSettings
from sipagent.store.settings import RedactionSettings, RetentionSettings, StoreSettings
from sipagent.web.settings import WebSettings

MAX_FILE_BYTES = 1 << 20
DEFAULT_FILE = "sipagent.toml"
PREFIX = "SIPAGENT_"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""  # of this node where several share one record; must stay the same over restarts
    state_dir: str = ""  # where the API key and, by default, the database are; "" is $XDG_STATE_HOME/sipagent
    dialplans: str = ""  # folder of *.yaml dialplans; "" is the shipped example


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"  # how much is told
    format: Literal["text", "json", "auto"] = "auto"  # "text", "json", or "auto": text on a terminal
    private: bool = False  # also log numbers and words; only for debugging on your own calls


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can set. The field names are the tables of sipagent.toml."""

    node: NodeSettings = NodeSettings()
    sip: SipSettings = SipSettings()
    trunks: tuple[TrunkSettings, ...] = ()
    ip_acls: tuple[AclSettings, ...] = ()
    apps: tuple[AppSettings, ...] = ()
    numbers: tuple[NumberSettings, ...] = ()
    media: MediaSettings = MediaSettings()
    speech: SpeechSettings = SpeechSettings()
    conversation: ConversationSettings = ConversationSettings()
    providers: dict[str, ProviderSettings] = {}
    limits: LimitSettings = LimitSettings()
    waiting: WaitingSettings = WaitingSettings()
    streams: StreamSettings = StreamSettings()
    recordings: RecordingSettings = RecordingSettings()
    tools: ToolSettings = ToolSettings()
    web: WebSettings = WebSettings()
    store: StoreSettings = StoreSettings()
    reports: ReportSettings = ReportSettings()
    prices: tuple[PriceSettings, ...] = ()
    redaction: RedactionSettings = RedactionSettings()
    retention: RetentionSettings = RetentionSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        if LOCAL in self.providers:
            raise ValueError(f"[providers.{LOCAL}]: the name is that of the built-in models, take another")
        apps = {app.name for app in self.apps}
        if len(apps) < len(self.apps) or len({it.number for it in self.numbers}) < len(self.numbers):
            raise ValueError("two of [[apps]] have one name, or two of [[numbers]] one number")
        for number in self.numbers:
            if number.app and number.app not in apps:
                raise ValueError(f"[[numbers]]: there is no app named `{number.app}`")


def load(path: Path | None, environment: Mapping[str, str]) -> Config:
    """The configuration. With no path: `sipagent.toml` of the working directory if there is one, else defaults.

    Raises ConfigError naming the file, the line and, where one is near, the word that was meant.
    """
    file = path if path is not None else Path(DEFAULT_FILE)
    text = ""
    if path is not None or file.exists():
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes; a configuration is not")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: not UTF-8 text") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from error
    resolved = _resolve(data, file, environment, "")
    assert isinstance(resolved, dict)
    _override(resolved, environment)
    return _convert(resolved, text, file)


def state_dir(config: Config, environment: Mapping[str, str]) -> Path:
    """Made when missing; readable by its owner alone."""
    if config.node.state_dir:
        folder = Path(config.node.state_dir)
    else:
        base = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        folder = Path(base) / "sipagent"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}); set [node] state_dir") from error
    return folder


def _resolve(value: Any, file: Path, environment: Mapping[str, str], at: str) -> Any:
    if isinstance(value, dict):
        if set(value) == {"env"} and isinstance(value["env"], str):
            found = environment.get(value["env"])
            if found is None:
                raise ConfigError(f"{file}: {at}: the environment variable {value['env']} is not set")
            return found
        if set(value) == {"file"} and isinstance(value["file"], str):
            try:
                return (file.parent / value["file"]).read_text("utf-8").strip()
            except OSError as error:
                raise ConfigError(f"{file}: {at}: {value['file']} cannot be read ({error.strerror})") from error
        return {key: _resolve(inner, file, environment, f"{at}.{key}" if at else key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(inner, file, environment, f"{at}[{i}]") for i, inner in enumerate(value)]
    return value


class Table(NamedTuple):
    """A table of sipagent.toml: `sip`, `trunks` (of which there may be several), `providers.NAME` of one kind."""

    name: str
    settings: type[msgspec.Struct]
    many: bool = False
    kind: str = ""


def config_tables(config: type[Config]) -> Iterator[Table]:
    """All that there may be."""
    for field in msgspec.structs.fields(config):
        if field.name == "providers":
            yield from (Table(f"{field.name}.NAME", settings, True, kind) for kind, settings in KINDS.items())
        elif get_origin(field.type) is tuple:
            yield Table(field.name, get_args(field.type)[0], True)
        else:
            yield Table(field.name, field.type)


def _override(data: dict[str, Any], environment: Mapping[str, str]) -> None:
    """SIPAGENT_SIP_PORT=5070 sets port in [sip]; text is taken as TOML's value when it reads as one."""
    for table in config_tables(Config):
        for field in () if table.many else msgspec.structs.fields(table.settings):
            name = f"{PREFIX}{table.name}_{field.name}".upper()
            if name in environment:
                data.setdefault(table.name, {})[field.name] = _value(environment[name], field.type)


def _value(text: str, wanted: Any) -> Any:
    if wanted is str or get_origin(wanted) is Literal:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # msgspec says what is wrong with it


def _convert(data: dict[str, Any], text: str, file: Path) -> Config:
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        found = re.search(r"(.*?)(?: - at `\$(.*)`)?$", str(error), re.DOTALL)
        assert found is not None
        message, path = found.group(1), (found.group(2) or "").lstrip(".")
        if path.startswith("providers[...]"):
            path = path.replace("providers[...]", f"providers.{_broken(data['providers'])}", 1)
        unknown = re.search(r"unknown field `(.+)`", message)
        word = unknown.group(1) if unknown else path.rpartition(".")[2]
        if unknown:
            near = difflib.get_close_matches(word, _known(path, data), n=1)
            message = f"unknown setting `{word}`" + (f" (did you mean `{near[0]}`?)" if near else "")
        elif message.startswith("Invalid value") and word == "kind":
            message = f"there is no such kind of provider; there are {', '.join(KINDS)}"
        section = ".".join(path.split(".")[: 2 if path.startswith("providers.") else 1]) or word
        line = _line(text, re.sub(r"\[\d+\]", "", section), word)
        where = f"{file}:{line}" if line else f"{file}, [{section}]" if section != word else str(file)
        raise ConfigError(f"{where}: {message}" + (f" (in {path})" if path and not unknown else "")) from error


def _broken(providers: Mapping[str, Any]) -> str:
    """Whose table it is that cannot be taken: msgspec does not name the key of a mapping."""
    for name, table in providers.items():
        try:
            msgspec.convert(table, ProviderSettings)
        except msgspec.ValidationError:
            return name
    return ""


def _known(path: str, data: Mapping[str, Any]) -> list[str]:
    """The settings of the table that the path leads into; the tables themselves for a path that leads into none."""
    wanted = re.sub(r"\[\d+\]", "", path.partition(".")[0])
    if wanted == "providers":
        kind = KINDS.get(str(data["providers"][path.split(".")[1]].get("kind")))
        return ["kind", *(field.name for field in msgspec.structs.fields(kind))] if kind is not None else []
    for table in config_tables(Config):
        if table.name == wanted:
            return [field.name for field in msgspec.structs.fields(table.settings)]
    return [field.name for field in msgspec.structs.fields(Config)]


def _line(text: str, section: str, word: str) -> int:
    """The line of `word` within `[section]`, of the section's head when the word is not there, 0 for neither."""
    head = inside = 0
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[\[?\s*([\w.-]+)", line):
            inside = int(found.group(1) == section)
            head = number if inside and not head else head
        elif inside and re.match(rf"\s*{re.escape(word)}\s*=", line):
            return number
    return head
