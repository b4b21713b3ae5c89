"""The lane's memory of messages: whose they are, which repeat, when they leave, and that it stays small."""

from sipagent.sip import message_log
from sipagent.sip.message_log import HEAD, LINGER_NS, PATIENCE_NS, TAIL, MessageLog
from sipagent.sip.protocol import SipMessages

S = 1_000_000_000


def line(text: str, *, sent: bool = False, peer: str = "192.0.2.1:5060", transport: str = "UDP") -> str:
    way = (
        f"TX {len(text)} bytes Request msg X/cseq=1 (tdta0x1) to"
        if sent
        else f"RX {len(text)} bytes Request msg X from"
    )
    return f"{way} {transport} {peer}:\n{text}\n--end msg--"


def invite(call_id: str, more: str = "") -> str:
    return f"INVITE sip:100@192.0.2.9 SIP/2.0\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n{more}\r\n"


def info(call_id: str, number: int) -> str:
    return f"INFO sip:100@192.0.2.9 SIP/2.0\r\ni:{call_id}\r\nCSeq: {number} INFO\r\n\r\n"


def log() -> MessageLog:
    return MessageLog(lambda host: "192.0.2.9:5060")


def due(log: MessageLog, now: int) -> list[SipMessages]:
    return list(log.due(now))


def test_messages_wait_for_each_other_and_leave_together() -> None:
    seen = log()
    seen.take(line(invite("a")), 0)
    seen.bind("a", 7)
    seen.take(line("SIP/2.0 100 Trying\r\nCall-ID: a\r\n\r\n", sent=True, transport="TCP"), 1 * S)
    assert due(seen, PATIENCE_NS - 1) == []
    (batch,) = due(seen, PATIENCE_NS + S)
    first, second = batch.messages
    assert batch.call == 7
    assert (first.seq, first.at, first.sent, first.transport) == (0, 0, False, "UDP")
    assert (first.local, first.remote, first.size) == ("192.0.2.9:5060", "192.0.2.1:5060", len(invite("a")))
    assert first.text == invite("a")
    assert (second.seq, second.sent, second.transport) == (1, True, "TCP")
    assert due(seen, 60 * S) == []


def test_what_is_no_call_is_passed_over() -> None:
    seen = log()
    seen.take(line("REGISTER sip:x SIP/2.0\r\nCall-ID: r\r\n\r\n"), 0)
    seen.take(line(info("unknown", 1)), 0)
    seen.take("some other line of PJSIP's log", 0)
    seen.take(line("INVITE sip:x SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n"), 0)  # without Call-ID
    for call_id in ("r", "unknown", ""):
        seen.bind(call_id, 1)
    seen.take(line(invite("refused")), 0)  # by PJSIP: it becomes no call
    assert due(seen, 10 * S) == []
    assert due(seen, LINGER_NS + 2 * S) == []
    seen.bind("refused", 2)  # forgotten by now
    assert due(seen, LINGER_NS + 60 * S) == []


def test_a_call_id_in_a_body_is_not_the_messages() -> None:
    seen = log()
    seen.take(line(invite("a")), 0)
    seen.bind("a", 1)
    seen.take(line("NOTIFY sip:x SIP/2.0\r\ni: other\r\n\r\nSIP/2.0 200 OK\r\nCall-ID: a\r\n\r\n"), 1)
    (batch,) = due(seen, 5 * S)
    assert len(batch.messages) == 1


def test_a_repetition_refers_to_the_first_and_direction_counts() -> None:
    seen = log()
    for now in (0, 1, 3):
        seen.take(line(invite("a")), now)
    seen.take(line(invite("a"), sent=True), 4)
    seen.take(line(invite("a", "X-Other: 1\r\n")), 5)
    seen.bind("a", 1)
    (batch,) = due(seen, 5 * S)
    assert [message.repeats for message in batch.messages] == [None, 0, 0, None, None]
    assert [bool(message.text) for message in batch.messages] == [True, False, False, True, True]


def test_of_a_long_dialog_the_middle_is_lost_and_the_end_is_there() -> None:
    seen = log()
    seen.take(line(invite("a")), 0)
    seen.bind("a", 1)
    told = []
    for number in range(1, 1000):
        seen.take(line(info("a", number)), number * S)
        told += [message for batch in due(seen, number * S) for message in batch.messages]
    assert [message.seq for message in told] == list(range(HEAD))
    seen.end(1, 1000 * S)
    (batch,) = due(seen, 1001 * S)
    assert [message.seq for message in batch.messages] == list(range(1000 - TAIL, 1000))
    for number in range(1000, 2000):  # a peer that does not stop
        seen.take(line(info("a", number)), 1002 * S)
    (batch,) = due(seen, 1010 * S)
    assert len(batch.messages) == TAIL
    assert due(seen, 1050 * S) == [] and not seen._dialogs


def test_a_flood_of_calls_that_become_none_stays_small_and_costs_no_real_one() -> None:
    seen = log()
    seen.take(line(invite("real")), 0)
    seen.bind("real", 1)
    for number in range(3 * message_log.DIALOGS):
        seen.take(line(invite(f"flood{number}", "X: " + "x" * 3000 + "\r\n")), 1)
    assert len(seen._dialogs) <= message_log.DIALOGS
    assert seen._bytes <= message_log.TEXT_BYTES
    seen.take(line(info("real", 2)), 2)
    (batch,) = due(seen, 5 * S)
    assert batch.call == 1
    list(seen.due(40 * S))
    assert seen._bytes == 0


def test_at_the_end_everything_is_told() -> None:
    seen = log()
    for call_id, handle in (("a", 1), ("b", -1)):
        seen.take(line(invite(call_id)), 0)
        seen.bind(call_id, handle)
    assert {batch.call for batch in seen.due(0, everything=True)} == {1, -1}


def test_a_call_to_ourselves_is_two_dialogs_with_one_call_id() -> None:
    seen = log()
    seen.take(line(invite("a"), sent=True), 0)
    seen.bind("a", -1)
    seen.take(line(invite("a")), 0)
    seen.bind("a", 1)
    assert [(batch.call, len(batch.messages)) for batch in due(seen, 5 * S)] == [(-1, 2), (1, 2)]


def test_secrets_are_masked_when_a_message_leaves() -> None:
    seen = log()
    seen.take(line(invite("a", 'Authorization: Digest response="6629fae4"\r\n')), 0)
    seen.bind("a", 1)
    (batch,) = due(seen, 5 * S)
    assert "6629fae4" not in batch.messages[0].text
    assert "6629" not in repr(batch)
