"""Tables and the chart of speed and growth."""

import math
from collections.abc import Sequence
from pathlib import Path

from lauter.auditing.report.svg import WIDTH, Scale, draw_rule, draw_text, series_class, wrap_chart
from lauter.bench.growth import ALL
from lauter.bench.ranges import RANGES
from lauter.bench.records import Record, ResultFile
from lauter.files import write_text

CHART = Path("docs/images/growth.svg")
_COLOURS = ("#2f8f86", "#c07f12", "#c25a4e", "#5b6fb5", "#7f8c99")
_STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#7f8c99}.grid{stroke:#7f8c99;stroke-opacity:.3}"
    ".curve{fill:none;stroke-width:2}"
    + "".join(
        f".s{k}{{stroke:{colour}}}text.s{k}{{fill:{colour};stroke:none}}" for k, colour in enumerate(_COLOURS)
    )
    + "</style>"
)
"""Colours that stand on white and on black."""
Cells = dict[tuple[str, str], dict[str, float]]


def render_rates(records: Sequence[Record]) -> str:
    """Images per second of every way, operations per second beside the matrix product, and memory."""
    cells = _sort(records, "images_per_second")
    columns = (
        "images/s",
        "lowest",
        "highest",
        "10⁹ operations/s",
        "of matrix product, %",
        "peak memory, MiB",
    )
    rows = [
        [
            data,
            method,
            *(_show(found.get(f"images_per_second{end}"), 1, 0) for end in ("", "_low", "_high")),
            _show(found.get("flops_per_second"), 1e-9, 1),
            _show(found.get("of_peak"), 100, 1),
            _show(found.get("peak_mib"), 1, 0),
        ]
        for (data, method), found in cells.items()
    ]
    return _tabulate(("of", "way", *columns), rows)


def render_peaks(records: Sequence[Record]) -> str:
    """What the machine's matrix product reaches."""
    cells = _sort([record for record in records if record.data == "matrix product"], "flops_per_second")
    rows = [[method, _show(found["flops_per_second"], 1e-9, 0)] for (_, method), found in cells.items()]
    return _tabulate(("matrix product", "10⁹ operations/s"), rows)


def render_shares(records: Sequence[Record]) -> str:
    """Where the time of a stage goes."""
    cells = _sort(records, "share_student")
    rows = [
        [data, method, *(_show(found.get(f"share_{part}"), 100, 1) for part in RANGES)]
        for (data, method), found in cells.items()
    ]
    return _tabulate(("of", "way", *(f"{part.replace('_', ' ')}, %" for part in RANGES)), rows)


def render_ratios(records: Sequence[Record]) -> str:
    """One rate over another."""
    cells = _sort(records, "ratio")
    rows = [[name, data, _show(found["ratio"], 1, 2)] for (data, name), found in cells.items()]
    return _tabulate(("ratio", "of", "value"), rows)


def render_latency(records: Sequence[Record]) -> str:
    """What a call of a finished student takes."""
    cells = _sort(records, "milliseconds_1")
    names = ("milliseconds_1", "milliseconds_64", "images_per_second_64")
    rows = [
        [method, *(_show(found.get(name), 1, 0 if name.startswith("images") else 2) for name in names)]
        for (_, method), found in cells.items()
    ]
    return _tabulate(("way", "1 image, ms", "64 images, ms", "images/s of 64"), rows)


def render_growth(records: Sequence[Record]) -> str:
    """Seconds and memory by size with their exponents, and the chart where seconds were measured."""
    sized = [record for record in records if record.data != ALL]
    sizes = list(dict.fromkeys(record.data for record in sized))
    parts = list(dict.fromkeys(record.method for record in sized))
    values = {(record.method, record.data, record.metric): record.value for record in records}
    rows = []
    for title, metric, digits in (("seconds", "seconds", 2), ("added memory, MiB", "added_mib", 0)):
        for part in parts:
            cells = [_show(values.get((part, size, metric)), 1, digits) for size in sizes]
            exponent = _show(values.get((part, ALL, f"exponent_{metric}")), 1, 2)
            rows.append([f"{part}, {title}", *cells, exponent])
    if not rows:
        return ""
    picture = f"![Seconds by number of images, both on logarithmic scales.](images/{CHART.name})"
    return f"{_tabulate(('part', *sizes, 'exponent'), rows)}\n\n{picture}"


