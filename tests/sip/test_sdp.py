"""SDP as text and value, without PJSIP."""

import pytest

from sipagent.sip.sdp import (
    MAX_MEDIA_LINES,
    MAX_TEXT,
    Negotiated,
    NoCommonCodec,
    Sdp,
    build_answer,
    build_offer,
    negotiate,
    parse,
)

CARRIER = (
    "v=0\r\no=carrier 123 7 IN IP4 192.0.2.9\r\ns=call\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n"
    "m=audio 12000 RTP/AVP 18 8 0 96\r\n"
    "a=rtpmap:18 G729/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
    "a=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-16\r\na=ptime:30\r\na=sendrecv\r\n"
)


def offer(*media: str, session: str = "c=IN IP4 192.0.2.1\r\n") -> Sdp:
    return parse("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n" + session + "t=0 0\r\n" + "".join(media))


def audio(*attributes: str, formats: str = "0 8", port: int = 4000) -> str:
    return f"m=audio {port} RTP/AVP {formats}\r\n" + "".join(f"{line}\r\n" for line in attributes)


def test_a_carriers_offer_is_read() -> None:
    seen = parse(CARRIER)
    line = seen.audio_line
    assert line is not None
    assert (seen.session_id, seen.version, seen.audio) == (123, 7, 0)
    assert (line.host, line.port, line.payload_types) == ("192.0.2.10", 12000, (18, 8, 0, 96))
    assert (line.telephone_event, line.ptime_ms, line.direction) == (96, 30, "sendrecv")


def test_the_peers_order_decides_the_codec() -> None:
    assert negotiate(parse(CARRIER)) == Negotiated("192.0.2.10", 12000, "PCMA", 8, 96, 30, True, True)
    assert negotiate(offer(audio(formats="0 8"))).codec == "PCMU"


