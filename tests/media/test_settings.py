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
        ({"playout_min_ms": 5}, "playout_min_ms 5 to"),
        ({"playout_max_ms": 500}, "playout_max_ms 500 is no range"),
        ({"playout_min_ms": 60, "playout_max_ms": 40}, "no range within 20..400"),
        ({"shared_ports": 65}, "shared_ports is 65"),
        ({"capacity": 5000, "shared_ports": 1}, "fewer even ports"),
        ({"media_timeout_s": -1.0}, "must not be negative"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        MediaSettings(**wrong)


def test_unknown_keys_are_refused():
    with pytest.raises(msgspec.ValidationError, match="playout_delay"):
        msgspec.convert({"playout_delay": 40}, MediaSettings)
