"""What the template is filled with: a part of the content as words and charts, or None where it is empty."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lauter.auditing.report.charts import Estimate, draw_bars, draw_estimates, draw_heat_map, draw_histogram
from lauter.auditing.report.content import ROLES, VERDICTS, ReportContent
from lauter.auditing.report.curves import name_stage
from lauter.auditing.report.formats import (
    format_count,
    format_percent,
    format_range,
    format_scaled,
    format_seconds,
    format_short_percent,
    read_interval,
)
from lauter.auditing.report.pictures import encode_thumbnail, select_doubtful
from lauter.data.dataset import ImageFault

View = dict[str, Any]

METRIC_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "worst_class_recall": "Worst class",
    "accuracy": "Accuracy",
    "open_auroc": "Open AUROC",
    "open_macro_f1": "Open macro F1",
    "agreement_with_given": "Agreement with given labels",
}
DETECTION_NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "best_f1": "Best F1",
}
VERDICT_MEANINGS = {
    "keep": "the given label stands",
    "relabel": "another label is suggested",
    "drop": "of none of the classes, or beyond telling",
    "ask": "for a person to decide",
    "unlabelled": "came without a label",
}
MAX_HEAT_MAP_CLASSES = 40
MAX_BARS = 24
MAX_CONFUSIONS = 8
MAX_FAULTS = 200


def name_metric(key: str) -> str:
    """The name people read for a metric's key."""
    return METRIC_NAMES.get(key, key.replace("_", " ").capitalize())


def build_verdicts(content: ReportContent) -> list[View]:
    """Count of each verdict that occurs, with its share and meaning."""
    counts: Mapping[str, int] = content.metrics.get("labels", {}).get("counts", {})
    if not counts and content.labels is not None:
        counts = Counter(str(verdict) for verdict in content.labels["verdict"])
    total = sum(counts.values())
    return [
        {
            "key": key,
            "count": format_count(counts[key]),
            "share": counts[key] / total,
            "percent": format_percent(counts[key] / total),
            "meaning": VERDICT_MEANINGS[key],
        }
        for key in VERDICTS
        if counts.get(key)
    ]


def build_summary(content: ReportContent) -> View:
    """The cards at the top: noise, result, size."""
    labels = content.metrics.get("labels", {})
    summary: View = {"noise": None}
    if "noise_rate" in labels:
        value, low, high = read_interval(labels["noise_rate"])
        summary["noise"] = {
            "value": format_percent(value),
            "range": None if low is None or high is None else format_range(low, high),
        }
    summary["detection"] = [
        {"name": name, "value": format_percent(float(labels[key]))}
        for key, name in DETECTION_NAMES.items()
        if labels.get(key) is not None
    ]
    summary["result"] = _build_result(content)
    summary["size"] = _build_size(content)
    return summary


def _build_size(content: ReportContent) -> View | None:
    networks = {role: content.metrics.get(role, {}) for role in ("student", "teacher")}
    sized = {role: network for role, network in networks.items() if network.get("parameters")}
    if "student" not in sized:
        return None
    parameters = {role: network["parameters"] for role, network in sized.items()}
    return {
        "student": format_scaled(parameters["student"]),
        "ratio": f"{parameters['teacher'] / parameters['student']:.1f}" if "teacher" in sized else None,
        "has_flops": any(network.get("flops") for network in sized.values()),
        "rows": [
            {
                "role": role,
                "parameters": format_scaled(parameters[role]),
                "flops": format_scaled(network["flops"], "FLOP") if network.get("flops") else "",
            }
            for role, network in sized.items()
        ],
    }


def _build_result(content: ReportContent) -> View | None:
    scores = {}
    for role in ROLES:  # of the epoch whose weights were kept, which a run states; else the selected one
        of_role = content.metrics.get(role, {})
        scores[role] = of_role.get(of_role.get("kept", "selected"), {})
    for metric in ("balanced_accuracy", "agreement_with_given"):
        found = {role: read_interval(of[metric]) for role, of in scores.items() if metric in of}
        if not found:
            continue
        result: View = {
            "metric": name_metric(metric),
            "gain": None,
            "is_agreement": metric != "balanced_accuracy",
        }
        estimates = [Estimate(role, *found[role]) for role in found]
        result["chart"] = draw_estimates(f"{result['metric']}, with 95% intervals", estimates)
        leader = next(iter(found))
        result["leader"], result["value"] = leader, format_percent(found[leader][0])
        if "baseline" in found and leader != "baseline":
            points = 100 * (found[leader][0] - found["baseline"][0])
            result["gain"] = f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"
        return result
    return None


def build_scores(content: ReportContent) -> View | None:
    """The final table: roles and epochs as rows, metrics as columns."""
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    gaps = []
    for role in ROLES:
        scores = content.metrics.get(role, {})
        rows += [(role, epoch, scores[epoch]) for epoch in ("selected", "last") if scores.get(epoch)]
        if scores.get("oracle_gap") is not None:
            gaps.append(f"{role} {100 * scores['oracle_gap']:.1f}")
    if not rows:
        return None
    present = list(dict.fromkeys(key for _, _, scores in rows for key in scores))
    columns = [key for key in METRIC_NAMES if key in present] + [
        key for key in present if key not in METRIC_NAMES
    ]
    return {
        "columns": [name_metric(key) for key in columns],
        "rows": [
            {"role": role, "epoch": epoch, "cells": [_build_cell(scores.get(key)) for key in columns]}
            for role, epoch, scores in rows
        ],
        "gaps": ", ".join(gaps),
        "has_agreement": "agreement_with_given" in columns,
    }


def _build_cell(metric: Any) -> View | None:
    if metric is None:
        return None
    value, low, high = read_interval(metric)
    return {
        "value": f"{100 * value:.1f}",
        "range": None if low is None or high is None else format_range(low, high),
    }


