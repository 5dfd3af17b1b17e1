r"""A model of how labels came about, fitted to beliefs and given labels: how probably is each label right?

Every image i has a true class k, with a probability that sharpens what is believed of it, and its label is
drawn from that class's row of a transition matrix T; or the label owes nothing to the image, which then
belongs to none of the classes or might belong to any. Such strays may be more frequent among images of low
confidence, :math:`o_d` in tenth d of it, and carry label g with probability :math:`\tau_g`:

.. math:: P(\tilde y_i = g) = (1 - o_d) \sum_k q_{ik} T_{kg} + o_d \tau_g, \qquad
          q_{ik} \propto p_{ik}^a

T, o and :math:`\tau` are found by expectation and maximisation. A label is right with the probability of the
term :math:`(1 - o_d) q_{ig} T_{gg}` among all, so an image that is clearly something else, or that looks
like nothing, speaks against its label, and an image that is merely hard does not.

How sharp beliefs should be (a) decides how much of the disagreement is noise; ``sharpness.py`` chooses it.

Where labels go to one look-alike, beliefs say "a little of both" for every image, and no sharpness mends
that. There the transition matrix is taken out of the beliefs: :func:`unmix` finds the mixture of classes
whose labels would look as the beliefs do. That is kept where it makes the labels more likely.

Source: ours. The matrix within EM follows Dawid and Skene (1979), the multiplicative steps of the unmixing
Richardson (1972) and Lucy (1974), anchors for the matrix Liu and Tao (2014), arXiv 1411.7718.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lauter.auditing.sharpness import CALM, SHARPNESS, choose_sharpness, rank_confidence
from lauter.data.dataset import Int64s
from lauter.noisy.beliefs import Floats
from lauter.noisy.top_beliefs import TopBeliefs, iterate_blocks

_TENTHS = 10
_FIRST = 0.8  # the sharpness that is begun with
_FITTED = 2**21  # beliefs that the model is fitted to; more say nothing new of so few parameters
_FIRST_STEPS, _STEPS, _LAST_STEPS = 25, 8, 15  # of EM: from nothing, from the neighbour, at the end
_ENTRY = 10  # images for each entry of the matrix, below which it is not taken out of the beliefs
_UNMIXINGS, _UNMIX_STEPS = 3, 5
_GAIN = 1e-2  # of log-likelihood for each image, for which beliefs are unmixed at all
_SMOOTHED = 0.1  # images' worth of the usual noise in each entry of the matrix
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """A fitted model of the labels.

    Attributes:
        sharpness: a, the exponent of the beliefs.
        transition: [K, K] as [true, given], rows sum to 1.
        strays: [10] share of labels that owe nothing to the image, by tenths of confidence, the lowest first.
        stray_labels: [K] what those labels are.
        edges: [9] confidences that part the tenths.
        log_likelihood: mean over the images that it was fitted to.
    """

    sharpness: float
    transition: Floats
    strays: Floats
    stray_labels: Floats
    edges: Floats
    log_likelihood: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """What a model says of M labelled images.

    Attributes:
        right: [M] probability that the given label is right.
        stray: [M] probability that it owes nothing to the image.
        other: [M] the most probable class but the given one.
        p_other: [M] probability that this is the true class.
    """

    right: Floats
    stray: Floats
    other: Int64s
    p_other: Floats


@dataclass(frozen=True, eq=False)
class Fit:
    """The model that was chosen, and those it was chosen from.

    Attributes:
        beliefs: what it reads, unmixed where that helps.
        model: at the chosen sharpness.
        tried: models at each of ``SHARPNESS``.
        unmixed: whether the transition matrix was taken out of the beliefs.
    """

    beliefs: TopBeliefs
    model: NoiseModel
    tried: tuple[NoiseModel, ...]
    unmixed: bool


def fit_noise_model(beliefs: TopBeliefs, labels: Int64s, calm_rate: float) -> Fit:
    """Fit the model to labelled images.

    Args:
        beliefs: out-of-fold, under the training prior, of M images.
        labels: [M] given labels, all of them known.
        calm_rate: noise among the calm images, of :func:`estimate_calm_noise`.

    Returns:
        The fit. Of many images every n-th is looked at: the parameters are few.

    Source: ours; see the head of this file.
    """
    step = max(1, -(-len(labels) * beliefs.depth // _FITTED))
    sample, given = (
        (beliefs, labels) if step == 1 else (beliefs.select(slice(None, None, step)), labels[::step])
    )
    calm = rank_confidence(sample) < CALM
    trial = _try_sharpness(sample, given, calm, calm_rate)
    unmixings: list[Floats] = []
    enough = len(given) >= _ENTRY * beliefs.num_classes**2
    while enough and beliefs.whole and len(unmixings) < _UNMIXINGS:
        mixing = trial.nearest.transition
        again = _try_sharpness(unmix(trial.beliefs, given, mixing), given, calm, calm_rate)
        if again.likelihood < trial.likelihood + (0 if unmixings else _GAIN):
            break
        unmixings.append(mixing)
        trial = again
    model = _run_em(trial.beliefs, given, replace(trial.nearest, sharpness=trial.sharpness), _LAST_STEPS)
    whole = trial.beliefs
    if step > 1:
        whole = beliefs
        for mixing in unmixings:
            whole = unmix(whole, labels, mixing)
        model = _run_em(whole, labels, model, 2)
    return Fit(whole, model, trial.tried, bool(unmixings))


@dataclass(frozen=True, eq=False)
class _Trial:
    """Models at every sharpness, and the one that suits best: its sharpness and what likelihood it has."""

    beliefs: TopBeliefs
    tried: tuple[NoiseModel, ...]
    sharpness: float
    likelihood: float

    @property
    def nearest(self) -> NoiseModel:
        return self.tried[int(np.abs(np.log(SHARPNESS / self.sharpness)).argmin())]


def _try_sharpness(beliefs: TopBeliefs, labels: Int64s, calm: NDArray[np.bool_], calm_rate: float) -> _Trial:
    tried = _try_all(beliefs, labels)
    likelihoods = np.array([model.log_likelihood for model in tried])
    some, given = beliefs.select(calm), labels[calm]
    doubts = [1 - _Images(some, given, model).judge(model).right if len(given) else 0.0 for model in tried]
    calm_rates = np.array([np.mean(doubt) for doubt in doubts])
    sharpness = choose_sharpness(likelihoods, calm_rates, calm_rate, len(labels), len(given))
    likelihood = float(np.interp(np.log(sharpness), np.log(SHARPNESS), likelihoods))
    return _Trial(beliefs, tuple(tried), sharpness, likelihood)


def judge_by_model(beliefs: TopBeliefs, labels: Int64s, model: NoiseModel) -> Posterior:
    """What a fitted model says of labelled images [M]; block by block, so that memory stays bounded."""
    parts = [
        _Images(beliefs.select(rows), labels[rows], model).judge(model)
        for rows in iterate_blocks(len(labels), 4 * beliefs.depth)
    ]
    return Posterior(
        np.concatenate([part.right for part in parts]),
        np.concatenate([part.stray for part in parts]),
        np.concatenate([part.other for part in parts]),
        np.concatenate([part.p_other for part in parts]),
    )


def unmix(beliefs: TopBeliefs, labels: Int64s, transition: Floats) -> TopBeliefs:
    r"""Beliefs about the true classes whose labels would look as these beliefs do, nearly.

    A few steps of

    .. math:: q_{ik} \leftarrow q_{ik} \sum_g T_{kg} \frac{p_{ig}}{\sum_l q_{il} T_{lg}}

    Args:
        beliefs: [M, K], whole.
        labels: [M] given labels; they only say whose belief stands in ``given``.
        transition: T, [K, K] as [true, given].
    """
    parts = []
    for rows in iterate_blocks(len(labels), 4 * beliefs.num_classes):
        seen = beliefs.select(rows).dense()
        mixed = seen.copy()
        for _ in range(_UNMIX_STEPS):
            mixed *= (seen / np.maximum(mixed @ transition, _TINY)) @ transition.T
        mixed /= mixed.sum(1, keepdims=True)
        parts.append(TopBeliefs.from_dense(mixed, labels[rows], beliefs.num_classes))
    return TopBeliefs.join(parts)


def _try_all(beliefs: TopBeliefs, labels: Int64s) -> list[NoiseModel]:
    """Models at every sharpness, each begun where its neighbour ended, the first at ``_FIRST``."""
    middle = int(np.abs(np.log(SHARPNESS / _FIRST)).argmin())
    first = replace(_begin(beliefs, labels), sharpness=float(SHARPNESS[middle]))
    tried = {middle: _run_em(beliefs, labels, first, _FIRST_STEPS)}
    for number in (*range(middle + 1, len(SHARPNESS)), *range(middle - 1, -1, -1)):
        neighbour = tried[number - 1 if number > middle else number + 1]
        begun = replace(neighbour, sharpness=float(SHARPNESS[number]))
        tried[number] = _run_em(beliefs, labels, begun, _STEPS)
    return [tried[number] for number in range(len(SHARPNESS))]


def _begin(beliefs: TopBeliefs, labels: Int64s) -> NoiseModel:
    classes = beliefs.num_classes
    transition = np.full((classes, classes), 0.1 / max(classes - 1, 1))
    np.fill_diagonal(transition, 0.9 if classes > 1 else 1.0)
    shares = (np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes)
    edges = np.quantile(beliefs.probs[:, 0], np.arange(1, _TENTHS) / _TENTHS).astype(np.float64)
    return NoiseModel(1.0, transition, np.full(_TENTHS, 0.05), shares, edges, -np.inf)


def _run_em(beliefs: TopBeliefs, labels: Int64s, model: NoiseModel, steps: int) -> NoiseModel:
    """So many steps of expectation and maximisation; sharpness and edges stay."""
    blocks = list(iterate_blocks(len(labels), 4 * beliefs.depth))
    held = [_Images(beliefs, labels, model)] if len(blocks) == 1 else None
    shares = np.bincount(labels, minlength=beliefs.num_classes).astype(np.float64) + 1e-3
    for _ in range(steps):
        # Several blocks are sharpened anew in every step: holding them all would double the memory.
        images = held or (_Images(beliefs.select(rows), labels[rows], model) for rows in blocks)
        counts = [block.count(model) for block in images]
        model = _maximise(model, shares, [sum(parts) for parts in zip(*counts, strict=True)], len(labels))
    return model


def _maximise(model: NoiseModel, shares: Floats, sums: list[Floats], count: int) -> NoiseModel:
    """The parameters that suit what :meth:`_Images.count` counted, and one more image's worth of each row."""
    pairs, strays, sizes, stray_labels, likelihood = sums
    classes = len(pairs)
    rate = 1 - float(np.trace(pairs)) / max(float(pairs.sum()), _TINY)
    usual = np.tile(shares, (classes, 1))
    np.fill_diagonal(usual, 0)
    usual *= rate / np.maximum(usual.sum(1, keepdims=True), _TINY)
    np.fill_diagonal(usual, 1 - usual.sum(1))
    transition = pairs + _SMOOTHED * classes * usual
    transition /= transition.sum(1, keepdims=True)
    rates = (strays + 0.5 * strays.sum() / count) / (sizes + 0.5)
    stray_labels = stray_labels + shares / shares.sum()
    return replace(
        model,
        transition=transition,
        strays=rates,
        stray_labels=stray_labels / stray_labels.sum(),
        log_likelihood=float(likelihood) / count,
    )


