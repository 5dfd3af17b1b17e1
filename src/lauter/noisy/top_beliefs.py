r"""Beliefs cut to the largest: what is kept of them where N images times K classes are too many numbers.

A million images and a thousand classes are 8 GB of float64, and nearly all of it says "not this class
either". So of each image the m largest beliefs are kept with their classes, the belief in its own label
whatever its rank, and the mass of all the rest. What is not kept is taken as spread evenly over the classes
not kept. With m = K nothing is cut, and everything here equals its dense counterpart but for the rounding to
float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats, take_out_prior

DEPTH = 32
"""How many beliefs of an image are kept where not all of them are."""
DENSE_ENTRIES = 2**25
"""Up to so many beliefs, images times classes, none is cut."""
_BLOCK_ENTRIES = 2**23  # beliefs looked at together: 64 MiB of float64
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class TopBeliefs:
    """The m largest beliefs of each of N images about K classes.

    Attributes:
        classes: [N, m] the classes believed most, the best first.
        probs: [N, m] beliefs in them, descending.
        given: [N] belief in the given label, also where it is not among the m; 0 where there is none.
        rest: [N] belief in all classes that are not among the m; exactly 0 where m = K.
        num_classes: K.
    """

    classes: NDArray[np.int32]
    probs: NDArray[np.float32]
    given: NDArray[np.float32]
    rest: NDArray[np.float32]
    num_classes: int

    def __post_init__(self) -> None:
        count, depth = self.classes.shape if self.classes.ndim == 2 else (-1, -1)
        if not 1 <= depth <= self.num_classes or self.probs.shape != (count, depth):
            raise DataError(
                f"top beliefs need classes and probs [N, m] with m in 1..{self.num_classes}, the number of "
                f"classes, not {list(self.classes.shape)} and {list(self.probs.shape)}"
            )
        if self.given.shape != (count,) or self.rest.shape != (count,):
            raise DataError(
                f"top beliefs of {count} images need given and rest [{count}], "
                f"not {list(self.given.shape)} and {list(self.rest.shape)}"
            )

    @classmethod
    def from_dense(cls, beliefs: NDArray[Any], labels: Int64s, depth: int | None = None) -> "TopBeliefs":
        """Keep the largest of dense beliefs.

        Args:
            beliefs: [N, K] distributions.
            labels: [N] given labels, -1 where there is none.
            depth: m, at most K; None for as many as :func:`choose_depth` keeps.

        Returns:
            The beliefs, rounded to float32; of equal ones the lower class goes first where all are kept.

        Raises:
            DataError: shapes do not fit.
            ConfigError: ``depth`` is out of its range.
        """
        if beliefs.ndim != 2 or labels.shape != beliefs.shape[:1]:
            raise DataError(
                f"beliefs must be [N, K] and labels [N], not {list(beliefs.shape)} and {list(labels.shape)}"
            )
        count, num_classes = beliefs.shape
        depth = choose_depth(count, num_classes) if depth is None else depth
        if not 1 <= depth <= num_classes:
            raise ConfigError(f"depth must be in 1..{num_classes}, the number of classes, not {depth}")
        parts = [
            _cut(np.asarray(beliefs[rows], dtype=np.float32), labels[rows], depth)
            for rows in iterate_blocks(count, num_classes)
        ]
        return cls.join(parts) if parts else cls._empty(depth, num_classes)

    @classmethod
    def join(cls, parts: Sequence["TopBeliefs"]) -> "TopBeliefs":
        """Beliefs of several blocks of images, one after the other."""
        return cls(
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.probs for part in parts]),
            np.concatenate([part.given for part in parts]),
            np.concatenate([part.rest for part in parts]),
            parts[0].num_classes,
        )

    @classmethod
    def _empty(cls, depth: int, num_classes: int) -> "TopBeliefs":
        nothing = np.zeros(0, dtype=np.float32)
        shape = (0, depth)
        return cls(np.zeros(shape, np.int32), np.zeros(shape, np.float32), nothing, nothing, num_classes)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K), as if the beliefs were dense."""
        return len(self), self.num_classes

    @property
    def depth(self) -> int:
        """m, how many beliefs of each image are kept."""
        return int(self.classes.shape[1])

    @property
    def whole(self) -> bool:
        """Whether nothing is cut: m = K."""
        return self.depth == self.num_classes

    def select(self, rows: Int64s | NDArray[np.bool_] | slice) -> "TopBeliefs":
        """The beliefs of some images, in the order of ``rows``."""
        return TopBeliefs(
            self.classes[rows], self.probs[rows], self.given[rows], self.rest[rows], self.num_classes
        )

    def dense(self, labels: Int64s | None = None) -> Floats:
        """All beliefs, [N, K] float64; what was cut is spread evenly over the classes that were.

        Args:
            labels: [N] given labels: the exact belief in them is put in its place, where it was cut too.

        Raises:
            DataError: there is not one label for each image.
        """
        fill, cut = self.spread_rest(), np.zeros(0, dtype=np.int64)
        if labels is not None and not self.whole:
            _check_labels(self, labels)
            cut = np.flatnonzero((labels != UNLABELLED) & ~self.find_stored(labels))
            others = np.maximum(self.rest[cut].astype(np.float64) - self.given[cut], 0)
            fill[cut] = others / max(self.num_classes - self.depth - 1, 1)
        full = np.repeat(fill[:, None], self.num_classes, axis=1)
        np.put_along_axis(full, self.classes.astype(np.int64), self.probs.astype(np.float64), axis=1)
        if labels is not None:
            full[cut, labels[cut]] = self.given[cut]
        return full

    def spread_rest(self) -> Floats:
        """[N] the belief in each class that was cut."""
        return np.asarray(self.rest.astype(np.float64) / max(self.num_classes - self.depth, 1))

    def find_stored(self, labels: Int64s) -> NDArray[np.bool_]:
        """[N] whether the class in ``labels`` is among the m of its image."""
        stored = np.zeros(len(self), dtype=bool)
        for rows in iterate_blocks(len(self), self.depth):
            stored[rows] = (self.classes[rows] == labels[rows, None]).any(1)
        return stored

    def take_out_prior(self, prior: Floats, labels: Int64s) -> "TopBeliefs":
        r"""The beliefs as they would be if all classes were equally frequent.

        .. math:: \bar p_{ik} = \frac{p_{ik} / \pi_k}{\sum_l p_{il} / \pi_l}

        Args:
            prior: [K] class shares, positive.
            labels: [N] given labels, -1 where there is none.

        Returns:
            The same classes, put in order anew. A class that was cut stays cut, however rare it is.
        """
        _check_labels(self, labels)
        weights, total = self._weigh(prior)
        balanced = weights / total[:, None]
        order = np.argsort(-balanced, axis=1, kind="stable")
        probs = np.take_along_axis(balanced, order, 1).astype(np.float32)
        known = labels != UNLABELLED
        given = np.where(known, self.given / prior[np.maximum(labels, 0)] / total, 0).astype(np.float32)
        left = np.zeros(len(self)) if self.whole else np.maximum(1 - balanced.sum(1), 0)
        classes = np.take_along_axis(self.classes, order, 1)
        return TopBeliefs(classes, probs, given, left.astype(np.float32), self.num_classes)

    def propose(self, prior: Floats) -> tuple[Int64s, Floats]:
        """The class [N] that fits each image best with the prior taken out, and the belief [N] in it then."""
        best, belief = np.empty(len(self), np.int64), np.empty(len(self))
        for rows in iterate_blocks(len(self), self.depth):
            weights, total = self.select(rows)._weigh(prior)
            place = np.arange(len(total)), weights.argmax(1)
            best[rows], belief[rows] = self.classes[rows][place], weights[place] / total
        return best, belief

    def _weigh(self, prior: Floats) -> tuple[Floats, Floats]:
        """Beliefs over prior, [N, m], and their sums over all classes, [N]."""
        if prior.shape != (self.num_classes,) or not (prior > 0).all():
            raise DataError(
                f"the prior must be positive for each of {self.num_classes} classes, as that of "
                f"estimate_prior is, not of shape {list(prior.shape)} with a least share of "
                f"{prior.min() if prior.size else 0:g}"
            )
        inverse = 1 / prior
        stored = inverse[self.classes]
        weights = self.probs * stored
        cut = np.maximum(inverse.sum() - stored.sum(1), 0)
        return weights, weights.sum(1) + self.spread_rest() * cut


