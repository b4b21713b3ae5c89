import wave

import numpy as np

from sipagent.phone import Tape


def test_a_tape_has_both_sides_on_one_time_line(tmp_path):
    tape = Tape()
    tape.heard = [np.full(160, 100, np.int16)] * 5
    tape.said = [(2, np.full(160, 200, np.int16)), (3, np.full(160, 300, np.int16))]
    left, right, rate = played(tape, tmp_path)
    assert rate == 8000
    assert left.tolist() == [0] * 320 + [200] * 160 + [300] * 160 + [0] * 160
    assert right.tolist() == [100] * 800


def test_a_tape_of_a_call_that_became_wideband_is_wideband(tmp_path):
    tape = Tape()
    tape.heard = [np.full(160, 100, np.int16)] * 5 + [np.full(320, 100, np.int16)] * 5
    tape.said = [(1, np.full(160, 200, np.int16)), (8, np.full(320, 300, np.int16))]
    left, right, rate = played(tape, tmp_path)
    assert rate == 16_000
    assert len(left) == len(right) == 3200
    assert abs(int(left[480]) - 200) < 20 and left[8 * 320 + 160] == 300 and abs(int(left[1600])) < 20
    assert abs(int(right[800]) - 100) < 10 and right[2400] == 100


def test_an_empty_tape_is_an_empty_file(tmp_path):
    left, right, rate = played(Tape(), tmp_path)
    assert (len(left), len(right), rate) == (0, 0, 8000)


def played(tape, folder):
    tape.write(folder / "call.wav")
    with wave.open(str(folder / "call.wav"), "rb") as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        return both[:, 0], both[:, 1], file.getframerate()