def build_noise(content: ReportContent) -> View | None:
    """Noise by class, transitions between classes, and how sure the judgement is."""
    labels = content.metrics.get("labels", {})
    view: View = {"bars": None, "others": [], "heat_map": None, "confusions": [], "histogram": None}
    by_class = {str(name): float(rate) for name, rate in (labels.get("noise_rate_by_class") or {}).items()}
    if by_class:
        ranked = dict(sorted(by_class.items(), key=lambda entry: -entry[1]))
        shown = dict(list(ranked.items())[:MAX_BARS])
        view["bars"] = draw_bars("Share of wrong labels by given class", shown)
        view["others"] = [(name, format_percent(ranked[name])) for name in list(ranked)[MAX_BARS:]]
    matrix = np.asarray(labels.get("transition_matrix", ()), dtype=np.float64)
    if matrix.size:
        names = content.class_names
        if len(names) <= MAX_HEAT_MAP_CLASSES:
            view["heat_map"] = draw_heat_map("From true class to given label, in percent", matrix, names)
        off_diagonal = np.where(np.eye(len(names), dtype=bool), 0.0, matrix)
        for flat in np.argsort(-off_diagonal, axis=None, kind="stable")[:MAX_CONFUSIONS]:
            i, j = divmod(int(flat), len(names))
            if off_diagonal[i, j] > 0:
                share = format_percent(float(off_diagonal[i, j]))
                view["confusions"].append({"true": names[i], "given": names[j], "share": share})
    if content.labels is not None:
        probs = content.labels["p_given_right"].to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isfinite(probs).any():
            verdicts = content.labels["verdict"].to_numpy(dtype=object)
            groups = {key: probs[(verdicts == key) & np.isfinite(probs)] for key in VERDICTS}
            groups = {key: values for key, values in groups.items() if len(values)}
            title = "Probability that the given label is right, by verdict"
            view["histogram"] = draw_histogram(title, groups)
            view["groups"] = list(groups)
    return view if any(view[part] for part in ("bars", "heat_map", "confusions", "histogram")) else None


def build_gallery(content: ReportContent, max_pictures: int) -> View | None:
    """Tiles of the most doubtful images, with what the filters need."""
    if content.picture is None or content.labels is None or max_pictures < 1:
        return None
    rows = {str(name): row for row, name in enumerate(content.ids)}
    codes = {name: code for code, name in enumerate(content.class_names)}
    tiles: list[View] = []
    for position in select_doubtful(content.labels, max_pictures):
        entry = content.labels.iloc[position]
        given, suggested = _read_name(entry["given"]), _read_name(entry["suggested"])
        source, width, height = encode_thumbnail(content.picture(rows[str(entry["id"])]))
        tiles.append(
            {
                "id": str(entry["id"]),
                "verdict": str(entry["verdict"]),
                "given": given,
                "suggested": suggested if suggested != given else None,
                "codes": sorted({codes[name] for name in (given, suggested) if name in codes}),
                "source": source,
                "width": width,
                "height": height,
                "is_small": max(width, height) < 64,
                "right": _read_percent(entry["p_given_right"]),
                "open": _read_percent(entry.get("p_open")),
            }
        )
    if not tiles:
        return None
    by_verdict = Counter(tile["verdict"] for tile in tiles)
    by_class = Counter(code for tile in tiles for code in tile["codes"])
    return {
        "tiles": tiles,
        "verdicts": [(key, by_verdict[key]) for key in VERDICTS if by_verdict[key]],
        "classes": [(code, content.class_names[code], by_class[code]) for code in sorted(by_class)],
    }


def _read_name(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _read_percent(value: Any) -> View | None:
    if value is None or pd.isna(value):
        return None
    return {"text": format_short_percent(float(value)), "share": round(min(1.0, max(0.0, float(value))), 3)}


def build_faults(faults: Sequence[ImageFault]) -> View | None:
    """Images that were left out or changed, by kind and one by one."""
    if not faults:
        return None
    kinds = Counter((fault.fault, fault.dropped) for fault in faults)
    return {
        "total": format_count(len(faults)),
        "kinds": [
            {"fault": fault, "dropped": dropped, "count": format_count(count)}
            for (fault, dropped), count in sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0]))
        ],
        "shown": faults[:MAX_FAULTS],
        "hidden": max(0, len(faults) - MAX_FAULTS),
    }


def build_cost(content: ReportContent) -> View | None:
    """Seconds, images and operations by stage, and in all."""
    cost = content.metrics.get("cost", {})
    if not cost:
        return None
    total = {
        "seconds": cost.get("seconds"),
        "images": cost.get("images_processed"),
        "flops": cost.get("flops"),
    }
    return {
        "rows": [_build_cost_row(name_stage(name), stage) for name, stage in cost.get("stages", {}).items()],
        "total": _build_cost_row("All stages", total),
    }


def _build_cost_row(name: str, stage: Mapping[str, Any]) -> View:
    writers: dict[str, Callable[[float], str]] = {
        "seconds": format_seconds,
        "images": format_count,
        "images_per_second": format_count,
        "flops": lambda value: format_scaled(value, "FLOP"),
    }
    cells = {key: "" if stage.get(key) is None else write(stage[key]) for key, write in writers.items()}
    return {"name": name, **cells}


def build_config(config: Mapping[str, Any]) -> str | None:
    """The configuration as YAML."""
    if not config:
        return None
    return yaml.safe_dump(_to_plain(config), sort_keys=False, allow_unicode=True, width=100)


def _to_plain(value: Any) -> Any:
    """YAML's own types only: mappings, lists and scalars; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_to_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
