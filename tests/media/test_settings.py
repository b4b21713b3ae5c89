import msgspec
import pytest

from sipagent.media.settings import MediaSettings


def test_defaults_hold_together():
    settings = MediaSettings()
    assert msgspec.json.decode(msgspec.json.encode(settings), type=MediaSettings) == settings


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"port_min": 30000}, "no range"),
        ({"port_min": 80}, "no range"),
        ({"capacity": 0}, "capacity is 0"),
        ({"port_min": 20000, "port_max": 20010}, "fewer even ports"),
        ({"playout_delay_ms": 5}, "playout_delay_ms is 5"),
        ({"media_timeout_s": -1.0}, "must not be negative"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        MediaSettings(**wrong)


def test_unknown_keys_are_refused():
    with pytest.raises(msgspec.ValidationError, match="playout_delay"):
        msgspec.convert({"playout_delay": 40}, MediaSettings)
