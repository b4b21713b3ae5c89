"""SDP as text and value, without PJSIP."""

import pytest

from sipagent.sip import sdes
from sipagent.sip.description import MAX_MEDIA_LINES, MAX_TEXT
from sipagent.sip.protocol import Answer, Answered
from sipagent.sip.sdes import SUITES, CryptoLine
from sipagent.sip.sdp import (
    Crypto,
    NoCommonCodec,
    Sdp,
    SrtpPolicy,
    Terms,
    build_answer,
    build_offer,
    negotiate,
    parse,
    restate,
    with_keys_of,
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
    agreed = negotiate(parse(CARRIER))
    assert (agreed.host, agreed.port, agreed.codec, agreed.payload_type) == ("192.0.2.10", 12000, "PCMA", 8)
    assert (agreed.telephone_event, agreed.ptime_ms, agreed.send, agreed.receive) == (96, 30, True, True)
    assert negotiate(offer(audio(formats="0 8"))).codec == "PCMU"


def test_the_answer_to_it() -> None:
    text = build_answer(parse(CARRIER), host="198.51.100.1", port=20000, session_id=55, version=3)
    assert text == (
        "v=0\r\no=sipagent 55 3 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\n"
        "m=audio 20000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\n"
        "a=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:20\r\na=maxptime:60\r\na=sendrecv\r\n"
    )


def test_our_offer() -> None:
    text = build_offer(host="198.51.100.1", port=20000, session_id=55)
    assert "m=audio 20000 RTP/AVP 0 8 101\r\n" in text and text.endswith("a=sendrecv\r\n")
    assert "a=rtcp-mux\r\n" in text and "crypto" not in text
    agreed = negotiate(parse(text))
    assert (agreed.host, agreed.port, agreed.codec, agreed.payload_type) == ("198.51.100.1", 20000, "PCMU", 0)
    assert (agreed.telephone_event, agreed.ptime_ms, agreed.send, agreed.receive) == (101, 20, True, True)
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


def test_one_ip_version_a_call() -> None:
    six = "c=IN IP6 2001:DB8::7\r\n"
    assert negotiate(offer(audio(), session=six), Terms(ip_version=6)).host == "2001:db8::7"
    for session, ours in ((six, 4), ("c=IN IP4 192.0.2.7\r\n", 6)):
        with pytest.raises(NoCommonCodec, match=f"ours of this call on IPv{ours}"):
            negotiate(offer(audio(), session=session), Terms(ip_version=ours))
    held = offer(audio(), session="c=IN IP4 0.0.0.0\r\n")
    assert not negotiate(held, Terms(ip_version=6)).send
    both = offer(audio() + "m=audio 6000 RTP/AVP 0\r\n" + six)
    assert negotiate(both, Terms(ip_version=6)).port == 6000


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
        ("v=0\r\nc=IN IP6 ::ffff:192.0.2.1\r\n", "written as IPv6"),
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


WIDE = Terms(codecs=("G722", "PCMU"))


def test_g722_only_where_it_is_wanted() -> None:
    both = offer(audio(formats="9 0"))
    assert negotiate(both).codec == "PCMU"
    assert (negotiate(both, WIDE).codec, negotiate(both, WIDE).payload_type) == ("G722", 9)
    assert negotiate(offer(audio(formats="0 9")), WIDE).codec == "PCMU"  # the peer's order
    answer = build_answer(both, host="192.0.2.2", port=2, session_id=1, terms=WIDE)
    assert "RTP/AVP 9\r\na=rtpmap:9 G722/8000\r\n" in answer
    assert "RTP/AVP 9 0 101\r\n" in build_offer(host="192.0.2.2", port=2, session_id=1, terms=WIDE)
    with pytest.raises(NoCommonCodec, match="none of PCMU, PCMA"):
        negotiate(offer(audio(formats="9")))
    with pytest.raises(NoCommonCodec):
        negotiate(offer(audio("a=rtpmap:9 G722/16000", formats="9")), WIDE)


def test_comfort_noise_is_understood_and_never_listed() -> None:
    seen = offer(audio("a=rtpmap:13 CN/8000", formats="13 0"))
    assert (negotiate(seen).codec, negotiate(seen).comfort_noise) == ("PCMU", 13)
    # PJSIP dies of it.
    assert "RTP/AVP 0\r\n" in build_answer(seen, host="192.0.2.2", port=2, session_id=1)
    assert negotiate(offer(audio(formats="0"))).comfort_noise == -1
    assert negotiate(offer(audio("a=rtpmap:13 CN/16000", formats="0 13"))).comfort_noise == -1


def test_telephone_event_under_another_number() -> None:
    event = "a=rtpmap:{} telephone-event/8000"
    answer = offer(audio(event.format(97), formats="0 97"))
    as_answer = negotiate(answer, offered=True)
    assert (as_answer.telephone_event, as_answer.telephone_event_in) == (97, 101)
    as_offer = negotiate(answer)
    assert (as_offer.telephone_event, as_offer.telephone_event_in) == (97, 97)
    assert "RTP/AVP 0 97\r\n" in build_answer(answer, host="192.0.2.2", port=2, session_id=1)
    wide = offer(audio("a=rtpmap:96 telephone-event/16000", event.format(97), formats="9 96 97"))
    assert negotiate(wide, WIDE).telephone_event == 97
    assert negotiate(offer(audio(formats="0")), offered=True).telephone_event_in == -1


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([], ("192.0.2.1", 4001, False)),
        (["a=rtcp:5000"], ("192.0.2.1", 5000, False)),
        (["a=rtcp:5000 IN IP4 192.0.2.7"], ("192.0.2.7", 5000, False)),
        (["a=rtcp:5000 IN IP4 192.0.2.7", "a=rtcp-mux"], ("192.0.2.1", 4000, True)),
        (["a=rtcp:99999"], ("192.0.2.1", 4001, False)),
        (["a=rtcp:x"], ("192.0.2.1", 4001, False)),
        (["b=RS:0", "b=RR:0"], ("", 0, False)),
        (["b=RS:0", "b=RR:800"], ("192.0.2.1", 4001, False)),
        (["c=IN IP4 0.0.0.0", "a=rtcp-mux"], ("", 0, True)),
    ],
)
def test_where_rtcp_goes(attributes: list[str], expected: tuple[str, int, bool]) -> None:
    seen = offer(audio(*attributes))
    agreed = negotiate(seen)
    assert (agreed.rtcp_host, agreed.rtcp_port, agreed.rtcp_mux) == expected
    assert ("a=rtcp-mux" in build_answer(seen, host="192.0.2.2", port=2, session_id=1)) == expected[2]


