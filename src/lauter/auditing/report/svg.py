"""The few parts that the charts are drawn from. All text is escaped here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 340
"""Width of every chart in its own units: about a phone's, so that text keeps its size there."""
NUM_SERIES = 6
"""Colours in the style sheet; further series use them again with dashes."""


@dataclass(frozen=True)
class Scale:
    """Maps values low..high to positions start..stop."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Position of a value."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.stop - self.start)


def wrap_chart(title: str, description: str, height: float, parts: Sequence[str]) -> Markup:
    """Put the parts into an ``<svg>`` that is announced as one image, with its title and description."""
    head = (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    )
    return Markup(head + "".join(parts) + "</svg>")


def draw_text(x: float, y: float, text: str, anchor: str = "start", kind: str = "", rotate: int = 0) -> str:
    """One line of text; ``kind`` is its class in the style sheet."""
    turn = f' transform="rotate({rotate} {x:.1f} {y:.1f})"' if rotate else ""
    css = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}{turn}>{escape(text)}</text>'


def draw_rule(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def draw_box(
    x: float, y: float, width: float, height: float, kind: str, hint: str = "", opacity: float | None = None
) -> str:
    """A filled rectangle, with a hint shown when pointed at."""
    fade = "" if opacity is None else f' fill-opacity="{opacity:.3f}"'
    box = f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{fade}'
    return f"{box}><title>{escape(hint)}</title></rect>" if hint else f"{box}/>"


def series_class(k: int) -> str:
    """CSS classes of the k-th series."""
    return f"s{k % NUM_SERIES}" + (" dashed" if k >= NUM_SERIES else "")


def shorten(text: str, length: int) -> str:
    """Cut a text to ``length`` characters, with an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def pick_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2, 2.5 or 5 times a power of ten apart) within low..high.

    >>> pick_ticks(0.0, 1.04)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]
