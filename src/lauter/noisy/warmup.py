"""Warm-up: what is done before labels are judged for the first time.

The default trains the head alone, on frozen features: a network that only moves its head cannot memorise
wrong labels. The usual way, some epochs of the whole network, and none at all stand beside it.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lauter.data.batches import Batch, FeatureBatches, ImageBatches
from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.evaluation.metrics import balanced_agreement
from lauter.evaluation.protocol import select_epoch
from lauter.losses.classification import cross_entropy, mean_over
from lauter.models import Network
from lauter.noisy.beliefs import Floats, estimate_prior
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup
from lauter.training.stage import Stage
from lauter.training.supervised import SupervisedConfig, SupervisedStage
from lauter.training.tracking import Tracker, Watch


@dataclass(frozen=True)
class WholeConfig(SupervisedConfig):
    """The usual warm-up: the whole network, for a few epochs. Used where the warm-up's kind is whole.

    Attributes:
        epochs: the most passes over the labelled images.
        batch_size: images in a step.
        optimizer: how the weights move.
        ema_decay: of a weight average that takes the network's place; 0 takes the weights themselves.
    """

    epochs: int = 10


@dataclass(frozen=True)
class WarmupConfig:
    """What comes before labels are judged: the head on frozen features, the whole network, or nothing.

    Attributes:
        kind: head (alone, on frozen features), whole (the whole network) or none (the head stays random, and
            the first beliefs are the class shares).
        epochs: for head, the most passes over the stored features (cheap: no image is looked at again).
        patience: epochs without a better agreement on the noisy hold-out after which it ends; 0 trains for
            all epochs. With a patience, whole goes back to the weights of the best epoch.
        batch_size: for head, rows in a step.
        prior_correction: whether the class frequencies are taken out of what is learnt (logit adjustment).
        optimizer: for head, how it moves.
        whole: the settings of kind whole.
    """

    kind: Literal["head", "whole", "none"] = "head"
    epochs: int = 60
    patience: int = 15
    batch_size: int = 256
    prior_correction: bool = True
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", lr=0.01, weight_decay=1e-3)
    )
    whole: WholeConfig = field(default_factory=WholeConfig)

    def __post_init__(self) -> None:
        if self.kind not in ("head", "whole", "none"):
            raise ConfigError(f"warm-up kind must be head, whole or none, not {self.kind!r}")
        if self.epochs < 1 or self.batch_size < 1 or self.patience < 0:
            raise ConfigError(
                f"warm-up needs epochs and batch_size of 1 or more and a patience of 0 or more, "
                f"not {self.epochs}, {self.batch_size}, {self.patience}"
            )


def run_warmup(
    setup: Setup, network: Network, config: WarmupConfig, *, name: str = "warmup"
) -> tuple[Tensor, Floats]:
    r"""Warm a network up, and say what it believes then.

    .. math:: p_i = \operatorname{softmax}(x_i + \log \pi)

    with the logits x and the class shares :math:`\pi` of the given labels; without ``prior_correction`` what
    is learnt contains them already, and p is softmax(x). Without a warm-up p is :math:`\pi`.

    Args:
        setup: images and given labels.
        network: its head is trained (head), all of it (whole), or nothing.
        config: which of these.
        name: of the stage.

    Returns:
        Features, float32 [N, D] on the host, and probabilities [N, K] under the training prior, of all
        images: one pass over them, which the caller puts to the account.
    """
    data, labelled = setup.data, setup.labelled_train
    prior = estimate_prior(data.labels[labelled], np.ones(len(labelled)), data.num_classes)
    log_prior = torch.from_numpy(prior).log().float()
    learnt_prior = log_prior if config.prior_correction else None
    if config.kind == "whole":
        _train_whole(setup, network, config, learnt_prior, name)
    seen = setup.predict(network)
    if config.kind == "none":
        return seen.features, np.tile(prior, (len(data), 1))
    logits = seen.logits
    if config.kind == "head":
        logits = _train_head(setup, network, config, learnt_prior, name, seen.features)
    if config.prior_correction:
        logits = logits + log_prior
    return seen.features, logits.softmax(1).double().numpy()


def _train_whole(
    setup: Setup, network: Network, config: WarmupConfig, log_prior: Tensor | None, name: str
) -> None:
    """Train the whole network, and leave the weights in it that are to be kept."""
    # Test predictions of a warm-up would be stored and scored for nobody.
    tracker = Tracker(Watch(setup.data, setup.holdout, None, setup.loop.runtime, setup.image_size))
    batches = setup.batches(name, setup.labelled_train, config.whole.batch_size)
    stage = WholeWarmupStage(network, setup.data.labels, batches, tracker, log_prior, config, name=name)
    setup.loop.run_stage(stage)
    network.load_state_dict(tracker.selected if config.patience else stage.evaluated.state_dict())


def _train_head(
    setup: Setup,
    network: Network,
    config: WarmupConfig,
    log_prior: Tensor | None,
    name: str,
    features: Tensor,
) -> Tensor:
    """Train the head on stored features; gives its logits [N, K], on the host."""
    features = features.to(setup.loop.runtime.device)
    stage = WarmupStage(
        network.head,
        features,
        setup.data.labels,
        setup.labelled_train,
        setup.holdout,
        log_prior,
        config,
        derive_seed(setup.loop.seed, name),
        name=name,
    )
    setup.loop.run_stage(stage)
    with torch.no_grad():
        logits: Tensor = network.head(features)
    return logits.float().cpu()


class WarmupStage(Stage):
    """Cross-entropy of a linear head on stored features, prior-corrected where a prior is given.

    It is so cheap that every one of several processes computes all of it.

    Args:
        head: maps features [B, D] to logits [B, K].
        features: float32 [N, D] of all images.
        labels: [N] given labels, -1 for none.
        train: rows to learn from (labelled ones are taken).
        holdout: rows of the noisy hold-out.
        log_prior: [K], or None for plain cross-entropy.
        config: epochs, patience, optimiser.
        seed: decides the order.
        name: of the stage.
    """

    shares: ClassVar[bool] = True

    def __init__(
        self,
        head: nn.Module,
        features: Tensor,
        labels: Int64s,
        train: Int64s,
        holdout: Int64s,
        log_prior: Tensor | None,
        config: WarmupConfig,
        seed: int,
        *,
        name: str = "warmup",
    ) -> None:
        batches = FeatureBatches(features, train[labels[train] >= 0], config.batch_size, seed=seed)
        super().__init__(name, config.epochs, batches, {"head": head})
        self.head, self.features = head, features
        self.labels = torch.from_numpy(labels).to(features.device)
        self.holdout = torch.from_numpy(holdout).to(features.device)
        self.log_prior = None if log_prior is None else log_prior.to(features.device)
        self.patience = config.patience
        self.scores: list[float] = []
        self.train_with(head.parameters(), config.optimizer)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy against the given labels."""
        labels = self.labels[batch.index]
        values = cross_entropy(self.head(batch.images), labels, log_prior=self.log_prior)
        return {"classification": mean_over(values, torch.ones_like(values))}

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Agreement with the given labels of the hold-out, classes weighing the same."""
        if not len(self.holdout):
            return {}
        logits = self.head(self.features[self.holdout])
        given = self.labels[self.holdout].cpu().numpy()
        self.scores.append(balanced_agreement(logits.argmax(1).cpu().numpy(), given, logits.shape[1]))
        return {"agreement_with_given": self.scores[-1]}

    def finished(self, epoch: int) -> bool:
        """Whether the hold-out has not improved for ``patience`` epochs."""
        return has_stalled(self.scores, self.patience)

    def state(self) -> dict[str, list[float]]:
        """The hold-out's scores so far."""
        return {"scores": self.scores}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Take back what :meth:`state` gave."""
        self.scores = state["scores"]


class WholeWarmupStage(SupervisedStage):
    """Cross-entropy of the whole network on the given labels, for a few epochs.

    Args:
        network: trained whole.
        labels: [N] given labels, -1 for none.
        batches: the labelled training images.
        tracker: follows the network on the hold-out.
        log_prior: [K], or None for plain cross-entropy.
        config: epochs and optimiser of ``whole``, patience.
        name: of the stage.
    """

    def __init__(
        self,
        network: Network,
        labels: Int64s,
        batches: ImageBatches,
        tracker: Tracker,
        log_prior: Tensor | None,
        config: WarmupConfig,
        *,
        name: str = "warmup",
    ) -> None:
        super().__init__(name, network, labels, batches, config.whole, tracker, log_prior)
        self.patience = config.patience

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the network on the hold-out; that pass counts too."""
        # Training costs three passes, this one is one.
        self.count(len(self.tracker.watch.holdout), self.flops_per_image / 3)
        return super().end_epoch(epoch)

    def finished(self, epoch: int) -> bool:
        """Whether the hold-out has not improved for ``patience`` epochs."""
        return has_stalled(self.tracker.scores, self.patience)


def has_stalled(scores: list[float], patience: int) -> bool:
    """Whether the best of the scores so far is ``patience`` epochs old; never with a patience of 0.

    Example:
        >>> [has_stalled([0.2, 0.5, 0.4][:epochs], 1) for epochs in range(4)]
        [False, False, False, True]
        >>> has_stalled([0.5, 0.4, 0.3], 0)
        False
    """
    return bool(patience and scores) and len(scores) - 1 - select_epoch(scores) >= patience
