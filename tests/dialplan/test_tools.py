"""Tools in dialplans: the example of the documentation, and every mistake with a sentence."""

import re
from pathlib import Path

import pytest

from sipagent.core.errors import ConfigError
from sipagent.dialplan import tools
from sipagent.dialplan.loader import load_file
from sipagent.dialplan.model import AgentSpec, ChatSpec, fixed_texts

DOCS = Path(__file__).parents[2] / "docs" / "tools.md"

PLAN = """\
routes: [{steps: s}]
steps: {s: [agent: a]}
agents:
  a:
    greeting: "Hello."
    chat:
      base_url: http://model.example/v1
      model: m
      prompt: p
      %s
"""


def loaded(folder: Path, text: str) -> AgentSpec:
    file = folder / "plan.yaml"
    file.write_text(text)
    ((agent,),) = [tuple(load_file(file).agents.values())]
    return agent


def chat(folder: Path, more: str) -> ChatSpec:
    found = loaded(folder, PLAN % more).chat
    assert found is not None
    return found


def test_the_documentation_s_example_is_valid(tmp_path):
    example = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.S)
    assert example is not None
    (tmp_path / "handbook").mkdir()
    agent = loaded(tmp_path, example.group(1))
    assert agent.chat is not None and agent.knowledge is not None and agent.knowledge.folder == "handbook"
    assert set(agent.chat.tools) == {"pin", "booking", "late_checkout", "menu"} and set(agent.chat.mcp) == {"calendar"}
    assert tools.environment(agent.chat.tools, agent.chat.mcp) == {"BOOKING_KEY"}
    assert {"Please enter your PIN on the keypad.", "One moment, please."} <= set(fixed_texts(agent))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tools: {t: {description: d}}", "exactly one of"),
        ("tools: {t: {description: d, press: {}, python: x}}", "exactly one of"),
        ("tools: {t: {press: {}}}", "needs a `description`"),
        ("tools: {end_call: {description: d, press: {}}}", "cannot be a tool's name"),
        ('tools: {"a b": {description: d, press: {}}}', "cannot be a tool's name"),
        ("tools: {t: {description: d, press: {}, parameters: {x: {}}}}", "are for `http`"),
        ("tools: {t: {description: d, press: {digits: hello}}}", "keys to press"),
        ("tools: {t: {description: d, collect: {least: 5, most: 4}}}", "`least` is"),
        ("tools: {t: {description: d, collect: {end: '##'}}}", "one key"),
        ("tools: {t: {description: d, timeout_s: 0, press: {}}}", "`timeout_s`"),
        ("tools: {t: {description: d, again_after_s: 0, press: {}}}", "`again_after_s`"),
        ("tools: {t: {description: d, http: {url: 'ftp://x/'}}}", "`url` is"),
        ("tools: {t: {description: d, http: {url: 'https://{host}/'}}}", "`url` is"),
        ("tools: {t: {description: d, http: {url: 'https://user@x.example/'}}}", "`url` is"),
        ("tools: {t: {description: d, http: {url: 'https://x.example/{a}'}}}", "nothing is known by the name `a`"),
        ("tools: {t: {description: d, http: {url: 'https://x.example/{env:KEY}'}}}", "nothing is known"),
        ("tools: {t: {description: d, http: {url: 'https://x.example/{'}}}", "a brace stands alone"),
        ("tools: {t: {description: d, http: {url: 'https://x.example/', body: {}}}}", "GET has no body"),
        ("tools: {t: {description: d, http: {url: 'https://x.example/', headers: {'a b': c}}}}", "is no header"),
        (
            "tools: {t: {description: d, http: {url: 'https://x.example/', method: POST, body: '{digits.pin}'}}}",
            "nothing is known by the name `digits.pin`",
        ),
        (
            "tools: {t: {description: d, http: {url: 'https://x.example/', method: POST, body: '[{call.id}]',"
            " headers: {content-type: application/json}}}}",
            "a mapping is JSON",
        ),
        (
            "tools: {t: {description: d, parameters: {x: {type: text}}, http: {url: 'https://x.example/'}}}",
            "no JSON schema",
        ),
        ("tools: {t: {description: d, optional: [x], http: {url: 'https://x.example/'}}}", "no parameter named `x`"),
        ("tools: {t: {description: d, htttp: {}}}", "did you mean `http`"),
        ("mcp: {s: {}}", "either a `command` or a `url`"),
        ("mcp: {s: {command: [x], url: 'http://x.example/'}}", "either a `command` or a `url`"),
        ("mcp: {s: {url: 'x.example'}}", "`url` is"),
        ("mcp: {s: {command: [x], env: {A: '{call.id}'}}}", "only `{env:NAME}`"),
    ],
)
def test_mistakes_have_a_line_and_a_sentence(tmp_path, text, complaint):
    with pytest.raises(ConfigError) as caught:
        chat(tmp_path, text)
    assert re.match(r".*plan\.yaml:\d+: ", str(caught.value)) and complaint in str(caught.value)


def test_knowledge_needs_its_folder(tmp_path):
    text = PLAN.replace("    chat:", "    knowledge: {folder: handbook}\n    chat:") % ""
    with pytest.raises(ConfigError, match="no folder handbook beside the dialplan"):
        loaded(tmp_path, text)
    (tmp_path / "handbook").mkdir()
    assert loaded(tmp_path, text).knowledge is not None
    with pytest.raises(ConfigError, match="`top` is 1 to 10"):
        loaded(tmp_path, text.replace("handbook}", "handbook, top: 0}"))