Beliefs = Floats | TopBeliefs
"""Beliefs in either form: all of them, [N, K], or the largest."""


def choose_depth(count: int, num_classes: int) -> int:
    """How many beliefs of each image are kept: all of them where that is not much, else at most ``DEPTH``.

    Example:
        >>> choose_depth(50_000, 100), choose_depth(1_000_000, 1000)
        (100, 32)
    """
    return num_classes if count * num_classes <= DENSE_ENTRIES else min(num_classes, DEPTH)


def iterate_blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of 0..count of so many rows of this width that a block is some ten MiB."""
    size = max(1, _BLOCK_ENTRIES // max(width, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def find_best(beliefs: Beliefs, prior: Floats) -> tuple[Int64s, Floats]:
    """The class that fits each image best with the prior taken out, and how much it is believed.

    Args:
        beliefs: [N, K] under the training prior, in either form.
        prior: [K] class shares, positive.

    Returns:
        Classes [N] and beliefs [N] in 0..1 (with the prior taken out). Of top beliefs a class that was cut
        is never the best.
    """
    if isinstance(beliefs, TopBeliefs):
        return beliefs.propose(prior)
    balanced = take_out_prior(beliefs, prior)
    best = balanced.argmax(1)
    return np.asarray(best, dtype=np.int64), np.asarray(balanced[np.arange(len(best)), best])


def sum_beliefs(beliefs: TopBeliefs, labels: Int64s, moved: Floats) -> Floats:
    r"""Sum what images are believed to be other than their label says, by given label.

    .. math:: S_{kg} = \sum_{i: \tilde y_i = g} m_i \, [k \ne g] \, \frac{p_{ik}}{1 - p_{ig}}

    Args:
        beliefs: of N images.
        labels: [N] given labels, all of them known.
        moved: [N] m, how much of each image is of another class.

    Returns:
        [K, K] as [true, given], zeros on the diagonal.
    """
    classes = beliefs.num_classes
    sums, spread = np.zeros((classes, classes)), np.zeros(classes)
    for rows in iterate_blocks(len(beliefs), 4 * beliefs.depth):
        part, given = beliefs.select(rows), labels[rows]
        own = part.classes == given[:, None]
        cut = ~own.any(1)
        rest = np.maximum(part.rest - np.where(cut, part.given.astype(np.float64), 0), 0)
        each = rest / np.maximum(classes - part.depth - cut, 1)
        others = np.where(own, 0, part.probs.astype(np.float64))
        scale = moved[rows] / np.maximum(others.sum(1) + rest, _TINY)
        # Every class gets the share of one that was cut; those that were not get the difference.
        values = np.where(own, 0, others - each[:, None]) * scale[:, None]
        cells = part.classes.astype(np.int64) * classes + given[:, None]
        sums += np.bincount(cells.ravel(), values.ravel(), minlength=classes**2).reshape(classes, classes)
        spread += np.bincount(given, each * scale, minlength=classes)
    sums += spread
    np.fill_diagonal(sums, 0)
    return np.asarray(np.maximum(sums, 0))


def _cut(beliefs: NDArray[np.float32], labels: Int64s, depth: int) -> TopBeliefs:
    """The largest of one block."""
    dense = torch.from_numpy(np.ascontiguousarray(beliefs))
    if depth == beliefs.shape[1]:
        probs, classes = torch.sort(dense, dim=1, descending=True, stable=True)
        rest = np.zeros(len(beliefs), np.float32)
    else:
        probs, classes = torch.topk(dense, depth, dim=1)
        rest = (1 - probs.sum(1)).clamp_min(0).numpy()
    own = beliefs[np.arange(len(labels)), np.maximum(labels, 0)]
    given = np.where(labels == UNLABELLED, np.float32(0), own)
    return TopBeliefs(classes.to(torch.int32).numpy(), probs.numpy(), given, rest, beliefs.shape[1])


def _check_labels(beliefs: TopBeliefs, labels: Int64s) -> None:
    if labels.shape != (len(beliefs),):
        raise DataError(
            f"beliefs of {len(beliefs)} images need labels [{len(beliefs)}], not {list(labels.shape)}"
        )
