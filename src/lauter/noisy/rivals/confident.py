"""Confident learning, then cross-entropy on the labels that it leaves."""

import importlib.util
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.data.splitting import split_folds
from lauter.errors import ConfigError
from lauter.models import count_flops
from lauter.noisy.beliefs import Floats
from lauter.noisy.confident import Bools, PruneBy, find_confident_errors
from lauter.noisy.rivals.ce import CrossEntropyConfig, CrossEntropyStage
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class ConfidentConfig:
    """Confident learning, then retraining.

    Attributes:
        folds: into how many parts the images are split; each part is judged by a network that trained on the
            others, so n folds cost n - 1 trainings beside the last one (2; the source's experiments take 4).
        prune_by: class, noise_rate or both (see :func:`lauter.noisy.confident.find_confident_errors`).
        implementation: who finds the errors: own, or cleanlab, its authors' library, with the same result but
            for ties.
    """

    folds: int = 2
    prune_by: PruneBy = "noise_rate"
    implementation: Literal["own", "cleanlab"] = "own"

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"confident: folds must be 2 or more, not {self.folds}")
        if self.prune_by not in ("both", "class", "noise_rate"):
            raise ConfigError(f"confident: prune_by must be both, class or noise_rate, not {self.prune_by!r}")
        if self.implementation not in ("own", "cleanlab"):
            raise ConfigError(
                f"confident: implementation must be own or cleanlab, not {self.implementation!r}"
            )


def learn_confidently(config: ConfidentConfig, ground: Ground) -> RivalStage:
    """Find wrong labels by confident learning, drop them, and begin anew with cross-entropy on the rest.

    Source: Northcutt, Jiang and Chuang (2021), arXiv 1911.00068. Departures: those of
    :mod:`lauter.noisy.confident`; the loss of the last training is not weighted by class; 2 folds.

    Args:
        config: folds and how errors are found.
        ground: what every method gets; the networks of the folds train as ``NAME.fold0``, ``NAME.fold1``, ...
            from the same weights and for as many epochs as the last one.

    Returns:
        The last stage, ready to run: cross-entropy on the labels that were not called wrong.

    Raises:
        ConfigError: there are fewer images than folds, or cleanlab is asked for and not installed.
    """
    if config.implementation == "cleanlab":
        require_cleanlab()
    find = find_confident_errors if config.implementation == "own" else find_errors_by_cleanlab
    rows = ground.setup.labelled_train
    probabilities = predict_out_of_fold(ground, config.folds)
    wrong = find(probabilities, ground.setup.data.labels[rows], prune_by=config.prune_by)
    return CrossEntropyStage(CrossEntropyConfig(), take_rows(ground, rows[~wrong]))


def predict_out_of_fold(ground: Ground, folds: int) -> Floats:
    """Predict every labelled training image by a network that did not train on it.

    Args:
        ground: what every method gets; one network for each fold trains by cross-entropy.
        folds: how many, stratified by given label.

    Returns:
        [M, K] probabilities for the M rows ``ground.setup.labelled_train``, in their order.

    Raises:
        ConfigError: there are fewer images than folds.
    """
    setup = ground.setup
    rows = setup.labelled_train
    generator = np.random.default_rng(derive_seed(setup.loop.seed, "folds"))
    fold = split_folds(setup.data.labels[rows], folds, generator)
    probabilities = np.zeros((len(rows), setup.data.num_classes))
    for number in range(folds):
        held = fold == number
        part = replace(take_rows(ground, rows[~held]), name=f"{ground.name}.fold{number}")
        stage = FoldStage(part, rows[held])
        setup.loop.run_stage(stage)
        probabilities[held] = stage.probabilities.numpy()
    return probabilities


def take_rows(ground: Ground, rows: Int64s) -> Ground:
    """The same ground with fewer images to train on."""
    return replace(ground, setup=replace(ground.setup, train=rows))


class FoldStage(CrossEntropyStage):
    """Cross-entropy on the images outside of a fold, and at its end predictions for those inside.

    No epoch is selected: hold-out and test are not looked at.

    Attributes:
        probabilities: float64 [n, K] predictions for the fold, empty until the last epoch has ended.

    Args:
        ground: with the images outside of the fold.
        held: rows of the fold.
    """

    def __init__(self, ground: Ground, held: Int64s) -> None:
        super().__init__(CrossEntropyConfig(), ground)
        self.held = held
        self.probabilities = torch.zeros(0, self.num_classes, dtype=torch.float64)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """After the last epoch predict the fold; the images of that pass are counted as cost."""
        if epoch + 1 == self.epochs:
            seen = self.ground.setup.predict(self.evaluated, self.held)
            self.probabilities = seen.logits.double().softmax(1)
            self.count(len(self.held), count_flops(self.network))
        return {}

    def state(self) -> dict[str, Any]:
        """The predictions too."""
        return {"probabilities": self.probabilities, **super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        self.probabilities = state["probabilities"]


def require_cleanlab() -> None:
    """Check that cleanlab is there.

    Raises:
        ConfigError: it is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("cleanlab") is None:
        raise ConfigError("cleanlab needs the bench extra: pip install 'lauter[bench]'")


def find_errors_by_cleanlab(
    probabilities: Floats, labels: Int64s, *, prune_by: PruneBy = "noise_rate"
) -> Bools:
    """Which given labels are wrong, by cleanlab's own ``find_label_issues``.

    Args:
        probabilities: [N, K] out-of-sample predictions.
        labels: [N] given labels, one for each image.
        prune_by: as in :func:`lauter.noisy.confident.find_confident_errors`.

    Returns:
        [N] mask.

    Raises:
        ConfigError: cleanlab is not installed.
    """
    require_cleanlab()
    from cleanlab.filter import find_label_issues

    name = prune_by if prune_by == "both" else f"prune_by_{prune_by}"
    issues = find_label_issues(labels, probabilities, filter_by=name, n_jobs=1)
    return np.asarray(issues, dtype=bool)
