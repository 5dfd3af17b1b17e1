"""What a run leaves: scores met with the truth after training, tables, weights, report."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lauter.artefacts import can_export_onnx, export_onnx
from lauter.auditing.label_table import open_again
from lauter.auditing.report import ReportContent, write_report
from lauter.auditing.verdicts import score_labels, summarise_labels
from lauter.data import Dataset
from lauter.data.batches import read_in_order
from lauter.data.counters import derive_seed
from lauter.data.dataset import Images
from lauter.errors import ModelError, RunError
from lauter.evaluation.protocol import score_agreement, score_run
from lauter.files import atomic_path, read_json
from lauter.models import Network, count_flops, count_parameters, fold_head
from lauter.models.artefact import save_network
from lauter.noisy.robust import RobustStage
from lauter.run import RunDirectory
from lauter.training.progress import Progress, format_seconds, read_history
from lauter.training.setup import Setup
from lauter.training.tracking import TrackedStage, Tracker


def score_tracker(tracker: Tracker, data: Dataset, test: Dataset | None, seed: int) -> dict[str, Any]:
    """Scores of a stage's stored predictions, after training: selected, last, oracle gap."""
    generator = np.random.default_rng(derive_seed(seed, "bootstrap"))
    if test is None:
        predictions = torch.stack(tracker.holdout_predictions).numpy()
        given = data.labels[tracker.watch.holdout]
        return score_agreement(predictions, given, data.num_classes, generator).to_dict()
    truth = test.labels if test.true_labels is None else test.true_labels
    scores = score_run(
        torch.stack(tracker.test_predictions).numpy(),
        truth,
        tracker.scores,
        data.num_classes,
        generator,
        torch.stack(tracker.test_confidence).float().numpy(),
    )
    return scores.to_dict()


def collect_metrics(
    data: Dataset,
    test: Dataset | None,
    setup: Setup,
    stages: dict[str, TrackedStage],
    robust: RobustStage | None,
    table: pd.DataFrame | None,
    keep: str,
) -> dict[str, Any]:
    """What metrics.json holds; the only place where training's output meets the truth.

    Args:
        data: with the truth, where there is one.
        test: likewise.
        setup: the run's common ground.
        stages: finished stages by role (student, teacher, baseline).
        robust: the stage whose judgements are scored, or None.
        table: its label table.
        keep: selected or last: which epoch's weights student and teacher keep.
    """
    metrics: dict[str, Any] = {}
    for role, stage in stages.items():
        network = fold_head(stage.evaluated)
        metrics[role] = {
            **score_tracker(stage.tracker, data, test, setup.loop.seed),
            "kept": keep if role != "baseline" else "last",
            "network": network.name,
            "parameters": count_parameters(network),
            "flops": count_flops(network),
        }
    if robust is not None and table is not None:
        metrics["labels"] = {**summarise_labels(setup.data, robust.judge, table), **score_labels(data, table)}
    metrics["cost"] = summarise_costs(setup)
    return metrics


def summarise_costs(setup: Setup) -> dict[str, Any]:
    """Seconds, images and floating-point operations, in all and by stage."""
    costs = {name: vars(cost) for name, cost in setup.loop.costs.items()}
    return {
        "seconds": sum(cost["seconds"] for cost in costs.values()),
        "images_processed": sum(cost["images"] for cost in costs.values()),
        "flops": sum(cost["flops"] for cost in costs.values()),
        "stages": {
            name: {**cost, "images_per_second": cost["images"] / max(cost["seconds"], 1e-9)}
            for name, cost in costs.items()
            if cost["seconds"]
        },
    }


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the label table as Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def write_student(
    run: RunDirectory,
    student: Network,
    setup: Setup,
    metrics: dict[str, Any],
    progress: Progress,
    extra: dict[str, str] | None = None,
) -> None:
    """Write the folded student as safetensors and, where the export extra is installed, as ONNX.

    A network that ONNX does not take is warned of; the run is not lost for it. ``extra`` is text to keep
    beside the weights.
    """
    save_network(student, run.student, class_names=setup.data.class_names, extra=extra)
    if not can_export_onnx():
        progress.say(
            "onnx        not written: the export extra is not installed (pip install 'lauter[export]')"
        )
        return
    pixels = example_pixels(setup.data.images, student.input_spec.size)
    try:
        difference = export_onnx(student, run.onnx, pixels)
    except ModelError as error:
        warnings.warn(f"student.onnx was not written: {error}", UserWarning, stacklevel=3)
        return
    metrics["student"]["onnx_difference"] = difference
    progress.say(f"onnx        {run.onnx} (largest difference to PyTorch {difference:.1e})")


