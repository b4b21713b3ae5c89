import numpy as np
import pytest

from sipagent.media.g711 import decode, encode
from sipagent.media.rtp import PCMA, PCMU
from sipagent.media.telephone_event import DIGITS
from sipagent.media.tones import ToneDetector, tone, tones
from tests.speech.prompts import noise, prompts, through_ulaw
from tests.speech.prompts import tones as sines

LEVEL = 5000.0  # amplitude of each frequency, about -13 dBm0


def silence(ms, rate=8000):
    return np.zeros(ms * rate // 1000, np.int16)


def key(low, high, ms, *, off=0.0, twist_db=0.0):
    time = np.arange(int(ms * 8)) / 8000
    return np.rint(
        LEVEL * np.sin(2 * np.pi * low * (1 + off) * time)
        + LEVEL * 10 ** (twist_db / 20) * np.sin(2 * np.pi * high * (1 + off) * time)
    ).astype(np.int16)


def heard(*parts, rate=8000):
    """The digits with their milliseconds, and a string with an x for every frame that belongs to a tone."""
    frame = rate // 50
    pcm = np.concatenate([silence(60, rate), *parts, silence(120, rate)])
    detector, digits, active = ToneDetector(4, rate), [], ""
    for begin in range(0, len(pcm) - frame + 1, frame):
        detected = detector.detect(np.array([2]), pcm[None, begin : begin + frame])
        digits += [(digit, ms) for slot, digit, ms in detected.pressed if slot == 2]
        active += "x" if detected.active[0] else "."
    return digits, active


def said(*parts):
    return "".join(digit for digit, _ in heard(*parts)[0])


@pytest.mark.parametrize("payload_type", [PCMU, PCMA])
def test_every_key_behind_g711(payload_type):
    digits, _ = heard(decode(payload_type, encode(payload_type, tones(DIGITS, 100, 60))))
    assert "".join(digit for digit, _ in digits) == DIGITS
    assert all(90 <= ms <= 105 for _, ms in digits)


def test_wideband():
    digits, _ = heard(tones(DIGITS, 100, 60, rate=16000), rate=16000)
    assert "".join(digit for digit, _ in digits) == DIGITS


@pytest.mark.parametrize("delay_ms", range(0, 20, 3))
def test_fast_dialling_wherever_the_frames_begin(delay_ms):
    fast = [part for _ in range(5) for part in (key(770, 1336, 40), silence(40))]
    assert said(silence(delay_ms), *fast) == "55555"


@pytest.mark.parametrize("delay_ms", range(0, 20, 3))
def test_what_is_too_short_is_no_key(delay_ms):
    assert said(silence(delay_ms), key(770, 1336, 23)) == ""


@pytest.mark.parametrize("delay_ms", range(0, 20, 3))
def test_interruption_of_ten_milliseconds_does_not_make_two(delay_ms):
    pressed = key(770, 1336, 110)
    pressed[400:480] = 0
    assert said(silence(delay_ms), pressed) == "5"


@pytest.mark.parametrize("delay_ms", range(0, 20, 3))
def test_lost_packet_does_not_make_two(delay_ms):
    pressed = key(770, 1336, 140)
    pressed[480:640] = 0
    assert said(silence(delay_ms), pressed) == "5"


@pytest.mark.parametrize(
    "off, digits", [(0.015, "1"), (-0.015, "1"), (0.035, ""), (-0.035, ""), (0.05, ""), (-0.05, "")]
)
def test_frequency_tolerance(off, digits):
    assert said(key(697, 1209, 50, off=off)) == digits
    assert said(key(941, 1633, 50, off=off)) == digits.replace("1", "D")


@pytest.mark.parametrize("twist_db, digits", [(-8, "9"), (4, "9"), (-14, ""), (10, "")])
def test_twist(twist_db, digits):
    assert said(key(852, 1477, 60, twist_db=twist_db)) == digits


@pytest.mark.parametrize("level_dbm0", [-3, -10, -25, -30])
def test_level(level_dbm0):
    assert said(through_ulaw(tone("8", 60, level_dbm0=level_dbm0))) == "8"


def test_too_faint_is_no_key():
    assert said(tone("8", 60, level_dbm0=-45)) == ""


def test_noise_beneath_the_tone():
    pressed = sines(770, 1336, seconds=0.06, amplitude=LEVEL)
    under = noise(20 * np.log10(LEVEL / 32768) - 10, 0.5)  # 10 dB beneath both
    under[1600 : 1600 + len(pressed)] += pressed
    assert said(under) == "5"


@pytest.mark.parametrize(
    "hz",
    [
        (697,),
        (1209,),
        (440, 480),
        (350, 440),
        (697, 770),
        (1209, 1336),
        (1100,),
        (2100,),
        (697, 1209, 2418),
        (480, 620),
    ],
)
def test_other_tones_are_no_keys(hz):
    digits, active = heard(sines(*hz, seconds=0.5))
    assert digits == [] and "x" not in active


def test_noise_is_no_key():
    assert heard(noise(-20, 30))[0] == []


def test_speech_is_no_key():
    for prompt in prompts(20):
        digits, active = heard(through_ulaw(prompt.pcm))
        assert digits == []
        assert active.count("x") <= len(active) / 50


def test_tone_is_flagged_from_its_first_full_frame_to_its_last():
    for delay_ms in range(0, 20, 2):
        first, last = (60 + delay_ms + 19) // 20, (160 + delay_ms) // 20
        _, active = heard(silence(delay_ms), key(770, 1336, 100))
        assert active[first:last] == "x" * (last - first)
        assert "x" not in active[: first - 1] + active[last + 1 :]


def test_speech_after_the_key_is_not_flagged():
    pcm = through_ulaw(prompts(1)[0].pcm)
    _, alone = heard(pcm)
    digits, active = heard(tone("4", 100), silence(100), pcm)
    assert [digit for digit, _ in digits] == ["4"]
    assert active.count("x") <= alone.count("x") + 6


def test_long_key_has_its_duration():
    ((digit, ms),), _ = heard(key(697, 1209, 5000))
    assert digit == "1" and 4950 <= ms <= 5010


def test_slots_do_not_mix():
    detector, digits = ToneDetector(300), []
    pcm = np.stack([np.concatenate([tone(DIGITS[slot % 16], 100), silence(100)]) for slot in range(200)])
    slots = np.arange(299, 99, -1)
    for begin in range(0, pcm.shape[1], 160):
        digits += detector.detect(slots, pcm[:, begin : begin + 160]).pressed
    assert {slot: digit for slot, digit, _ in digits} == {299 - n: DIGITS[n % 16] for n in range(200)}
    assert len(digits) == 200


def test_reset_forgets_the_tone():
    detector, one = ToneDetector(1), np.array([0])
    pressed = tone("1", 100)
    for begin in range(0, 800, 160):
        detector.detect(one, pressed[None, begin : begin + 160])
    detector.reset(0)
    for _ in range(6):
        detected = detector.detect(one, np.zeros((1, 160), np.int16))
        assert not detected.active[0] and not detected.pressed


def test_no_calls():
    active, pressed = ToneDetector(1).detect(np.zeros(0, np.int64), np.zeros((0, 160), np.int16))
    assert len(active) == 0 and pressed == []


def test_generated_tone_has_its_level_and_soft_edges():
    wave = tone("1", 200, level_dbm0=-10)
    time = np.arange(1440) / 8000
    low, high = (abs(np.mean(wave[80:-80] * 2 * np.exp(-2j * np.pi * hz * time))) for hz in (697, 1209))
    assert 20 * np.log10(high / 22303) == pytest.approx(-10, abs=0.2)
    assert 20 * np.log10(high / low) == pytest.approx(2, abs=0.2)
    assert len(wave) == 1600 and max(abs(wave[:5])) < 300 and max(abs(wave[-5:])) < 300


def test_generated_keys_with_gap_and_pause():
    assert len(tones("1,2", 100, 50)) == 8 * (100 + 50 + 500 + 100 + 50)
    assert said(tones("12,3#a")) == "123#A"
    with pytest.raises(ValueError, match="not 'E'"):
        tones("12E")
