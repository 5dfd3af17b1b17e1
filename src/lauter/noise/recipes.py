"""Recipes: long tail, closed noise and open noise, composed; each step with a seed of its own.

The nCIFAR recipes are named after the data sets that "Friends and Foes in Learning from Noisy Labels"
(arXiv 2103.15055) proposes. That paper's construction was not at hand: every ratio, rate and step is ours.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lauter.errors import ConfigError, DataError
from lauter.noise.labels import flip_by_instance, flip_by_map, flip_by_matrix, flip_pairs, flip_symmetric
from lauter.noise.long_tail import long_tail_index
from lauter.noise.open_set import CIFAR10_LIKE_CIFAR100, CIFAR100_LIKE_CIFAR10, choose_open
from lauter.noise.seeding import step_generator
from lauter.noise.transition import CLEAN, check_labels, noise_kinds

Int64s = NDArray[np.int64]
ClosedKind = Literal["none", "symmetric", "map", "pairs", "instance", "matrix", "human"]


@dataclass(frozen=True)
class NoiseRecipe:
    """What is done to a clean set, in this order: long tail, closed noise, open noise.

    Rates are shares of all images that the long tail leaves, and closed and open images never coincide.

    Attributes:
        name: for titles and records.
        ratio: imbalance, largest class over smallest; 1 keeps every image.
        closed_kind: 'symmetric', 'map' (asymmetric), 'pairs' (to the next class), 'instance' (where a
            model would err, and as it would), 'matrix' (drawn from ``transition``), 'human' (labels that
            people gave) or 'none'.
        closed_rate: share of images whose label moves to another class; 0 for 'none', and for 'matrix' and
            'human', which bring their own rate.
        open_rate: share of images that are replaced, among those with a right label.
        mapping: pairs (true class, given class), for 'map'.
        transition: rows [true, given], for 'matrix'.
        base: the data set the recipe is meant for; '' for any.
        open_base: the data set open images are meant to come from; '' for any.
        left_out: classes of the open source that overlap with ours in meaning.
    """

    name: str
    ratio: float = 1.0
    closed_kind: ClosedKind = "none"
    closed_rate: float = 0.0
    open_rate: float = 0.0
    mapping: tuple[tuple[int, int], ...] = ()
    transition: tuple[tuple[float, ...], ...] = ()
    base: str = ""
    open_base: str = ""
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.closed_kind not in get_args(ClosedKind):
            raise ConfigError(
                f"recipe {self.name!r}: closed_kind must be one of {', '.join(get_args(ClosedKind))}, "
                f"not {self.closed_kind!r}"
            )
        if self.ratio < 1:
            raise ConfigError(f"recipe {self.name!r}: ratio must be 1 or above, not {self.ratio}")
        if min(self.closed_rate, self.open_rate) < 0 or self.closed_rate + self.open_rate > 1:
            raise ConfigError(
                f"recipe {self.name!r}: closed_rate {self.closed_rate} and open_rate {self.open_rate} must "
                "be 0 or above and at most 1 together"
            )
        if self.closed_kind in ("none", "matrix", "human") and self.closed_rate:
            raise ConfigError(f"recipe {self.name!r}: closed_kind {self.closed_kind!r} takes no closed_rate")
        for option, kind, value in (
            ("mapping", "map", self.mapping),
            ("transition", "matrix", self.transition),
        ):
            if bool(value) != (self.closed_kind == kind):
                raise ConfigError(
                    f"recipe {self.name!r}: {option} is for closed_kind {kind!r}, which needs it"
                )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, for JSON."""
        return asdict(self)


_OVER_CIFAR10: dict[str, Any] = {
    "base": "cifar10",
    "open_base": "cifar100",
    "left_out": CIFAR100_LIKE_CIFAR10,
}
_OVER_CIFAR100: dict[str, Any] = {
    "base": "cifar100",
    "open_base": "cifar10",
    "left_out": CIFAR10_LIKE_CIFAR100,
}

RECIPES: dict[str, NoiseRecipe] = {
    "ncifar10-mild": NoiseRecipe("ncifar10-mild", 10, "symmetric", 0.2, 0.1, **_OVER_CIFAR10),
    "ncifar10": NoiseRecipe("ncifar10", 10, "symmetric", 0.3, 0.2, **_OVER_CIFAR10),
    "ncifar10-hard": NoiseRecipe("ncifar10-hard", 50, "instance", 0.4, 0.3, **_OVER_CIFAR10),
    "ncifar10-human": NoiseRecipe("ncifar10-human", 10, "human", 0.0, 0.2, **_OVER_CIFAR10),
    "ncifar100-mild": NoiseRecipe("ncifar100-mild", 10, "symmetric", 0.2, 0.1, **_OVER_CIFAR100),
    "ncifar100": NoiseRecipe("ncifar100", 10, "symmetric", 0.3, 0.2, **_OVER_CIFAR100),
    "ncifar100-hard": NoiseRecipe("ncifar100-hard", 20, "instance", 0.4, 0.3, **_OVER_CIFAR100),
    "ncifar100-human": NoiseRecipe("ncifar100-human", 10, "human", 0.0, 0.2, **_OVER_CIFAR100),
}


@dataclass(frozen=True, eq=False)
class Corruption:
    """What a recipe made of a clean set: n of its N images, their labels, and the truth.

    Attributes:
        recipe: what was done.
        seed: with which seed.
        index: [n] rows of the clean set that are kept, ascending.
        labels: [n] labels as given.
        true_labels: [n] true labels, -1 for open images.
        kind: [n] of 'clean', 'closed' and 'open'.
        foreign_index: [n] row of the open source that stands in the image's place, or -1.
    """

    recipe: NoiseRecipe
    seed: int
    index: Int64s
    labels: Int64s
    true_labels: Int64s
    kind: NDArray[np.str_]
    foreign_index: Int64s

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sha256(self) -> str:
        """Hash of all arrays, the same on every machine."""
        digest = hashlib.sha256()
        for values in (self.index, self.labels, self.true_labels, self.foreign_index):
            digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
        digest.update("\0".join(self.kind.tolist()).encode())
        return digest.hexdigest()

    def count_kinds(self) -> dict[str, int]:
        """How many images are clean, closed and open."""
        return {kind: int((self.kind == kind).sum()) for kind in ("clean", "closed", "open")}


