"""Sentence vectors do what the agent uses them for: telling what the caller wants."""

import numpy as np
import pytest

from sipagent.core.ipc import MAX_MESSAGE
from sipagent.speech.client import SpeechClient

pytestmark = [pytest.mark.models, pytest.mark.asyncio(loop_scope="session")]

EXAMPLES = {
    "hours": [
        "when are you open",
        "what are your opening hours",
        "what time do you close",
        "are you open at weekends",
        "is anybody there now",
    ],
    "price": ["how much is it", "what does a visit cost", "what do you charge", "tell me your prices"],
    "place": [
        "where is your office",
        "what is the address",
        "how do I find you",
        "can I park near you",
        "how do I get there",
    ],
    "book": [
        "I would like an appointment",
        "can I make a booking",
        "is there a free slot",
        "I want to come in",
        "do you have time for me this week",
    ],
    "cancel": [
        "I have to cancel",
        "please cancel my appointment",
        "I cannot come",
        "I need another date",
        "I want to call it off",
    ],
    "person": ["let me talk to somebody", "connect me with a colleague", "I want a human", "operator please"],
    "goodbye": ["that was all thanks", "goodbye", "nothing else thank you", "bye now"],
}
SAID = [
    ("until when can I come by today", "hours"),
    ("do you work on Saturday mornings", "hours"),
    ("is anyone there at eight", "hours"),
    ("what would the cleaning cost me", "price"),
    ("is it expensive", "price"),
    ("could you tell me the fee", "price"),
    ("which street are you in", "place"),
    ("where can I leave my car", "place"),
    ("give me directions please", "place"),
    ("could you fit me in next week", "book"),
    ("I'd like to schedule a visit", "book"),
    ("can I get an appointment on Thursday", "book"),
    ("something came up and I won't be able to make it", "cancel"),
    ("could we move it to another day", "cancel"),
    ("I must call off my visit", "cancel"),
    ("put me through to a real person", "person"),
    ("may I speak with the receptionist", "person"),
    ("I don't want to talk to a machine", "person"),
    ("no that is everything", "goodbye"),
    ("thank you bye bye", "goodbye"),
]


async def test_vectors_have_unit_length_and_their_own_row(client: SpeechClient) -> None:
    vectors = await client.embed(["one", "two words", ""])
    assert vectors.shape == (3, 512) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[:2], axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(await client.embed(["two words"]), vectors[1:2], atol=1e-4)
    assert (await client.embed([])).shape == (0, 512)


async def test_a_long_list_is_more_than_one_message_could_carry(client: SpeechClient) -> None:
    count = MAX_MESSAGE // (512 * 4) + 1
    words = ["yes", "no", "goodbye"]
    vectors = await client.embed([words[index % 3] for index in range(count)])
    assert vectors.shape == (count, 512)
    np.testing.assert_allclose(vectors, (await client.embed(words))[np.arange(count) % 3], atol=1e-4)


async def test_paraphrases_are_nearer_than_strangers(client: SpeechClient) -> None:
    near, same, stranger = await client.embed(
        ["what time do you open tomorrow", "when do you open tomorrow morning", "my cat is afraid of the rain"]
    )
    assert near @ same > near @ stranger + 0.2


async def test_the_nearest_example_names_the_intent(client: SpeechClient) -> None:
    labels = [intent for intent, examples in EXAMPLES.items() for _ in examples]
    known = await client.embed([example for examples in EXAMPLES.values() for example in examples])
    asked = await client.embed([text for text, _ in SAID])
    chosen = [labels[i] for i in np.argmax(asked @ known.T, axis=1)]
    right = sum(choice == intent for choice, (_, intent) in zip(chosen, SAID, strict=True))
    assert right / len(SAID) >= 0.85