def example_pixels(images: Images, size: int, count: int = 32) -> Tensor:
    """A few real images at a network's input size, uint8 [count, 3, size, size]; fewer where there are."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64)
    batch = next(iter(read_in_order(images, rows, len(rows), size, torch.device("cpu"))))
    return batch.images


def write_run_report(
    run: RunDirectory, data: Dataset, table: pd.DataFrame | None, metrics: dict[str, Any]
) -> None:
    """Write report.html from what the run directory and the data hold."""
    content = ReportContent(
        title=data.name,
        dataset_name=data.name,
        class_names=data.class_names,
        ids=data.ids,
        labels=table,
        picture=data.images.read,
        metrics=metrics,
        history=read_history(run.path),
        faults=data.faults,
        config=run.read_config(),
        comparison=read_json(run.comparison) if run.comparison.exists() else {},
    )
    write_report(run.report, content)


def report(directory: str | Path, data: Dataset | None = None) -> Path:
    """Write the report of a finished run again.

    Args:
        directory: of the run.
        data: its data set; opened as the run opened it where None.

    Returns:
        The path of report.html.

    Raises:
        RunError: the run is not finished, or the data is another now.
    """
    run = RunDirectory(Path(directory))
    settings = run.read_config()
    if settings.get("verb") == "fit_multilabel":
        raise RunError(f"{run.path} is a run on several labels per image, for which there is no report")
    if not run.metrics.exists():
        raise RunError(f"{run.path} is not finished: it has no metrics.json; continue it with --resume")
    if data is None:
        source = settings.get("data", {})
        checked = source.get("checked_labels") or {"file": ""}
        if "spec" not in source or checked["file"] is None:
            raise RunError(
                f"{run.path} was made from Python; pass its data set to lauter.report(..., data=...)"
            )
        data = open_again(source)
    if data.fingerprint() != settings.get("fingerprint"):
        raise RunError(f"{run.path} was made from other data than {data.name} is now (their hashes differ)")
    table = pd.read_parquet(run.labels) if run.labels.exists() else None
    write_run_report(run, data, table, read_json(run.metrics))
    return run.report


def summarise(metrics: dict[str, Any]) -> str:
    """The result in a few lines for a terminal."""
    lines = []
    for role in ("student", "teacher", "baseline"):
        if role not in metrics:
            continue
        entry = metrics[role]
        scores = entry[entry["kept"]]
        name = "balanced_accuracy" if "balanced_accuracy" in scores else "agreement_with_given"
        value = scores[name]
        lines.append(
            f"{role:<11} {name} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]  "
            f"{entry['network']}, {entry['parameters']:,} parameters, "
            f"{entry['flops'] / 1e6:,.1f} MFLOPs an image"
        )
    labels = metrics.get("labels", {})
    if labels:
        counts = ", ".join(f"{count:,} {name}" for name, count in labels["counts"].items() if count)
        lines.append(f"labels      {counts}; estimated noise {labels['noise_rate']['value']:.1%}")
    if "f1" in labels:
        lines.append(
            f"found       bad labels with precision {labels.get('precision', 0):.3f} and recall "
            f"{labels.get('recall', 0):.3f} (true noise {labels['true_noise_rate']:.1%})"
        )
    lines.append(f"time        {format_seconds(metrics['cost']['seconds'])}")
    return "\n".join(lines)