def find_recipe(name: str) -> NoiseRecipe:
    """Look a recipe up by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(
            f"no recipe {name!r}; there are {', '.join(RECIPES)}, or make a NoiseRecipe of your own"
        )
    return RECIPES[name]


def check_inputs(recipe: NoiseRecipe, **inputs: ArrayLike | None) -> None:
    """Refuse a recipe without what it needs, or with what it does not use.

    Args:
        recipe: what is to be done.
        inputs: human_labels, class_probabilities and open_candidates, or those of them that are known by now.

    Raises:
        ConfigError: one of these is missing, or given and not used.
    """
    used = {
        "human_labels": recipe.closed_kind == "human",
        "class_probabilities": recipe.closed_kind == "instance",
        "open_candidates": recipe.open_rate > 0,
    }
    for name, values in inputs.items():
        title = "open images" if name == "open_candidates" else name
        if used[name] and values is None:
            meant = f" (meant: {recipe.open_base})" if title == "open images" and recipe.open_base else ""
            raise ConfigError(f"recipe {recipe.name!r} needs {title}{meant}")
        if values is not None and not used[name]:
            raise ConfigError(f"recipe {recipe.name!r} does not use {title}; leave them out")


def apply_recipe(
    recipe: NoiseRecipe,
    labels: ArrayLike,
    num_classes: int,
    seed: int,
    *,
    head_size: int | None = None,
    human_labels: ArrayLike | None = None,
    class_probabilities: ArrayLike | None = None,
    open_candidates: ArrayLike | None = None,
    clip: bool = False,
) -> Corruption:
    """Apply a recipe to the labels of a clean set.

    Open images take the place of images whose label is (still) right, so that both shares are what the
    recipe says, or for human and matrix noise what the labels bring along.

    Args:
        recipe: what to do.
        labels: [N] true labels in 0..K-1.
        num_classes: K.
        seed: each step draws from a generator of its own, made of this and the step's name.
        head_size: images of the largest class; by default as many as the classes allow. Only with a ratio
            above 1, or to balance at a ratio of 1.
        human_labels: [N] labels that people gave, for 'human'.
        class_probabilities: [N, K] of a model that did not see the labels it judges, for 'instance'; see
            :func:`lauter.noise.learn_confusions`.
        open_candidates: rows of the open source that may be used, where ``open_rate`` is above 0.
        clip: let classes with too few images fall short of the long tail.

    Returns:
        The corruption.

    Raises:
        DataError: labels are out of range, or there are too few images for the long tail or the rates.
        ConfigError: human labels, class probabilities or open candidates are missing, or given and not used.
    """
    true = check_labels(labels, num_classes)
    check_inputs(
        recipe,
        human_labels=human_labels,
        class_probabilities=class_probabilities,
        open_candidates=open_candidates,
    )
    index = np.arange(len(true), dtype=np.int64)
    if recipe.ratio > 1 or head_size is not None:
        rng = step_generator(seed, "long tail")
        index = long_tail_index(true, recipe.ratio, rng, head_size, num_classes=num_classes, clip=clip)
    brought = human_labels if class_probabilities is None else class_probabilities
    given = _flip(recipe, true, index, num_classes, brought, step_generator(seed, "closed"))
    kept_true = true[index]
    foreign = np.full(len(index), -1, dtype=np.int64)
    if open_candidates is not None:
        still_clean = noise_kinds(kept_true, given) == CLEAN
        rng = step_generator(seed, "open")
        rows, chosen = choose_open(still_clean, recipe.open_rate, open_candidates, rng)
        foreign[rows] = chosen
        kept_true[rows] = -1
    return Corruption(recipe, seed, index, given, kept_true, noise_kinds(kept_true, given), foreign)


def _flip(
    recipe: NoiseRecipe,
    true: Int64s,
    index: Int64s,
    num_classes: int,
    brought: ArrayLike | None,
    rng: np.random.Generator,
) -> Int64s:
    kept = true[index]
    if recipe.closed_kind == "symmetric":
        return flip_symmetric(kept, recipe.closed_rate, num_classes, rng)
    if recipe.closed_kind == "map":
        return flip_by_map(kept, recipe.closed_rate, dict(recipe.mapping), num_classes, rng)
    if recipe.closed_kind == "pairs":
        return flip_pairs(kept, recipe.closed_rate, num_classes, rng)
    if recipe.closed_kind == "matrix":
        if len(recipe.transition) != num_classes:
            raise DataError(
                f"recipe {recipe.name!r}: {len(recipe.transition)} matrix rows for {num_classes} classes"
            )
        return flip_by_matrix(kept, recipe.transition, rng)
    if brought is None:
        return kept
    rows = np.asarray(brought)
    if recipe.closed_kind == "instance":
        if rows.shape != (len(true), num_classes):
            raise DataError(
                f"class probabilities of shape {rows.shape} for {len(true)} images of {num_classes} classes; "
                "expected a row for each image, in their order"
            )
        return flip_by_instance(kept, recipe.closed_rate, rows[index], rng)
    human = check_labels(rows, num_classes)
    if len(human) != len(true):
        raise DataError(
            f"{len(human)} human labels for {len(true)} images; expected one for each, in their order"
        )
    return human[index]
