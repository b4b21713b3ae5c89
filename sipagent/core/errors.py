"""The exceptions that are part of sipagent's contract.

SipagentError
├── ConfigError         a file or variable the operator wrote is wrong; the sentence says where and what to do
├── SetupError          something the machine lacks (a package, a model, a port, a permission)
├── ProcessDied         a child process went away while its answer was awaited
├── CapacityError       refused because a limit is reached
└── ProviderError       an STT, LLM or TTS provider failed; `.retryable` says whether another try may help
"""


class SipagentError(Exception):
    """Base class. ``str(error)`` is one sentence for the operator: what, where, what to do."""


class ConfigError(SipagentError):
    pass


class SetupError(SipagentError):
    pass


class ProcessDied(SipagentError):
    pass


class CapacityError(SipagentError):
    pass


class ProviderError(SipagentError):
    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
