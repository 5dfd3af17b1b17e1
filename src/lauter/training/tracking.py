"""Tracking: what every epoch predicts for hold-out and test, and the weights of the selected epoch.

Nothing here scores a test image: test predictions are stored and scored after training, so that the test
set cannot decide anything. The hold-out's labels are given ones, noisy like the training labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lauter.data.dataset import Dataset, Images, Int64s
from lauter.evaluation.metrics import balanced_agreement
from lauter.evaluation.protocol import select_epoch
from lauter.models.network import Network
from lauter.training.averaging import WeightAverage
from lauter.training.predict import Predictions, predict
from lauter.training.runtime import Runtime
from lauter.training.stage import BatchSource, Stage


@dataclass(frozen=True, eq=False)
class Watch:
    """What is predicted after every epoch.

    Attributes:
        data: the data set with given labels only.
        holdout: rows of the noisy hold-out.
        test: pixels of the test images, or None.
        runtime: device and precision.
        image_size: side of the pictures handed to the network.
    """

    data: Dataset
    holdout: Int64s
    test: Images | None
    runtime: Runtime
    image_size: int

    def see_holdout(self, network: Network) -> Predictions:
        """What a network says about the unchanged images of the hold-out."""
        return predict(
            network, self.data.images, self.runtime, index=self.holdout, image_size=self.image_size
        )


class Tracker:
    """Follows one network through one stage.

    Attributes:
        scores: balanced agreement with the hold-out's given labels, by epoch.
        test_predictions: int16 [N] per epoch; classes predicted for the test images.
        test_confidence: float16 [N] per epoch; the largest probability, for known against open.
        holdout_predictions: int16 per epoch.
        selected: weights of the epoch with the best score so far.
        measure: what the scores are called in the log.
    """

    measure: ClassVar[str] = "agreement_with_given"

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.scores: list[float] = []
        self.test_predictions: list[Tensor] = []
        self.test_confidence: list[Tensor] = []
        self.holdout_predictions: list[Tensor] = []
        self.selected: dict[str, Tensor] = {}

    def follow(self, network: Network) -> Predictions:
        """Take in the network as it is after an epoch; gives its predictions for the hold-out."""
        watch = self.watch
        seen = watch.see_holdout(network)
        classes = seen.classes()
        self.holdout_predictions.append(torch.from_numpy(classes.astype(np.int16)))
        given = watch.data.labels[watch.holdout]
        self.scores.append(balanced_agreement(classes, given, network.num_classes))
        self.keep_if_best(network)
        if watch.test is not None:
            tested = predict(network, watch.test, watch.runtime, image_size=watch.image_size)
            confidence, best = tested.logits.softmax(1).max(1)
            self.test_predictions.append(best.to(torch.int16))
            self.test_confidence.append(confidence.half())
        return seen

    def keep_if_best(self, network: Network) -> None:
        """Keep the network's weights where the last epoch is the best so far."""
        if select_epoch(self.scores) == len(self.scores) - 1:
            self.selected = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @property
    def selected_epoch(self) -> int:
        """The epoch that the hold-out chooses, 0-based."""
        return select_epoch(self.scores)

    def state(self) -> dict[str, Any]:
        """For the stage's checkpoint."""
        return {
            "scores": self.scores,
            "test_predictions": self.test_predictions,
            "test_confidence": self.test_confidence,
            "holdout_predictions": self.holdout_predictions,
            "selected": self.selected,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        for name, value in state.items():
            setattr(self, name, value)


class TrackedStage(Stage):
    """A stage that trains one network which is followed, and whose weights may be averaged.

    Args:
        name: of the stage.
        epochs: how many.
        batches: what it trains on.
        network: what is trained.
        tracker: follows the network that is evaluated.
        ema_decay: of the weight average that is evaluated and kept; 0 takes the weights themselves.
        modules: further modules of the stage.
        weights: factors of the loss terms.
        flops_per_image: for the cost account.
    """

    def __init__(
        self,
        name: str,
        epochs: int,
        batches: BatchSource,
        network: Network,
        tracker: Tracker,
        ema_decay: float,
        *,
        modules: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        flops_per_image: float = 0.0,
    ) -> None:
        self.average = WeightAverage(network, ema_decay) if ema_decay else None
        shadow = {} if self.average is None else {"average": self.average.shadow}
        super().__init__(
            name,
            epochs,
            batches,
            {"network": network, **shadow, **(modules or {})},
            weights=weights,
            flops_per_image=flops_per_image,
        )
        self.network = network
        self.tracker = tracker

    @property
    def evaluated(self) -> Network:
        """The network that is followed and kept: the weight average where there is one."""
        return self.network if self.average is None else self.average.shadow

    def after_step(self) -> None:
        """Move the weight average."""
        if self.average is not None:
            self.average.update()

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the network on hold-out and test."""
        self.tracker.follow(self.evaluated)
        return {self.tracker.measure: self.tracker.scores[-1]}

    def state(self) -> dict[str, Any]:
        """Tracker and average."""
        return {
            "tracker": self.tracker.state(),
            "average_steps": 0 if self.average is None else self.average.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.tracker.load_state(state["tracker"])
        if self.average is not None:
            self.average.steps = state["average_steps"]
