"""How a call's record looks in a terminal: the call, its turns with a bar each, legs, transfers."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sipagent.core.states import Direction
from sipagent.store.records import (
    CallRecord,
    EventRecord,
    FullCall,
    LegRecord,
    ToolCallRecord,
    TransferRecord,
    TurnRecord,
)

# The parts of a turn's latency: column, word, colour.
PARTS = (
    ("jitter_buffer_ms", "line", "blue"),
    ("endpointing_ms", "wait", "yellow"),
    ("stt_ms", "hear", "green"),
    ("llm_ms", "think", "magenta"),
    ("clause_ms", "phrase", "bright_magenta"),
    ("tts_ms", "voice", "cyan"),
    ("playout_ms", "queue", "bright_red"),
    ("pacing_ms", "send", "red"),
)
BAR_WIDTH = 20
SHORT_ID = 8

_TROUBLES = ("Problem", "MediaInterrupted", "CallResumed", "AudioTrouble")


def latency_bar(parts: Mapping[str, float | None], full_ms: float) -> Text:
    """One bar, `full_ms` wide at BAR_WIDTH characters, with the figures behind it."""
    total = sum(parts.get(name) or 0.0 for name, _, _ in PARTS)
    bar = Text()
    drawn, reached = 0, 0.0
    for name, _, colour in PARTS:
        reached += parts.get(name) or 0.0
        width = max(0, round(reached / max(full_ms, 1.0) * BAR_WIDTH) - drawn)
        bar.append("█" * width, colour)
        drawn += width
    bar.append(" " * max(1, BAR_WIDTH - drawn + 1))
    bar.append(f"{total:4.0f} ms", "bold")
    for name, word, colour in PARTS:
        if (value := parts.get(name) or 0.0) >= 0.5:
            bar.append(f" {word} {value:.0f}", colour)
    return bar


def turn_lines(turn: TurnRecord, full_ms: float) -> RenderableType:
    lines: list[RenderableType] = []
    if turn.caller_text:
        intent = f"  [{turn.intent}]" if turn.intent else ""
        lines.append(Text.assemble(("  caller ", "bold"), plain(turn.caller_text), (intent, "dim")))
    if turn.total_ms is not None:
        parts = {name: getattr(turn, name) for name, _, _ in PARTS}
        lines.append(Text.assemble("    ", latency_bar(parts, full_ms)))
    if noted := _notable(turn.details):
        told = plain("    " + _told(noted))
        told.stylize("dim")
        lines.append(told)
    spoken = Text.assemble(("  agent  ", "bold cyan"), plain(turn.heard_text))
    if turn.interrupted:
        spoken.append(" ‖ interrupted, not heard:", "yellow")
        spoken.append(turn.agent_text.removeprefix(turn.heard_text), "dim")
    lines.append(spoken)
    return Group(*lines)


def _notable(details: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of the call would not expect; all of it is in the JSON."""
    noted = {name: value for name, value in details.items() if name not in ("end", "speculation", "providers")}
    trouble = [note for note in details.get("providers") or () if "failed" in note or "late" in note]
    return noted | ({"providers": trouble} if trouble else {})


def _told(details: Mapping[str, Any]) -> str:
    """How the turn came about, in one line: what each feature has to say about it."""
    return "; ".join(f"{name}: {_value(value)}" for name, value in details.items())


def _value(value: Any) -> str:
    match value:
        case Mapping():
            return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
        case list():
            return " / ".join(_value(item) for item in value)
        case bool():
            return "yes" if value else "no"
    return str(value)


def full_scale(turns: list[TurnRecord]) -> float:
    return max([turn.total_ms or 0.0 for turn in turns], default=0.0)


def call_record(record: FullCall) -> RenderableType:
    """Everything of one call."""
    call = record.call
    parts: list[RenderableType] = [_head(call)]
    scale = full_scale(record.turns)
    parts += [turn_lines(turn, scale) for turn in record.turns]
    if record.tool_calls:
        parts.append(_tool_calls(record.tool_calls))
    if record.transfers:
        parts.append(_transfers(record.transfers))
    parts += [_leg(leg) for leg in call.legs]
    problems = [
        event for event in record.events if event.type in ("Problem", "MediaInterrupted", "CallResumed", "AudioTrouble")
    ]
    for problem in problems:
        words = " ".join(f"{k} {v}" for k, v in problem.data.items() if k not in ("call_id", "leg_id", "at"))
        parts.append(Text(f"{problem.at:%H:%M:%S} {problem.type}: {words}", "yellow"))
    parts += [_quality(event) for event in record.events if event.type == "CallQuality" and event.data["final"]]
    return Group(*parts)


