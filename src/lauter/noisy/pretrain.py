"""Self-supervised pretraining: features that owe nothing to a doubtful label."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, ImageBatches
from lauter.errors import ConfigError
from lauter.losses.contrastive import info_nce_queue, nt_xent
from lauter.models import Network, count_flops
from lauter.models.network import lift_half
from lauter.noisy.moco import KeyQueue, MomentumEncoder, limit_queue
from lauter.noisy.monitor import NeighbourMonitor
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup
from lauter.training.stage import Stage


@dataclass(frozen=True)
class PretrainConfig:
    """Self-supervised pretraining of the teacher's backbone, on all images, without labels.

    Attributes:
        method: simclr, moco (which wants about a third of the learning rate), or none (then the backbone
            starts as it comes).
        epochs: passes over the images, two views each.
        batch_size: images in a step; for simclr every other image of the step is a negative.
        temperature: of the contrastive softmax.
        projection_size: width of the projection that the loss compares.
        queue: for moco, how many keys of earlier images are negatives; never more than half of the images.
        momentum: for moco, the share of its own weights that the momentum network keeps in a step. 0.99 suits
            thousands of steps, the source's 0.999 a million.
        monitor_every: epochs after which neighbours in feature space are compared with the given labels of
            the hold-out, to be looked at (nothing is decided by it); 0 never does.
        optimizer: how the weights move. The default's lr suits simclr; moco wants less, about 0.12.
    """

    method: Literal["simclr", "moco", "none"] = "simclr"
    epochs: int = 60
    batch_size: int = 256
    temperature: float = 0.2
    projection_size: int = 128
    queue: int = 4096
    momentum: float = 0.99
    monitor_every: int = 10
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=0.4, weight_decay=5e-4, warmup=0.03)
    )

    def __post_init__(self) -> None:
        if self.method not in ("simclr", "moco", "none"):
            raise ConfigError(f"pretrain method must be simclr, moco or none, not {self.method!r}")
        if self.epochs < 1 or self.batch_size < 2 or self.projection_size < 1:
            raise ConfigError(
                f"pretrain needs epochs >= 1, batch_size >= 2 and projection_size >= 1, "
                f"not {self.epochs}, {self.batch_size}, {self.projection_size}"
            )
        if not self.temperature > 0:
            raise ConfigError(f"pretrain temperature must be above 0, not {self.temperature}")
        if self.queue < 1:
            raise ConfigError(f"pretrain queue must hold 1 key or more, not {self.queue}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"pretrain momentum must be in [0, 1), not {self.momentum}")
        if self.monitor_every < 0:
            raise ConfigError(
                f"pretrain monitor_every must be 1 epoch or more, or 0 for never, not {self.monitor_every}"
            )

    @property
    def stage_name(self) -> str:
        """The name of the stage; recipes of one run that pretrain by the same method share it."""
        return "pretrain" if self.method == "simclr" else f"pretrain-{self.method}"


class Encoder(nn.Module):
    """What contrastive losses compare: a projection of a network's features.

    Args:
        network: its head is not used.
        projector: features [B, D] -> projections [B, d].
    """

    def __init__(self, network: Network, projector: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.projector = projector

    def forward(self, pixels: Tensor) -> Tensor:
        """Raw-scale pixels [B, 3, H, W] -> projections [B, d] in float32 at least."""
        features, _ = self.network.features(pixels)
        projections: Tensor = self.projector(features)
        return lift_half(projections)


class SelfSupervisedStage(Stage):
    """What self-supervised stages share: a projection of two layers, and what follows the features.

    Args:
        network: its backbone is trained, its head is not touched.
        batches: two views of each image.
        config: epochs, temperature, optimiser.
        monitor: follows the features while they are learnt; None does not.
    """

    shares: ClassVar[bool] = True
    passes: float = 3
    """Forward passes that a view costs; a backward pass is two of them."""

    def __init__(
        self,
        network: Network,
        batches: ImageBatches,
        config: PretrainConfig,
        monitor: NeighbourMonitor | None = None,
    ) -> None:
        width = network.feature_size
        projector = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, config.projection_size)
        )
        self.encoder = Encoder(network, projector)
        super().__init__(
            config.stage_name,
            config.epochs,
            batches,
            {"network": network, "projector": projector},
            flops_per_image=self.passes * count_flops(network),
        )
        self.network, self.projector = network, projector
        self.temperature = config.temperature
        self.monitor = monitor
        self.train_with([*network.backbone.parameters(), *projector.parameters()], config.optimizer)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Look at the features, where it is time to."""
        return {} if self.monitor is None else self.monitor.follow(self, epoch)