def test_no_rtcp_port_after_the_last_one() -> None:
    assert negotiate(offer(audio(port=65535))).rtcp_port == 0


def test_packets_are_no_longer_than_the_peer_takes() -> None:
    assert negotiate(offer(audio("a=ptime:40", "a=maxptime:30"))).ptime_ms == 30
    assert negotiate(offer(audio("a=maxptime:10"))).ptime_ms == 10
    assert negotiate(offer(audio("a=ptime:10", "a=maxptime:0"))).ptime_ms == 10


# --- SRTP -----------------------------------------------------------------------------------------------------

OURS = (bytes(30), bytes(range(30)))
THEIRS = bytes(range(100, 130))
SHORT = SUITES[1]


def keyed(srtp: SrtpPolicy) -> Terms:
    return Terms(srtp=srtp, keys=OURS)


def crypto(tag: int = 1, suite: sdes.Suite = SUITES[0], key: bytes = THEIRS) -> str:
    return sdes.build(CryptoLine(tag, suite, key)).strip()


def secure(*attributes: str, formats: str = "0", protocol: str = "RTP/SAVP") -> str:
    return audio(*attributes, formats=formats).replace("RTP/AVP", protocol)


AGREED = Crypto(SUITES[0], OURS[0], THEIRS)


@pytest.mark.parametrize(
    ("policy", "media", "outcome"),
    [
        ("off", audio(crypto()), None),
        ("optional", audio(), None),
        ("optional", audio(crypto()), AGREED),
        ("optional", secure(crypto()), AGREED),
        ("required", audio(crypto()), AGREED),
        ("required", secure(crypto()), AGREED),
        ("required", secure(crypto(4, SHORT), crypto(5)), Crypto(SHORT, OURS[1], THEIRS)),
        ("optional", audio() + secure(crypto()), AGREED),
        ("optional", audio("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short"), None),
        ("off", secure(crypto()), "SRTP, which is off"),
        ("optional", secure(), "no SRTP key"),
        ("required", secure(), "no SRTP key"),
        ("required", audio(), "SRTP is required"),
        ("required", secure(crypto(), protocol="UDP/TLS/RTP/SAVP"), "no RTP audio"),
        ("required", secure(crypto(), formats="18"), "none of PCMU"),
    ],
)
def test_an_offer_meets_the_policy(policy: SrtpPolicy, media: str, outcome: Crypto | str | None) -> None:
    seen, terms = offer(media), keyed(policy)
    if isinstance(outcome, str):
        with pytest.raises(NoCommonCodec, match=outcome):
            build_answer(seen, host="192.0.2.2", port=2, session_id=1, terms=terms)
        return
    assert negotiate(seen, terms).crypto == outcome
    answer = parse(build_answer(seen, host="192.0.2.2", port=2, session_id=1, terms=terms))
    mine = answer.audio_line
    assert mine is not None
    # The peer's protocol, its tag, our key.
    theirs = seen.media[[line.port for line in answer.media].index(2)]
    assert mine.protocol == theirs.protocol
    if outcome is None:
        assert not mine.crypto
    else:
        assert mine.crypto == (CryptoLine(theirs.crypto[0].tag, outcome.suite, outcome.local_key),)


