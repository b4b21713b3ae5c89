"""sipagent.toml and the environment."""

from pathlib import Path

import pytest

from sipagent.config import Config, load, state_dir
from sipagent.core.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path):
    def write_(text: str) -> Path:
        path = tmp_path / "sipagent.toml"
        path.write_text(text)
        return path

    return write_


def test_no_file_is_all_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Config()


def test_file_environment_and_secrets(write, tmp_path):
    (tmp_path / "secret").write_text("s3cret\n")
    path = write(
        '[sip]\nport = 5070\n[[trunks]]\nname = "pbx"\nregistrar = "10.0.0.1"\nusername = "u"\n'
        'password = { file = "secret" }\n[[trunks]]\nname = "two"\npassword = { env = "TWO" }\n'
    )
    environment = {"SIPAGENT_SIP_HOST": "127.0.0.1", "SIPAGENT_API_PORT": "0", "TWO": "2"}
    config = load(path, environment | {"SIPAGENT_LIMITS_MAX_CALLS": "3", "SIPAGENT_SIP_TCP": "false"})
    assert (config.sip.host, config.sip.port, config.sip.tcp) == ("127.0.0.1", 5070, False)
    assert [trunk.password for trunk in config.trunks] == ["s3cret", "2"]
    assert (config.api.port, config.limits.max_calls) == (0, 3)
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[sip]\nprot = 5\n", 2, "did you mean `port`?"),
        ("[spi]\nport = 5\n", 1, "did you mean `sip`?"),
        ('[api]\nenabled = true\nport = "x"\n', 3, "Expected `int`"),
        ('[[trunks]]\nname = "a"\nregistar = "b"\n', 3, "did you mean `registrar`?"),
        ("[media]\nport_min = 1\n", 1, "no range"),
        ('[[trunks]]\nname = "a"\npassword = { env = "NOT_SET_ANYWHERE" }\n', 0, "NOT_SET_ANYWHERE is not set"),
        ('[[trunks]]\nname = "a"\npassword = { file = "nowhere" }\n', 0, "cannot be read"),
        ("[sip\n", 0, "line 1"),
        ('[providers.a]\nkind = "deepgram"\nkey = "k"\nmodle = "x"\n', 4, "did you mean `model`?"),
        ('[providers.a]\nkind = "deepgrm"\n', 2, "no such kind of provider; there are openai_chat"),
        ('[providers.a-b]\nkey = "k"\n', 1, "missing required field `kind`"),
        ('[providers.a]\nkind = "elevenlabs"\n', 1, "missing required field `voice`"),
        ('[providers.a]\nkind = "openai_chat"\nbase_url = "somewhere"\nmodel = "m"\n', 1, "base_url is no address"),
        ('[providers.local]\nkind = "deepgram"\n', 0, "built-in models"),
        ('[providers.a]\nkind = "deepgram"\nkey = { env = "NOT_SET_ANYWHERE" }\n', 0, "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_mistakes_say_where_and_what(write, text, line, words):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    found = str(caught.value)
    assert found.startswith(f"{path}:{line}:" if line else f"{path}:"), found
    assert words in found


def test_providers_are_tables_by_name_and_their_keys_stay_hidden(write):
    path = write(
        '[providers.gpt]\nkind = "openai_chat"\nbase_url = "https://a.example/v1"\nmodel = "m"\nkey = { env = "K" }\n'
        '[providers.ears]\nkind = "deepgram"\nkey = "k3y"\nhedge_ms = 400\n'
    )
    config = load(path, {"K": "s3cret"})
    assert config.providers["gpt"].key == "s3cret" and config.providers["ears"].hedge_ms == 400
    assert "s3cret" not in repr(config) and "k3y" not in repr(config)


def test_a_named_file_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml", {})


def test_wrong_environment_is_reported():
    with pytest.raises(ConfigError, match="port"):
        load(None, {"SIPAGENT_SIP_PORT": "many"})


def test_state_folder_is_private(tmp_path):
    folder = state_dir(Config(), {"XDG_STATE_HOME": str(tmp_path)})
    assert folder == tmp_path / "sipagent"
    assert folder.stat().st_mode & 0o777 == 0o700
