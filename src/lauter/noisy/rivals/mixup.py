"""Mixup: every image is mixed with another one, and so are their labels."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.data.batches import Batch
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy
from lauter.losses.robust import mix
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class MixupConfig:
    """Mixup.

    Attributes:
        alpha: an image's share in its mix is drawn from Beta(alpha, alpha): 1, the source's for CIFAR-10,
            draws it uniformly; 0 does not mix.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"mixup: alpha must be finite and 0 or more, not {self.alpha}; 1 is usual")


def draw_mix(count: int, alpha: float) -> tuple[Tensor, float]:
    """Draw how a batch is mixed from torch's generator, on the host.

    Args:
        count: B.
        alpha: of Beta(alpha, alpha), 0 or more.

    Returns:
        Partners, a permutation [B], and the share of each image in its mix; with an alpha of 0 every image is
        its own partner and nothing is drawn.
    """
    if not alpha:
        return torch.arange(count), 1.0
    share = torch.distributions.Beta(alpha, alpha).sample()
    return torch.randperm(count), float(share)


class MixupStage(RivalStage):
    """Cross-entropy on mixed images and mixed labels.

    Pixels are mixed before they are normalised; normalisation is affine, so that is the same.

    Source: Zhang et al. (2018), arXiv 1710.09412; one share per batch, as in the authors' code. Departures:
    length, optimiser and schedule are those of every method.

    Args:
        config: the distribution of shares.
        ground: what every method gets.
    """

    def __init__(self, config: MixupConfig, ground: Ground) -> None:
        super().__init__(ground)
        self.config = config

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``classification`` [B]."""
        with batch.group.same_draws():
            partners, share = draw_mix(len(batch), self.config.alpha)
        partners = partners.to(self.device)
        given = F.one_hot(self.labels[batch.index], self.num_classes).float()
        (pictures,) = batch.gather(batch.images)  # a partner may be in the part of another process
        mixed = batch.take_part(mix(pictures, partners, share))
        (logits,) = batch.gather(self.network(mixed).logits)
        return {"classification": cross_entropy(logits, mix(given, partners, share))}
