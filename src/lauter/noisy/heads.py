r"""Cross-fitted linear heads: what frozen features say of each image, by a head that never saw its label.

The images are divided into F folds, and head f is fitted to all folds but its own:

.. math:: \min_{W, b} \; \frac{1}{n_f} \sum_{i: f_i \ne f} w_{if} \,
          \ell\left(W^\top z_i + b + \log \pi_f, \; \tilde y_i\right)
          + \frac{\tau}{2 n_f} \left(\lVert W \rVert^2 + \lVert b \rVert^2\right),
          \qquad n_f = \sum_{i: f_i \ne f} w_{if}

with cross-entropy :math:`\ell`, standardised features z, and the class shares :math:`\pi_f` of the labels
that head f may see, so that where the features say nothing, the head says :math:`\pi_f`. The strength
:math:`\tau` of the penalty is the one under which the given labels of the folds that were left out are most
likely, some of them being wrong (``likelihood.py``).

All heads are fitted together, by L-BFGS on gradients written out: one pass over the features serves them all.
The features are turned to their principal axes first. There the Hessian is close to diagonal and known
beforehand, and in coordinates scaled by it some twenty steps are enough, whatever the features are like.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.axes import Axes
from lauter.noisy.beliefs import Floats
from lauter.noisy.likelihood import score_under_noise
from lauter.noisy.minimising import minimise
from lauter.noisy.neighbours import Report

_BLOCK = 16_384  # rows of features looked at together
_LOGITS = 2**23  # logits computed together
_TOLERANCE = 1e-4  # relative gain of the objective at which a fit ends
_COARSE = 1e-3  # the same while strengths are compared
_STRENGTHS = tuple(10 ** (0.5 * power) for power in range(-2, 9))  # 0.1 .. 10,000
_CHOOSING_ROWS = 20_000  # images by which the strength is chosen
_OPERATIONS = 4e13  # of a whole fit at most; steps are fewer where one alone costs much


@dataclass(frozen=True, eq=False)
class Heads:
    """One linear head for each fold, fitted to all the others.

    Attributes:
        axes: what they stand on.
        weights: [F, d + 1, K].
        log_priors: [F, K] log class shares of the labels that each head saw.
        strength: the penalty's strength.
        weighted: whether images taught as much as their weights say.
    """

    axes: Axes
    weights: Tensor
    log_priors: Tensor
    strength: float
    weighted: bool

    def predict(self, rows: Int64s) -> NDArray[np.float32]:
        """Probabilities [B, K] for images among those that were fitted to, each by the head of its fold."""
        probs = torch.empty(len(rows), self.weights.shape[2])
        for fold in range(self.axes.num_folds):
            own = np.flatnonzero(self.axes.folds[rows] == fold)
            if len(own):
                values = self.axes.values[torch.from_numpy(self.axes.places[rows[own]])].float()
                logits = values @ self.weights[fold] + self.log_priors[fold]
                probs[torch.from_numpy(own)] = logits.softmax(1)
        return probs.numpy()

    def predict_new(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities [B, K] for features [B, D] of other images: the mean of all heads."""
        centred = torch.from_numpy(np.asarray(features, dtype=np.float32) - self.axes.mean)
        values = torch.nn.functional.pad(centred @ self.axes.turn, (0, 1), value=1.0)
        logits = values @ self.weights + self.log_priors[:, None]
        return logits.softmax(2).mean(0).numpy()


def draw_folds(labels: Int64s, count: int, generator: np.random.Generator) -> Int64s:
    """Divide images into folds at random, those of each label as evenly as can be.

    Args:
        labels: [N] given labels, -1 where there is none; images without one are divided likewise.
        count: F, at least 2.
        generator: draws them.

    Returns:
        [N] folds in 0..F-1; no fold is empty where there are as many images as folds.

    Raises:
        ConfigError: there are fewer than two folds, or fewer images than folds.
    """
    if not 2 <= count <= len(labels):
        raise ConfigError(
            f"folds must be 2 or more and at most one for each of {len(labels)} images, not {count}"
        )
    shuffled = generator.permutation(len(labels))
    # One deal around the table, label after label: a class of three images begins where the last one ended.
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return np.asarray(generator.permutation(count)[folds])


