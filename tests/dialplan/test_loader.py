"""Dialplan files: what loads, and what is said about what does not."""

import re
from pathlib import Path

import msgspec
import pytest

from sipagent.core.errors import ConfigError
from sipagent.dialplan.loader import load_file, load_folder
from sipagent.dialplan.matching import by_name, match
from sipagent.dialplan.model import (
    AgentStep,
    AnswerStep,
    DialStep,
    GotoStep,
    HangupStep,
    HoldStep,
    IfStep,
    Instead,
    RejectStep,
    RingStep,
    SayStep,
    SetStep,
    StreamStep,
    TransferStep,
    TurnEndSpec,
    WaitStep,
    WebhookStep,
    fixed_texts,
    said_texts,
)

SHIPPED = Path(__file__).parents[2] / "dialplans"

GOOD = """\
routes:
  - called: ["1??"]
    steps: desk
  - name: block
    called: ["*"]
    calling: ["666*"]
    steps: refuse
  - called: ["+49*"]
    steps: forward
steps:
  desk:
    - answer
    - say: "Hello."
    - agent: a
    - hangup
  refuse:
    - reject: 486
  forward:
    - transfer: "sip:desk@example.com"
agents:
  a:
    greeting: "Hi."
    intents:
      x:
        examples: ["one"]
        slots:
          day: {kind: day, ask: "When?"}
        answer: "On {day}."
"""


@pytest.fixture
def write(tmp_path: Path):
    def write_(text: str) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        return path

    return write_


def test_shipped_dialplans_load():
    plans = load_folder(SHIPPED)
    assert "front-desk" in [plan.name for plan in plans]
    front_desk = next(plan for plan in plans if plan.name == "front-desk")
    assert len(fixed_texts(front_desk.agents["front-desk"])) > 10


