"""From the record of SIP messages to what is shown of them."""

from collections.abc import Sequence

from sipagent.api.calls.types import SipMessageOut, SipMessagesPage
from sipagent.sip.pcap import Packet
from sipagent.sip.summary import summarise
from sipagent.store.records import SipMessageRecord


def sip_messages_page(records: Sequence[SipMessageRecord]) -> SipMessagesPage:
    """`records`: of one call, oldest first."""
    texts = {(record.dialog, record.seq): record.text for record in records}
    last = {record.dialog: record.seq for record in sorted(records, key=lambda record: record.seq)}
    return SipMessagesPage(
        data=[_shown(record, records[0], texts) for record in records],
        not_kept=sum(seq + 1 for seq in last.values()) - len(records),
    )


def packets(page: SipMessagesPage) -> list[Packet]:
    return [
        Packet(
            at=message.at,
            sent=message.sent,
            transport=message.transport,
            local=message.local_address,
            remote=message.remote_address,
            size=message.size,
            text=message.text,
        )
        for message in page.data
    ]


def _shown(record: SipMessageRecord, first: SipMessageRecord, texts: dict[tuple[int, int], str]) -> SipMessageOut:
    text = record.text if record.repeats is None else texts.get((record.dialog, record.repeats), "")
    summary = summarise(text)
    return SipMessageOut(
        leg_id=record.leg_id,
        dialog=record.dialog,
        seq=record.seq,
        at=record.at,
        offset_ms=(record.at - first.at).total_seconds() * 1000,
        sent=record.sent,
        transport=record.transport,
        local_address=record.local_address,
        remote_address=record.remote_address,
        size=record.size,
        repeats=record.repeats,
        method=summary.method,
        status=summary.status,
        reason=summary.reason,
        target=summary.target,
        cseq=summary.cseq,
        sdp=summary.sdp,
        notes=summary.notes,
        text=text,
    )