def fit_heads(
    axes: Axes,
    labels: Int64s,
    num_classes: int,
    *,
    weights: Floats | None = None,
    weighted: bool | None = None,
    strength: float = 0.0,
    generator: np.random.Generator,
    report: Report | None = None,
) -> Heads:
    """Fit one head to all folds but each.

    Args:
        axes: of :func:`find_axes`.
        labels: [N] given labels, -1 where there is none; such images teach nothing.
        num_classes: K.
        weights: [F, N] how much each image counts for the head of each fold; None where all count the same.
            An image that head f must not depend on must not have swayed row f either.
        weighted: whether the weights are heeded; None where that is to be chosen as the strength is.
        strength: the penalty's, in units of images; 0 chooses it.
        generator: draws the images by which is chosen, where there are many.
        report: called as it goes on.

    Returns:
        The heads. A class that none of a head's images carries is believed as its prior says.

    Raises:
        DataError: shapes do not fit, or some head has no labelled image to learn from.
        ConfigError: the strength is negative.
    """
    count = len(axes.values)
    if labels.shape != (count,) or (weights is not None and weights.shape != (axes.num_folds, count)):
        given = None if weights is None else list(weights.shape)
        raise DataError(
            f"features of {count} images in {axes.num_folds} folds need labels [{count}] and weights "
            f"[{axes.num_folds}, {count}], not {list(labels.shape)} and {given}"
        )
    if not strength >= 0:
        raise ConfigError(f"head strength must be 0 (chosen) or more, not {strength}")
    problems = {}
    if weighted or (weighted is None and weights is not None):
        problems[True] = _Problem.make(axes, labels, num_classes, weights)
    if not weighted:
        problems[False] = _Problem.make(axes, labels, num_classes, None)
    start = torch.zeros(axes.num_folds, axes.values.shape[1], num_classes)
    heeded = bool(weighted)
    if not strength or len(problems) == 2:
        rows = _choose_rows(len(axes.values), generator)
        strengths = (strength,) if strength else _STRENGTHS
        found = {
            key: _choose_strength(problem.sample(rows), start, strengths, report)
            for key, problem in problems.items()
        }
        heeded = max(found, key=lambda key: found[key].score)
        strength, start = found[heeded].strength, found[heeded].heads
    problem = problems[heeded]
    fitted = problem.fit(start, strength, _TOLERANCE, report)
    return Heads(axes, fitted, problem.log_priors, strength, heeded)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is minimised: all heads' penalised losses, added up.

    Attributes:
        values: [N, d + 1] features, in the order of folds.
        variances: [d + 1].
        starts: where each fold begins.
        labels: [N] in the same order; 0 where there is none.
        weights: [N, F] how much each image counts for each head; 0 for its own fold's and without a label.
        known: [N] whether there is a label.
        log_priors: [F, K].
        totals: [F] sums of the weights.
    """

    values: Tensor
    variances: Tensor
    starts: list[int]
    labels: Tensor
    weights: Tensor
    known: Tensor
    log_priors: Tensor
    totals: Tensor

    @classmethod
    def make(cls, axes: Axes, labels: Int64s, num_classes: int, weights: Floats | None) -> "_Problem":
        order = np.argsort(axes.places)
        given, folds = labels[order], axes.folds[order]
        known = given != UNLABELLED
        counting = np.ones((len(labels), axes.num_folds), np.float32)
        if weights is not None:
            counting = weights.T[order].astype(np.float32)
        counting[~known] = 0
        counting[np.arange(len(folds)), folds] = 0
        taught = np.where(known, given, 0)
        shares = np.stack(
            [np.bincount(taught, counting[:, fold], num_classes) + 0.5 for fold in range(axes.num_folds)]
        )
        log_priors = np.log(shares / shares.sum(1, keepdims=True)).astype(np.float32)
        totals = counting.sum(0, dtype=np.float64)
        if not (totals > 0).all():
            raise DataError(
                f"no labelled image is left to fit the head of fold {int((totals > 0).argmin())} to; "
                "at least two labelled images are needed, in two folds"
            )
        return cls(
            axes.values,
            axes.variances,
            axes.starts.tolist(),
            torch.from_numpy(taught),
            torch.from_numpy(counting),
            torch.from_numpy(known),
            torch.from_numpy(log_priors),
            torch.from_numpy(totals),
        )

    @property
    def num_folds(self) -> int:
        return len(self.starts) - 1

    def sample(self, chosen: Int64s) -> "_Problem":
        """The same with some of the images, in ascending order; all of them where that is all."""
        if len(chosen) == len(self.values):
            return self
        taken = torch.from_numpy(chosen)
        counting = self.weights[taken]
        return _Problem(
            self.values[taken],
            self.variances,
            np.searchsorted(chosen, self.starts).tolist(),
            self.labels[taken],
            counting,
            self.known[taken],
            self.log_priors,
            counting.sum(0, dtype=torch.float64).clamp_min(1e-6),
        )

    def iterate(self, width: int) -> Iterator[tuple[int, slice, Tensor]]:
        """Blocks of rows, each of one fold, with their features in float32."""
        size = max(1, min(_BLOCK, _LOGITS // width))
        for fold in range(self.num_folds):
            for start in range(self.starts[fold], self.starts[fold + 1], size):
                rows = slice(start, min(start + size, self.starts[fold + 1]))
                yield fold, rows, self.values[rows].float()

    def evaluate(self, heads: Tensor, strength: float) -> tuple[float, Tensor]:
        """The objective at heads [F, d + 1, K], and its gradient."""
        folds, _, classes = heads.shape
        loss, slope = 0.0, torch.zeros_like(heads)
        held, others = -1, torch.zeros(0)
        for fold, rows, values in self.iterate((folds - 1) * classes):
            if fold != held:  # an image teaches all heads but its own fold's
                taught = [other for other in range(folds) if other != fold]
                others = heads[taught].permute(1, 0, 2).reshape(-1, len(taught) * classes)
                priors, totals, held = self.log_priors[taught], self.totals[taught], fold
            logits = (values @ others).view(-1, len(taught), classes).add_(priors)
            log_probs = logits.log_softmax(2)
            counting = (self.weights[rows][:, taught] / totals).float()
            labels = self.labels[rows][:, None, None].expand(-1, len(taught), 1)
            loss -= float((log_probs.gather(2, labels)[..., 0] * counting).sum(dtype=torch.float64))
            errors = log_probs.exp_().scatter_add_(2, labels, torch.tensor(-1.0).expand(labels.shape))
            errors.mul_(counting[..., None])
            found = (values.T @ errors.view(len(values), -1)).view(-1, len(taught), classes)
            slope[taught] += found.permute(1, 0, 2)
        pull = (strength / self.totals).float()[:, None, None]
        loss += 0.5 * float((pull * heads.square()).sum(dtype=torch.float64))
        return loss, slope.add_(pull * heads)

    def score(self, heads: Tensor) -> float:
        """How likely the given labels are, some being wrong, each by the head of its own fold."""
        own, shares = [], []
        for fold, rows, values in self.iterate(heads.shape[2]):
            known, labels = self.known[rows], self.labels[rows]
            probs = (values @ heads[fold] + self.log_priors[fold]).softmax(1)
            own.append(probs.gather(1, labels[:, None])[known, 0])
            shares.append(self.log_priors[fold].exp()[labels][known])
        return score_under_noise(torch.cat(own).double().numpy(), torch.cat(shares).double().numpy())[0]

    def fit(self, start: Tensor, strength: float, tolerance: float, report: Report | None) -> Tensor:
        """The heads [F, d + 1, K] at the minimum."""
        priors = self.log_priors.exp()
        curvature = (priors * (1 - priors))[:, None, :] * self.variances[None, :, None]
        scale = (curvature + (strength / self.totals).float()[:, None, None]).rsqrt()

        def evaluate(scaled: Tensor) -> tuple[float, Tensor]:
            loss, slope = self.evaluate(scaled * scale, strength)
            return loss, slope * scale

        cost = 4.0 * len(self.values) * start.numel()
        steps = int(min(max(_OPERATIONS / cost, 8), 100))
        found: Tensor = minimise(evaluate, start / scale, steps, tolerance, report)
        return found * scale


class _Choice(NamedTuple):
    """What a fit gave: how likely the labels left out are, under which strength, by which heads."""

    score: float
    strength: float
    heads: Tensor


def _choose_rows(count: int, generator: np.random.Generator) -> Int64s:
    if count <= _CHOOSING_ROWS:
        return np.arange(count)
    return np.sort(generator.choice(count, _CHOOSING_ROWS, replace=False))


def _choose_strength(
    problem: _Problem, start: Tensor, strengths: Sequence[float], report: Report | None
) -> _Choice:
    """Climb from the middle of the strengths to where the given labels left out are most likely."""
    fitted: dict[int, _Choice] = {}

    def fit(place: int, begin: Tensor) -> _Choice:
        if place not in fitted:
            heads = problem.fit(begin, strengths[place], _COARSE, report)
            fitted[place] = _Choice(problem.score(heads), strengths[place], heads)
        return fitted[place]

    place = len(strengths) // 2
    best = fit(place, start)
    for step in (1, -1):
        while 0 <= place + step < len(strengths) and fit(place + step, best.heads).score > best.score:
            place += step
            best = fitted[place]
    return best
