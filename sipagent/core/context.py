"""Which call a task works for; tasks that it starts inherit it. Read by the log, so that each line names its call."""

from contextvars import ContextVar

current_call: ContextVar[str] = ContextVar("current_call", default="")
