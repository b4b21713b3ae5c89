"""No secret leaves the lane with a message, and no length changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipagent.sip.masking import masked

DIGEST = (
    'Digest username="100", realm="example.com", nonce="5c2bf9", uri="sip:example.com", '
    'response="6629fae49393a05397450978507c4ef1", algorithm=MD5, cnonce="0a4f113b", qop=auth, nc=00000001'
)


def request(*headers: str, body: str = "") -> str:
    lines = ["INVITE sip:100@192.0.2.9 SIP/2.0", "Call-ID: a84b", *headers]
    return "\r\n".join(lines) + "\r\n\r\n" + body


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "PROXY-AUTHORIZATION"])
def test_of_a_digest_nothing_is_left_that_a_password_could_be_guessed_from(name: str) -> None:
    text = request(f"{name}: {DIGEST}", "Max-Forwards: 70")
    shown = masked(text)
    assert len(shown) == len(text)
    for secret in ("6629fae49393a05397450978507c4ef1", "0a4f113b", "5c2bf9"):
        assert secret not in shown
    for kept in ('username="100"', 'realm="example.com"', 'uri="sip:example.com"', "algorithm=MD5", "Max-Forwards: 70"):
        assert kept in shown


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        ("Authorization: Basic cGFzc3dvcmQ=", "cGFz"),
        ("Authorization: Bearer eyJhbGciOi", "eyJh"),
        ('Authorization:Digest\r\n response="6629fae4",\r\n\tcnonce="0a4f"', "6629"),
        ('Authorization: Digest response = "66\\"29fae4"', "29fae4"),
        ("Authorization: Digest response=6629fae4", "6629fae4"),
        ('Authorization: Digest response="6629fae4', "6629fae4"),
        ("Contact: <sip:100:s3cret@192.0.2.1:5060>", "s3cret"),
    ],
)
def test_other_ways_to_write_a_secret(header: str, secret: str) -> None:
    text = request(header, "Max-Forwards: 70")
    assert secret in text
    assert secret not in masked(text)
    assert len(masked(text)) == len(text) and "Max-Forwards: 70" in masked(text)


def test_an_address_with_a_port_is_no_password() -> None:
    text = request("Contact: <sip:192.0.2.1:5060>", "From: <sip:100@192.0.2.1:5060>;tag=a@b")
    assert masked(text) == text


def test_srtp_keys() -> None:
    key = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
    body = (
        f"v=0\r\nm=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^20|1:32\r\na=sendrecv\r\n"
    )
    text = request("c: application/sdp", body=body)
    shown = masked(text)
    assert key not in shown and len(shown) == len(text)
    assert "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxxx" in shown and "|2^20|1:32\r\na=sendrecv" in shown
    parted = request(
        "Content-Type: multipart/mixed;boundary=b", body=f"--b\r\nContent-Type: application/sdp\r\n\r\n{body}--b--"
    )
    assert key not in masked(parted) and "a=sendrecv" in masked(parted)
    assert key[:20] not in masked(text[: text.index(key) + 25])  # cut short within the key


@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", "Signal=x\r\nDuration=xxx\r\n"),
        ("application/dtmf", "#", "x"),
        ("application/kpml-response+xml", '<kpml-response digits="12"/>', "xxxxxxxxxxxxxx xxxxxxxxxxxxx"),
        ("text/plain", "my code is 1234", "xx xxxx xx xxxx"),
    ],
)
def test_pressed_keys_and_words(kind: str, body: str, shown: str) -> None:
    assert masked(request(f"Content-Type: {kind}", body=body)) == request(f"Content-Type: {kind}", body=shown)


def test_bodies_without_a_type_are_not_shown() -> None:
    assert masked(request(body="1234")).endswith("\r\n\r\nxxxx")


@given(st.text(max_size=400), st.text(max_size=200))
def test_whatever_comes_keeps_its_length(head: str, body: str) -> None:
    text = request("Authorization: " + head, body=body)
    assert len(masked(text)) == len(text)


def test_passwords_in_uris_are_masked_however_long_the_line_is():
    shown = masked("INVITE sip:bob:secret@example.com SIP/2.0\r\nSubject: " + ":a" * 1850 + "\r\n\r\n")
    assert shown.startswith("INVITE sip:bob:xxxxxx@example.com SIP/2.0")
    assert masked("To: <sip:bob@example.com:5060>\r\n\r\n") == "To: <sip:bob@example.com:5060>\r\n\r\n"
