"""Reading SIP messages: forgiving, bounded."""

import random

import pytest

from sipagent.sip import message
from sipagent.sip.message import (
    MAX_HEADERS,
    MAX_KEPT,
    MAX_VALUE,
    final_headers,
    invite_headers,
    parse,
    parse_address,
    sdp_of,
    seconds,
)

INVITE = (
    "INVITE sip:+4930123@203.0.113.5:5060;transport=udp SIP/2.0\r\n"
    "v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n"
    'f: "Ann, \\"the\\" <boss>" <sip:ann%20b@example.com:5070;user=phone>;tag=9\r\n'
    "t: <sip:+4930123@203.0.113.5>\r\n"
    "i: abc@192.0.2.1\r\n"
    "CSEQ: 1 INVITE\r\n"
    "X-Campaign: spring\r\n"
    "x-campaign: late\r\n"
    "P-Asserted-Identity: <sip:+1555@carrier.example>\r\n"
    "P-Asserted-Identity: <tel:+1555>\r\n"
    "Subject: a folded\r\n"
    "  subject\r\n"
    "\tline\r\n"
    "Authorization: Digest secret\r\n"
    "b: <sip:boss@example.com>\r\n"
    "c: application/sdp\r\n"
    "l: 5\r\n"
    "\r\n"
    "v=0\r\n"
)


def test_an_invite_with_compact_and_folded_headers() -> None:
    message = parse(INVITE)
    assert message.request_uri == "sip:+4930123@203.0.113.5:5060;transport=udp"
    assert message.status == 0
    assert message.get("Call-ID") == "abc@192.0.2.1" == message.get("call-id")
    assert message.get("cseq") == "1 INVITE"
    assert message.get("subject") == "a folded subject line"
    assert message.get("absent") == ""
    assert len(message.all("p-asserted-identity")) == 2
    assert sdp_of(message) == "v=0\r\n"


def test_bare_line_feeds() -> None:
    message = parse(INVITE.replace("\r\n", "\n"))
    assert message.get("call-id") == "abc@192.0.2.1" and message.body == "v=0\n"


def test_headers_that_are_not_sips_own_are_kept() -> None:
    assert invite_headers(parse(INVITE)) == {
        "X-Campaign": "spring, late",
        "P-Asserted-Identity": "<sip:+1555@carrier.example>, <tel:+1555>",
        "Referred-By": "<sip:boss@example.com>",
        "Subject": "a folded subject line",
    }


def test_headers_of_an_end() -> None:
    busy = parse(
        "SIP/2.0 486 Busy Here\r\nRetry-After: 5 (soon)\r\nReason: Q.850;cause=17\r\nContact: <sip:x@y>\r\n\r\n"
    )
    assert busy.status == 486 and busy.request_uri == ""
    assert final_headers(busy) == {"Retry-After": "5 (soon)", "Reason": "Q.850;cause=17"}
    moved = parse("SIP/2.0 302 Moved\r\nm: <sip:x@y>\r\n\r\n")
    assert final_headers(moved) == {"Contact": "<sip:x@y>"}


@pytest.mark.parametrize(
    ("value", "user", "host", "port", "display"),
    [
        ("<sip:ann@example.com>", "ann", "example.com", 0, ""),
        ("sip:ann@example.com;tag=1", "ann", "example.com", 0, ""),
        ('"Ann" <sip:ann@example.com:5070;user=phone>;tag=1', "ann", "example.com", 5070, "Ann"),
        ("Ann B <sips:ann:secret@[2001:db8::1]:5061>", "ann", "2001:db8::1", 5061, "Ann B"),
        ("<sip:+49301;phone-context=x@example.com>", "+49301", "example.com", 0, ""),
        ("<sip:%2B4930@example.com>", "+4930", "example.com", 0, ""),
        ("<tel:+49-30-1;phone-context=de>", "+49-30-1", "", 0, ""),
        ("<sip:example.com>", "", "example.com", 0, ""),
        ('"a <b>" <sip:c@d>', "c", "d", 0, "a <b>"),
        ('"never closed <sip:c@d>', "c", "d", 0, '"never closed'),
        ("<sip:c@d", "c", "d", 0, ""),
        ("<sip:a@b@c>", "a@b", "c", 0, ""),
        ("<sip:c@d?Subject=x>", "c", "d", 0, ""),
        ("<sip:c@d:99999999>", "c", "", 0, ""),
        ("<mailto:c@d>", "", "", 0, ""),
        ("", "", "", 0, ""),
        (";;;", "", "", 0, ""),
    ],
)
def test_addresses(value: str, user: str, host: str, port: int, display: str) -> None:
    address = parse_address(value)
    assert (address.user, address.host, address.port, address.display) == (user, host, port, display)


def test_parameters_belong_where_they_stand() -> None:
    inside = parse_address("<sip:a@b;transport=tcp;lr>;TAG=1")
    assert inside.uri_params == {"transport": "tcp", "lr": ""} and inside.params == {"tag": "1"}
    assert parse_address("sip:a@b;tag=1").params == {"tag": "1"}


