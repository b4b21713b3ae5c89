"""The agent's own voice coming back is not the caller's: on recorded speech."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sipagent.conversation.echo_gate import EchoGate
from tests.speech.prompts import noise, prompts, through_ulaw

FRAME = 160
LOUD = 300.0  # RMS (-41 dBFS): such a frame is heard

Pcm = NDArray[np.int16]
Bools = NDArray[np.bool_]


def speech(seconds: float, seed: int) -> Pcm:
    random = np.random.default_rng(seed)
    parts = [part for prompt in random.permutation(40) for part in (SAID[prompt], np.zeros(3200, np.int16))]
    return np.concatenate(parts)[: int(seconds * 8000) // FRAME * FRAME]


SAID = [prompt.pcm for prompt in prompts(40)]


def echo_of(sent: Pcm, delay_ms: int, loss_db: float) -> NDArray[np.float64]:
    heard = np.concatenate([np.zeros(8 * delay_ms), through_ulaw(sent)])[: len(sent)]
    return np.convolve(heard, [0.7, 0.3, -0.2, 0.1])[: len(sent)] * 10 ** (-loss_db / 20)


def line(*waves: NDArray[np.float64]) -> Pcm:
    """Mixed, with the line's noise, behind mu-law."""
    mixed = np.sum(waves, axis=0)
    return through_ulaw((mixed + noise(-66, len(mixed) / 8000)[: len(mixed)]).clip(-32768, 32767).astype(np.int16))


def decide(gate: EchoGate, received: Pcm, sent: Pcm, frame: int = FRAME) -> Bools:
    """Which frames are echo."""
    pairs = zip(received.reshape(-1, frame), sent.reshape(-1, frame), strict=True)
    return np.array([gate.feed(heard, left if left.any() else None) for heard, left in pairs])


def loud(pcm: Pcm, above: float = LOUD) -> Bools:
    found: Bools = np.sqrt(np.mean(pcm.reshape(-1, FRAME).astype(np.float64) ** 2, axis=1)) > above
    return found


@pytest.mark.parametrize("delay_ms", [20, 150, 420])
@pytest.mark.parametrize("loss_db", [10, 25])
def test_the_echo_is_known_within_a_second_of_the_agents_speech(delay_ms: int, loss_db: float):
    sent = speech(10, seed=delay_ms)
    received = line(echo_of(sent, delay_ms, loss_db))
    gate = EchoGate()
    echo = decide(gate, received, sent)
    assert gate.delay == pytest.approx(8 * delay_ms, abs=8)
    audible = loud(received, 60)
    audible[:50] = False
    assert echo[audible].mean() > 0.98


def test_the_first_words_of_an_unknown_echo_are_not_taken_for_the_caller():
    sent = speech(1.5, seed=5)
    received = line(echo_of(sent, 100, 12))
    passed = loud(received) & ~decide(EchoGate(), received, sent)
    assert passed.sum() <= 3


def test_a_caller_without_echo_is_heard():
    sent, caller = speech(12, seed=1), speech(12, seed=2).copy()
    caller[: 3 * 8000] = 0
    heard = line(caller.astype(np.float64))
    assert not decide(EchoGate(), heard, sent)[loud(heard)].any()


def test_a_caller_who_speaks_first_thing_is_held_back_for_less_than_half_a_second():
    sent, caller = speech(6, seed=1), speech(6, seed=2)
    heard = line(0.3 * caller.astype(np.float64))
    assert decide(EchoGate(), heard, sent).sum() < 25


@pytest.mark.parametrize("loss_db", [12, 20, 30])
def test_double_talk_passes_and_the_echo_after_it_does_not(loss_db: float):
    sent, caller = speech(16, seed=3), speech(16, seed=4).copy()
    caller[: 6 * 8000] = caller[10 * 8000 :] = 0
    received = line(echo_of(sent, 200, loss_db), caller.astype(np.float64))
    echo = decide(EchoGate(), received, sent)
    speaks = loud(caller, 800)
    assert echo[speaks].mean() < 0.1
    first = int(np.argmax(speaks))
    assert not echo[first : first + 5].all()
    after = np.arange(len(echo)) >= 530
    assert echo[after & loud(received, 60)].mean() > 0.97


def test_playout_that_moves_by_a_packet_does_not_let_the_echo_through():
    sent = speech(16, seed=6)
    frames = line(echo_of(sent, 120, 12)).reshape(-1, FRAME)
    source = np.arange(len(frames))
    source[250:] -= 1
    source[500:] -= 1
    source[650:] += 1
    received = frames[source].reshape(-1)
    echo = decide(EchoGate(), received, sent)
    audible = loud(received)
    audible[:50] = False
    assert echo[audible].mean() > 0.97


def test_nothing_is_echo_long_after_the_agent_has_stopped():
    sent = speech(10, seed=7).copy()
    sent[5 * 8000 :] = 0
    caller = speech(10, seed=8).astype(np.float64)
    caller[: 6 * 8000] = 0
    received = line(echo_of(sent, 80, 12), caller)
    assert not decide(EchoGate(), received, sent)[300:].any()


def test_an_echo_that_is_gone_is_forgotten():
    sent = speech(24, seed=9)
    echo = echo_of(sent, 80, 12)
    echo[8 * 8000 :] = 0
    gate = EchoGate()
    decide(gate, line(echo), sent)
    assert gate.delay is None


def test_a_wide_line():
    sent, caller = speech(10, seed=10), speech(10, seed=11).astype(np.float64)
    caller[: 6 * 8000] = 0
    received = line(echo_of(sent, 150, 15), caller)
    gate = EchoGate()
    echo = decide(gate, received.repeat(2), sent.repeat(2), 2 * FRAME)
    assert echo[50:300][loud(received)[50:300]].mean() > 0.97
    assert echo[300:][loud(caller.astype(np.int16), 800)[300:]].mean() < 0.1
