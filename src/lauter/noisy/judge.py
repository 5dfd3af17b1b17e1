"""The judge: what is believed of every label, and what a network is taught because of it.

One judge follows one network. While the network trains, the judge remembers what it showed of each image; at
the end of an epoch it renews its beliefs, assesses every given label and decides which labels are taught,
with which weight. All rules are ours.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.dataset import UNLABELLED, Dataset, Int64s
from lauter.errors import ConfigError
from lauter.noisy.beliefs import EpochEnsemble, Floats, estimate_prior, find_neighbours, vote
from lauter.noisy.correction import CorrectionConfig, correct_labels, make_soft_targets, propose_labels
from lauter.noisy.filtering import Assessment, FilterConfig, assess_labels
from lauter.noisy.thresholds import expect_right
from lauter.noisy.trust import trust_labels
from lauter.training.predict import Predictions


@dataclass(frozen=True)
class JudgeConfig:
    """How labels are judged while a network trains.

    Attributes:
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

    beliefs: Literal["both", "ensemble", "neighbours"] = "both"
    ensemble_momentum: float = 0.9
    neighbours: int = 100
    refresh_neighbours: int = 5
    weighting: Literal["soft", "hard"] = "soft"
    filter: FilterConfig = field(default_factory=FilterConfig)
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.refresh_neighbours < 0:
            raise ConfigError(
                f"neighbours must be 1 or more and refresh_neighbours 0 or more, "
                f"not {self.neighbours} and {self.refresh_neighbours}"
            )
        if not 0 <= self.ensemble_momentum < 1:
            raise ConfigError(f"ensemble_momentum must be in [0, 1), not {self.ensemble_momentum}")
        if self.beliefs not in ("both", "ensemble", "neighbours"):
            raise ConfigError(f"beliefs must be both, ensemble or neighbours, not {self.beliefs!r}")
        if self.weighting not in ("soft", "hard"):
            raise ConfigError(f"weighting must be soft or hard, not {self.weighting!r}")


