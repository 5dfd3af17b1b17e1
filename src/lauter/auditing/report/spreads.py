"""Charts of how values spread over images: histograms over given bins, and medians row by row.

What the functions return is safe to put into a page as it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lauter.auditing.report.formats import DASH, format_count, format_number
from lauter.auditing.report.svg import (
    WIDTH,
    Scale,
    draw_box,
    draw_rule,
    draw_text,
    pick_ticks,
    shorten,
    wrap_chart,
)

Show = Callable[[float], str]


@dataclass(frozen=True)
class Spread:
    """A median, and the ends of the middle 80% of the values around it.

    Attributes:
        name: whose values they are.
        low: the 10% quantile.
        middle: the median.
        high: the 90% quantile.
    """

    name: str
    low: float
    middle: float
    high: float

    def describe(self, show: Show) -> str:
        """In words: median 12.3, the middle 80% 9.1 to 17."""
        return f"median {show(self.middle)}, the middle 80% {show(self.low)} to {show(self.high)}"


def draw_distribution(
    title: str,
    edges: Sequence[float],
    counts: Sequence[int],
    spread: Spread,
    *,
    show: Show = format_number,
    x_name: str = "",
    octaves: bool = False,
    mark: float | None = None,
) -> Markup:
    """A histogram over given bins, with the median and the middle 80% above it.

    Bins at both ends that hold nothing are left out, but for one.

    Args:
        title: what the chart shows.
        edges: [bins + 1], ascending; positive for ``octaves``.
        counts: [bins] images.
        spread: of the values in the bins.
        show: writes a value.
        x_name: what the x axis shows.
        octaves: whether equal ratios are equally far apart on the x axis.
        mark: a value to mark on the x axis.
    """
    height, left, right, top, bottom = 196, 40, 12, 26, 32
    filled = [b for b, count in enumerate(counts) if count] or [0, len(counts) - 1]
    first, last = max(0, filled[0] - 1), min(len(counts) - 1, filled[-1] + 1)
    low, high = edges[first], edges[last + 1]
    place: Callable[[float], float] = math.log2 if octaves else float
    axis = Scale(place(low), place(high), left, WIDTH - right)

    def x_at(value: float) -> float:
        return axis(place(min(max(value, low), high)))

    y_at = Scale(0.0, max(1.0, 1.04 * max(counts)), height - bottom, top)
    parts = []
    for tick in pick_ticks(0.0, y_at.high, 4):
        if tick == round(tick):
            parts.append(draw_rule(left, y_at(tick), WIDTH - right, y_at(tick)))
            parts.append(draw_text(left - 6, y_at(tick) + 3.5, format_count(tick), anchor="end"))
    for tick in _pick_octaves(low, high) if octaves else pick_ticks(low, high, 5):
        parts.append(draw_text(x_at(tick), height - bottom + 15, show(tick), anchor="middle"))
    parts.append(draw_text(WIDTH - right, height - 3, x_name, anchor="end", kind="faint"))
    for b in range(first, last + 1):
        if counts[b]:
            x, y = x_at(edges[b]), y_at(counts[b])
            hint = f"{show(edges[b])}{DASH}{show(edges[b + 1])}: {format_count(counts[b])} images"
            width = max(1.0, x_at(edges[b + 1]) - x - 1)
            parts.append(draw_box(x + 0.5, y, width, y_at(0.0) - y, "bar", hint))
    if mark is not None and low < mark < high:
        parts.append(draw_rule(x_at(mark), top, x_at(mark), height - bottom, kind="mark"))
    parts.append(_draw_spread(spread, x_at, y=13.0, kind="s1"))
    return wrap_chart(title, f"{spread.name}: {spread.describe(show)}", height, parts)


def _pick_octaves(low: float, high: float) -> list[float]:
    """Powers of two within low..high, every second or third where they are many; round numbers if few."""
    if high < 4 * low:
        return pick_ticks(low, high, 4)
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 7))
    return [2.0**k for k in range(first, last + 1) if k % step == 0]


def _draw_spread(spread: Spread, x_at: Callable[[float], float], y: float, kind: str) -> str:
    whisker = draw_rule(x_at(spread.low), y, x_at(spread.high), y, kind=f"whisker {kind}")
    return f'{whisker}<circle class="dot {kind}" cx="{x_at(spread.middle):.1f}" cy="{y:.1f}" r="4.5"/>'


def draw_spreads(
    title: str, spreads: Sequence[Spread], *, show: Show = format_number, mark: float | None = None
) -> Markup:
    """Medians as dots with the middle 80% around them, one above the other on a common scale.

    Args:
        title: what the chart shows.
        spreads: the rows, at least one.
        show: writes a value.
        mark: a value to mark on the scale, which then reaches it.
    """
    row, left, right, top, bottom = 23, 104, 46, 2, 22
    height = top + row * len(spreads) + bottom
    ends = [end for spread in spreads for end in (spread.low, spread.high)]
    if mark is not None:
        ends.append(mark)
    low, high = min(ends), max(ends)
    pad = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    x_at = Scale(max(0.0, low - pad) if low >= 0 else low - pad, high + pad, left, WIDTH - right)
    parts = []
    for tick in pick_ticks(x_at.low, x_at.high, 4):
        parts.append(draw_rule(x_at(tick), top, x_at(tick), height - bottom))
        parts.append(draw_text(x_at(tick), height - 6, show(tick), anchor="middle"))
    if mark is not None:
        parts.append(draw_rule(x_at(mark), top, x_at(mark), height - bottom, kind="mark"))
    for k, spread in enumerate(spreads):
        y = top + row * (k + 0.5)
        parts.append(draw_text(left - 8, y + 4, shorten(spread.name, 14), anchor="end", kind="strong"))
        parts.append(_draw_spread(spread, x_at, y, kind="s0"))
        parts.append(draw_text(WIDTH, y + 4, show(spread.middle), anchor="end"))
    words = "; ".join(f"{spread.name}: {spread.describe(show)}" for spread in spreads)
    return wrap_chart(title, words, height, parts)