class SimCLRStage(SelfSupervisedStage):
    """SimCLR: the two views of an image are each other's only positive in the batch.

    Source: Chen et al. (2020), arXiv 2002.05709. Departures: SGD instead of LARS; jitter in a fixed order.
    """

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """NT-Xent over the projections of both views."""
        first, second = batch.gather(*self.encoder(torch.cat(batch.views)).chunk(2))
        return {"nt_xent": nt_xent(first, second, self.temperature)}


class MoCoStage(SelfSupervisedStage):
    """MoCo v2: a view is told from the keys of earlier images, which a slower network made of their views.

    A step costs four forward passes an image (three with the gradient of the one view, one for the key of the
    other), where SimCLR's costs six.

    Source: He et al. (2020), arXiv 1911.05722; projection of two layers, temperature 0.2 and cosine schedule
    of v2, Chen et al. (2020), arXiv 2003.04297. Departures: those of :class:`MomentumEncoder` and of
    :class:`KeyQueue`; the queue is no longer than half of the images; the hidden layer is twice as wide as
    the features, as for SimCLR.
    """

    passes = 2.0  # on average: one view with gradient, 3, and one without, 1

    def __init__(
        self,
        network: Network,
        batches: ImageBatches,
        config: PretrainConfig,
        monitor: NeighbourMonitor | None = None,
    ) -> None:
        super().__init__(network, batches, config, monitor)
        self.follower = MomentumEncoder(self.encoder, config.momentum)
        self.modules["momentum"] = self.follower.shadow
        length = limit_queue(config.queue, batches.images_per_epoch)
        self.queue = KeyQueue(length, config.projection_size, batches.device)
        self._newest: tuple[Tensor, Tensor]

    def begin_epoch(self, epoch: int) -> None:
        """Modules to training mode, that of the keys too."""
        super().begin_epoch(epoch)
        self.follower.shadow.train()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """InfoNCE of the first view's projection, its key being the second view's."""
        query = self.encoder(batch.views[0])
        key = self.follower.make_keys(batch.views[1], batch.group.size)
        own = self.queue.own(batch.own)
        values = info_nce_queue(query, key, self.queue.keys, self.temperature, own=own)
        values, keys = batch.gather(values, key)
        self._newest = keys.detach(), batch.index
        return {"info_nce": values}

    def after_step(self) -> None:
        """Move the momentum network; the keys of this step become negatives of the next ones."""
        self.follower.update()
        self.queue.push(*self._newest)

    def state(self) -> dict[str, Any]:
        """The queue."""
        return {"queue": self.queue.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.queue.load_state(state["queue"])


STAGES: dict[str, type[SelfSupervisedStage]] = {"simclr": SimCLRStage, "moco": MoCoStage}


def make_pretrain_stage(
    network: Network, batches: ImageBatches, config: PretrainConfig, setup: Setup
) -> SelfSupervisedStage:
    """The stage of a method, ready to run.

    Args:
        network: its backbone is trained, its head is not touched.
        batches: two views of each image.
        config: names the method.
        setup: labels and hold-out, which nothing but the monitor looks at.

    Raises:
        ConfigError: the method is none.
        DataError: the features are to be monitored, and there is no label to do it by.
    """
    if config.method not in STAGES:
        raise ConfigError(
            f"pretrain method {config.method} has no stage; run none, or take {' or '.join(STAGES)}"
        )
    monitor = NeighbourMonitor(setup, network, config.monitor_every) if config.monitor_every else None
    length = limit_queue(config.queue, batches.images_per_epoch)
    if config.method == "moco" and length < config.queue:
        setup.loop.progress.say(
            f"pretrain    the queue holds {length:,} keys, half of the images, and not {config.queue:,}"
        )
    if config.method == "moco" and config.optimizer.lr > 0.2:
        setup.loop.progress.say(
            f"pretrain    moco learns badly at pretrain.optimizer.lr {config.optimizer.lr}; 0.12 suits it"
        )
    return STAGES[config.method](network, batches, config, monitor)
