"""Structured logging: constant messages, data as fields, the call's id on every line that belongs to a call.

What callers say and who they are does not belong into logs: such fields go into `extra={"pii": {...}}` and are written
only when the operator asks for them.
"""

import json
import logging
import sys
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from sipagent.config import LogSettings
from sipagent.core.clock import Stamp
from sipagent.core.context import current_call
from sipagent.core.events import Event, PartialTranscript, SipMessages, as_fields, private_fields

log = logging.getLogger(__name__)

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


def setup(settings: LogSettings) -> None:
    """Configures the root logger of this process. Levels: debug, info, warning, error."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(settings.private) if as_json else _TextFormatter(settings.private))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _fields(record: logging.LogRecord, private: bool) -> dict[str, Any]:
    # `data` holds fields whose names a log record has already, such as "process".
    fields = {k: v for k, v in record.__dict__.items() if k not in _STANDARD and k not in ("pii", "data")}
    fields |= record.__dict__.get("data", {})
    if call := current_call.get():
        fields.setdefault("call_id", call)
    pii = record.__dict__.get("pii")
    if private and isinstance(pii, dict):
        fields |= {f"pii.{key}": value for key, value in pii.items()}
    return fields


class _JsonFormatter(logging.Formatter):
    def __init__(self, private: bool) -> None:
        super().__init__()
        self._private = private

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record, self._private),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=_plain, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    def __init__(self, private: bool) -> None:
        super().__init__()
        self._private = private
        self._console = Console(file=sys.stderr, width=10_000, highlight=False)

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        colour = _COLOURS.get(record.levelname, "")
        named = _fields(record, self._private)
        message = str(named.pop("event", record.getMessage()))  # an event's name says more than "event"
        words = " ".join(f"{key}={json.dumps(value, default=_plain)}" for key, value in named.items())
        with self._console.capture() as captured:
            self._console.print(at, style="dim", end=" ")
            self._console.print(message, style=colour or None, end=" ", markup=False)
            self._console.print(words, style="dim", end="", markup=False)
        text = captured.get()
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def _plain(value: Any) -> Any:
    """Values of events as JSON knows them; an instant is its wall time."""
    if isinstance(value, Stamp):
        return value.wall.isoformat(timespec="milliseconds")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str(value)


def log_event(event: Event) -> None:
    """Every event as a log line, without what is private."""
    if isinstance(event, PartialTranscript | SipMessages):
        return
    private = private_fields(event)
    fields = as_fields(event)
    fields.pop("at")
    log.info(
        "event",
        extra={
            "event": type(event).__name__,
            "data": {key: value for key, value in fields.items() if key not in private},
            "pii": {key: fields[key] for key in private},
        },
    )
