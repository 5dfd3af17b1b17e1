"""Student and teacher at the end of distillation: direction, length and hash bits of their features."""

from collections.abc import Callable, Mapping
from typing import Any

from lauter.auditing.report.charts import Line, draw_lines
from lauter.auditing.report.content import ReportContent
from lauter.auditing.report.formats import (
    format_count,
    format_number,
    format_percent,
    format_tick_percent,
)
from lauter.auditing.report.spreads import Spread, draw_distribution, draw_spreads
from lauter.errors import DataError

View = dict[str, Any]

MAX_CLASSES = 24
"""Classes that are drawn, those farthest from the teacher; further ones are listed."""


def build_comparison(content: ReportContent) -> View | None:
    """Charts of the finished student beside its teacher; None where the run left no comparison.

    Raises:
        DataError: the comparison is of other classes than the report.
    """
    found = content.comparison
    if not found:
        return None
    figures = [_build_angles(found["angle"]), _build_ratios(found["norm_ratio"])]
    if found["classes"]:
        figures += _build_classes(found["classes"], content.class_names)
    if found["bits"] is not None:
        figures.append(_build_bits(found["bits"]))
    return {
        "images": format_count(found["images"]),
        "left_out": format_count(found["left_out"]) if found["left_out"] else None,
        "figures": figures,
    }


def _build_figure(title: str, svg: str, **parts: Any) -> View:
    return {"title": title, "svg": svg, "legend": [], "note": None, "others": [], **parts}


def _show_degrees(value: float) -> str:
    return f"{format_number(value)}°"


def _read_spread(name: str, quantiles: Mapping[str, float]) -> Spread:
    return Spread(name, quantiles["p10"], quantiles["p50"], quantiles["p90"])


def _build_angles(found: Mapping[str, Any]) -> View:
    title = "Angle between teacher's and student's features"
    spread = _read_spread("angle", found["quantiles"])
    svg = draw_distribution(
        title, found["edges"], found["counts"], spread, show=_show_degrees, x_name="angle, images by bin"
    )
    return _build_figure(title, svg, note=f"{spread.describe(_show_degrees)}.".capitalize())


def _build_ratios(found: Mapping[str, Any]) -> View:
    title = "Norm of the student's features over the teacher's"
    spread = _read_spread("norm ratio", found["quantiles"])
    svg = draw_distribution(
        title, found["edges"], found["counts"], spread, x_name="ratio, images by bin", octaves=True, mark=1.0
    )
    note = f"{spread.describe(format_number)}.".capitalize()
    if outside := found["below"] + found["above"]:
        note += f" {format_count(outside)} images lie beyond the scale."
    return _build_figure(title, svg, note=note)


def _build_classes(classes: list[Mapping[str, Any]], names: tuple[str, ...]) -> list[View]:
    """Angle and norm ratio by class, the classes farthest from the teacher in angle first."""
    strange = [entry["label"] for entry in classes if not 0 <= entry["label"] < len(names)]
    if strange:
        raise DataError(
            f"the comparison of student and teacher has the class {strange[0]}, and there are {len(names)} "
            "classes; it belongs to another data set"
        )
    ranked = sorted(classes, key=lambda entry: -entry["angle"]["p50"])
    return [
        _rank_classes("Angle by class", "angle", ranked, names, _show_degrees),
        _rank_classes("Norm ratio by class", "norm_ratio", ranked, names, format_number, mark=1.0),
    ]


def _rank_classes(
    title: str,
    key: str,
    ranked: list[Mapping[str, Any]],
    names: tuple[str, ...],
    show: Callable[[float], str],
    mark: float | None = None,
) -> View:
    spreads = [_read_spread(names[entry["label"]], entry[key]) for entry in ranked]
    svg = draw_spreads(f"{title}: median and middle 80%", spreads[:MAX_CLASSES], show=show, mark=mark)
    others = [(spread.name, show(spread.middle)) for spread in spreads[MAX_CLASSES:]]
    return _build_figure(title, svg, others=others)


def _build_bits(found: Mapping[str, Any]) -> View:
    """Share of equal hash bits against the angle, with the law where the hashes follow it."""
    title = "Equal hash bits by angle"
    angles = found["angles"]
    measured = Line("measured", angles, found["shares"])
    legend = [{"name": measured.name, "last": f"{format_percent(found['share'])} of all bits"}]
    note = f"{format_count(found['hashes'])} hashes."
    lines = [measured]
    if found["through_one_point"]:
        law = Line("1 \N{MINUS SIGN} angle / 180°", angles, [1 - degrees / 180 for degrees in angles])
        rows = zip(measured.y, law.y, found["images"], strict=True)
        gap = sum(count * abs(share - wanted) for share, wanted, count in rows) / sum(found["images"])
        # The law comes first, so that what was measured lies on top of it.
        lines.insert(0, law)
        legend.insert(0, {"name": law.name, "last": f"off by {100 * gap:.1f} points"})
        note += (
            " The straight line is what hashes through one point give on average; angles are measured there."
        )
    else:
        note += " They do not meet in one point, so no law ties their bits to the angle."
    svg = draw_lines(title, lines, format_tick_percent, x_name="degrees")
    return _build_figure(title, svg, legend=legend, note=note)
