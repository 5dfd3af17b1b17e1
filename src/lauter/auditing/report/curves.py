"""Learning curves, and the plots of how a student's features come near its teacher's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lauter.auditing.report.charts import Line, draw_lines
from lauter.auditing.report.formats import format_number, format_percent, format_tick_percent

View = dict[str, Any]
Epochs = Sequence[Mapping[str, Any]]

STAGE_NAMES = {
    "pretrain": "Self-supervised pretraining",
    "pretrain-moco": "Self-supervised pretraining",
    "warmup": "Warm-up",
    "robust": "Robust training",
    "distill": "Distillation",
    "baseline": "Baseline",
}
PERCENTILES = (10, 50, 90)
SPREADS = {
    "angle": ("Angle between teacher's and student's features, degrees", "°"),
    "norm_ratio": ("Norm of the student's features over the teacher's", ""),
}
"""Metrics that come as percentiles over images and have a section of their own: title, sign of the unit."""
SPREAD_KEYS = frozenset(f"{key}_p{p}" for key in SPREADS for p in PERCENTILES)


def name_stage(stage: str) -> str:
    """The name people read for a stage."""
    return STAGE_NAMES.get(stage, stage.replace("_", " ").capitalize())


def build_curves(history: Epochs) -> list[View]:
    """For each stage its losses, its fractions in one chart, and every other metric in a chart of its own."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for epoch in history:
        by_stage.setdefault(str(epoch.get("stage", "training")), []).append(epoch)
    stages = []
    for stage, epochs in by_stage.items():
        name = name_stage(stage)
        charts = []
        losses = _read_lines(epochs, "loss")
        if losses:
            charts.append(_build_chart(f"{name}: loss", "Loss", losses))
        metrics = _read_lines(epochs, "metrics", leave_out=SPREAD_KEYS)
        fractions = [line for line in metrics if all(0 <= y <= 1 for _, y in line.points)]
        if fractions:
            charts.append(_build_chart(f"{name}: metrics", "Metrics", fractions, percent=True))
        for line in metrics:
            if line not in fractions:
                alone = replace(line, name="last")
                charts.append(_build_chart(f"{name}: {line.name}", line.name.capitalize(), [alone]))
        if charts:
            stages.append({"name": name, "charts": charts})
    return stages


def build_mimicry(history: Epochs) -> list[View]:
    """Charts of angle and norm between teacher's and student's features: median, and the middle 80%."""
    charts = []
    epochs = [epoch for epoch in history if epoch.get("stage") == "distill"]
    for key, (title, unit) in SPREADS.items():
        low, middle, high = (_read_values(epochs, "metrics", f"{key}_p{p}") for p in PERCENTILES)
        line = Line("median", _number_epochs(epochs), middle, low, high)
        if line.points:
            last = format_number(line.points[-1][1]) + unit
            charts.append(
                {
                    "title": title,
                    "svg": draw_lines(title, [line]),
                    "legend": [{"name": "median", "last": last}],
                }
            )
    return charts


def _build_chart(title: str, heading: str, lines: Sequence[Line], percent: bool = False) -> View:
    show = format_percent if percent else format_number
    return {
        "heading": heading,
        "svg": draw_lines(title, lines, format_tick_percent if percent else format_number),
        "legend": [{"name": line.name, "last": show(line.points[-1][1])} for line in lines],
    }


def _read_lines(epochs: Epochs, part: str, leave_out: frozenset[str] = frozenset()) -> list[Line]:
    found = dict.fromkeys(name for epoch in epochs for name in epoch.get(part) or {})
    x = _number_epochs(epochs)
    lines = [
        Line(str(name).replace("_", " "), x, _read_values(epochs, part, name))
        for name in found
        if name not in leave_out
    ]
    return [line for line in lines if line.points]


def _read_values(epochs: Epochs, part: str, name: str) -> list[float]:
    values = [(epoch.get(part) or {}).get(name) for epoch in epochs]
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _number_epochs(epochs: Epochs) -> list[float]:
    # People count from 1, as the progress lines do; metrics.jsonl counts from 0.
    return [float(epoch.get("epoch", k)) + 1 for k, epoch in enumerate(epochs)]
