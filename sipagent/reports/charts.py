"""Charts as inline SVG: no script, no font, no file beside the page; colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 720, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 12, 26

Values = Sequence[float | None]


class Series(msgspec.Struct, frozen=True):
    name: str
    values: Values
    kind: str  # class of its colour: "a", "b", "c"


def bars(labels: Sequence[str], series: Sequence[Series], unit: str = "") -> str:
    """Stacked bars, one for each label."""
    totals = [sum(one.values[at] or 0 for one in series) for at in range(len(labels))]
    top = max(4.0, _nice(max(totals, default=0) or 1))  # they count things
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    marks = []
    for at, text in enumerate(labels):
        base = float(HEIGHT - _BOTTOM)
        told = ", ".join(f"{one.name} {_number(one.values[at])}{unit}" for one in series)
        parts = []
        for one in series:
            high = (one.values[at] or 0) / top * (HEIGHT - _TOP - _BOTTOM)
            base -= high
            place = (
                f'x="{_LEFT + at * slot + slot * 0.1:.1f}" y="{base:.1f}" width="{slot * 0.8:.1f}" height="{high:.1f}"'
            )
            parts.append(f'<rect class="{one.kind}" {place}/>')
        marks.append(f"<g><title>{escape(text)}: {escape(told)}</title>{''.join(parts)}</g>")
    return _chart(labels, top, unit, "".join(marks), series)


def lines(labels: Sequence[str], series: Sequence[Series], unit: str = "", top: float = 0.0) -> str:
    """A line for each series; where there is no value it is broken."""
    highest = max((value for one in series for value in one.values if value is not None), default=0)
    top = top or _nice(highest or 1)
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    marks = []
    for one in series:
        path, pen = [], "M"
        for at, value in enumerate(one.values):
            if value is None:
                pen = "M"
                continue
            x, y = _LEFT + (at + 0.5) * slot, _height(value, top)
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
            told = f"{labels[at]}: {one.name} {_number(value)}{unit}"
            marks.append(
                f'<circle class="{one.kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(told)}</title></circle>'
            )
        marks.insert(0, f'<path class="{one.kind}" d="{" ".join(path)}"/>')
    return _chart(labels, top, unit, "".join(marks), series)


def _chart(labels: Sequence[str], top: float, unit: str, marks: str, series: Sequence[Series]) -> str:
    grid = []
    for step in range(5):
        value = top * step / 4
        y = _height(value, top)
        grid.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        grid.append(f'<text class="y" x="{_LEFT - 5}" y="{y + 3:.1f}">{_number(value)}{escape(unit)}</text>')
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
    every = max(1, math.ceil(len(labels) / 10))
    for at in range(0, len(labels), every):
        grid.append(f'<text class="x" x="{_LEFT + (at + 0.5) * slot:.1f}" y="{HEIGHT - 8}">{escape(labels[at])}</text>')
    legend = "".join(f'<span class="key {one.kind}">{escape(one.name)}</span>' for one in series)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(grid)}{marks}</svg><p class="legend">{legend}</p>'


def _height(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - min(value / top, 1) * (HEIGHT - _TOP - _BOTTOM)


def _nice(highest: float) -> float:
    """The next of 1, 2, 4, 5, 8, 10, 20, ... from there up: four equal steps below it have short numbers."""
    size = float(10.0 ** math.floor(math.log10(highest)))
    return next(step * size for step in (1, 2, 4, 5, 8, 10) if step * size >= highest)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")
