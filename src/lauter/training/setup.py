"""Setup: what every stage of one run shares: images, rows, test pixels, picture size, loop."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

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

    @property
    def view(self) -> ViewRecipe:
        """The view in which labels and teachers are learnt from."""
        return supervised_view(self.augment, self.image_size)

    def batches(
        self,
        name: str,
        index: Int64s,
        batch_size: int,
        recipes: tuple[ViewRecipe, ...] | None = None,
        *,
        view_seed: int | None = None,
        cycle: int = 0,
    ) -> ImageBatches:
        """Shuffled batches of views for a stage; one supervised view by default.

        Args:
            name: of the stage; it and the run's seed decide order and views.
            index: rows that take part.
            batch_size: images in a step.
            recipes: one view per recipe.
            view_seed: decides the views in the run's place (see :class:`ImageBatches`).
            cycle: after how many epochs the views come again; 0: never.
        """
        return ImageBatches(
            self.data.images,
            index,
            batch_size,
            recipes or (self.view,),
            self.image_size,
            seed=derive_seed(self.loop.seed, name),
            view_seed=view_seed,
            cycle=cycle,
            device=self.loop.runtime.device,
            workers=self.loop.runtime.config.workers,
            group=self.loop.runtime.group,
        )

    def track(self) -> Tracker:
        """A tracker for a stage's network."""
        return Tracker(Watch(self.data, self.holdout, self.test, self.loop.runtime, self.image_size))

    def predict(self, network: Network, index: Int64s | None = None) -> Predictions:
        """Predictions of a network for the unchanged images."""
        return predict(network, self.data.images, self.loop.runtime, index=index, image_size=self.image_size)


@contextmanager
def draw_from(seed: int, name: str) -> Iterator[None]:
    """Draw weights from (seed, name), whatever was drawn before; torch's random state is as it was after."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, name))
        yield
