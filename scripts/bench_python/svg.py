"""A picture of panels side by side, with logarithmic axes that all of them share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLORS = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700")
WIDTH, HEIGHT = 190, 260  # of a panel's area
LEFT, TOP, BETWEEN, BELOW = 60, 64, 24, 84
STYLE = (
    "<style>text{fill:#24292f}.title{font-weight:bold}.grid{stroke:#8888;stroke-width:.5}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>\n"
)


@dataclass(frozen=True)
class Series:
    """A line: points (x, y, whether y was extrapolated, which is drawn hollow)."""

    name: str
    points: list[tuple[float, float, bool]]


@dataclass(frozen=True)
class Panel:
    title: str
    series: list[Series]


@dataclass(frozen=True)
class LogAxis:
    """From the power of `base` below all values, at `at_low`, to the one above, at `at_high`."""

    low: float
    high: float
    base: float
    at_low: float
    at_high: float

    @staticmethod
    def around(values: Sequence[float], base: float, at_low: float, at_high: float) -> LogAxis:
        low = math.floor(math.log(min(values), base) + 1e-9)
        high = max(math.ceil(math.log(max(values), base) - 1e-9), low + 1)
        return LogAxis(base**low, base**high, base, at_low, at_high)

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.at_low + share * (self.at_high - self.at_low)

    def ticks(self) -> list[float]:
        count = round(math.log(self.high / self.low, self.base))
        return [self.low * self.base**i for i in range(count + 1)]


def log_log_panels(title: str, panels: Sequence[Panel]) -> str:
    points = [point for panel in panels for series in panel.series for point in series.points]
    x = LogAxis.around([point[0] for point in points], 4, 0, WIDTH)
    y = LogAxis.around([point[1] for point in points], 10, TOP + HEIGHT, TOP)
    names = list(dict.fromkeys(series.name for panel in panels for series in panel.series))
    colors = dict(zip(names, COLORS, strict=False))
    width = LEFT + len(panels) * (WIDTH + BETWEEN)
    height = TOP + HEIGHT + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">\n',
        STYLE,
        _text(LEFT, 22, title, "start", 'class="title"'),
    ]
    for tick in y.ticks():
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:g}", "end"))
    for i, panel in enumerate(panels):
        parts.append(f'<g transform="translate({LEFT + i * (WIDTH + BETWEEN)} 0)">\n')
        parts.append(_text(WIDTH / 2, TOP - 14, panel.title, "middle"))
        parts += [_line(0, y(tick), WIDTH, y(tick), 'class="grid"') for tick in y.ticks()]
        for tick in x.ticks():
            parts.append(_line(x(tick), TOP, x(tick), TOP + HEIGHT, 'class="grid"'))
            label = f"{tick / 1024:g}k" if tick >= 1024 else f"{tick:g}"
            parts.append(_text(x(tick), TOP + HEIGHT + 18, label, "middle"))
        parts += [_curve(series, x, y, colors[series.name]) for series in panel.series]
        parts.append("</g>\n")
    at = float(LEFT)
    for name in names:
        parts.append(_marker(at, height - 24, colors[name], hollow=False))
        parts.append(_text(at + 10, height - 20, name, "start"))
        at += 40 + 7.2 * len(name)
    if any(point[2] for point in points):
        parts.append(_text(at, height - 20, "hollow: from a shorter sequence", "start"))
    return "".join([*parts, "</svg>\n"])


def _curve(series: Series, x: LogAxis, y: LogAxis, color: str) -> str:
    points = sorted(series.points)
    parts = []
    for before, after in zip(points, points[1:], strict=False):
        style = f'stroke="{color}" stroke-width="2"'
        if after[2]:
            style += ' stroke-dasharray="5 4"'
        parts.append(_line(x(before[0]), y(before[1]), x(after[0]), y(after[1]), style))
    parts += [_marker(x(px), y(py), color, hollow) for px, py, hollow in points]
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>\n'


def _marker(x: float, y: float, color: str, hollow: bool) -> str:
    fill = "none" if hollow else color
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{color}"/>\n'


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>\n'
