"""What rivals have in common: the ground they stand on, and a stage that learns from given labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, ImageBatches
from lauter.models import Network, Output, count_flops
from lauter.training.setup import Setup
from lauter.training.supervised import SupervisedConfig
from lauter.training.tracking import TrackedStage


@dataclass(frozen=True, eq=False)
class Ground:
    """The equal ground of methods that learn from noisy labels: images, networks, length, optimiser.

    Attributes:
        name: of the method's stage; further stages of a method are named ``NAME.PART``.
        setup: images and given labels, never the truth.
        build: a network by its role; the same role gives the same weights to every method.
        training: epochs, batch size, optimiser and weight average, the same for every method.
    """

    name: str
    setup: Setup
    build: Callable[[str], Network]
    training: SupervisedConfig

    def batches(self, views: int = 1) -> ImageBatches:
        """The labelled training images in shuffled batches, the same order and views for every method."""
        setup = self.setup
        return setup.batches("rival", setup.labelled_train, self.training.batch_size, (setup.view,) * views)


class RivalStage(TrackedStage):
    """One network that learns from the given labels; a rival defines :meth:`loss`.

    Attributes:
        labels: int64 [N] given labels on the device, -1 for none.
        num_classes: K.

    Args:
        ground: what every method gets.
        views: of an image in a step.
        network: what is trained, followed and kept; ``ground.build("first")`` where None.
        modules: further modules of the stage.
        weights: factors of the loss terms.
        passes: forward passes that a view costs, a backward pass being two of them.
    """

    shares: ClassVar[bool] = True

    def __init__(
        self,
        ground: Ground,
        *,
        views: int = 1,
        network: Network | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        passes: float = 3,
    ) -> None:
        network = ground.build("first") if network is None else network
        super().__init__(
            ground.name,
            ground.training.epochs,
            ground.batches(views),
            network,
            ground.setup.track(),
            ground.training.ema_decay,
            modules=modules,
            weights=weights,
            flops_per_image=passes * count_flops(network),
        )
        self.ground = ground
        self.num_classes = network.num_classes
        self.device = ground.setup.loop.runtime.device
        self.labels = torch.from_numpy(ground.setup.data.labels).to(self.device)
        self.train_with(network.parameters(), ground.training.optimizer)

    def see(self, batch: Batch) -> tuple[Output, Tensor]:
        """The network's output for the first view, and the given labels [B], of the whole batch."""
        output = self.network(batch.images)
        logits, features = batch.gather(output.logits, output.features)
        return Output(logits, features), self.labels[batch.index]