class Judge:
    """Beliefs, assessment and corrections of all images, renewed after every epoch.

    Hold-out labels select an epoch, so they must not teach: they have no vote and no say in thresholds, and
    are judged all the same. What a person decided is final (``Dataset.trusted``): such a label is kept, and
    an image that a person left without one gets none.

    Attributes:
        beliefs: [N, K] distributions under the training prior.
        votes: [N, K] what the neighbours say.
        ensemble: what the network said over the epochs.
        prior: [K] class shares of what is taught.
        assessment: what the filter says of every given label.
        suggested: [N] the class each image most likely has.
        corrected: [N] whether the suggested label is taught in place of the given one.
        targets: what is taught, on the device: labels int64 [N], -1 for none; float32 [N, K] where corrected
            images are taught soft targets.
        weights: float32 [N] how much each counts, on the device.
        log_prior: float32 [K] on the device: what separates the network's logits from the training prior;
            zeros where the network learns without prior correction.

    Args:
        data: with given labels only.
        train: rows to train on.
        holdout: rows of the noisy hold-out.
        features: float32 [N, D] of all images, for the first neighbours.
        probabilities: [N, K] under the training prior: the first predictions.
        config: how labels are judged.
        device: where the network trains.
        epochs: of the training; corrections wait for a share of them.
        prior_correction: whether the network learns with the class frequencies taken out.
    """

    def __init__(
        self,
        data: Dataset,
        train: Int64s,
        holdout: Int64s,
        features: Tensor,
        probabilities: Floats,
        config: JudgeConfig,
        device: torch.device,
        *,
        epochs: int,
        prior_correction: bool = True,
    ) -> None:
        self.config = config
        self.prior_correction = prior_correction
        self.wait = config.correction.wait(epochs)
        self.given, self.trusted = data.labels, data.trusted
        self.train, self.holdout = train, holdout
        self.device = device
        self.neighbour_count = max(1, min(config.neighbours, len(data) // 10))
        self.neighbours = find_neighbours(features.numpy(), self.neighbour_count)
        self.ensemble = EpochEnsemble(len(data), data.num_classes, config.ensemble_momentum)
        self.ensemble.update(np.arange(len(data)), probabilities)
        self.prior = estimate_prior(self._taught_labels(), np.ones(len(data)), data.num_classes)
        self.stable_for = np.zeros(len(data), dtype=np.int64)
        self.suggested: Int64s = np.full(len(data), UNLABELLED, dtype=np.int64)
        self.corrected = np.zeros(len(data), dtype=bool)
        self._latest = torch.from_numpy(probabilities).float().to(device)
        self._features = features.to(device, copy=True)
        self.votes: Floats = probabilities
        self.beliefs: Floats = probabilities
        self.assessment: Assessment
        self._judge(epoch=-1)

    def remember(self, index: Tensor, logits: Tensor, features: Tensor, log_prior: Tensor) -> None:
        """Take in what the network shows of a batch.

        Args:
            index: [B] rows.
            logits: [B, K].
            features: [B, D].
            log_prior: [K] with which the network learns, its own judge's or another's.
        """
        self._latest[index] = (logits.detach() + log_prior).softmax(1).to(self._latest.dtype)
        self._features[index] = features.detach().to(self._features.dtype)

    def close_epoch(self, epoch: int, seen: Predictions, log_prior: Tensor | None = None) -> dict[str, float]:
        """Renew beliefs and judge every label again.

        Args:
            epoch: which has ended, 0-based.
            seen: what the network says about the hold-out.
            log_prior: as for :meth:`remember`; the judge's own where None.

        Returns:
            noise_rate, kept and corrected (shares of the labelled images), for the log.
        """
        holdout = torch.from_numpy(self.holdout).to(self.device)
        prior = self.log_prior if log_prior is None else log_prior
        self.remember(holdout, seen.logits.to(self.device), seen.features.to(self.device), prior)
        self.ensemble.update(np.arange(len(self.given)), self._latest.double().cpu().numpy())
        every = self.config.refresh_neighbours
        if every and (epoch + 1) % every == 0:
            self.neighbours = find_neighbours(self._features.cpu().numpy(), self.neighbour_count)
        self._judge(epoch)
        known = self.given != UNLABELLED
        return {
            "noise_rate": self.assessment.noise_rate,
            "kept": float(self.assessment.kept[known].mean()),
            "corrected": float(self.corrected[known].mean()),
        }

    def choose_targets(self) -> Int64s:
        """[N] the labels that may be trusted: kept or corrected ones; -1 for all others."""
        targets = np.where(self.corrected, self.suggested, self.given)
        return np.where(self.assessment.kept | self.corrected, targets, UNLABELLED)

    def _judge(self, epoch: int) -> None:
        """Votes, beliefs, assessment, corrections, and what they mean for the loss."""
        config = self.config
        self.votes = self._collect_votes(self.assessment.p_right if epoch >= 0 else None)
        sources = {
            "both": (self.ensemble.probabilities + self.votes) / 2,
            "ensemble": self.ensemble.probabilities,
            "neighbours": self.votes,
        }
        self.beliefs = sources[config.beliefs]
        self.assessment = trust_labels(self._assess(), self.given, self.trusted)
        before = self.suggested
        self.suggested, confidence = propose_labels(self.beliefs, self.prior)
        self.stable_for = np.where(self.suggested == before, self.stable_for + 1, 0)
        self.corrected = np.zeros(len(self.given), dtype=bool)
        if epoch + 1 >= self.wait:
            self.corrected = self._correct(confidence)
            if self.trusted is not None:
                self.corrected &= ~self.trusted
        self._set_targets()

    def _correct(self, confidence: Floats) -> NDArray[np.bool_]:
        """Which images take their suggested label."""
        config, right = self.config.correction, self.assessment.p_right
        by_ensemble, _ = propose_labels(self.ensemble.probabilities, self.prior)
        by_votes, _ = propose_labels(self.votes, self.prior)
        # A source that beliefs are not made of has no veto either.
        agreed = (by_ensemble == by_votes) | (self.config.beliefs != "both")
        expected = None
        if config.precision:
            trusted = agreed & (self.stable_for >= config.stable_epochs)
            expected = expect_right(self.beliefs, self._taught_labels(), right, self.prior, trusted)
        among = np.zeros(len(self.given), dtype=bool)
        among[self.train] = True
        return correct_labels(
            self.assessment,
            self.suggested,
            confidence,
            agreed,
            self.stable_for,
            config,
            expected=expected,
            among=among,
        )

    def _taught_labels(self) -> Int64s:
        """The given labels without those of the hold-out, which must not teach."""
        labels = self.given.copy()
        labels[self.holdout] = UNLABELLED
        return labels

    def _collect_votes(self, trust: Floats | None) -> Floats:
        """Votes of the neighbours, each as far as its own label is trusted."""
        voters = np.zeros(len(self.given))
        voters[self.train] = 1
        if trust is not None:
            return vote(self.neighbours, self.given, voters * trust, self.prior)
        # The first votes know nothing yet; let the second heed them.
        votes = vote(self.neighbours, self.given, voters, self.prior)
        own = votes[np.arange(len(votes)), np.maximum(self.given, 0)]
        return vote(self.neighbours, self.given, voters * own / votes.max(1), self.prior)

    def _assess(self) -> Assessment:
        """Judge training labels among themselves, and hold-out labels, which must not teach, among all."""
        everywhere = self._assess_labels(self.given)
        if not len(self.holdout):
            return everywhere
        trained = self._assess_labels(self._taught_labels())
        for judged, of_all in (
            (trained.p_right, everywhere.p_right),
            (trained.standing, everywhere.standing),
            (trained.kept, everywhere.kept),
        ):
            judged[self.holdout] = of_all[self.holdout]
        return trained

    def _assess_labels(self, labels: Int64s) -> Assessment:
        losses = None
        if self.config.filter.signal == "loss":
            given = torch.from_numpy(np.maximum(labels, 0)).to(self.device)[:, None]
            latest = self._latest.gather(1, given)[:, 0].double().cpu().numpy()
            losses = -np.log(np.maximum(latest, np.finfo(np.float32).tiny))
        return assess_labels(self.beliefs, labels, self.config.filter, losses=losses)

    def _set_targets(self) -> None:
        targets = np.where(self.corrected, self.suggested, self.given)
        if self.config.weighting == "hard":
            weights = (self.assessment.kept | self.corrected).astype(np.float64)
        else:
            weights = np.where(self.corrected, 1.0, self.assessment.p_right)
        weights[targets == UNLABELLED] = 0
        rows = self.train
        self.prior = estimate_prior(targets[rows], weights[rows], self.beliefs.shape[1])
        self.targets = torch.from_numpy(targets).to(self.device)
        if self.config.correction.targets == "soft":
            soft = make_soft_targets(self.given, self.corrected, self.beliefs)
            counts = (weights[rows, None] * soft[rows]).sum(0) + 0.5
            self.prior = counts / counts.sum()
            self.targets = torch.from_numpy(soft).float().to(self.device)
        self.weights = torch.from_numpy(weights).float().to(self.device)
        log_prior = torch.log(torch.from_numpy(self.prior)) * self.prior_correction
        self.log_prior = log_prior.float().to(self.device)

    def state(self) -> dict[str, Any]:
        """Everything that beliefs and judgements are made of."""
        arrays: dict[str, NDArray[Any]] = {
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
            "latest": self._latest,
            "features": self._features,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
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
        self._latest = state["latest"].to(self.device)
        self._features = state["features"].to(self.device)
        self._set_targets()
