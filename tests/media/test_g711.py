"""The reference values are from ITU-T G.711 tables 1a and 2a, not from our own tables."""

import warnings

import numpy as np
import pytest

from sipagent.media import g711
from sipagent.media.rtp import PCMA, PCMU

CODES = np.arange(256, dtype=np.uint8)
SAMPLES = np.arange(-32768, 32768, dtype=np.int64).astype(np.int16)

# Code -> value of the quantised sample, scaled to 16 bits: the ends and the borders of the segments.
ULAW = {
    0x80: 32124, 0x8F: 16764, 0x90: 15996, 0x9F: 8316, 0xA0: 7932, 0xAF: 4092, 0xB0: 3900, 0xBF: 1980,
    0xC0: 1884, 0xCF: 924, 0xD0: 876, 0xDF: 396, 0xE0: 372, 0xEF: 132, 0xF0: 120, 0xFE: 8, 0xFF: 0,
    0x00: -32124, 0x0F: -16764, 0x70: -120, 0x7E: -8, 0x7F: 0,
}  # fmt: skip
ALAW = {
    0xAA: 32256, 0xA5: 16896, 0xBA: 16128, 0xB5: 8448, 0x8A: 8064, 0x85: 4224, 0x9A: 4032, 0x95: 2112,
    0xEA: 2016, 0xE5: 1056, 0xFA: 1008, 0xF5: 528, 0xCA: 504, 0xC5: 264, 0xDA: 248, 0xD5: 8,
    0x2A: -32256, 0x25: -16896, 0x5A: -248, 0x55: -8,
}  # fmt: skip


@pytest.mark.parametrize(("payload_type", "values"), [(PCMU, ULAW), (PCMA, ALAW)])
def test_reference_values(payload_type, values):
    codes = np.array(list(values), np.uint8)
    assert g711.decode(payload_type, codes).tolist() == list(values.values())


@pytest.mark.parametrize("payload_type", [PCMU, PCMA])
def test_a_decoded_code_is_encoded_as_itself(payload_type):
    again = g711.encode(payload_type, g711.decode(payload_type, CODES))
    if payload_type == PCMU:
        assert again[0x7F] == 0xFF  # negative zero becomes zero
        again[0x7F] = 0x7F
    assert (again == CODES).all()


@pytest.mark.parametrize(("payload_type", "largest"), [(PCMU, 32124), (PCMA, 32256)])
def test_error_is_at_most_half_a_step(payload_type, largest):
    samples = SAMPLES.astype(np.int64)
    decoded = g711.decode(payload_type, g711.encode(payload_type, SAMPLES)).astype(np.int64)
    size = np.abs(samples)
    # Sixteen steps a segment, each segment twice as wide; µ-law's begin 33 of 8159 below zero. What the coder drops
    # before it quantises (two bits, three bits) may come on top.
    half_step = (size + 132) / 32 + 4 if payload_type == PCMU else np.maximum(size / 32, 8) + 8
    inside = size <= largest
    assert (np.abs(decoded - samples) <= half_step)[inside].all()
    assert (np.diff(decoded) >= 0).all()


@pytest.mark.parametrize("payload_type", [PCMU, PCMA])
def test_rows_are_decoded_alike(payload_type):
    codes = np.random.default_rng(1).integers(0, 256, (7, 160), np.uint8)
    assert (g711.decode_rows(payload_type, codes) == g711.decode(payload_type, codes)).all()


def test_silence_decodes_to_the_smallest_values():
    assert g711.decode(PCMU, np.array([g711.ULAW_SILENCE], np.uint8))[0] == 0
    assert g711.decode(PCMA, np.array([g711.ALAW_SILENCE], np.uint8))[0] == 8


def test_same_as_the_interpreter_where_it_has_g711():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop")  # Python before 3.13
    assert g711.encode(PCMU, SAMPLES).tobytes() == audioop.lin2ulaw(SAMPLES.tobytes(), 2)
    assert g711.encode(PCMA, SAMPLES).tobytes() == audioop.lin2alaw(SAMPLES.tobytes(), 2)
    assert g711.decode(PCMU, CODES).tobytes() == audioop.ulaw2lin(CODES.tobytes(), 2)
    assert g711.decode(PCMA, CODES).tobytes() == audioop.alaw2lin(CODES.tobytes(), 2)
