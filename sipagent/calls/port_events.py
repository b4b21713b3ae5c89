"""What the media process tells of a leg's port, put on record."""

from collections.abc import Callable

import msgspec

from sipagent.core import clock
from sipagent.core.events import (
    AudioTrouble,
    CallQuality,
    DigitReceived,
    EventSink,
    MediaInterrupted,
    MediaSourceChanged,
)
from sipagent.core.ids import CallId, LegId
from sipagent.media.client import MediaPort
from sipagent.media.quality import QualityFigures


class PortEvents:
    """Takes the port's callbacks that are for the record; the others are the call's."""

    def __init__(self, port: MediaPort, events: EventSink, call_id: CallId, leg_id: LegId) -> None:
        self.digits = 0  # pressed so far, by INFO too
        self.on_digit: Callable[[str, int, bool], None] | None = None  # digit, ms, whether it came by INFO
        self.remote_media = ""  # host:port of the peer's RTP, as far as known
        self._events = events
        self._call_id = call_id
        self._leg_id = leg_id
        port.on_digit = self._heard
        port.on_source = self._source
        port.on_quality = self._quality
        port.on_trouble = self._trouble
        port.on_interrupted = self._interrupted

    def _heard(self, digit: str, duration_ms: int) -> None:
        self.digit(digit, duration_ms, by_info=False)

    def digit(self, digit: str, duration_ms: int, *, by_info: bool) -> None:
        self.digits += 1
        self._events.emit(
            DigitReceived(
                at=clock.now(), call_id=self._call_id, leg_id=self._leg_id, digit=digit, duration_ms=duration_ms
            )
        )
        if self.on_digit is not None:
            self.on_digit(digit, duration_ms, by_info)

    def _quality(self, figures: QualityFigures, final: bool) -> None:
        values = msgspec.structs.asdict(figures)
        self._events.emit(
            CallQuality(at=clock.now(), call_id=self._call_id, leg_id=self._leg_id, final=final, **values)
        )

    def _trouble(self, kind: str, active: bool, seconds: float) -> None:
        self._events.emit(
            AudioTrouble(
                at=clock.now(),
                call_id=self._call_id,
                leg_id=self._leg_id,
                kind=kind,
                active=active,
                seconds=seconds,
            )
        )

    def _source(self, host: str, port: int) -> None:
        if self.remote_media == f"{host}:{port}":
            return  # where the SDP said it would come from
        self.remote_media = f"{host}:{port}"
        self._events.emit(
            MediaSourceChanged(
                at=clock.now(), call_id=self._call_id, leg_id=self._leg_id, remote_media=self.remote_media
            )
        )

    def _interrupted(self, gap_ms: float) -> None:
        self._events.emit(MediaInterrupted(at=clock.now(), call_id=self._call_id, leg_id=self._leg_id, gap_ms=gap_ms))