def test_our_offers_of_srtp() -> None:
    optional = build_offer(host="192.0.2.2", port=2, session_id=1, terms=keyed("optional"))
    required = build_offer(host="192.0.2.2", port=2, session_id=1, terms=keyed("required"))
    assert "m=audio 2 RTP/AVP 0 8 101\r\n" in optional and "m=audio 2 RTP/SAVP 0 8 101\r\n" in required
    for text in (optional, required):
        line = parse(text).audio_line
        assert line is not None
        assert line.crypto == (CryptoLine(1, SUITES[0], OURS[0]), CryptoLine(2, SHORT, OURS[1]))


def test_answers_to_them() -> None:
    required = keyed("required")
    assert negotiate(offer(secure(crypto(2, SHORT))), required, offered=True).crypto == Crypto(SHORT, OURS[1], THEIRS)
    with pytest.raises(NoCommonCodec, match="no SRTP key"):
        negotiate(offer(secure(crypto(2))), required, offered=True)  # the tag of our other line
    with pytest.raises(NoCommonCodec, match="SRTP is required"):
        negotiate(offer(audio()), required, offered=True)
    assert negotiate(offer(audio()), keyed("optional"), offered=True).crypto is None


def test_both_sides_come_to_the_same() -> None:
    caller = Terms(srtp="required", keys=sdes.new_keys())
    callee = Terms(srtp="optional", keys=sdes.new_keys())
    invite = parse(build_offer(host="192.0.2.1", port=4, session_id=1, terms=caller))
    answer = parse(build_answer(invite, host="192.0.2.2", port=2, session_id=1, terms=callee))
    ours, theirs = negotiate(answer, caller, offered=True).crypto, negotiate(invite, callee).crypto
    assert ours is not None and theirs is not None and ours.suite == theirs.suite
    assert (ours.local_key, ours.remote_key) == (theirs.remote_key, theirs.local_key)
    assert negotiate(invite, with_keys_of(Terms(srtp="optional", keys=OURS), answer)).crypto == theirs


