import os
import wave

import numpy as np
import pytest

from sipagent.calls.sounds import read_wav, write_stereo_wav
from sipagent.core.errors import ConfigError


def write(path, rate, *, seconds=0.5, hz=440, channels=1):
    tone = np.rint(8000 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(tone, channels).tobytes())


def loudest_hz(pcm, rate):
    return np.argmax(np.abs(np.fft.rfft(pcm))) * rate / len(pcm)


@pytest.mark.parametrize("line", [8000, 16_000])
@pytest.mark.parametrize("recorded", [8000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_of_any_rate_are_heard_at_the_lines(tmp_path, recorded, line, channels):
    write(tmp_path / "a.wav", recorded, channels=channels)
    pcm = read_wav(tmp_path / "a.wav", line)
    assert len(pcm) == pytest.approx(line / 2, abs=1)
    assert loudest_hz(pcm, line) == pytest.approx(440, abs=2)


def test_a_file_is_converted_once_for_each_rate_until_it_changes(tmp_path):
    path = tmp_path / "a.wav"
    write(path, 8000)
    narrow, wide = read_wav(path, 8000), read_wav(path, 16_000)
    assert (len(narrow), len(wide)) == (4000, 8000)
    assert read_wav(path, 16_000) is wide
    assert not wide.flags.writeable and not narrow.flags.writeable
    write(path, 8000, hz=1000)
    os.utime(path, ns=(1, 1))
    assert loudest_hz(read_wav(path, 16_000), 16_000) == pytest.approx(1000, abs=2)


def test_long_files_are_not_kept(tmp_path):
    write(tmp_path / "a.wav", 8000, seconds=70)
    assert read_wav(tmp_path / "a.wav", 8000) is not read_wav(tmp_path / "a.wav", 8000)


@pytest.mark.parametrize("content", [None, b"", b"RIFF", b"RIFF\x24\x00\x00\x00WAVEfmt "])
def test_what_is_no_wav_file_says_so(tmp_path, content):
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.wav: not a readable WAV file"):
        read_wav(tmp_path / "a.wav", 8000)


def test_both_sides_in_one_file(tmp_path):
    write_stereo_wav(tmp_path / "a.wav", np.full(320, 5, np.int16), np.full(640, 7, np.int16), 16_000)
    with wave.open(str(tmp_path / "a.wav"), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 2, 640)
    assert read_wav(tmp_path / "a.wav", 16_000).tolist() == [5] * 320 + [0] * 320


@pytest.mark.parametrize("cut", [1, 2, 3, 401])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_that_was_cut_off_is_played_as_far_as_it_goes(tmp_path, cut, channels):
    path = tmp_path / "a.wav"
    write(path, 8000, channels=channels)
    path.write_bytes(path.read_bytes()[:-cut])
    assert 4000 - 201 <= len(read_wav(path, 8000)) <= 4000
