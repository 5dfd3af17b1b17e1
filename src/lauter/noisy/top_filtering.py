r"""The two-groups filter on beliefs that were cut to the largest.

It is that of ``filtering.py``, class by class on the beliefs that were kept. A class's null is made of all
images labelled otherwise; those that do not have the class among their largest beliefs are at the bottom of
it, and how much they weigh together is known without looking at them. An image whose own label was cut ranks
within that bottom: such images are spread evenly over it, in the order of their beliefs in their labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError, DataError
from lauter.noisy.beliefs import Floats
from lauter.noisy.filtering import Assessment, FilterConfig, assess_labels, keep_with_cap, split_groups
from lauter.noisy.top_beliefs import DENSE_ENTRIES, Beliefs, TopBeliefs


def assess_top(beliefs: Beliefs, labels: Int64s, config: FilterConfig | None = None) -> Assessment:
    """Judge every given label by beliefs in either form.

    Beliefs that are few enough are made dense and judged by :func:`~lauter.noisy.filtering.assess_labels`.

    Args:
        beliefs: of N images, as free of the image's own label as can be.
        labels: [N] given labels, -1 where there is none.
        config: the rule, its thresholds and caps.

    Returns:
        The assessment, as :func:`~lauter.noisy.filtering.assess_labels` gives it.

    Raises:
        DataError: shapes do not fit.
        ConfigError: another rule than two-groups is asked for, and the beliefs are too many to be made dense.
    """
    config = config or FilterConfig()
    if not isinstance(beliefs, TopBeliefs):
        return assess_labels(beliefs, labels, config)
    if labels.shape != (len(beliefs),):
        raise DataError(
            f"beliefs of {len(beliefs)} images need labels [{len(beliefs)}], not {list(labels.shape)}"
        )
    if len(beliefs) * beliefs.num_classes <= DENSE_ENTRIES:
        return assess_labels(beliefs.dense(labels), labels, config)
    if config.kind != "two-groups":
        raise ConfigError(
            f"filter kind {config.kind!r} needs all beliefs, and {len(beliefs)} x {beliefs.num_classes} are "
            "more than are made dense; choose two-groups"
        )
    known = labels != UNLABELLED
    p_right, standing = np.zeros(len(labels)), np.zeros(len(labels))
    kept = np.zeros(len(labels), dtype=bool)
    if not known.any():
        return Assessment(p_right, standing, kept, 0.0, np.zeros(beliefs.num_classes))
    judged, given = (beliefs, labels) if known.all() else (beliefs.select(known), labels[known])
    columns = _sort_by_class(judged, given, config.confidence_groups)
    foreign = (judged.classes[:, 0] != given).astype(np.float64)
    for last in (False, True):
        ranks = _rank_in_null(columns, foreign)
        right, rates = split_groups(ranks, given, beliefs.num_classes, config.pooling)
        if not last:  # an image that resembles its own class may carry its label wrongly all the same
            foreign = np.where(foreign == 1, 1.0, 1 - right)
    p_right[known], standing[known] = right, ranks
    kept[known] = keep_with_cap(right >= config.keep_above, right, given, config.cap)
    return Assessment(p_right, standing, kept, float(np.mean(1 - right)), rates)


@dataclass(frozen=True, eq=False)
class _Columns:
    """The kept beliefs by class, and the images by given label.

    Attributes:
        rows: [E] image of each kept belief, by class and then by belief, ascending.
        probs: [E] the beliefs.
        starts: [K + 1] where each class begins.
        members: [N] images by given label.
        member_starts: [K + 1] where each label begins.
        given: [N] given labels.
        own: [N] beliefs in them.
        stored: [N] whether these were kept.
        group: [N] group of each image: the class it resembles most, and by how much.
        groups: how many groups there are.
        whole: whether no belief was cut.
    """

    rows: NDArray[np.int32]
    probs: NDArray[np.float32]
    starts: Int64s
    members: Int64s
    member_starts: Int64s
    given: Int64s
    own: NDArray[np.float32]
    stored: NDArray[np.bool_]
    group: Int64s
    groups: int
    whole: bool


def _sort_by_class(beliefs: TopBeliefs, given: Int64s, confidence_groups: int) -> _Columns:
    classes, best = beliefs.num_classes, beliefs.classes[:, 0].astype(np.int64)
    # The bits of positive floats are ordered as the floats are: one sort by class and belief.
    keys = beliefs.classes.astype(np.uint64).ravel() << np.uint64(32)
    keys |= np.ascontiguousarray(beliefs.probs).view(np.uint32).ravel()
    order = np.argsort(keys)
    del keys
    rows, probs = (order // beliefs.depth).astype(np.int32), beliefs.probs.ravel()[order]
    confidence = beliefs.probs[:, 0].astype(np.float64)
    edges = np.quantile(confidence, np.arange(1, confidence_groups) / confidence_groups)
    return _Columns(
        rows,
        probs,
        _find_starts(beliefs.classes.ravel(), classes),
        np.argsort(given, kind="stable"),
        _find_starts(given, classes),
        given,
        beliefs.given,
        beliefs.find_stored(given),
        best * confidence_groups + np.searchsorted(edges, confidence),
        classes * confidence_groups,
        beliefs.whole,
    )


def _find_starts(values: NDArray[np.integer], classes: int) -> Int64s:
    return np.concatenate([[0], np.cumsum(np.bincount(values, minlength=classes))])


def _rank_in_null(columns: _Columns, foreign: Floats) -> Floats:
    """Standing u [N]: the weighted share of the null below each image's own belief; ties count half."""
    standing = np.zeros(len(columns.given))
    in_group = np.bincount(columns.group, minlength=columns.groups)
    for label in np.flatnonzero(np.diff(columns.member_starts)):
        own = columns.members[slice(*columns.member_starts[label : label + 2])]
        others = len(standing) - len(own)
        if not others:
            standing[own] = 1.0
            continue
        group = columns.group[own]
        intruders = np.bincount(group, foreign[own], minlength=columns.groups)
        elsewhere = in_group - np.bincount(group, minlength=columns.groups)
        shares = intruders / np.maximum(elsewhere, 1) + 1 / others
        entries = slice(*columns.starts[label : label + 2])
        rows, null = columns.rows[entries], columns.probs[entries]
        weights = np.where(columns.given[rows] == label, 0.0, shares[columns.group[rows]])
        above = np.concatenate([[0.0], np.cumsum(weights)])
        # Each group with an image labelled otherwise weighs as its intruders; all together one image more.
        total = above[-1] if columns.whole else max(float(intruders[elsewhere > 0].sum()) + 1, above[-1])
        bottom = total - above[-1]
        standing[own] = _place(columns, own, null, above + bottom, bottom) / total
    return standing


def _place(columns: _Columns, own: Int64s, null: NDArray[np.float32], below: Floats, bottom: float) -> Floats:
    """The null's weight below each image of ``own``."""
    score = columns.own[own]
    first = np.searchsorted(null, score, side="left")
    last = np.searchsorted(null, score, side="right")
    placed = (below[first] + below[last]) / 2
    cut = np.flatnonzero(~columns.stored[own])
    ranks = np.argsort(np.argsort(score[cut], kind="stable"), kind="stable")
    placed[cut] = bottom * (ranks + 0.5) / max(len(cut), 1)
    return np.asarray(placed)