def write_growth_chart(results: Path, root: Path) -> bool:
    """Draw the chart that :func:`render_growth` shows, where growth was measured.

    Args:
        results: folder of result files.
        root: the chart's path begins here.

    Returns:
        Whether there was something to draw.
    """
    source = results / "growth.json"
    if not source.exists():
        return False
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in ResultFile.read(source).records:
        if record.metric == "seconds" and record.value > 0:
            count = float(record.data.removesuffix(" images").replace(",", ""))
            lines.setdefault(record.method, []).append((count, record.value))
    if not lines:
        return False
    write_text(root / CHART, draw_growth({name: sorted(points) for name, points in lines.items()}))
    return True


def draw_growth(lines: dict[str, list[tuple[float, float]]]) -> str:
    """Lines on logarithmic axes, as a picture that stands alone.

    Args:
        lines: (images, seconds) by part, ascending; all above 0.
    """
    height, left, right, top, bottom = 240.0, 48.0, 72.0, 12.0, 34.0
    logs = {name: [(math.log10(x), math.log10(y)) for x, y in points] for name, points in lines.items()}
    across = [x for points in logs.values() for x, _ in points]
    upward = [y for points in logs.values() for _, y in points]
    x_at = Scale(min(across), max(across), left, WIDTH - right)
    y_at = Scale(math.floor(min(upward)), math.ceil(max(upward)), height - bottom, top)
    drawn = []
    for power in range(int(y_at.low), int(y_at.high) + 1):
        drawn.append(draw_rule(left, y_at(power), WIDTH - right, y_at(power)))
        drawn.append(draw_text(left - 6, y_at(power) + 4, f"{10.0**power:g}", anchor="end"))
    for power in range(math.ceil(x_at.low - 1e-9), math.floor(x_at.high + 1e-9) + 1):
        drawn.append(draw_text(x_at(power), height - bottom + 15, f"{10**power:,}", anchor="middle"))
    drawn.append(draw_text(0, 10, "s"))
    drawn.append(draw_text(WIDTH - right, height - 4, "images", anchor="end"))
    for k, (name, points) in enumerate(logs.items()):
        path = " L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in points)
        drawn.append(f'<path class="curve {series_class(k)}" d="M{path}"/>')
        drawn.append(draw_text(WIDTH - right + 6, y_at(points[-1][1]) + 4, name, kind=series_class(k)))
    ends = {name: (points[0], points[-1]) for name, points in lines.items()}
    words = "; ".join(
        f"{name}: {low:.3g} s at {few:,.0f} images, {high:.3g} s at {many:,.0f}"
        for name, ((few, low), (many, high)) in ends.items()
    )
    chart = str(wrap_chart("Seconds by number of images", words, height, [_STYLE, *drawn]))
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _sort(records: Sequence[Record], metric: str) -> Cells:
    """Values by metric of every (data, method) that has ``metric``, in the order of the records."""
    cells: Cells = {}
    for record in records:
        cells.setdefault((record.data, record.method), {})[record.metric] = record.value
    return {key: found for key, found in cells.items() if metric in found}


def _show(value: float | None, scale: float, digits: int) -> str:
    return "—" if value is None else f"{value * scale:,.{digits}f}"


def _tabulate(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty without rows. Columns that hold a letter are text, others are numbers."""
    if not rows:
        return ""
    sides = [
        "---" if any(any(c.isalpha() for c in row[k]) for row in rows) else "---:"
        for k in range(len(heading))
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, sides, *rows))
