"""The chat agent against a server that speaks the OpenAI-compatible streaming protocol."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from sipagent.conversation.agents.chat import ChatAgent, ChatPlan
from sipagent.conversation.chat_model import ChatModel, Delta, Message, Part, ToolCall, Usage
from sipagent.conversation.history import History
from sipagent.conversation.interfaces import Asked, EndCall, Piece, Text, TransferCall
from sipagent.conversation.providers.openai_chat import OpenAiChat
from sipagent.conversation.tools.tool import as_result
from sipagent.core.errors import ProviderError
from sipagent.dialplan.model import TransferSpec
from tests.conversation.control import Control
from tests.peers.chat_server import DONE, ChatServer, chat_server, delta


def tool(index: int, name: str = "", arguments: str = "") -> dict[str, object]:
    return delta(tool_calls=[{"index": index, "function": {"name": name, "arguments": arguments}}])


@pytest.fixture
async def server() -> AsyncIterator[tuple[ChatServer, OpenAiChat]]:
    async with chat_server() as fake, aiohttp.ClientSession() as http:
        yield fake, OpenAiChat(http, fake.base_url + "/", "model-x", api_key="k3y")


def agent(model: ChatModel) -> ChatAgent:
    return chat_agent(model, {"reception": "sip:reception@example.test"})


def chat_agent(model: ChatModel, targets: Mapping[str, str | TransferSpec]) -> ChatAgent:
    plan = ChatPlan(prompt="You are the desk of a hotel.", greeting="Hello.", transfer_targets=targets)
    return ChatAgent(model, plan, Control())


async def respond(chat: ChatAgent, heard: str, history: History | None = None) -> list[Piece]:
    return [piece async for piece in chat.respond(Asked(heard, history or History()))]


def words(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Text)).strip()


async def test_text_streams_and_the_request_has_history_tools_and_key(server):
    fake, model = server
    fake.scripts.append([delta(role="assistant"), delta(content="We "), delta(content="are open."), DONE])
    history = History()
    history.caller("hi")
    history.agent("Hello, how")  # only what was heard
    pieces = await respond(agent(model), "when are you open", history)
    assert words(pieces) == "We are open."
    (request,) = fake.requests
    assert [m["role"] for m in request["messages"]] == ["system", "user", "assistant", "user"]
    assert request["messages"][-1]["content"] == "when are you open"
    assert request["messages"][-2]["content"] == "Hello, how"
    assert request["stream"] is True and request["model"] == "model-x"
    assert {t["function"]["name"] for t in request["tools"]} == {"end_call", "transfer_call"}
    assert fake.authorizations == ["Bearer k3y"]


async def test_tool_calls_arrive_in_pieces_and_usage_has_no_choices(server):
    fake, model = server
    fake.scripts.append(
        [
            delta(content="I will put you through."),
            tool(0, "transfer_call", '{"tar'),
            tool(0, "", 'get": "reception"}'),
            {"choices": [], "usage": {"total_tokens": 5}},
            {"choices": [{"index": 0, "delta": None, "finish_reason": "tool_calls"}]},
            DONE,
        ]
    )
    assert await respond(agent(model), "a human please") == [
        Text("I will put you through. "),
        TransferCall("sip:reception@example.test"),
    ]


async def test_a_transfer_carries_what_the_model_tells_the_other_side(server):
    fake, model = server
    plan = TransferSpec(target="sip:desk@example.test", kind="attended")
    chat = chat_agent(model, {"desk": plan})
    arguments = '{"target": "desk", "summary": "Wants to cancel order seven."}'
    fake.scripts.append([tool(0, "transfer_call", arguments), DONE])
    history = History()
    history.note("The transfer failed: the line is busy.")
    *_, wanted = await respond(chat, "try again", history)
    assert wanted == TransferCall("sip:desk@example.test", "Wants to cancel order seven.", plan)
    (request,) = fake.requests
    assert [m["role"] for m in request["messages"]] == ["system", "system", "user"]
    (offered,) = [t["function"] for t in request["tools"] if t["function"]["name"] == "transfer_call"]
    assert offered["parameters"]["properties"]["target"] == {"type": "string", "enum": ["desk"]}
    assert offered["parameters"]["required"] == ["target"]


async def parts(model: ChatModel, messages: list[Message] | None = None) -> list[Part]:
    stream = model.stream(messages or [Message("user", "hello")])
    return [part async for part in stream if part != Delta("")]


def whole(index: int, name: str, arguments: object, **more: object) -> dict[str, object]:
    return delta(tool_calls=[{"index": index, "function": {"name": name, "arguments": arguments}, **more}])


@pytest.mark.parametrize(
    "script",
    [
        [whole(0, "a", '{"x": 1}', id="1"), whole(1, "b", "{}", id="2")],
        [whole(0, "a", '{"x"', id="1"), whole(0, "", ": 1}"), whole(1, "b", "", id="2")],
        [whole(0, "a", '{"x"', id="1"), whole(0, "a", ": 1}", id="1"), whole(1, "b", "", id="2")],
        [whole(0, "a", '{"x": 1}', id="1"), whole(0, "b", "{}", id="2")],
        [whole(0, "a", {"x": 1}, id="1"), whole(0, "b", {}, id="2")],
    ],
)
async def test_calls_of_tools_however_they_are_cut(server, script):
    fake, model = server
    fake.scripts.append([*script, DONE])
    assert await parts(model) == [ToolCall("a", '{"x": 1}', "1"), ToolCall("b", "{}", "2")]


async def test_text_that_has_no_utf8_does_not_come_in(server):
    fake, model = server
    fake.scripts.append([delta(content="a\ud83d"), whole(0, "look", '{"x": "\ud83d"}', id="1\ud83d"), DONE])
    assert await parts(model) == [Delta("a\ufffd"), ToolCall("look", '{"x": "\ufffd"}', "1\ufffd")]
    assert as_result({"x": "\ud83d"}) == '{"x":"\ufffd"}'


async def test_calls_without_ids_get_some(server):
    fake, model = server
    fake.scripts.append([tool(0, "a", '{"x": 1}'), tool(0, "b", "{}"), DONE])
    assert await parts(model) == [ToolCall("a", '{"x": 1}', "call_0"), ToolCall("b", "{}", "call_1")]


async def test_what_a_tool_answered_goes_to_the_model_and_usage_comes_back(server):
    fake, model = server
    usage = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}
    fake.scripts.append([delta(content="Yes."), usage, DONE])
    call = ToolCall("look", '{"x": 1}', "id7")
    messages = [Message("assistant", "", (call,)), Message("tool", "found", tool_call_id="id7")]
    assert await parts(model, messages) == [Delta("Yes."), Usage(12, 3)]
    (request,) = fake.requests
    assert request["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "id7", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "content": "found", "tool_call_id": "id7"},
    ]


async def test_a_tool_without_words_gets_words(server):
    fake, model = server
    fake.scripts.append([tool(0, "end_call", "{}"), DONE])
    assert await respond(agent(model), "bye") == [Text("Goodbye."), EndCall()]


@pytest.mark.parametrize(
    ("arguments", "name", "told"),
    [
        ('{"target": "the moon"}', "transfer_call", "The arguments are wrong: target: 'the moon' is not one of ["),
        ("not json", "transfer_call", "The arguments are no JSON object."),
        ("[1]", "transfer_call", "The arguments are wrong: they: [1] is not of type 'object'"),
        ("{}", "x", "There is no tool `x`."),
    ],
)
async def test_a_mistake_goes_back_to_the_model_once(server, arguments, name, told):
    fake, model = server
    for _ in range(2):
        fake.scripts.append([tool(0, name, arguments), DONE])
    fake.scripts.append([delta(content="I cannot do that."), DONE])
    assert await respond(agent(model), "do it") == [Text("I cannot do that. ")]
    first, second, third = fake.requests
    assert second["messages"][-1]["role"] == "tool" and second["messages"][-1]["content"].startswith(told)
    assert "no more tools" in third["messages"][-1]["content"]
    assert "tools" in second and "tools" not in third


@pytest.mark.parametrize(
    ("script", "retryable"),
    [
        ([401], False),
        ([429], True),
        ([500], True),
        ([b"data: {not json}\n\n"], True),
        ([{"error": {"message": "overloaded"}}], True),
        ([{"choices": ["x"]}], True),
        ([delta(tool_calls=[{"index": "a", "function": {}}])], True),
        ([delta(tool_calls=[{"index": 0, "function": "x"}])], True),
        ([tool(0, "book", "x" * 20_000)], True),
    ],
)
async def test_failures_are_provider_errors(server, script, retryable):
    fake, model = server
    fake.scripts.append(script)
    with pytest.raises(ProviderError) as caught:
        await respond(agent(model), "hello")
    assert caught.value.retryable is retryable


async def test_a_stream_without_an_end_marker_ends(server):
    fake, model = server
    fake.scripts.append([delta(content="Hi."), b": comment\n\n", b"event: x\n\n"])
    assert words(await respond(agent(model), "hello")) == "Hi."


async def test_a_model_that_does_not_stop_is_stopped(server):
    fake, model = server
    fake.scripts.append([delta(content="x" * 5000), delta(content="y" * 5000), delta(content="z"), "hang"])
    pieces = await asyncio.wait_for(respond(agent(model), "hello"), 5)
    assert words(pieces).replace(" ", "") == "x" * 5000 + "y" * 3000


async def test_nobody_at_the_address(unused_tcp_port):
    async with aiohttp.ClientSession() as http:
        model = OpenAiChat(http, f"http://127.0.0.1:{unused_tcp_port}/v1", "m")
        with pytest.raises(ProviderError):
            await respond(agent(model), "hello")


async def test_giving_up_cancels_the_request(server):
    fake, model = server
    fake.scripts.append([delta(content="One moment. And "), "hang"])
    replies = agent(model).respond(Asked("hello", History()))
    assert await anext(replies) == Text("One moment. ")
    await replies.aclose()
    await asyncio.wait_for(fake.disconnected.wait(), 5)