def test_the_answer_to_it() -> None:
    text = build_answer(parse(CARRIER), host="198.51.100.1", port=20000, session_id=55, version=3)
    assert text == (
        "v=0\r\no=sipagent 55 3 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\n"
        "m=audio 20000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\n"
        "a=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )


def test_our_offer() -> None:
    text = build_offer(host="198.51.100.1", port=20000, session_id=55)
    assert "m=audio 20000 RTP/AVP 0 8 101\r\n" in text and text.endswith("a=sendrecv\r\n")
    assert negotiate(parse(text)) == Negotiated("198.51.100.1", 20000, "PCMU", 0, 101, 20, True, True)
    assert "IN IP6 2001:db8::1" in build_offer(host="2001:db8::1", port=2, session_id=1)


@pytest.mark.parametrize(
    ("attributes", "send", "receive", "answered"),
    [
        (["a=sendrecv"], True, True, "sendrecv"),
        ([], True, True, "sendrecv"),
        (["a=sendonly"], False, True, "recvonly"),
        (["a=recvonly"], True, False, "sendonly"),
        (["a=inactive"], False, False, "inactive"),
        (["c=IN IP4 0.0.0.0"], False, True, "recvonly"),
        (["c=IN IP4 0.0.0.0", "a=inactive"], False, False, "inactive"),
        (["c=IN IP4 0.0.0.0", "a=recvonly"], False, False, "inactive"),
        (["a=SENDONLY"], False, True, "recvonly"),
    ],
)
def test_forms_of_hold(attributes: list[str], send: bool, receive: bool, answered: str) -> None:
    seen = offer(audio(*attributes))
    agreed = negotiate(seen)
    assert (agreed.send, agreed.receive) == (send, receive)
    assert f"a={answered}\r\n" in build_answer(seen, host="192.0.2.2", port=2, session_id=1)


def test_a_session_wide_direction_holds_until_a_media_line_says_otherwise() -> None:
    held = offer(audio(), session="c=IN IP4 192.0.2.1\r\na=sendonly\r\n")
    assert negotiate(held).send is False
    assert negotiate(offer(audio("a=sendrecv"), session="c=IN IP4 192.0.2.1\r\na=sendonly\r\n")).send is True


def test_our_own_hold() -> None:
    text = build_answer(offer(audio()), host="192.0.2.2", port=2, session_id=1, hold=True)
    assert "a=sendonly\r\n" in text


def test_every_media_line_is_answered_in_order_and_only_the_first_usable_audio_taken() -> None:
    seen = offer(
        "m=video 5000 RTP/AVP 97 98\r\na=rtpmap:97 H264/90000\r\n",
        "m=audio 5002 RTP/SAVP 0\r\n",
        audio(formats="8", port=5004),
        audio(formats="0", port=5006),
        "m=image 5008 udptl t38\r\n",
    )
    assert seen.audio == 2
    text = build_answer(seen, host="192.0.2.2", port=20000, session_id=1)
    lines = [line for line in text.split("\r\n") if line.startswith("m=")]
    assert lines == [
        "m=video 0 RTP/AVP 97 98",
        "m=audio 0 RTP/SAVP 0",
        "m=audio 20000 RTP/AVP 8",
        "m=audio 0 RTP/AVP 0",
        "m=image 0 udptl t38",
    ]


def test_bare_line_feeds_and_missing_ends() -> None:
    assert parse(CARRIER.replace("\r\n", "\n")) == parse(CARRIER)
    assert parse(CARRIER.rstrip("\r\n")) == parse(CARRIER)


def test_static_numbers_need_no_rtpmap_and_may_not_lie() -> None:
    assert negotiate(offer(audio(formats="8"))).codec == "PCMA"
    assert negotiate(offer(audio("a=rtpmap:0 pcmu/8000/1", formats="0"))).codec == "PCMU"
    with pytest.raises(NoCommonCodec):
        negotiate(offer(audio("a=rtpmap:0 opus/48000/2", formats="0")))


def test_telephone_event_only_at_8000_hz_and_only_when_listed() -> None:
    assert negotiate(offer(audio("a=rtpmap:101 telephone-event/48000", formats="0 101"))).telephone_event == -1
    assert negotiate(offer(audio("a=rtpmap:101 telephone-event/8000", formats="0"))).telephone_event == -1
    both = audio("a=rtpmap:100 telephone-event/48000", "a=rtpmap:101 telephone-event/8000", formats="0 100 101")
    assert negotiate(offer(both)).telephone_event == 101
    assert "101" not in build_answer(offer(audio(formats="0")), host="192.0.2.2", port=2, session_id=1)


@pytest.mark.parametrize(
    "media",
    [
        audio(formats="18"),
        audio(formats="101"),
        audio(port=0),
        "m=audio 4000 RTP/SAVP 0\r\n",
        "m=video 4000 RTP/AVP 0\r\n",
        "",
    ],
)
def test_nothing_in_common(media: str) -> None:
    seen = offer(media)
    with pytest.raises(NoCommonCodec):
        negotiate(seen)
    with pytest.raises(NoCommonCodec):
        build_answer(seen, host="192.0.2.2", port=2, session_id=1)


def test_no_connection_address_is_no_usable_audio() -> None:
    with pytest.raises(NoCommonCodec, match="address"):
        negotiate(offer(audio(), session=""))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "does not begin"),
        ("hello", "does not begin"),
        ("v=0\r\no=- 1 1\r\n", "origin line has 3 parts"),
        ("v=0\r\nm=audio 1\r\n", "media line has 2 parts"),
        ("v=0\r\nm=audio x RTP/AVP 0\r\n", "media port"),
        ("v=0\r\nm=audio 70000 RTP/AVP 0\r\n", "media port"),
        ("v=0\r\nm=audio -1 RTP/AVP 0\r\n", "media port"),
        ("v=0\r\nm=audio ٣ RTP/AVP 0\r\n", "media port"),
        ("v=0\r\nc=IN IP4\r\n", "connection line"),
        ("v=0\r\nc=ATM NSAP x\r\n", "connection line"),
        # Names: PJMEDIA would look them up, and every call of the lane would wait.
        ("v=0\r\nc=IN IP4 media.example.com\r\n", "no single IP address"),
        ("v=0\r\nc=IN IP4 999.1.1.1\r\n", "no single IP address"),
        ("v=0\r\nc=IN IP4 224.2.1.1/127/3\r\n", "no single IP address"),
        ("v=0\r\nc=IN IP4 ::1\r\n", "other IP version"),
        ("v=0\r\nm=video 0 RTP/AVP 34\r\nc=IN IP4 localhost\r\n", "no single IP address"),
        ("v=0\r\nm=audio 2 RTP/AVP 0\r\na=rtcp:3 IN IP4 media.example.com\r\n", "no single IP address"),
        ("v=0\r\nm=audio 2 RTP/AVP 0\r\na=RTCP:3 IN IP4\r\n", "connection line"),
        ("v=0\r\n" + "a=x\r\n" * (MAX_TEXT // 4), "over the limit"),
        ("v=0\r\n" + "m=audio 2 RTP/AVP 0\r\n" * (MAX_MEDIA_LINES + 1), "more than 64 media lines"),
        ("v=0\r\nm=audio 2 RTP/AVP " + "0 " * 65 + "\r\n", "more than 64 formats"),
    ],
)
def test_what_is_refused_and_how_it_is_said(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)


@pytest.mark.parametrize(
    "attribute",
    [
        "a=ptime:0",
        "a=ptime:99999",
        "a=ptime:x",
        "a=ptime:",
        "a=rtpmap:",
        "a=rtpmap:999 X/1",
        "a=rtpmap:x y",
        "a=",
        "zz",
    ],
)
def test_odd_attributes_are_passed_over(attribute: str) -> None:
    agreed = negotiate(offer(audio(attribute)))
    assert (agreed.codec, agreed.ptime_ms) == ("PCMU", 20)


def test_formats_that_are_no_numbers_are_passed_over() -> None:
    assert negotiate(offer(audio(formats="* 0001 t38 0"))).codec == "PCMU"


def test_port_counts() -> None:
    assert negotiate(offer("m=audio 4000/2 RTP/AVP 0\r\n")).port == 4000


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1"])
def test_the_address_of_rtcp_may_be_given(address: str) -> None:
    assert negotiate(offer(audio("a=rtcp:4001", f"a=rtcp:4001 IN IP4 {address}"))).host == "192.0.2.1"
    assert negotiate(offer(audio(), session="c=IN IP6 2001:db8::1\r\n")).host == "2001:db8::1"


def test_random_damage_never_raises_anything_but_value_error() -> None:
    import random

    chance = random.Random(7)
    for _ in range(3000):
        text = list(CARRIER)
        for _ in range(chance.randrange(1, 6)):
            text[chance.randrange(len(text))] = chr(chance.choice([10, 13, 32, 48, 61, 97, 300, 0]))
        try:
            seen = parse("".join(text))
            negotiate(seen)
            parse(build_answer(seen, host="192.0.2.2", port=2, session_id=1))
        except ValueError:
            pass
