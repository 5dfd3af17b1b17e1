"""What training on several labels per image needs beside training on classes: views, tracker, set-up."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lauter.data.sources.targets import Int8s
from lauter.data.views import ViewRecipe, supervised_view
from lauter.evaluation.multilabel import mean_average_precision
from lauter.models.network import Network
from lauter.training.predict import Predictions, predict
from lauter.training.setup import Setup
from lauter.training.tracking import Tracker, Watch

JITTER = 0.3
"""Largest relative change of brightness, contrast and saturation (Wang, Ge and Wu, arXiv 2011.01424)."""


def multilabel_view(augment: str, size: int) -> ViewRecipe:
    """The view for training with several labels: above 96 pixels the whole picture, flipped and jittered.

    A random crop would cut off small objects and leave their labels behind.

    Args:
        augment: none, digits (small shifts, no flip, no jitter) or objects.
        size: side of the image in pixels.

    Source: flip and jitter for VOC and COCO after Wang, Ge and Wu (2021), arXiv 2011.01424; shifts by an
    eighth of the side up to 96 pixels, and the jitter's fixed order, are ours.
    """
    plain = supervised_view(augment, size)
    if size <= 96 or augment != "objects":
        return ViewRecipe(pad=plain.pad, flip=plain.flip)
    return ViewRecipe(flip=plain.flip, jitter=1.0, brightness=JITTER, contrast=JITTER, saturation=JITTER)


class MultiLabelTracker(Tracker):
    """Follows one network through one stage of training on several labels per image.

    Args:
        watch: what is predicted after every epoch.
        targets: [N, K] given labels of the whole data set; those of the hold-out choose the epoch.

    Attributes:
        scores: mean average precision on the hold-out's given labels, by epoch.
        test_logits: float16 [N_test, K] by epoch; no label of theirs is here.
        holdout_logits: float16 by epoch.
        selected: weights of the epoch with the best score so far.
    """

    measure = "map_with_given"

    def __init__(self, watch: Watch, targets: Int8s) -> None:
        super().__init__(watch)
        self.given = targets[watch.holdout]
        self.test_logits: list[Tensor] = []
        self.holdout_logits: list[Tensor] = []

    def follow(self, network: Network) -> Predictions:
        """Take in the network as it is after an epoch; gives its predictions for the hold-out."""
        watch = self.watch
        seen = predict(
            network, watch.data.images, watch.runtime, index=watch.holdout, image_size=watch.image_size
        )
        # Half precision keeps at least the bits that bf16 autocast gave the logits.
        self.holdout_logits.append(seen.logits.half())
        self.scores.append(mean_average_precision(seen.logits.numpy(), self.given))
        self.keep_if_best(network)
        if watch.test is not None:
            tested = predict(network, watch.test, watch.runtime, image_size=watch.image_size)
            self.test_logits.append(tested.logits.half())
        return seen

    def state(self) -> dict[str, Any]:
        """For the stage's checkpoint."""
        names = ("scores", "test_logits", "holdout_logits", "selected")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class MultiLabelSetup(Setup):
    """The common ground of a multi-label run's stages.

    Attributes:
        targets: int8 [N, K] given labels: 1 present, 0 absent, -1 unknown.
    """

    targets: Int8s = field(kw_only=True)

    @property
    def view(self) -> ViewRecipe:
        """The view in which labels and teachers are learnt from."""
        return multilabel_view(self.augment, self.image_size)

    def track(self) -> MultiLabelTracker:
        """A tracker for a stage's network."""
        watch = Watch(self.data, self.holdout, self.test, self.loop.runtime, self.image_size)
        return MultiLabelTracker(watch, self.targets)
