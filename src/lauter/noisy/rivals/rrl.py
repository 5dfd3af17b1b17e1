"""RRL's label rule: keep, relabel or drop by a soft label that neighbours and network agree on."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.batches import Batch
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy, mean_over
from lauter.noisy.beliefs import Floats, find_neighbours
from lauter.noisy.rivals.rival import Ground, RivalStage


@dataclass(frozen=True)
class RRLConfig:
    """Keep, relabel or drop.

    Attributes:
        warmup: share of the epochs that learn every given label, before the rule begins; rounded up, and one
            epoch at least (0.1, ours; the source takes 5 epochs of 200 for ten classes).
        neighbours: how many smooth a soft label (the source's 200); never more than a tenth of the images.
        temperature: of the neighbours' cosines (the source's 0.3): the nearer of them count for more.
        keep_above: a given label is kept when its soft label is above this many times chance, which is one
            over the number of classes (1: the source's 0.1 for ten classes; its 0.02 for a hundred is 2).
        relabel_above: any other image takes its most probable class when that is above this (the source's
            0.9), and is dropped when not; 1 relabels none.
    """

    warmup: float = 0.1
    neighbours: int = 200
    temperature: float = 0.3
    keep_above: float = 1.0
    relabel_above: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"rrl: warmup must be a share in [0, 1), not {self.warmup}")
        if self.neighbours < 1 or not self.temperature > 0:
            raise ConfigError(
                f"rrl: neighbours must be 1 or more and temperature above 0, "
                f"not {self.neighbours} and {self.temperature}"
            )
        if self.keep_above < 0 or not 0 <= self.relabel_above <= 1:
            raise ConfigError(
                f"rrl: keep_above must be 0 or more and relabel_above in [0, 1], "
                f"not {self.keep_above} and {self.relabel_above}"
            )


class RRLStage(RivalStage):
    """Cross-entropy on the labels that RRL's rule leaves, judged anew after every epoch.

    Features and predictions come from the training pass itself. Soft labels are remembered from epoch to
    epoch, so that what is kept speaks for its neighbours.

    Source of the rule: Li, Xiong and Hoi (2021), arXiv 2108.11035, with the numbers of its authors' code.
    Departures: the rule alone is taken, with cross-entropy; the paper's contrastive, prototypical and
    reconstruction losses, and with them its second, strong view and its low-dimensional subspace, are left
    out, so neighbours are those of the backbone's centred features; features and predictions are those of the
    training pass instead of a pass of their own; the length of the warm-up is ours.

    Attributes:
        targets: int64 [N] the labels that are learnt, on the device; -1 where one was dropped or never was.

    Args:
        config: warm-up, neighbours, thresholds.
        ground: what every method gets.

    Raises:
        ConfigError: ``keep_above`` asks for more than all of the probability, or there is but one image.
    """

    def __init__(self, config: RRLConfig, ground: Ground) -> None:
        super().__init__(ground)
        if config.keep_above >= self.num_classes:
            raise ConfigError(
                f"rrl: keep_above {config.keep_above} times chance is 1 or more for {self.num_classes} "
                f"classes, and no label would be kept; choose a number below {self.num_classes}"
            )
        self.config = config
        self.rows = ground.setup.labelled_train
        if len(self.rows) < 2:
            raise ConfigError(f"rrl: {len(self.rows)} labelled images have no neighbours; it needs 2 or more")
        self.warmup_epochs = max(1, math.ceil(config.warmup * self.epochs))
        self.neighbour_count = max(1, min(config.neighbours, len(self.rows) // 10))
        self.targets = torch.full_like(self.labels, UNLABELLED)
        self.targets[self.rows] = self.labels[self.rows]
        self.soft: Floats = np.zeros((0, self.num_classes))
        size = len(self.labels)
        self._features = torch.zeros(size, self.network.feature_size, device=self.device)
        self._probabilities = torch.zeros(size, self.num_classes, device=self.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``classification``, the mean over the images that have a label left."""
        output, _ = self.see(batch)
        with torch.no_grad():
            self._features[batch.index] = output.features
            self._probabilities[batch.index] = output.logits.softmax(1)
        targets = self.targets[batch.index]
        values = cross_entropy(output.logits, targets)
        return {"classification": mean_over(values, (targets >= 0).float())}

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Follow the network, and after the warm-up judge every label again."""
        metrics = super().end_epoch(epoch)
        if epoch + 1 < self.warmup_epochs:
            return metrics
        given = self.labels[self.rows].cpu().numpy()
        low, high = self.config.keep_above / self.num_classes, self.config.relabel_above
        features = self._features[self.rows].cpu().numpy()
        probs = self._probabilities[self.rows].double().cpu().numpy()
        neighbours = find_neighbours(features, self.neighbour_count)
        weights = weigh_neighbours(features, neighbours, self.config.temperature)
        if not len(self.soft):
            self.soft, _ = judge_labels(probs, given, low, high)
        smooth = smooth_labels(self.soft, probs, neighbours, weights)
        self.soft, targets = judge_labels(smooth, given, low, high)
        self.targets[self.rows] = torch.from_numpy(targets).to(self.device)
        return {
            **metrics,
            "kept": float(np.mean(targets == given)),
            "relabelled": float(np.mean((targets != given) & (targets != UNLABELLED))),
        }

    def state(self) -> dict[str, Any]:
        """Targets, soft labels, and what the epoch has shown so far."""
        return {
            "targets": self.targets,
            "soft": torch.from_numpy(self.soft),
            "features": self._features,
            "probabilities": self._probabilities,
            **super().state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        self.targets = state["targets"].to(self.device)
        self.soft = state["soft"].numpy()
        self._features = state["features"].to(self.device)
        self._probabilities = state["probabilities"].to(self.device)


def weigh_neighbours(features: NDArray[np.float32], neighbours: Int64s, temperature: float) -> Floats:
    r"""How much each neighbour counts.

    .. math:: w_{ij} = \frac{\exp(\cos(z_i, z_j) / \tau)}{\sum_{l \in N(i)} \exp(\cos(z_i, z_l) / \tau)}

    Args:
        features: [N, D]; z are these less their mean.
        neighbours: [N, k] rows.
        temperature: tau.

    Returns:
        [N, k], rows sum to 1.
    """
    vectors = features - features.mean(0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # One neighbour of every image at a time: all of them together would be [N, k, D].
    cosines = np.stack([np.einsum("nd,nd->n", vectors, vectors[column]) for column in neighbours.T], axis=1)
    nearest = cosines.max(1, keepdims=True)  # its weight is 1 before they are shared out: all stays finite
    weights = np.exp((cosines - nearest).astype(np.float64) / temperature)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def smooth_labels(soft: Floats, probabilities: Floats, neighbours: Int64s, weights: Floats) -> Floats:
    r"""New soft labels: half of what the neighbours carried, half of what the network says.

    .. math:: q_i \leftarrow \tfrac{1}{2} \sum_{j \in N(i)} w_{ij} q_j + \tfrac{1}{2} p_i

    Args:
        soft: [N, K] soft labels so far.
        probabilities: [N, K] of the network.
        neighbours: [N, k] rows.
        weights: [N, k] of :func:`weigh_neighbours`.

    Returns:
        [N, K], rows sum to 1 where those of the arguments do.
    """
    votes = np.zeros_like(soft)
    for column, weight in zip(neighbours.T, weights.T, strict=True):
        votes += weight[:, None] * soft[column]
    return np.asarray((votes + probabilities) / 2)


def judge_labels(soft: Floats, given: Int64s, low: float, high: float) -> tuple[Floats, Int64s]:
    """Keep, relabel or drop.

    Args:
        soft: [N, K] soft labels.
        given: [N] given labels.
        low: a given label that its soft label puts above this is kept, and from now on taken for certain.
        high: any other image takes its most probable class when that is above this.

    Returns:
        The soft labels [N, K] with what was kept made certain, and the labels to learn [N], -1 for a dropped
        one.
    """
    kept = soft[np.arange(len(given)), given] > low
    judged = soft.copy()
    judged[kept] = np.eye(soft.shape[1])[given[kept]]
    relabelled = np.where(soft.max(1) > high, soft.argmax(1), UNLABELLED)
    return judged, np.where(kept, given, relabelled)
