"""What a ladder says of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipagent.sip.summary import summarise

SDP = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\nm=video 0 RTP/AVP 31\r\n"
)


def test_a_request_with_an_offer() -> None:
    text = f"INVITE sip:100@192.0.2.9 SIP/2.0\r\nCSeq: 2 INVITE\r\nContent-Type: application/sdp\r\n\r\n{SDP}"
    found = summarise(text)
    assert (found.method, found.status, found.target, found.cseq) == ("INVITE", 0, "sip:100@192.0.2.9", 2)
    assert found.sdp == "PCMU PCMA tel-event 192.0.2.1:4000 sendonly; video refused"


@pytest.mark.parametrize(
    ("head", "note"),
    [
        ("SIP/2.0 503 Busy\r\nCSeq: 1 INVITE\r\nRetry-After: 5\r\n", "Retry-After 5"),
        ("SIP/2.0 302 Moved\r\nCSeq: 1 INVITE\r\nm: <sip:b@192.0.2.2>\r\n", "Contact <sip:b@192.0.2.2>"),
        ("BYE sip:a SIP/2.0\r\nCSeq: 3 BYE\r\nReason: Q.850;cause=16\r\n", "Reason Q.850;cause=16"),
        (
            'SIP/2.0 401 No\r\nCSeq: 1 INVITE\r\nWWW-Authenticate: Digest realm="x", nonce="secret", stale=TRUE\r\n',
            'challenge: realm "x", MD5, stale nonce',
        ),
        ("INVITE sip:a SIP/2.0\r\nCSeq: 2 INVITE\r\nProxy-Authorization: Digest xxx\r\n", "with credentials"),
        (
            "NOTIFY sip:a SIP/2.0\r\nCSeq: 2 NOTIFY\r\nc: message/sipfrag\r\n\r\nSIP/2.0 180 Ringing\r\n",
            "SIP/2.0 180 Ringing",
        ),
    ],
)
def test_what_explains_a_message_is_beside_it(head: str, note: str) -> None:
    text = head if "\r\n\r\n" in head else head + "\r\n"
    assert note in summarise(text).notes


def test_a_response_names_its_request() -> None:
    found = summarise("SIP/2.0 200 OK\r\nCSeq: 7 BYE\r\n\r\n")
    assert (found.method, found.status, found.reason, found.cseq) == ("BYE", 200, "OK", 7)


@given(st.text(max_size=500))
def test_nothing_upsets_it(text: str) -> None:
    for given_text in (
        text,
        f"INVITE {text}",
        f"SIP/2.0 {text}",
        f"INVITE a SIP/2.0\r\nc: application/sdp\r\n\r\n{text}",
    ):
        found = summarise(given_text)
        assert all(len(note) <= 200 for note in (found.method, found.target, found.sdp, *found.notes))
