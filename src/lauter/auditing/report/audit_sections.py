"""What the page of an audit is filled with: figures as words and charts, or None where there are none."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lauter.auditing.judgement import VERDICTS, Cuts, Judgement
from lauter.auditing.report.audit_content import AuditContent
from lauter.auditing.report.charts import (
    Floats,
    Line,
    draw_bars,
    draw_heat_map,
    draw_histogram,
    draw_lines,
)
from lauter.auditing.report.formats import (
    DASH,
    format_count,
    format_number,
    format_percent,
    format_range,
    format_seconds,
    format_tick_percent,
)
from lauter.auditing.report.sections import (
    DETECTION_NAMES,
    MAX_BARS,
    MAX_HEAT_MAP_CLASSES,
    VERDICT_MEANINGS,
)
from lauter.evaluation.intervals import Interval

View = dict[str, Any]

MAX_CONFUSIONS = 12
MAX_CONFUSED_CLASSES = 24
"""Classes in the heat map of a data set with more of them than it can show."""
MAX_CHART_POINTS = 240
BUDGETS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
FIRST_BUDGET = 200
"""Images to look at that the summary speaks of."""
PRECISIONS = (0.99, 0.95, 0.9, 0.8, 0.7, 0.5)
TRUTH_NAMES = {
    **DETECTION_NAMES,
    "true_noise_rate": "True noise rate",
    "correction_precision": "Right suggestions among relabelled",
    "expected_calibration_error": "Calibration error",
    "brier": "Brier score",
    "base_brier": "Brier score of the base rate",
    "review_precision": "Bad labels among the first to review",
}
PLAIN_SCORES = ("brier", "base_brier", "expected_calibration_error")
"""Scores that are no shares, written as numbers."""


def build_counts(content: AuditContent) -> list[View]:
    """Count of each verdict that occurs, with its share and meaning."""
    found = content.table["verdict"].value_counts()
    total = len(content.table)
    return [
        {
            "key": key,
            "count": format_count(int(found[key])),
            "share": int(found[key]) / total,
            "percent": format_percent(int(found[key]) / total),
            "meaning": VERDICT_MEANINGS[key],
        }
        for key in VERDICTS
        if found.get(key)
    ]


def build_rates(judgement: Judgement) -> View:
    """Noise rates with their intervals."""
    return {
        "noise": _write_interval(judgement.noise_rate),
        "closed": _write_interval(judgement.closed_rate),
        "open": _write_interval(judgement.open_rate),
    }


def _write_interval(found: Interval) -> View:
    return {"value": format_percent(found.value), "range": format_range(found.low, found.high)}


def build_noise(content: AuditContent) -> View:
    """Noise by class, transitions between classes, and how sure the judgement is."""
    names, judgement = content.class_names, content.judgement
    rates = {
        name: float(rate)
        for name, rate in zip(names, judgement.noise_rate_by_class, strict=True)
        if np.isfinite(rate)
    }
    ranked = dict(sorted(rates.items(), key=lambda entry: -entry[1]))
    shown = dict(list(ranked.items())[:MAX_BARS])
    confusions = _rank_confusions(judgement.transition)
    classes = _choose_classes(confusions, len(names))
    groups = _group_probabilities(content)
    title = "Probability that the given label is right, by verdict"
    return {
        "bars": draw_bars("Estimated share of wrong labels by given class", shown) if shown else None,
        "others": [(name, format_percent(ranked[name])) for name in list(ranked)[MAX_BARS:]],
        "heat_map": _draw_transition(judgement.transition, names, classes) if len(classes) > 1 else None,
        "num_classes": len(classes) if len(classes) < len(names) else None,
        "confusions": [
            {
                "true": names[i],
                "given": names[j],
                "share": format_percent(float(judgement.transition[i, j])),
                "range": format_range(
                    float(judgement.transition_low[i, j]), float(judgement.transition_high[i, j])
                ),
            }
            for i, j in confusions[:MAX_CONFUSIONS]
        ],
        "histogram": draw_histogram(title, groups) if groups else None,
        "groups": list(groups),
    }


def _rank_confusions(transition: Floats) -> list[tuple[int, int]]:
    """(true, given) of the largest entries off the diagonal, as many as can matter here."""
    off_diagonal = np.where(np.eye(len(transition), dtype=bool), 0.0, np.nan_to_num(transition))
    largest = np.argsort(-off_diagonal, axis=None, kind="stable")[: 4 * MAX_CONFUSED_CLASSES]
    pairs = [divmod(int(flat), len(transition)) for flat in largest]
    return [(i, j) for i, j in pairs if off_diagonal[i, j] > 0]


def _choose_classes(confusions: list[tuple[int, int]], num_classes: int) -> list[int]:
    """All classes where they fit into a heat map, else those of the largest confusions, in their order."""
    if num_classes <= MAX_HEAT_MAP_CLASSES:
        return list(range(num_classes))
    chosen: dict[int, None] = {}
    for pair in confusions:
        if len({*chosen, *pair}) > MAX_CONFUSED_CLASSES:
            break
        chosen |= dict.fromkeys(pair)
    return sorted(chosen)


def _draw_transition(transition: Floats, names: tuple[str, ...], classes: list[int]) -> str:
    part = np.nan_to_num(transition[np.ix_(classes, classes)])
    return draw_heat_map(
        "From true class to given label, in percent, estimated", part, [names[k] for k in classes]
    )


def _group_probabilities(content: AuditContent) -> dict[str, Floats]:
    probs = content.table["p_given_right"].to_numpy(dtype=np.float64, na_value=np.nan)
    verdicts = content.table["verdict"].to_numpy(dtype=object)
    groups = {key: probs[(verdicts == key) & np.isfinite(probs)] for key in VERDICTS}
    return {key: values for key, values in groups.items() if len(values)}


def build_cuts(judgement: Judgement) -> View | None:
    """Expected precision and recall where more or fewer labels are called wrong."""
    cuts = judgement.cuts
    if not len(cuts.flagged):
        return None
    points = _thin_cuts(cuts)
    flagged = [float(cuts.flagged[c]) for c in points]
    lines = [
        Line("precision", flagged, [float(cuts.precision[c]) for c in points]),
        Line("recall", flagged, [float(cuts.recall[c]) for c in points]),
    ]
    chosen = cuts.chosen
    return {
        "chosen": _write_cut(cuts, chosen),
        "legend": [
            {"name": line.name, "last": format_percent(float(values[chosen]))}
            for line, values in zip(lines, (cuts.precision, cuts.recall), strict=True)
        ],
        "svg": draw_lines(
            "Expected precision and recall by labels called wrong",
            lines,
            format_tick_percent,
            x_name="labels called wrong",
            mark=float(cuts.flagged[chosen]),
        ),
        "rows": [_write_cut(cuts, c) for c in _find_precisions(cuts)],
    }


def _thin_cuts(cuts: Cuts) -> list[int]:
    """Cuts to draw: up to where nearly all wrong labels are found, and the chosen one in any case."""
    enough = np.flatnonzero(cuts.recall >= 0.995)
    last = max(int(enough[0]) if len(enough) else len(cuts.flagged) - 1, cuts.chosen)
    wide_enough = np.flatnonzero(cuts.flagged >= 1.5 * cuts.flagged[cuts.chosen])
    last = max(last, int(wide_enough[0]) if len(wide_enough) else last)
    return _spread_points(last + 1, keep=cuts.chosen)


def _spread_points(count: int, keep: int | None = None) -> list[int]:
    """At most ``MAX_CHART_POINTS`` of 0..count-1, evenly spread, both ends among them."""
    points = np.linspace(0, count - 1, min(count, MAX_CHART_POINTS)).round().astype(int)
    return sorted({*points.tolist(), *([] if keep is None else [keep])})


def _find_precisions(cuts: Cuts) -> list[int]:
    """For each of ``PRECISIONS`` the cut that flags most at that precision, where there is one."""
    found = []
    for wanted in PRECISIONS:
        good = np.flatnonzero(cuts.precision >= wanted)
        if len(good) and cuts.flagged[good[-1]] > 0:
            found.append(int(good[-1]))
    return list(dict.fromkeys(found))


def _write_cut(cuts: Cuts, c: int) -> View:
    return {
        "flagged": format_count(int(cuts.flagged[c])),
        "threshold": format_percent(float(cuts.threshold[c])) if np.isfinite(cuts.threshold[c]) else DASH,
        "precision": format_percent(float(cuts.precision[c])),
        "recall": format_percent(float(cuts.recall[c])),
    }


def build_budget(judgement: Judgement) -> View | None:
    """How many bad labels a person finds by looking at so many images, in the plan's order."""
    found = judgement.review.expected_found
    if not len(found):
        return None
    rate = judgement.noise_rate.value
    points = _spread_points(len(found))
    looked = [float(k + 1) for k in points]
    lines = [
        Line("in this order", looked, [float(found[k]) for k in points]),
        Line("at random", looked, [rate * k for k in looked]),
    ]
    budgets = [count for count in BUDGETS if count <= len(found)] or [len(found)]
    first = min(FIRST_BUDGET, len(found))
    return {
        "first": {"looked": format_count(first), "found": format_count(round(float(found[first - 1])))},
        "svg": draw_lines(
            "Bad labels expected to be found by images looked at",
            lines,
            format_count,
            x_name="images looked at",
        ),
        "legend": [{"name": line.name, "last": format_count(round(line.y[-1]))} for line in lines],
        "rows": [
            {
                "looked": format_count(count),
                "found": format_count(round(float(found[count - 1]))),
                "share": format_percent(float(found[count - 1]) / count),
                "random": format_count(round(rate * count)),
            }
            for count in budgets
        ],
    }


def build_truth(truth: Mapping[str, float]) -> list[View]:
    """Scores against the true labels, where they are known."""
    names = {**TRUTH_NAMES, **{key: key.replace("_", " ").capitalize() for key in truth}} | TRUTH_NAMES
    return [
        {
            "name": names[key],
            "value": format_number(truth[key]) if key in PLAIN_SCORES else format_percent(truth[key]),
        }
        for key in names
        if key in truth
    ]


def build_seconds(seconds: Mapping[str, float]) -> View | None:
    """How long each stage took, and all of them."""
    if not seconds:
        return None
    return {
        "rows": [
            (name.replace("_", " ").capitalize(), format_seconds(took)) for name, took in seconds.items()
        ],
        "total": format_seconds(sum(seconds.values())),
    }
