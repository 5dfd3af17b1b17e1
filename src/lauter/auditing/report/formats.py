"""How numbers are written in the report."""

from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"


def format_count(value: float) -> str:
    """12345 -> 12,345."""
    return f"{value:,.0f}"


def format_percent(value: float) -> str:
    """A fraction in percent: 0.8431 -> 84.3%."""
    return f"{100 * value:.1f}%"


def format_tick_percent(value: float) -> str:
    """A fraction in percent beside an axis, without needless digits: 0.85 -> 85%, 0.875 -> 87.5%."""
    return f"{100 * value:.4g}%"


def format_short_percent(value: float) -> str:
    """A probability in whole percent; one that is not quite 0 or 1 is not rounded to it: <1%, >99%."""
    if 0 < value < 0.01:
        return "<1%"
    return ">99%" if 0.99 < value < 1 else f"{100 * value:.0f}%"


def format_number(value: float) -> str:
    """Three significant digits, without an exponent between 0.001 and a million."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.2e}"


def format_range(low: float, high: float) -> str:
    """Ends of an interval of fractions, in percent: 83.1-85.4 with an en dash."""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def format_seconds(seconds: float) -> str:
    """A duration as people say it: 12.4 s, 3 min 20 s, 1 h 12 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_scaled(value: float, unit: str = "") -> str:
    """With an SI prefix: 1.2e12 and FLOP -> 1.2 TFLOP; 11.2e6 alone -> 11.2M."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{' ' if unit else ''}{prefix}{unit}"
    return f"{value:.3g} {unit}".strip()


def read_interval(value: Any) -> tuple[float, float | None, float | None]:
    """Value, low and high of a metric, which is a number or ``{"value", "low", "high"}``."""
    if isinstance(value, Mapping):
        return float(value["value"]), value.get("low"), value.get("high")
    return float(value), None, None
