"""Charts as inline SVG: no script, colours from the page's style sheet, words for those who cannot see them.

What the functions return is safe to put into a page as it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lauter.auditing.report.formats import DASH, format_count, format_number, format_percent, format_range
from lauter.auditing.report.svg import (
    WIDTH,
    Scale,
    draw_box,
    draw_rule,
    draw_text,
    pick_ticks,
    series_class,
    shorten,
    wrap_chart,
)

Floats = NDArray[np.float64]
Show = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A line, and the band around it where there is one. NaN makes a gap.

    Attributes:
        name: what it shows.
        x: [E] positions, ascending.
        y: [E] values.
        low: [E] lower edge of the band.
        high: [E] upper edge of the band.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    @property
    def points(self) -> list[tuple[float, float]]:
        """The finite points."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(y)]


@dataclass(frozen=True)
class Estimate:
    """A fraction with its interval, where there is one.

    Attributes:
        name: whose value it is.
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        """The value and its interval, in percent."""
        text = format_percent(self.value)
        return (
            f"{text} ({format_range(self.low, self.high)})"
            if self.low is not None and self.high is not None
            else text
        )


def draw_lines(
    title: str,
    lines: Sequence[Line],
    show: Show = format_number,
    x_name: str = "epoch",
    mark: float | None = None,
) -> Markup:
    """Lines over epochs, each with its band where it has one.

    Args:
        title: what the chart shows.
        lines: together they have at least one finite value.
        show: writes a value of the y axis.
        x_name: what the x axis counts.
        mark: a position on the x axis to mark.
    """
    height, left, right, top, bottom = 184, 40, 12, 8, 32
    edges = [value for line in lines for row in (line.y, line.low or (), line.high or ()) for value in row]
    finite = [value for value in edges if math.isfinite(value)]
    x_values = [x for line in lines for x, _ in line.points]
    y_low, y_high = _pad_range(min(finite), max(finite))
    x_at = Scale(min(x_values), max(x_values), left, WIDTH - right)
    y_at = Scale(y_low, y_high, height - bottom, top)
    parts = []
    for tick in pick_ticks(y_low, y_high):
        parts.append(draw_rule(left, y_at(tick), WIDTH - right, y_at(tick)))
        parts.append(draw_text(left - 6, y_at(tick) + 3.5, show(tick), anchor="end"))
    for tick in pick_ticks(x_at.low, x_at.high, 5):
        if tick == round(tick):
            parts.append(draw_text(x_at(tick), height - bottom + 15, format_count(tick), anchor="middle"))
    parts.append(draw_text(WIDTH - right, height - 3, x_name, anchor="end", kind="faint"))
    if mark is not None:
        parts.append(draw_rule(x_at(mark), top, x_at(mark), height - bottom, kind="mark"))
    parts += [_draw_band(line, k, x_at, y_at) for k, line in enumerate(lines)]
    parts += [_draw_line(line, k, x_at, y_at) for k, line in enumerate(lines)]
    words = "; ".join(_describe_line(line, show, x_name) for line in lines if line.points)
    return wrap_chart(title, words, height, parts)


def _pad_range(low: float, high: float) -> tuple[float, float]:
    if 0 <= low < 0.5 * high:
        low = 0.0  # a scale that begins at zero, where that wastes little room
    pad = 0.04 * (high - low) or 0.5 * abs(high) or 1.0
    return (low if low == 0 else low - pad), high + pad


def _draw_line(line: Line, k: int, x_at: Scale, y_at: Scale) -> str:
    runs: list[list[str]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            runs[-1].append(f"{x_at(x):.1f},{y_at(y):.1f}")
        else:
            runs.append([])
    css = series_class(k)
    drawn = [f'<polyline class="line {css}" points="{" ".join(run)}"/>' for run in runs if len(run) > 1]
    if line.points:
        x, y = line.points[-1]
        drawn.append(f'<circle class="dot {css}" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="2.6"/>')
    return "".join(drawn)


def _draw_band(line: Line, k: int, x_at: Scale, y_at: Scale) -> str:
    if line.low is None or line.high is None:
        return ""
    rows = [row for row in zip(line.x, line.low, line.high, strict=True) if all(map(math.isfinite, row))]
    upper = [f"{x_at(x):.1f},{y_at(high):.1f}" for x, _, high in rows]
    lower = [f"{x_at(x):.1f},{y_at(low):.1f}" for x, low, _ in reversed(rows)]
    return f'<polygon class="band {series_class(k)}" points="{" ".join(upper + lower)}"/>' if rows else ""


def _describe_line(line: Line, show: Show, x_name: str) -> str:
    (x_first, first), (x_last, last) = line.points[0], line.points[-1]
    return f"{line.name}: {show(first)} at {x_name} {x_first:g}, {show(last)} at {x_name} {x_last:g}"


def draw_estimates(title: str, estimates: Sequence[Estimate]) -> Markup:
    """Fractions as dots with their intervals, one above the other on a common scale."""
    row, left, right, top, bottom = 30, 70, 52, 4, 22
    height = top + row * len(estimates) + bottom
    ends = [end for e in estimates for end in (e.value, e.low, e.high) if end is not None]
    spread = max(max(ends) - min(ends), 0.04)
    x_at = Scale(
        max(0.0, min(ends) - 0.15 * spread), min(1.0, max(ends) + 0.15 * spread), left, WIDTH - right
    )
    parts = []
    for tick in pick_ticks(x_at.low, x_at.high, 3):
        parts.append(draw_rule(x_at(tick), top, x_at(tick), height - bottom))
        parts.append(draw_text(x_at(tick), height - 6, f"{100 * tick:.4g}", anchor="middle"))
    for k, estimate in enumerate(estimates):
        y, css = top + row * (k + 0.5), series_class(k)
        parts.append(draw_text(0, y + 4, estimate.name, kind="strong"))
        if estimate.low is not None and estimate.high is not None:
            parts.append(draw_rule(x_at(estimate.low), y, x_at(estimate.high), y, kind=f"whisker {css}"))
        parts.append(f'<circle class="dot {css}" cx="{x_at(estimate.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(draw_text(WIDTH, y + 4, format_percent(estimate.value), anchor="end", kind="strong"))
    return wrap_chart(title, "; ".join(f"{e.name}: {e.words}" for e in estimates), height, parts)


def draw_bars(title: str, values: Mapping[str, float], kind: str = "drop") -> Markup:
    """Fractions as horizontal bars from zero, with name and value.

    Args:
        title: what the chart shows.
        values: name -> fraction, in the order of the rows.
        kind: CSS class of the bars.
    """
    row, left, right = 23, 104, 46
    height = row * len(values) + 2
    x_at = Scale(0.0, max([*values.values(), 0.01]), left, WIDTH - right)
    parts = []
    for k, (name, value) in enumerate(values.items()):
        y = row * k
        words = f"{name}: {format_percent(value)}"
        parts.append(draw_text(left - 8, y + 16, shorten(name, 16), anchor="end", kind="strong"))
        parts.append(draw_box(left, y + 5, x_at.stop - left, 14, "track"))
        parts.append(draw_box(left, y + 5, max(1.0, x_at(value) - left), 14, kind, words))
        parts.append(draw_text(WIDTH, y + 16, format_percent(value), anchor="end"))
    words = "; ".join(f"{name}: {format_percent(value)}" for name, value in values.items())
    return wrap_chart(title, words, height, parts)


def draw_heat_map(title: str, matrix: Floats, names: Sequence[str]) -> Markup:
    """A transition matrix: rows are true classes, columns given ones; rows sum to one.

    The diagonal, labels that are right, has a colour of its own, so that a rare confusion is not drowned.

    Args:
        title: what the chart shows.
        matrix: [K, K] shares in 0..1.
        names: K class names.
    """
    k = len(names)
    left, top, right = 84, 84, 2
    cell = (WIDTH - left - right) / k
    size = 11 if cell >= 12 else 0.92 * cell
    parts = [
        draw_text(left, 10, "given label", kind="faint"),
        draw_text(0, top - 8, "true class", kind="faint"),
    ]
    for j, name in enumerate(names):
        middle = cell * (j + 0.5) + 0.35 * size
        if size >= 5:
            label = shorten(name, 12)
            parts.append(f'<g font-size="{size:.1f}">')
            parts.append(draw_text(left - 6, top + middle, label, anchor="end", kind="strong own-size"))
            parts.append(
                draw_text(left + middle, top - 6, shorten(name, 11), kind="strong own-size", rotate=-90)
            )
            parts.append("</g>")
    gap = 1.0 if cell >= 8 else 0.0
    for i in range(k):
        for j in range(k):
            share = float(matrix[i, j])
            if share < 0.0005:
                continue
            opacity = 0.06 + 0.94 * min(1.0, share) ** 0.6
            x, y = left + cell * j, top + cell * i
            hint = f"true {names[i]}, given {names[j]}: {format_percent(share)}"
            kind = "keep" if i == j else "drop"
            parts.append(draw_box(x, y, cell - gap, cell - gap, kind, hint, opacity))
            if cell >= 19 and share >= 0.005:
                on = "on-dark" if opacity > 0.55 else "strong"
                at = (x + (cell - gap) / 2, y + cell / 2 + 3.2)
                parts.append(draw_text(*at, f"{100 * share:.0f}", anchor="middle", kind=f"{on} cell"))
    off_diagonal = [(float(matrix[i, j]), i, j) for i in range(k) for j in range(k) if i != j]
    words = "; ".join(
        f"true {names[i]}, given {names[j]}: {format_percent(share)}"
        for share, i, j in sorted(off_diagonal, key=lambda entry: -entry[0])[:5]
        if share > 0
    )
    return wrap_chart(title, f"Largest off the diagonal: {words or 'none'}", top + cell * k + 2, parts)


def draw_histogram(title: str, groups: Mapping[str, Floats], bins: int = 25) -> Markup:
    """Probabilities of several groups as one stacked histogram over 0..1.

    Args:
        title: what the chart shows.
        groups: CSS class (a verdict) -> probabilities; not finite ones are left out.
        bins: number of bars.
    """
    height, left, right, top, bottom = 184, 40, 12, 8, 32
    edges = np.linspace(0, 1, bins + 1)
    counts = {name: np.histogram(values[np.isfinite(values)], edges)[0] for name, values in groups.items()}
    total = np.sum(list(counts.values()), axis=0)
    x_at = Scale(0.0, 1.0, left, WIDTH - right)
    y_at = Scale(0.0, max(1.0, 1.04 * float(total.max())), height - bottom, top)
    parts = []
    for tick in pick_ticks(0.0, y_at.high):
        if tick == round(tick):
            parts.append(draw_rule(left, y_at(tick), WIDTH - right, y_at(tick)))
            parts.append(draw_text(left - 6, y_at(tick) + 3.5, format_count(tick), anchor="end"))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(draw_text(x_at(tick), height - bottom + 15, f"{100 * tick:.0f}%", anchor="middle"))
    parts.append(draw_text(WIDTH - right, height - 3, "probability", anchor="end", kind="faint"))
    floor = np.zeros(bins)
    for name, group in counts.items():
        for b in np.flatnonzero(group):
            y_top, y_bottom = y_at(floor[b] + group[b]), y_at(floor[b])
            hint = f"{name}, {format_range(edges[b], edges[b + 1])}%: {format_count(group[b])}"
            width = x_at(edges[b + 1]) - x_at(edges[b]) - 1
            parts.append(draw_box(x_at(edges[b]) + 0.5, y_top, width, y_bottom - y_top, name, hint))
        floor += group
    words = "; ".join(
        f"{name}: {format_count(group.sum())} images, median {_median_words(groups[name])}"
        for name, group in counts.items()
        if group.sum()
    )
    return wrap_chart(title, words, height, parts)


def _median_words(values: Floats) -> str:
    finite = values[np.isfinite(values)]
    return format_percent(float(np.median(finite))) if len(finite) else DASH