def test_steps_and_routes(write):
    plan = load_file(write(GOOD))
    assert plan.steps["desk"] == [AnswerStep(), SayStep(text="Hello."), AgentStep(agent="a"), HangupStep()]
    assert plan.steps["refuse"] == [RejectStep(status=486)]
    assert plan.steps["forward"] == [TransferStep(target="sip:desk@example.com")]

    def route(called: str, calling: str = "5") -> str:
        found = match([plan], called, calling)
        return found.route if found else ""

    assert route("100") == "desk"
    assert route("1000") == ""
    assert route("77", "6661") == "block"
    assert route("+4930") == "forward"
    assert by_name([plan], "block") is not None
    assert by_name([plan], "forward") is not None
    assert by_name([plan], "plan") is not None
    assert by_name([plan], "nothing") is None


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("agent: a", "agent: b", 14, "no agent named `b`"),
        ("- hangup", "- hang_up", 15, "did you mean `hangup`?"),
        ("steps: desk", "steps: dsk", 3, "did you mean `desk`?"),
        ("reject: 486", "reject: 200", 17, "300 to 699"),
        ("reject: 486", "reject: busy", 17, "Expected `int`"),
        ("greeting:", "greetings:", 22, "did you mean `greeting`?"),
        ("kind: day", "kind: dya", 27, "did you mean `day`?"),
        ("{day}.", "{dai}.", 28, "did you mean `day`?"),
        ("- answer", "- answer: yes", 12, "takes no value"),
        ("- answer", "- reject: 486", 13, None),
        ('examples: ["one"]', "examples: []", 24, "at least one example"),
        ("routes:", "rotues:", 1, "did you mean `routes`?"),
        ("    - answer\n", "    - answer\n    - play: missing.wav\n", 13, "no file missing.wav"),
        ("steps:\n  desk:", "steps:\n  desk: {}\n  desk:", 12, "twice"),
        ("{day}.", "{day} { .", 28, "braces are for slots"),
        ("{day}.", "{day.x}.", 28, "braces are for slots"),
        ('["1??"]', "[5551-23-45]", 2, "put it in quotes"),
    ],
)
def test_mistakes_name_file_line_and_the_nearest_word(write, old, new, line, words):
    assert old in GOOD
    path = write(GOOD.replace(old, new, 1))
    if words is None:
        assert load_file(path)
        return
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:{line}:"), text
    assert words in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "routes: [",
        "!!python/object/apply:os.system ['true']",
        "a: &x [*x]",
        "\x00",
        "routes: 5",
        "a: " + "[" * 5000,
        "{a: " * 300,
        "steps: {a: 3}",
    ],
)
def test_rubbish_is_refused_with_a_sentence(write, text):
    with pytest.raises(ConfigError, match="plan.yaml"):
        load_file(write(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no dialplan"):
        load_folder(tmp_path)
    binary = tmp_path / "plan.yaml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_file(binary)


STEPS = """\
routes: [{steps: s}]
steps:
  s:
    - ring: 2
    - say: {text: "Not in service.", early: true}
    - dial: {to: ["sip:a@b", "+49"], on_busy: t, whisper: "A caller."}
    - transfer: {target: "100", whisper: "Mind the gap.", music: ringback}
    - hold: 5
  t: [hangup]
"""


def test_the_steps_that_hand_a_caller_on(write):
    plan = load_file(write(STEPS))
    ring, say, dial, transfer, hold = plan.steps["s"]
    assert isinstance(ring, RingStep) and isinstance(say, SayStep) and isinstance(hold, HoldStep)
    assert (ring.seconds, say.early, hold.seconds) == (2, True, 5)
    assert isinstance(dial, DialStep) and (dial.targets, dial.on_busy) == (("sip:a@b", "+49"), "t")
    assert isinstance(transfer, TransferStep) and transfer.attended
    assert said_texts(plan.steps["s"]) == ["Not in service.", "A caller.", "Mind the gap."]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("on_busy: t", "on_busy: tt", r":6: no steps named `tt` \(did you mean `t`"),
        ("music: ringback", "music: ringbak", ":7: no file ringbak beside the dialplan"),
        ('whisper: "Mind the gap."', "kind: blind, whisper: x", ":7: a blind transfer has no `whisper`"),
        ('whisper: "Mind the gap."', "headers: {X-Ticket: '7'}, via: refer", ":7: `headers` are of a leg of ours"),
        ("- ring: 2", "- answer", ":5: `early` is for a call that is not answered yet"),
        ("ring: 2", "ring: 900", ":4: ring for 900 s: it is 0 to 180"),
        ("hold: 5", "hold: 0", ":8: hold for 0 s"),
        ("hold: 5", 'press: "12x"', ":8: the keys to press"),
        ('["sip:a@b", "+49"]', "[]", ":6: `dial` needs somebody to ring"),
        ('"100"', '""', ":7: `transfer` needs a target"),
    ],
)
def test_mistakes_in_them(write, old, new, said):
    assert old in STEPS
    with pytest.raises(ConfigError, match=said):
        load_file(write(STEPS.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('answer: "On {day}."', 'transfer: {target: "1", whisper: "Wants {dya}."}', "no slot named `dya`"),
        ('greeting: "Hi."', 'greeting: "Hi."\n    transfer_failed: "Sorry, {why}."', "`why`"),
    ],
)
def test_braces_of_transfers(write, old, new, said):
    with pytest.raises(ConfigError, match=said):
        load_file(write(GOOD.replace(old, new)))


CHAT = """
routes: [{steps: s}]
steps: {s: [agent: a]}
agents:
  a:
    greeting: "Hi."
    llm: [gpt, backup]
    tts: [warm, local]
    chat: {prompt: "Be kind."}
"""


