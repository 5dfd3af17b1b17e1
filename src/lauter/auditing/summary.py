"""What an audit leaves for people and programs: its table, and what it says as a whole."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.auditing.image_findings import ImageFindings
from lauter.auditing.judgement import VERDICTS, Judgement
from lauter.data.dataset import Dataset
from lauter.training.progress import format_seconds


def make_audit_table(
    data: Dataset,
    judgement: Judgement,
    findings: ImageFindings | None = None,
    positions: NDArray[np.float32] | None = None,
) -> pd.DataFrame:
    """The table of an audit, one row for each image, in the data's order.

    Columns: id, given and suggested (class names; given is missing where there is no label), verdict,
    p_given_right, p_suggested_right, p_open, review_rank (1 for the image to look at first; missing beyond
    the review plan), decided_by, and where known near_duplicate_group, leak, faults, map_x, map_y.

    Args:
        data: the images.
        judgement: what is said of their labels.
        findings: what their pictures give away.
        positions: [N, 2] places on a map.
    """
    names: NDArray[np.object_] = np.array([*data.class_names, None], dtype=object)  # -1 meets the last
    rank = np.zeros(len(data), dtype=np.int64)
    rank[judgement.review.order] = 1 + np.arange(len(judgement.review.order))
    columns: dict[str, Any] = {
        "id": data.ids.astype(object),
        "given": names[data.labels],
        "verdict": judgement.verdicts.astype(object),
        "suggested": names[judgement.suggested],
        "p_given_right": judgement.p_given_right,
        "p_suggested_right": judgement.p_suggested_right,
        "p_open": judgement.p_open,
        "review_rank": pd.array(np.where(rank > 0, rank, -1), dtype="Int64"),
        "decided_by": "audit",
    }
    if findings is not None:
        columns |= findings.to_columns()
    if positions is not None:
        columns |= {"map_x": positions[:, 0], "map_y": positions[:, 1]}
    table = pd.DataFrame(columns)
    table.loc[rank == 0, "review_rank"] = pd.NA
    return table


def summarise_judgement(data: Dataset, judgement: Judgement) -> dict[str, Any]:
    """What a judgement says as a whole, for metrics.json; no truth is read here."""
    counts = {name: int((judgement.verdicts == name).sum()) for name in VERDICTS}
    review = judgement.review
    return {
        "images": len(data),
        "counts": {**counts, "unlabelled": int((~data.labelled).sum())},
        "noise_rate": judgement.noise_rate.to_dict(),
        "closed_rate": judgement.closed_rate.to_dict(),
        "open_rate": judgement.open_rate.to_dict(),
        "noise_rate_by_class": {
            name: float(rate)
            for name, rate in zip(data.class_names, judgement.noise_rate_by_class, strict=True)
        },
        "transition_matrix": judgement.transition.tolist(),
        "advice": asdict(judgement.advice),
        "review": {
            "images": len(review.order),
            "expected_found": float(review.expected_found[-1]) if len(review.order) else 0.0,
        },
        "cut": {
            "flagged": int(judgement.cuts.flagged[judgement.cuts.chosen]),
            "threshold": float(judgement.cuts.threshold[judgement.cuts.chosen]),
            "expected_precision": float(judgement.cuts.precision[judgement.cuts.chosen]),
            "expected_recall": float(judgement.cuts.recall[judgement.cuts.chosen]),
        },
    }


def _expect_found(labels: dict[str, Any]) -> str:
    if not labels["advice"]["telling"]:
        return "how many of them are bad cannot be told"
    return f"about {labels['review']['expected_found']:,.0f} bad labels among them"


def summarise_audit(metrics: dict[str, Any]) -> str:
    """The result in a few lines for a terminal."""
    labels = metrics["labels"]
    counts = ", ".join(f"{count:,} {name}" for name, count in labels["counts"].items() if count)
    rates = {name: labels[f"{name}_rate"] for name in ("noise", "closed", "open")}
    told = {
        name: f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]" for name, rate in rates.items()
    }
    lines = [
        f"verdicts    {counts}",
        f"noise       {told['noise']} of the labels, estimated; of another class {told['closed']}, "
        f"of none {told['open']}",
        f"advice      {labels['advice']['reason']}",
        f"review      {labels['review']['images']:,} images to look at first: {_expect_found(labels)}",
    ]
    if "images" in metrics:
        seen = metrics["images"]
        faults = ", ".join(f"{count:,} {name}" for name, count in seen["faults"].items()) or "no faults"
        lines.append(
            f"pictures    {seen['near_duplicates']:,} near-duplicates in {seen['near_duplicate_groups']:,} "
            f"groups ({seen['conflicts']:,} with labels that contradict), {seen['leaks']:,} in the other "
            f"split too; {faults}"
        )
    if "f1" in labels:
        lines.append(
            f"found       bad labels with precision {labels.get('precision', 0):.3f} and recall "
            f"{labels.get('recall', 0):.3f} (true noise {labels['true_noise_rate']:.1%})"
        )
    lines.append(f"time        {format_seconds(sum(metrics['seconds'].values()))}")
    return "\n".join(lines)
