"""Setup: what every stage of one run shares: images, rows, test pixels, picture size, loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lauter.data.batches import ImageBatches
from lauter.data.counters import derive_seed
from lauter.data.dataset import Dataset, Images, Int64s
from lauter.data.views import ViewRecipe, supervised_view
from lauter.models.network import Network
from lauter.training.loop import Loop
from lauter.training.predict import Predictions, predict
from lauter.training.tracking import Tracker, Watch


@dataclass(frozen=True, eq=False)
class Setup:
    """The common ground of a run's stages.

    Attributes:
        data: all images with given labels; never with the truth.
        train: rows that labels are learnt from, and unlabelled ones.
        holdout: rows of the noisy hold-out.
        test: pixels of the test images, or None; no label of theirs is here.
        loop: runtime, checkpoints, progress, seed.
        image_size: side of the views in pixels.
        augment: none, digits or objects.
        own: networks that the caller brought, by role; each training starts from a copy.
    """

    data: Dataset
    train: Int64s
    holdout: Int64s
    test: Images | None
    loop: Loop
    image_size: int
    augment: str
    own: Mapping[str, Network] = field(default_factory=dict)

    @property
    def labelled_train(self) -> Int64s:
        """The training rows that have a given label."""
        return np.asarray(self.train[self.data.labelled[self.train]])

    def batches(
        self, name: str, index: Int64s, batch_size: int, recipes: tuple[ViewRecipe, ...] | None = None
    ) -> ImageBatches:
        """Shuffled batches of views for a stage; one supervised view by default."""
        return ImageBatches(
            self.data.images,
            index,
            batch_size,
            recipes or (supervised_view(self.augment, self.image_size),),
            self.image_size,
            seed=derive_seed(self.loop.seed, name),
            device=self.loop.runtime.device,
            workers=self.loop.runtime.config.workers,
        )

    def track(self) -> Tracker:
        """A tracker for a stage's network."""
        return Tracker(Watch(self.data, self.holdout, self.test, self.loop.runtime, self.image_size))

    def predict(self, network: Network, index: Int64s | None = None) -> Predictions:
        """Predictions of a network for the unchanged images."""
        return predict(network, self.data.images, self.loop.runtime, index=index, image_size=self.image_size)