def test_an_agent_names_its_providers_in_order(write):
    agent = load_file(write(CHAT)).agents["a"]
    assert (agent.stt, agent.llm, agent.tts) == ((), ("gpt", "backup"), ("warm", "local"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("llm: [gpt, backup]", "llm: []", "no model: `chat` needs `base_url` and `model`, or the agent an `llm`"),
        ('"Be kind."}', '"Be kind.", model: m}', "`base_url` and `model` belong together"),
        (
            'chat: {prompt: "Be kind."}',
            "intents: {x: {examples: [x], answer: y}}",
            "`llm` is for an agent with a `chat`",
        ),
    ],
)
def test_who_leads_the_conversation_is_clear(write, old, new, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_file(write(CHAT.replace(old, new)))


def test_the_documented_words_about_interruptions_load(tmp_path):
    text = (SHIPPED.parent / "docs" / "dialplans.md").read_text()
    (example,) = (part for part in re.findall(r"```yaml\n(.*?)```", text, re.S) if "barge_in: words" in part)
    file = tmp_path / "desk.yaml"
    file.write_text("routes: [{steps: all}]\nsteps: {all: [{agent: desk}]}\n" + example)
    agent = load_file(file).agents["desk"]
    assert (agent.barge_in, agent.whole_greeting, agent.intents["cancel"].whole) == ("words", True, True)


@pytest.mark.parametrize("wrong", ["sometimes", "{after_ms: -1}", "{after: 3}", "{after_ms: 1.5}"])
def test_what_interrupts_is_one_of_few_words(tmp_path, wrong):
    file = tmp_path / "desk.yaml"
    agent = f'{{greeting: "Hello.", barge_in: {wrong}}}'
    file.write_text(f"routes: [{{steps: all}}]\nsteps: {{all: [{{agent: desk}}]}}\nagents: {{desk: {agent}}}\n")
    with pytest.raises(ConfigError) as error:
        load_file(file)
    assert "desk.yaml:3" in str(error.value)


TURN_END = """\
routes: [{steps: s}]
steps: {s: [{agent: a}]}
agents:
  a:
    greeting: "Hello."
    intents: {x: {examples: [x], answer: "X."}}
    turn_end:
      strategy: adaptive
      patience: 1.3
      answers: {digits: 1.5, yes_no: 0.8}
"""


def test_an_agent_says_who_decides_that_the_caller_has_finished(write):
    turn_end = load_file(write(TURN_END)).agents["a"].turn_end
    assert isinstance(turn_end, TurnEndSpec)
    assert (turn_end.strategy, turn_end.patience, turn_end.answers) == ("adaptive", 1.3, {"digits": 1.5, "yes_no": 0.8})
    by_name_only = re.sub(r"turn_end:\n.*", "turn_end: silence\n", TURN_END, flags=re.DOTALL)
    assert load_file(write(by_name_only)).agents["a"].turn_end == "silence"


@pytest.mark.parametrize(
    ("old", "new"),
    [("adaptive", "telepathy"), ("1.3", "17"), ("1.3", "-1"), ("digits:", "fingers:"), ("patience", "patients")],
)
def test_mistakes_in_it(write, old, new):
    with pytest.raises(ConfigError, match=r"plan\.yaml:\d+: "):
        load_file(write(TURN_END.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ('"https://a.test/"', "begins with wss://"),
        ('"wss:///x"', "has a host"),
        ('"tcp://a.test"', "needs a port"),
        ('{url: "wss://a.test", dialect: audiosocket}', "belong together"),
        ('{url: "wss://a.test", dialect: twilio, sample_rate: 16000}', "is 8000"),
        ('{url: "wss://a.test", sample_rate: 44100}', "44100"),
        ('{url: "wss://a.test", track: agent}', "direction: listen"),
        ('{url: "wss://a.test", chunk_ms: 30}', "multiple of 20"),
        ('{url: "wss://a.test", parameters: {who: "{caler}"}}', "there is no {caler}"),
        ('{url: "wss://a.test", on_failure: sory}', "no steps named `sory` (did you mean `sorry`?)"),
        ('{url: "wss://a.test", dialct: teler}', "did you mean `dialect`?"),
    ],
)
def test_what_is_wrong_with_a_stream(tmp_path, stream, said):
    file = tmp_path / "plan.yaml"
    file.write_text(f"routes: [{{steps: a}}]\nsteps:\n  sorry: [hangup]\n  a:\n    - stream: {stream}\n")
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_file(file)


def test_a_stream_is_known_by_its_url(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text('routes: [{steps: a}]\nsteps: {a: [stream: "wss://a.test/x", stream: "tcp://a.test:9092"]}\n')
    spoken = [step.spoken for step in load_file(file).steps["a"] if isinstance(step, StreamStep)]
    assert spoken == ["teler", "audiosocket"]


LOGIC = """\
routes: [{steps: main}]
steps:
  main:
    - set: {tier: silver, who: "{call.from}"}
    - webhook: {url: "https://crm.example/flow", fallback_url: "https://spare.example/flow"}
    - if: {value: "{tier}", is: [gold, "plat*"], then: best, else: other}
  best: [wait: 0.5, play: {file: "https://cdn.example/a.wav", times: 2}, goto: other]
  other:
    - dial: {to: "1", on_busy: {say: "They are busy."}, on_failure: {hangup: true}}
    - hangup
"""


def test_steps_that_decide(write):
    plan = load_file(write(LOGIC))
    keep, ask, choose = plan.steps["main"]
    assert keep == SetStep(values={"tier": "silver", "who": "{call.from}"})
    assert ask == WebhookStep(url="https://crm.example/flow", fallback_url="https://spare.example/flow")
    assert choose == IfStep(value="{tier}", equals=("gold", "plat*"), then="best", otherwise="other")
    assert plan.steps["best"][::2] == [WaitStep(seconds=0.5), GotoStep(steps="other")]
    dial = plan.steps["other"][0]
    assert isinstance(dial, DialStep) and dial.on_busy == Instead(say="They are busy.")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tier: silver", "7up: silver", "7up"),
        ('"{call.from}"', '"{call.form}"', "did you mean `call.from`"),
        ('"{call.from}"', '"{call.from"', "brace"),
        ("https://crm.example/flow", "crm", "the URL"),
        ("https://spare.example/flow", "ftp://x", "the URL"),
        ("https://cdn.example/a.wav", "https://", "the URL"),
        ("then: best, else: other", "", "needs steps to take"),
        ("then: best", "then: bset", "did you mean `best`"),
        ("goto: other", "goto: othr", "did you mean `other`"),
        ("wait: 0.5", "wait: 0", "more than 0"),
        ("wait: 0.5", "wait: 6000", "at most"),
        ("{say: ", "{sya: ", "sya"),
        ("times: 2", "times: 101", "<= 100"),
    ],
)
def test_mistakes_in_steps_that_decide(write, old, new, words):
    with pytest.raises(ConfigError) as caught:
        load_file(write(LOGIC.replace(old, new, 1)))
    assert words in str(caught.value)


def test_the_examples_of_the_streams_page_are_dialplans(tmp_path):
    text = (SHIPPED.parent / "docs" / "streams.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "plan.yaml").write_text(example)
    first = load_file(tmp_path / "plan.yaml").steps["bot"][0]
    assert isinstance(first, StreamStep) and first.spoken == "twilio"
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert documented == {field.name for field in msgspec.structs.fields(StreamStep)}


def test_the_voices_of_what_the_steps_say(write):
    assert load_file(write("routes: [{steps: s}]\nsteps: {s: [answer, hangup]}\n")).tts == ()
    plan = load_file(write("tts: [one, local]\nroutes: [{steps: s}]\nsteps: {s: [answer, hangup]}\n"))
    assert plan.tts == ("one", "local")
    with pytest.raises(ConfigError, match="array"):
        load_file(write("tts: {a: b}\nroutes: [{steps: s}]\nsteps: {s: [answer, hangup]}\n"))
