"""Hashes of features: weights, biases, bits, and the rules for their standard deviation."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.closed_form import optimal_radius
from lauter.losses.inputs import lift, no_autocast, require_positive, require_shape

BiasKind = Literal["zero", "mean", "median"]

MEMORY_BUDGET = 192 * 2**20
"""Bytes of tensors that ``hash_bias`` takes at most beside its arguments and its result."""


def draw_hash_weights(num_hashes: int, feature_size: int, std: float, generator: torch.Generator) -> Tensor:
    """Draw the frozen weights of the hashes, independent Normal(0, std^2).

    Args:
        num_hashes: N; 32 times the feature size on CIFAR, 2048 on ImageNet.
        feature_size: D of the teacher.
        std: standard deviation of the entries, in units of 1 / feature; see ``std_from_classifier`` and
            ``std_from_features``.
        generator: the source of the numbers. A CPU generator gives the same weights on every machine.

    Returns:
        [N, D] float32 on the generator's device.

    Raises:
        ConfigError: a size or ``std`` is not positive.

    Example:
        >>> draw_hash_weights(8, 2, std=0.5, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([8, 2])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424.
    """
    require_positive(num_hashes, "num_hashes", "32 times the feature size is usual on small images")
    require_positive(feature_size, "feature_size", "it is the width of the teacher's penultimate features")
    require_positive(std, "std", "take std_from_classifier or std_from_features")
    shape = (num_hashes, feature_size)
    return std * torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def require_hashes(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check that features [B, D], hash weights [N, D] and their bias [N] fit together.

    Raises:
        ModelError: they do not; the message names the shapes.
    """
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1] or not len(weight):
        raise ModelError(
            f"features {list(features.shape)} do not fit hash weights {list(weight.shape)}: expected [B, D] "
            "and [N, D] with N above 0; draw the weights for the feature size of the teacher"
        )
    if bias is not None:
        require_shape(bias, (len(weight),), "the bias of the hashes", f"hash weights {list(weight.shape)}")


@torch.no_grad()
def hash_bits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Hash features to bits.

    .. math:: h_{bj} = [\, w_j \cdot f_b + b_j > 0 \,]

    The inequality is strict: a zero feature without bias has only zero bits. Products are taken in float32
    whatever the autocast, since bfloat16 flips about 1% of the bits. TensorFloat-32, where a user switches it
    on for matrix products, flips some too; bits that are stored should be made without it.

    Args:
        features: [B, D].
        weight: [N, D].
        bias: [N].

    Returns:
        bool [B, N], without gradient.

    Raises:
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> hash_bits(torch.tensor([[1.0, -2.0]]), torch.eye(2), torch.zeros(2))
        tensor([[ True, False]])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424.
    """
    require_hashes(features, weight, bias)
    with no_autocast(features):
        features, weight, bias = lift(features, weight, bias)
        return F.linear(features, weight, bias) > 0


@torch.no_grad()
def hash_bias(
    kind: BiasKind, weight: Tensor, features: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    r"""Bias of the hashes: minus a statistic of their projections over the training features.

    .. math:: b_j = -\operatorname{stat}_i (w_j \cdot f_i), \qquad
              \operatorname{stat} \in \{0, \operatorname{mean}, \operatorname{median}\}

    The mean centres the features. The median makes half of the bits ones: it is exact, for an even number of
    features the midpoint of the two middle projections, so that one half lies strictly above (for an odd
    number the middle one is on the border, and rounding decides it). It is taken in chunks of hashes whose
    size follows from the memory budget, so that no [M, N] matrix ever exists.

    Args:
        kind: 'zero', 'mean' or 'median'.
        weight: [N, D] hash weights.
        features: [M, D] teacher's features of the training images, on the device of the weights.
        memory_budget: bytes of tensors that the median may take beside its arguments and its result.

    Returns:
        [N], float32 at least.

    Raises:
        ConfigError: the kind is unknown, or the budget does not hold the projections of one hash.
        DataError: there are no features, or the statistic is not finite because they are not.
        ModelError: the shapes do not fit; the message names them.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [5.0], [90.0]])
        >>> hash_bias("median", torch.ones(1, 1), features)
        tensor([-3.])

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424; the convention for even counts and the chunks are ours.
    """
    if kind not in ("zero", "mean", "median"):
        raise ConfigError(f"the bias of the hashes must be 'zero', 'mean' or 'median', not {kind!r}")
    require_hashes(features, weight, None)
    (weight,) = lift(weight)
    if kind == "zero":
        return weight.new_zeros(len(weight))
    if not len(features):
        raise DataError(
            f"the {kind} bias needs training features, not {list(features.shape)}; or take bias 'zero'"
        )
    with no_autocast(features):
        bias = (
            -weight @ _mean(features, weight) if kind == "mean" else -_median(weight, features, memory_budget)
        )
    if not bool(bias.isfinite().all()):
        raise DataError(f"the {kind} bias is not finite: the teacher's features or the hash weights are not")
    return bias


MEAN_ROWS = 4096
"""Feature rows that are lifted and summed at a time for the 'mean' bias."""


def _mean(features: Tensor, weight: Tensor) -> Tensor:
    """Mean feature [D] in the weights' dtype, lifting only a block of rows at a time."""
    total = weight.new_zeros(weight.shape[1])
    for row in range(0, len(features), MEAN_ROWS):
        total += features[row : row + MEAN_ROWS].to(weight.dtype).sum(0)
    return total / len(features)


