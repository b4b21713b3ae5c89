"""What an operator may set about codecs and SRTP, and what comes of it for a call."""

from pathlib import Path

import pytest

from sipagent.config import load
from sipagent.core.errors import ConfigError
from sipagent.sip.settings import SipSettings, TrunkSettings, media_terms

ALL = ("PCMU", "PCMA", "G722")


def test_nothing_set() -> None:
    terms = media_terms(SipSettings(), None, ALL)
    assert (terms.codecs, terms.srtp, terms.keys) == (("PCMU", "PCMA"), "off", ())


def test_the_trunk_before_the_node() -> None:
    node = SipSettings(codecs=("PCMA",), srtp="required")
    inherits, differs = TrunkSettings(name="a"), TrunkSettings(name="b", codecs=("G722", "PCMU"), srtp="optional")
    assert media_terms(node, inherits, ALL).codecs == ("PCMA",)
    assert media_terms(node, inherits, ALL).srtp == "required"
    assert media_terms(node, differs, ALL).codecs == ("G722", "PCMU")
    assert media_terms(node, differs, ALL).srtp == "optional"
    assert media_terms(node, TrunkSettings(name="c", srtp="off"), ALL).keys == ()


def test_each_call_has_keys_of_its_own() -> None:
    node = SipSettings(srtp="optional")
    keys = [key for _ in range(10) for key in media_terms(node, None, ALL).keys]
    assert len(set(keys)) == 20


def test_a_library_without_a_codec() -> None:
    assert media_terms(SipSettings(codecs=("G722", "PCMU")), None, ("PCMU", "PCMA")).codecs == ("PCMU",)
    with pytest.raises(ValueError, match="built without G722"):
        media_terms(SipSettings(codecs=("G722",)), None, ("PCMU", "PCMA"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[sip]\nsrtp = 'on'", "Invalid enum value 'on'"),
        ("[sip]\ncodecs = ['OPUS']", "Invalid enum value 'OPUS'"),
        ("[sip]\ncodecs = []", "at least one of"),
        ("[[trunks]]\nname = 'a'\nsrtp = true", "Expected `str`"),
    ],
)
def test_what_is_no_setting(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "sipagent.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load(file, {})


def test_from_the_environment(tmp_path: Path) -> None:
    config = load(None, {"SIPAGENT_SIP_CODECS": "['G722', 'PCMA']", "SIPAGENT_SIP_SRTP": "required"})
    assert (config.sip.codecs, config.sip.srtp) == (("G722", "PCMA"), "required")
