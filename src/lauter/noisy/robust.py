"""Robust training: the whole network, on labels that are judged anew after every epoch."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lauter.data.batches import Batch, ImageBatches
from lauter.data.dataset import UNLABELLED, Dataset, Int64s
from lauter.errors import ConfigError
from lauter.losses.classification import cross_entropy, mean_over
from lauter.models import Network, count_flops
from lauter.noisy.beliefs import EpochEnsemble, Floats, estimate_prior, find_neighbours, vote
from lauter.noisy.correction import CorrectionConfig, correct_labels, propose_labels
from lauter.noisy.filtering import Assessment, FilterConfig, assess_labels
from lauter.training.schedule import OptimizerConfig
from lauter.training.tracking import TrackedStage, Tracker


@dataclass(frozen=True)
class RobustConfig:
    """Training on kept and corrected labels.

    Attributes:
        epochs: passes over the images.
        batch_size: images in a step.
        optimizer: how the weights move.
        ema_decay: of the weight average that becomes the teacher; 0 takes the weights themselves.
        beliefs: where they come from: both (their mean), ensemble or neighbours.
        ensemble_momentum: how long the ensemble over epochs remembers.
        neighbours: how many vote; never more than a tenth of the images.
        refresh_neighbours: epochs after which neighbours are searched anew in the trained features; 0 keeps
            those of the pretrained ones.
        weighting: soft (each image weighs as its label is probably right) or hard (kept ones alone, all the
            same).
        filter: how labels are judged.
        correction: when labels are corrected.
    """

    epochs: int = 40
    batch_size: int = 128
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1, warmup=0.03))
    ema_decay: float = 0.995
    beliefs: Literal["both", "ensemble", "neighbours"] = "both"
    ensemble_momentum: float = 0.9
    neighbours: int = 100
    refresh_neighbours: int = 5
    weighting: Literal["soft", "hard"] = "soft"
    filter: FilterConfig = field(default_factory=FilterConfig)
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.neighbours < 1 or self.refresh_neighbours < 0:
            raise ConfigError(
                "robust training needs epochs, batch_size and neighbours of 1 or more, refresh_neighbours "
                "of 0 or more, not "
                f"{self.epochs}, {self.batch_size}, {self.neighbours}, {self.refresh_neighbours}"
            )
        if not 0 <= self.ema_decay < 1 or not 0 <= self.ensemble_momentum < 1:
            raise ConfigError(
                f"ema_decay and ensemble_momentum must be in [0, 1), "
                f"not {self.ema_decay} and {self.ensemble_momentum}"
            )
        if self.beliefs not in ("both", "ensemble", "neighbours"):
            raise ConfigError(f"beliefs must be both, ensemble or neighbours, not {self.beliefs!r}")
        if self.weighting not in ("soft", "hard"):
            raise ConfigError(f"weighting must be soft or hard, not {self.weighting!r}")


class RobustStage(TrackedStage):
    """Prior-corrected cross-entropy on kept and corrected labels.

    The training pass itself feeds the ensemble: no extra pass over the training images is made for beliefs.
    Hold-out images are never trained on; their beliefs come from the pass that scores them.

    Args:
        network: pretrained, with a warmed-up head.
        data: with given labels only.
        train: rows to train on.
        batches: one view of each of them.
        features: float32 [N, D] of all images, for the first neighbours.
        probabilities: [N, K] of the warmed-up head under the training prior: the first predictions.
        config: everything else.
        tracker: follows the weight average.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        train: Int64s,
        batches: ImageBatches,
        features: Tensor,
        probabilities: Floats,
        config: RobustConfig,
        tracker: Tracker,
    ) -> None:
        super().__init__(
            "robust",
            config.epochs,
            batches,
            network,
            tracker,
            config.ema_decay,
            flops_per_image=3 * count_flops(network),
        )
        self.config = config
        self.given = data.labels
        self.train_rows = train
        self.device = batches.device
        self.neighbour_count = max(1, min(config.neighbours, len(data) // 10))
        self.neighbours = find_neighbours(features.numpy(), self.neighbour_count)
        self.features = features.to(self.device, copy=True)
        self.ensemble = EpochEnsemble(len(data), data.num_classes, config.ensemble_momentum)
        self.ensemble.update(np.arange(len(data)), probabilities)
        self.prior = estimate_prior(self.given, np.ones(len(data)), data.num_classes)
        self.stable_for = np.zeros(len(data), dtype=np.int64)
        self.suggested: Int64s = np.full(len(data), UNLABELLED, dtype=np.int64)
        self.corrected = np.zeros(len(data), dtype=bool)
        self.votes: Floats = probabilities
        self.beliefs: Floats = probabilities
        self.assessment: Assessment
        self._judge(epoch=-1)
        self._fresh = torch.zeros(len(data), data.num_classes, device=self.device)
        self.train_with(network.parameters(), config.optimizer)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on kept and corrected labels; every image's prediction is remembered."""
        output = self.network(batch.images)
        with torch.no_grad():
            self._fresh[batch.index] = (output.logits + self._log_prior).softmax(1)
            self.features[batch.index] = output.features
        values = cross_entropy(output.logits, self._targets[batch.index], log_prior=self._log_prior)
        return {"classification": mean_over(values, self._weights[batch.index])}

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Renew beliefs and judge every label again."""
        seen = self.tracker.follow(self.evaluated)
        holdout = self.tracker.watch.holdout
        prior = torch.log(torch.from_numpy(self.prior)).float()
        self.ensemble.update(holdout, (seen.logits + prior).softmax(1).double().numpy())
        self.ensemble.update(self.train_rows, self._fresh[self.train_rows].double().cpu().numpy())
        self.features[holdout] = seen.features.to(self.device)
        every = self.config.refresh_neighbours
        if every and (epoch + 1) % every == 0:
            self.neighbours = find_neighbours(self.features.cpu().numpy(), self.neighbour_count)
        self._judge(epoch)
        known = self.given != UNLABELLED
        return {
            "agreement_with_given": self.tracker.scores[-1],
            "noise_rate": self.assessment.noise_rate,
            "kept": float(self.assessment.kept[known].mean()),
            "corrected": float(self.corrected[known].mean()),
        }

    def _judge(self, epoch: int) -> None:
        """Votes, beliefs, assessment, corrections, and what they mean for the loss."""
        config = self.config
        voters = np.zeros(len(self.given))
        voters[self.train_rows] = 1  # hold-out labels select, so they must not teach: they have no vote
        trust = self.assessment.p_right if epoch >= 0 else 1.0
        votes = vote(self.neighbours, self.given, voters * trust, self.prior)
        if epoch < 0:  # the first votes know nothing yet; let the second heed them
            own = votes[np.arange(len(votes)), np.maximum(self.given, 0)]
            votes = vote(self.neighbours, self.given, voters * own / votes.max(1), self.prior)
        sources = {
            "both": (self.ensemble.probabilities + votes) / 2,
            "ensemble": self.ensemble.probabilities,
            "neighbours": votes,
        }
        self.votes, self.beliefs = votes, sources[config.beliefs]
        self.assessment = self._assess()
        before = self.suggested
        self.suggested, confidence = propose_labels(self.beliefs, self.prior)
        self.stable_for = np.where(self.suggested == before, self.stable_for + 1, 0)
        by_ensemble, _ = propose_labels(self.ensemble.probabilities, self.prior)
        by_votes, _ = propose_labels(votes, self.prior)
        self.corrected = np.zeros(len(self.given), dtype=bool)
        if epoch + 1 >= config.correction.first_epoch:
            self.corrected = correct_labels(
                self.assessment,
                self.suggested,
                confidence,
                by_ensemble == by_votes,
                self.stable_for,
                config.correction,
            )
        self._set_targets()

    def _assess(self) -> Assessment:
        """Judge training labels among themselves, and hold-out labels, which must not teach, among all."""
        everywhere = assess_labels(self.beliefs, self.given, self.config.filter)
        holdout = self.tracker.watch.holdout
        if not len(holdout):
            return everywhere
        without = self.given.copy()
        without[holdout] = UNLABELLED
        trained = assess_labels(self.beliefs, without, self.config.filter)
        for judged, of_all in (
            (trained.p_right, everywhere.p_right),
            (trained.standing, everywhere.standing),
            (trained.kept, everywhere.kept),
        ):
            judged[holdout] = of_all[holdout]
        return trained

    def _set_targets(self) -> None:
        targets = np.where(self.corrected, self.suggested, self.given)
        if self.config.weighting == "hard":
            weights = (self.assessment.kept | self.corrected).astype(np.float64)
        else:
            weights = np.where(self.corrected, 1.0, self.assessment.p_right)
        weights[targets == UNLABELLED] = 0
        rows = self.train_rows
        self.prior = estimate_prior(targets[rows], weights[rows], self.beliefs.shape[1])
        self._targets = torch.from_numpy(targets).to(self.device)
        self._weights = torch.from_numpy(weights).float().to(self.device)
        self._log_prior = torch.log(torch.from_numpy(self.prior)).float().to(self.device)

    def state(self) -> dict[str, Any]:
        """Everything that beliefs and judgements are made of."""
        arrays = {
            "neighbours": self.neighbours,
            "ensemble": self.ensemble.probabilities,
            "seen": self.ensemble.seen,
            "stable_for": self.stable_for,
            "suggested": self.suggested,
            "corrected": self.corrected,
            "votes": self.votes,
            "beliefs": self.beliefs,
            "p_right": self.assessment.p_right,
            "standing": self.assessment.standing,
            "kept": self.assessment.kept,
            "class_noise_rates": self.assessment.class_noise_rates,
        }
        return {
            "arrays": {name: torch.from_numpy(array) for name, array in arrays.items()},
            "noise_rate": self.assessment.noise_rate,
            "features": self.features,
            "fresh": self._fresh,
            **super().state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(state)
        arrays = {name: tensor.cpu().numpy() for name, tensor in state["arrays"].items()}
        self.neighbours = arrays["neighbours"]
        self.ensemble.probabilities, self.ensemble.seen = arrays["ensemble"], arrays["seen"]
        self.stable_for, self.suggested = arrays["stable_for"], arrays["suggested"]
        self.corrected, self.votes, self.beliefs = arrays["corrected"], arrays["votes"], arrays["beliefs"]
        self.assessment = Assessment(
            arrays["p_right"],
            arrays["standing"],
            arrays["kept"],
            state["noise_rate"],
            arrays["class_noise_rates"],
        )
        self.features = state["features"].to(self.device)
        self._set_targets()
        self._fresh = state["fresh"].to(self.device)