def median_chunks(
    num_hashes: int, num_features: int, feature_size: int, itemsize: int, memory_budget: int
) -> tuple[int, int]:
    """How many hashes and how many feature rows to take at a time for a median within a memory budget.

    One half of the budget holds the projections of a chunk of hashes, the other half a block of lifted rows
    and their product.

    Args:
        num_hashes: N.
        num_features: M, the number of feature rows.
        feature_size: D.
        itemsize: bytes per number.
        memory_budget: bytes for both together.

    Returns:
        Hashes per chunk and rows per block, both at least 1.

    Raises:
        ConfigError: the budget is too small for one hash; the message names the least one.
    """
    half = memory_budget // 2
    least = 2 * itemsize * max(num_features, feature_size + 1)
    if memory_budget < least:
        raise ConfigError(
            f"memory_budget of {memory_budget} bytes does not hold one hash of {num_features} features of "
            f"size {feature_size}; give at least {least}"
        )
    # The last bound leaves room for at least one row of features and its product with the chunk.
    hashes = min(num_hashes, half // (itemsize * num_features), half // itemsize - feature_size)
    return hashes, min(num_features, half // (itemsize * (feature_size + hashes)))


def _median(weight: Tensor, features: Tensor, memory_budget: int) -> Tensor:
    """Exact median [N] of the projections of ``features`` [M, D] on each row of ``weight`` [N, D]."""
    count = len(features)
    hashes, rows = median_chunks(len(weight), count, weight.shape[1], weight.element_size(), memory_budget)
    medians = weight.new_empty(len(weight))
    projections = weight.new_empty(hashes, count)
    for start in range(0, len(weight), hashes):
        chunk = weight[start : start + hashes]
        values = projections[: len(chunk)]
        for row in range(0, count, rows):
            values[:, row : row + rows] = chunk @ features[row : row + rows].to(weight.dtype).T
        # torch.median gives the lower of two middle values; that of the negated ones is the upper.
        lower = values.median(dim=1).values
        upper = -values.neg_().median(dim=1).values
        medians[start : start + hashes] = 0.5 * (lower + upper)
    return medians


def std_from_classifier(weight: Tensor) -> float:
    """Standard deviation of the hashes for a teacher with a classifier: that of its classifier's weights.

    Args:
        weight: [K, D] weights of the teacher's last linear layer.

    Returns:
        The standard deviation of all entries (unbiased).

    Raises:
        ConfigError: the weights have no spread; the message names their shape.

    Example:
        >>> round(std_from_classifier(torch.tensor([[1.0, -1.0]])), 4)
        1.4142

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424.
    """
    (lifted,) = lift(weight.detach())
    std = float(lifted.std()) if lifted.numel() > 1 else 0.0
    require_positive(
        std,
        f"the standard deviation of classifier weights {list(weight.shape)}",
        "the classifier is untrained or broken; set std from the features (std_from_features)",
    )
    return std


def std_from_features(
    features: Tensor, *, angle_degrees: float = 30.0, center: Tensor | None = None
) -> float:
    r"""Standard deviation of the hashes for a headless teacher, from its features.

    .. math:: \mathrm{std} = r^*(\theta) \,/\, \operatorname{median}_i \lVert f_i \rVert

    The LSH loss leaves the norm nearly free, but not wholly: for a student at the angle theta it is least at
    the norm :math:`r^*(\theta) / \mathrm{std}` (see ``optimal_radius``). This rule puts that norm at the
    teacher's own typical one, so that the hashes and an L2 term ask for the same norm, and the logits of the
    hashes are neither so small that all bits cost ln 2 nor so large that only a few bits near the border have
    a gradient.

    Args:
        features: [M, D] teacher's features of training images.
        angle_degrees: the angle that a trained student typically keeps to its teacher.
        center: [D], the mean feature, where the bias of the hashes is 'mean'; norms are then those of f -
            center.

    Returns:
        The standard deviation, in units of 1 / feature.

    Raises:
        ConfigError: the angle is not within (0, 90) degrees, where a best norm above 0 exists.
        DataError: more than half of the features are zero, or some are not finite.
        ModelError: ``center`` does not fit the features; the message names both shapes.

    Example:
        >>> round(std_from_features(torch.tensor([[3.0, 4.0]])), 3)  # 3.036 / 5
        0.607

    Source: ours.
    """
    if not 0 < angle_degrees < 90:
        raise ConfigError(f"angle_degrees must be within (0, 90), not {angle_degrees}; 30 is a usual angle")
    if features.ndim != 2 or not len(features):
        raise DataError(f"std_from_features needs features [M, D] with M above 0, not {list(features.shape)}")
    if center is not None:
        require_shape(center, (features.shape[1],), "center", f"features {list(features.shape)}")
    (lifted,) = lift(features.detach())
    shift = 0 if center is None else center.detach().to(lifted.dtype)
    norm = float(torch.linalg.vector_norm(lifted - shift, dim=1).median())
    if not 0 < norm < float("inf"):
        raise DataError(
            f"the teacher's median feature norm is {norm}, so no std follows from it; check that the "
            "teacher's weights are loaded and that its features are finite, or give std"
        )
    return optimal_radius(angle_degrees) / norm