def _tool_calls(calls: list[ToolCallRecord]) -> RenderableType:
    table = Table("at", "tool", "", "with", "", "ms", "", box=None, header_style="dim")
    for call in calls:
        taken = f"{call.ms:.0f}" if call.ms is not None else ""
        at = f"{call.at.astimezone():%H:%M:%S.%f}"[:-3]
        told = (plain(call.arguments), str(call.status), taken, plain(call.detail))
        table.add_row(at, plain(call.name), plain(call.kind), *told)
    return table


def _transfers(steps: list[TransferRecord]) -> RenderableType:
    """One line a step."""
    table = Table("at", "transfer", "to", "step", "SIP", "", box=None, header_style="dim")
    for step in steps:
        row = (f"{step.at.astimezone():%H:%M:%S.%f}"[:-3], str(step.kind), plain(step.target), str(step.state))
        table.add_row(*row, str(step.sip_status or ""), plain(step.reason))
    return table


def _head(call: CallRecord) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("call", call.id)
    table.add_row("from → to", plain(f"{call.from_number} → {call.to_number}  ({call.direction})"))
    where = ", ".join(part for part in (call.dialplan, call.route, call.agent) if part)
    table.add_row("route", plain(where or "none"))
    table.add_row("setup", _time(call.setup_at))
    table.add_row("answered", _time(call.answered_at))
    table.add_row("ended", _time(call.ended_at))
    table.add_row("billable", f"{_billable(call):.1f} s")
    ended = f"{call.disposition or 'still up'}"
    if call.cause:
        ended += f", {call.cause}, by {call.ended_by}, SIP {call.sip_status}"
    table.add_row("outcome", ended)
    if call.detail:
        table.add_row("detail", plain(call.detail))
    return table


def _leg(leg: LegRecord) -> RenderableType:
    figures = (
        f"{leg.packets_in} in, {leg.packets_out} out, {leg.lost} lost, {leg.late} late,"
        f" {leg.concealed_ms} ms concealed, jitter {leg.jitter_ms:.1f} ms"
        if leg.packets_in is not None and leg.jitter_ms is not None
        else "no figures yet"
    )
    way = "in" if leg.direction is Direction.INBOUND else "out"
    ended = f"{leg.disposition}, {leg.cause}, by {leg.ended_by}" if leg.disposition else str(leg.state)
    where = plain(f"leg {leg.id}  {way}  {leg.remote_address}  {leg.codec or 'no codec'}  {ended}  RTP: {figures}")
    where.stylize("dim")
    return where


def _quality(event: EventRecord) -> RenderableType:
    """How good a leg's audio was over the whole call."""
    known = {name: value for name, value in event.data.items() if value is not None}
    parts = [
        f"MOS {known['mos_lq']:.2f} listening, {known['mos_cq']:.2f} in conversation"
        if "mos_lq" in known
        else "no audio",
        f"{known['lost_percent']:.1f} % lost, {known['discarded_percent']:.1f} % too late",
        f"playout delay {known['playout_delay_ms']:.0f} ms",
    ]
    if "round_trip_ms" in known:
        parts.append(f"round trip {known['round_trip_ms']:.0f} ms")
    if "level_in_dbov" in known:
        parts.append(f"speech at {known['level_in_dbov']:.0f} dBov")
    if "peer_lost_percent" in known:
        parts.append(f"the peer lost {known['peer_lost_percent']:.1f} %")
    return Text(f"quality {event.leg_id}  " + ", ".join(parts), "dim")


def plain(text: str | None) -> Text:
    """A stored value as it is: no markup in it counts, and no control character reaches the terminal."""
    return Text("".join(c for c in text or "" if unicodedata.category(c) not in ("Cc", "Cf")))


def calls_table(calls: list[CallRecord]) -> Table:
    """Narrow enough for 80 columns; the end of an id is enough to name its call."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("call", "setup", "", "from → to", "outcome", "s"):
        table.add_column(column, no_wrap=column != "from → to", justify="right" if column == "s" else "left")
    for call in calls:
        ended = f"{call.disposition}, {call.cause}" if call.disposition else str(call.state)
        table.add_row(
            call.id[-SHORT_ID:],
            f"{call.setup_at.astimezone():%m-%d %H:%M:%S}",
            "in" if call.direction is Direction.INBOUND else "out",
            plain(f"{call.from_number} → {call.to_number}"),
            ended,
            f"{_billable(call):.0f}",
        )
    return table


def _billable(call: CallRecord) -> float:
    """Seconds from answer to end (ITU: conversation time); 0 for a call that was not answered."""
    if call.answered_at is None or call.ended_at is None:
        return 0.0
    return (call.ended_at - call.answered_at).total_seconds()


def _time(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if at else "-"


def console() -> Console:
    return Console(highlight=False)
