"""Scoring a saved model on a data set."""

from typing import Any

import numpy as np

from lauter.artefacts import TrainedModel
from lauter.data.dataset import OPEN, Dataset
from lauter.errors import DataError
from lauter.evaluation.counts import CLOSED_METRICS, OPEN_METRICS
from lauter.evaluation.intervals import bootstrap_auroc, bootstrap_metrics
from lauter.training.predict import predict
from lauter.training.runtime import Runtime


def evaluate(
    model: TrainedModel, data: Dataset, *, seed: int = 0, runtime: Runtime | None = None
) -> dict[str, Any]:
    """Score a model on labelled images.

    Scored by the true labels where the data has them, else by the labels it has, taken as they are.

    Args:
        model: what :func:`lauter.load` opened.
        data: labelled images with the model's classes.
        seed: of the bootstrap.
        runtime: device and precision.

    Returns:
        Metric -> {"value", "low", "high"}: balanced_accuracy, macro_f1, worst_class_recall, accuracy, and
        open_macro_f1 and open_auroc where there are images of no class.

    Raises:
        DataError: the classes differ, no image has a label, or the model is one for several labels per image.
    """
    if model.multi_label:
        raise DataError(
            "the model tells which of several classes are in an image, and the data has one label for each; "
            "score it on a multi-label data set with lauter.multilabel.evaluate_multilabel"
        )
    if data.class_names != model.class_names:
        raise DataError(
            f"the model tells {', '.join(model.class_names[:5])}... apart, the data has "
            f"{', '.join(data.class_names[:5])}...; they must be the same classes in the same order"
        )
    truth = data.labels if data.true_labels is None else data.true_labels
    rows = np.flatnonzero(data.labelled) if data.true_labels is None else np.arange(len(data))
    if not len(rows):
        raise DataError(f"{data.name}: no image has a label to score by")
    size = model.network.input_spec.size
    seen = predict(model.network, data.images, runtime or Runtime(), index=rows, image_size=size)
    truth, classes = truth[rows], data.num_classes
    generator = np.random.default_rng(seed)
    has_open = bool((truth == OPEN).any())
    metrics = {**CLOSED_METRICS, **OPEN_METRICS} if has_open else CLOSED_METRICS
    scores = bootstrap_metrics(seen.classes(), truth, classes, generator, metrics)
    if has_open:
        confidence = seen.logits.softmax(1).amax(1).numpy()
        scores["open_auroc"] = bootstrap_auroc(confidence, truth, generator)
    return {name: interval.to_dict() for name, interval in scores.items()}