def test_sdp_inside_a_multipart_body() -> None:
    message = parse(
        "INVITE sip:a@b SIP/2.0\r\nContent-Type: multipart/mixed;boundary=xx\r\n\r\n"
        "--xx\r\nContent-Type: application/isup\r\n\r\nbinary\r\n"
        "--xx\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--xx--\r\n"
    )
    assert sdp_of(message).startswith("v=0")
    assert sdp_of(parse("INVITE sip:a@b SIP/2.0\r\nContent-Type: multipart/mixed\r\n\r\nx")) == ""
    assert sdp_of(parse("INVITE sip:a@b SIP/2.0\r\nContent-Type: text/plain\r\n\r\nv=0")) == ""
    assert sdp_of(parse("INVITE sip:a@b SIP/2.0\r\n\r\n")) == ""


@pytest.mark.parametrize(
    ("value", "number"), [("30", 30), (" 30 (busy)", 30), ("", 0), ("soon", 0), ("-5", 0), ("999999999", 86400)]
)
def test_seconds(value: str, number: int) -> None:
    assert seconds(value) == number


def test_bounds() -> None:
    many = parse("INVITE sip:a@b SIP/2.0\r\n" + "".join(f"X-{n}: {n}\r\n" for n in range(5000)) + "\r\n")
    assert len(many.headers) == MAX_HEADERS and len(invite_headers(many)) == MAX_KEPT
    crowd = parse(
        "INVITE sip:a@b SIP/2.0\r\n" + "".join(f"X-{n}: {n}\r\n" for n in range(200)) + "Diversion: <sip:c@d>\r\n\r\n"
    )
    assert invite_headers(crowd)["Diversion"] == "<sip:c@d>"  # who calls is not pushed out
    long = parse("INVITE sip:a@b SIP/2.0\r\nX-L: " + "x" * 60000 + "\r\nX-L: y\r\n\r\n")
    assert len(invite_headers(long)["X-L"]) == MAX_VALUE
    assert len(parse_address("<sip:a@b;" + ";".join(f"p{n}=1" for n in range(1000)) + ">").uri_params) == MAX_KEPT


def test_rubbish_is_survived() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        text = list(INVITE)
        for _ in range(chance.randrange(1, 30)):
            text[chance.randrange(len(text))] = chr(chance.choice([10, 13, 34, 58, 59, 60, 62, 64, 92, 0, 300]))
        message = parse("".join(text))
        invite_headers(message)
        sdp_of(message)
        parse_address(message.get("from"))
    assert parse("").start_line == "" and parse("\r\n\r\n").headers == ()


def test_the_dialog_that_a_replaces_names() -> None:
    assert message.replaced_dialog("a@b ;from-tag=1;to-tag=2") == ("a@b", "2", "1", False)
    assert message.replaced_dialog("a@b;to-tag=2;from-tag=1;early-only") == ("a@b", "2", "1", True)
    assert message.replaced_dialog("a@b;to-tag=2") is None
    assert message.replaced_dialog("") is None


@pytest.mark.parametrize(
    ("value", "uri", "replaces"),
    [
        ("<sip:bob@b.example;user=phone>;x=1", "sip:bob@b.example;user=phone", ""),
        ("sip:bob@b.example", "sip:bob@b.example", ""),
        (
            '"Bob" <sip:bob@b.example?Subject=hi&replaces=a%40b%3Bto-tag%3D1>',
            "sip:bob@b.example",
            "a@b;to-tag=1",
        ),
        ("", "", ""),
    ],
)
def test_what_a_refer_to_asks_for(value: str, uri: str, replaces: str) -> None:
    assert message.refer_to(value) == (uri, replaces)


def test_redirections_are_in_order_of_preference_and_bounded() -> None:
    text = "SIP/2.0 302 x\r\nContact: sip:c@x;q=0.1, <sip:a@x;q=0>;q=1.0\r\nm: <tel:+1555>;q=bad, <http://x>\r\n\r\n"
    assert message.redirections(message.parse(text)) == ("sip:a@x;q=0", "tel:+1555", "sip:c@x")
    many = "SIP/2.0 302 x\r\n" + "Contact: <sip:a@x>\r\n" * 50 + "\r\n"
    assert len(message.redirections(message.parse(many))) == 8


def test_a_peers_reason_without_its_words() -> None:
    headers = {"Reason": 'Q.850;cause=17;text="+4930, busy", SIP ;cause=486', "Retry-After": "30 (Ann is out)"}
    assert message.explanation(headers) == "the peer says: Q.850 cause 17, SIP cause 486, try again after 30 s"
    assert message.explanation({"Reason": "SIP;cause=200, Q.850;cause=16"}) == ""
    assert message.q850(headers) == 17 and message.q850({"reason": 'q.850 ; text="x" ; cause = 31'}) == 31
    assert [message.q850({"Reason": text}) for text in ("SIP;cause=486", "Q.850;cause=0", "XQ.850;cause=3")] == [0] * 3
    assert message.explanation({"Reason": "nonsense", "Retry-After": "x", "X-Reason": "Q.850;cause=1"}) == ""
