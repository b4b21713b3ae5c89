"""What a stream may be: where it goes, in which dialect, at which rate."""

from sipagent.core.templates import names
from sipagent.dialplan.model import StreamStep
from sipagent.web.client import parse_url

MAX_PARAMETERS = 32
MAX_PARAMETER = 500  # characters of a name and its value
PLACES = frozenset({"call_id", "from_number", "to_number"})


def problem(step: StreamStep) -> str:
    """What is wrong with it, as one sentence; "" when nothing is."""
    try:
        url = parse_url(step.url, ("tcp", "ws", "wss"))
    except ValueError as error:
        return f"`url` of the stream {error}: it begins with wss://, ws:// or tcp:// and has a host"
    if (url.scheme == "tcp") != (step.spoken == "audiosocket"):
        return "`dialect: audiosocket` and a tcp:// URL belong together"
    if url.scheme == "tcp" and not url.port:
        return "`url` of the stream needs a port, as in tcp://host:9092"
    if step.spoken == "twilio" and step.sample_rate != 8000:
        return "`sample_rate` of a stream in Twilio's dialect is 8000"
    if step.direction == "both" and step.track != "caller":
        return "`track` is for `direction: listen`: an application that speaks hears the caller"
    return _parameters_problem(step.parameters)


def _parameters_problem(parameters: dict[str, str]) -> str:
    if len(parameters) > MAX_PARAMETERS:
        return f"a stream has at most {MAX_PARAMETERS} `parameters`"
    for name, value in parameters.items():
        if len(name) + len(value) > MAX_PARAMETER:
            return f"the parameter `{name[:40]}` of the stream is longer than {MAX_PARAMETER} characters"
        try:
            unknown = names(value) - PLACES
        except ValueError as error:
            return f"the parameter `{name}` of the stream: {error}"
        if unknown:
            return f"the parameter `{name}` of the stream: there is no {{{min(unknown)}}} to fill in"
    return ""