def test_a_description_with_another_address() -> None:
    line = offer(secure(crypto(7), "a=rtpmap:97 telephone-event/8000", formats="0 97")).audio_line
    assert line is not None
    again = parse(restate(line, host="192.0.2.8", port=6, payload_type=8, direction="sendonly"))
    agreed = negotiate(again, keyed("required"))
    assert (agreed.host, agreed.port, agreed.codec, agreed.telephone_event) == ("192.0.2.8", 6, "PCMA", 97)
    assert agreed.crypto == AGREED and not agreed.send


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "1",
        "1 AES_CM_128_HMAC_SHA1_80",
        "x AES_CM_128_HMAC_SHA1_80 inline:{}",
        "1234567890 AES_CM_128_HMAC_SHA1_80 inline:{}",
        "1 AES_256_CM_HMAC_SHA1_80 inline:{}",
        "1 AES_CM_128_HMAC_SHA1_80 {}",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}x",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}AAAA",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|1:4",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|2^20|1:4",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|2^49",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|0",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|2^",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{0}|2^20|1:4;inline:{0}|2^20|2:4",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{} KDR=1",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{} UNENCRYPTED_SRTP",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{} UNAUTHENTICATED_SRTP",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{} FEC_ORDER=SRTP_FEC",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{} WSH=64 NEW=1",
    ],
)
def test_key_lines_that_cannot_be_met(argument: str) -> None:
    assert sdes.parse(argument.format(crypto().rpartition(":")[2])) is None


@pytest.mark.parametrize(
    "argument",
    [
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}",
        "1  aes_cm_128_hmac_sha1_80  INLINE:{}|2^48",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{}|1048576 WSH=128",
        "1 AES_CM_128_HMAC_SHA1_80 inline:{} -NEW=1 -X",
    ],
)
def test_key_lines_that_can(argument: str) -> None:
    assert sdes.parse(argument.format(crypto().rpartition(":")[2])) == CryptoLine(1, SUITES[0], THEIRS)


def test_key_lines_are_bounded() -> None:
    line = offer(secure(*(crypto(tag) for tag in range(1, 500)))).audio_line
    assert line is not None and len(line.crypto) == sdes.MAX_LINES
    assert sdes.parse("1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 60_000) is None
    assert sdes.parse("1 AES_CM_128_HMAC_SHA1_80 inline:" + "|" * 60_000) is None


def test_keys_are_shown_by_no_repr() -> None:
    seen = offer(secure(crypto()))
    shown = repr([seen, negotiate(seen, keyed("required")), keyed("required")])
    assert repr(THEIRS) not in shown and repr(OURS[1]) not in shown and "inline" not in shown
    key = crypto().rpartition(":")[2]
    text = build_offer(host="192.0.2.2", port=2, session_id=1, terms=keyed("required")) + crypto()
    for message in (Answer(call=1, sdp=text), Answered(call=1, sdp=text, sip_call_id="x")):
        assert key in text and key not in repr(message) and repr(message).count("inline:…\\r\\n") == 2


def test_terms_with_too_few_keys() -> None:
    for keys in ((), OURS[:1], (b"short", OURS[0])):
        with pytest.raises(ValueError, match="SRTP takes 2 keys of 30 bytes"):
            Terms(srtp="optional", keys=keys)
    first, second = sdes.new_keys()
    assert len(first) == len(second) == 30 and first != second


def test_random_damage_never_raises_anything_but_value_error() -> None:
    import random

    chance = random.Random(7)
    protected = build_offer(host="192.0.2.1", port=2, session_id=1, terms=keyed("required"))
    for _ in range(3000):
        text = list(chance.choice([CARRIER, protected]))
        for _ in range(chance.randrange(1, 6)):
            text[chance.randrange(len(text))] = chr(chance.choice([10, 13, 32, 48, 61, 97, 300, 0]))
        try:
            seen = parse("".join(text))
            negotiate(seen, keyed("optional"))
            parse(build_answer(seen, host="192.0.2.2", port=2, session_id=1, terms=keyed("optional")))
        except ValueError:
            pass