class _Images:
    """Some images with their sharpened beliefs: what every step of EM begins with.

    Args:
        beliefs: of M labelled images.
        labels: [M].
        model: its sharpness and edges are used.
    """

    def __init__(self, beliefs: TopBeliefs, labels: Int64s, model: NoiseModel) -> None:
        self.labels, self.classes = labels, beliefs.classes.astype(np.int64)
        self.num_classes = beliefs.num_classes
        own = self.classes == labels[:, None]
        self.stored = own.any(1)
        self.place = own.argmax(1)
        top = beliefs.probs[:, :1]
        cut = self.num_classes - beliefs.depth
        own_belief = _sharpen(beliefs.given[:, None], top, model.sharpness)[:, 0]
        rest = cut * _sharpen(beliefs.spread_rest()[:, None], top, model.sharpness)[:, 0]
        self.probs = _sharpen(beliefs.probs, top, model.sharpness)
        total = self.probs.sum(1) + rest
        self.probs /= total[:, None]
        rows = np.arange(len(labels))
        self.own = np.where(self.stored, self.probs[rows, self.place], own_belief / total)
        self.rest = np.maximum(rest / total - np.where(self.stored, 0, self.own), 0)
        self.tenth = np.searchsorted(model.edges, beliefs.probs[:, 0])

    def weigh(self, model: NoiseModel) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Probabilities of each image's label together with what led to it.

        Returns:
            A stored class [M, m] (0 where it is the given one), the given class [M], a class that was cut
            [M], nothing in the image [M], and their sum [M].
        """
        strays = model.strays[self.tenth]
        others = self.probs * model.transition[self.classes, self.labels[:, None]]
        others[self.stored, self.place[self.stored]] = 0
        right = self.own * model.transition[self.labels, self.labels]
        diagonal = np.diagonal(model.transition)
        usual = (model.transition.sum(0) - diagonal) / max(self.num_classes - 1, 1)
        cut = self.rest * usual[self.labels]
        others *= (1 - strays)[:, None]
        right, cut = right * (1 - strays), cut * (1 - strays)
        stray = strays * model.stray_labels[self.labels]
        return others, right, cut, stray, others.sum(1) + right + cut + stray

    def count(self, model: NoiseModel) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Expected pairs [K, K] of true and given class, strays by tenth, images by tenth, strays by label.

        Last the log-likelihood, summed.
        """
        others, right, cut, stray, total = self.weigh(model)
        size = self.num_classes
        scale = 1 / np.maximum(total, _TINY)
        cells = (self.classes * size + self.labels[:, None]).ravel()
        weights = (others * scale[:, None]).ravel()
        pairs = np.bincount(cells, weights, minlength=size**2).astype(np.float64).reshape(size, size)
        pairs += self._sum_by_label(cut * scale) / size
        pairs[np.arange(size), np.arange(size)] += self._sum_by_label(right * scale)
        stray = stray * scale
        return (
            pairs,
            np.bincount(self.tenth, stray, minlength=_TENTHS).astype(np.float64),
            np.bincount(self.tenth, minlength=_TENTHS).astype(np.float64),
            self._sum_by_label(stray),
            np.asarray(np.log(np.maximum(total, _TINY)).sum()),
        )

    def _sum_by_label(self, values: Floats) -> Floats:
        return np.bincount(self.labels, values, minlength=self.num_classes).astype(np.float64)

    def judge(self, model: NoiseModel) -> Posterior:
        """Bayes' rule for each image."""
        others, right, _, stray, total = self.weigh(model)
        rows, best = np.arange(len(total)), others.argmax(1)
        scale = 1 / np.maximum(total, _TINY)
        return Posterior(
            np.minimum(right * scale, 1),
            np.minimum(stray * scale, 1),
            self.classes[rows, best],
            np.minimum(others[rows, best] * scale, 1),
        )


def _sharpen(probs: NDArray[np.floating], top: NDArray[np.floating], sharpness: float) -> Floats:
    """Powers of beliefs [M, m] in units of the largest [M, 1], so that none overflows."""
    logs = np.log(np.maximum(probs, _TINY), dtype=np.float64) - np.log(
        np.maximum(top, _TINY), dtype=np.float64
    )
    return np.asarray(np.exp(sharpness * logs))
