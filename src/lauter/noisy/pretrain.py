"""Self-supervised pretraining: features that owe nothing to a doubtful label."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, ImageBatches
from lauter.errors import ConfigError
from lauter.losses.contrastive import nt_xent
from lauter.models import Network, count_flops
from lauter.training.schedule import OptimizerConfig
from lauter.training.stage import Stage


@dataclass(frozen=True)
class PretrainConfig:
    """Self-supervised pretraining of the teacher's backbone, on all images, without labels.

    Attributes:
        method: simclr, or none (then the backbone starts as it comes).
        epochs: passes over the images, two views each.
        batch_size: images in a step; every other image of the step is a negative.
        temperature: of the contrastive softmax.
        projection_size: width of the projection that the loss compares.
        optimizer: how the weights move.
    """

    method: Literal["simclr", "none"] = "simclr"
    epochs: int = 60
    batch_size: int = 256
    temperature: float = 0.2
    projection_size: int = 128
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=0.4, weight_decay=5e-4, warmup=0.03)
    )

    def __post_init__(self) -> None:
        if self.method not in ("simclr", "none"):
            raise ConfigError(f"pretrain method must be simclr or none, not {self.method!r}")
        if self.epochs < 1 or self.batch_size < 2 or self.projection_size < 1:
            raise ConfigError(
                f"pretrain needs epochs >= 1, batch_size >= 2 and projection_size >= 1, "
                f"not {self.epochs}, {self.batch_size}, {self.projection_size}"
            )
        if not self.temperature > 0:
            raise ConfigError(f"pretrain temperature must be above 0, not {self.temperature}")


class SimCLRStage(Stage):
    """SimCLR: the two views of an image are each other's only positive in the batch.

    Source: Chen et al. (2020), arXiv 2002.05709. Departures: SGD instead of LARS; jitter in a fixed order.

    Args:
        network: its backbone is trained, its head is not touched.
        batches: two views of each image.
        config: epochs, temperature, optimiser.
    """

    def __init__(self, network: Network, batches: ImageBatches, config: PretrainConfig) -> None:
        width = network.feature_size
        projector = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, config.projection_size)
        )
        super().__init__(
            "pretrain",
            config.epochs,
            batches,
            {"network": network, "projector": projector},
            flops_per_image=3 * count_flops(network),
        )
        self.network = network
        self.projector = projector
        self.temperature = config.temperature
        self.train_with([*network.backbone.parameters(), *projector.parameters()], config.optimizer)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """NT-Xent over the projections of both views."""
        features, _ = self.network.features(torch.cat(batch.views))
        first, second = self.projector(features).float().chunk(2)
        return {"nt_xent": nt_xent(first, second, self.temperature)}
