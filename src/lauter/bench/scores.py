"""What is recorded of a finished stage: its scores on the test set, and what it cost."""

from collections.abc import Iterable

from lauter.data import Dataset
from lauter.results import score_tracker
from lauter.training.loop import Cost
from lauter.training.tracking import TrackedStage


def score_stage(
    stage: TrackedStage, cost: Cost, train: Dataset, test: Dataset, seed: int
) -> dict[str, float]:
    """Every metric at the last and at the selected epoch, the oracle gap, epochs, and the stage's own cost.

    Args:
        stage: finished; its stored predictions are scored here, after the training.
        cost: what it took.
        train: what it learnt from, for the number of classes.
        test: with its truth.
        seed: of the run, for the bootstrap.

    Returns:
        {metric: value}; seconds, images and flops are those of ``cost``.
    """
    scores = score_tracker(stage.tracker, train, test, seed)
    values = {
        f"{metric}_{epoch}": entry["value"]
        for epoch in ("last", "selected")
        for metric, entry in scores[epoch].items()
    }
    values |= {
        "oracle_gap": scores["oracle_gap"],
        "epochs": float(len(stage.tracker.scores)),
        "seconds": cost.seconds,
        "images": float(cost.images),
        "images_per_second": cost.images / max(cost.seconds, 1e-9),
        "flops": cost.flops,
    }
    return {name: float(value) for name, value in values.items()}


def add_costs(costs: Iterable[Cost]) -> Cost:
    """The cost of several stages together."""
    total = Cost()
    for cost in costs:
        total.seconds += cost.seconds
        total.add(cost.images, cost.flops)
    return total
