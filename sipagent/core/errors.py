"""The exceptions that are part of sipagent's contract.

SipagentError
├── ConfigError         a file or variable the operator wrote is wrong; the sentence says where and what to do
├── SetupError          something the machine lacks (a package, a model, a port, a permission)
├── ProcessDied         a child process went away while its answer was awaited
├── CapacityError       refused because a limit is reached
├── NotAllowed          an address that the operator does not allow to be connected to
├── NotNow              the call is in no state for what was asked of it
└── ProviderError       an STT, LLM or TTS provider failed; `.retryable` says whether another try may help
"""

import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """Type and place of an error of our own making, for the log: its message may hold what a caller said."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{place}"


class SipagentError(Exception):
    """Base class. ``str(error)`` is one sentence for the operator: what, where, what to do."""


class ConfigError(SipagentError):
    pass


class SetupError(SipagentError):
    pass


class ProcessDied(SipagentError):
    pass


class NotNow(SipagentError):
    """The call is in no state for what was asked of it."""


class NotAllowed(SipagentError):
    """Part of a sentence about a URL: why nothing connects to where it leads."""


class CapacityError(SipagentError):
    pass


class ProviderError(SipagentError):
    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
