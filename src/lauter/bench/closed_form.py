"""The closed form of the LSH loss beside what is sampled: errors by number of hashes, and the best norm.

Pairs of features are drawn at given angles in random directions, the student at the norm that is best there,
which is where training leaves it. The loss depends on nothing else: not on a data set, and not on a network.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lauter.bench.records import Record
from lauter.data.counters import derive_seed
from lauter.errors import ConfigError
from lauter.losses.closed_form import lsh_expected, optimal_radius
from lauter.losses.hashing import draw_hash_weights
from lauter.losses.mimic import lsh

SUITE = "distill"
ANGLES = (5, 10, 30, 60)
"""Degrees between student and teacher."""
FEATURE_SIZE = 128
HASHES = (256, 1024, 4096, 16384, 65536)
"""Numbers of hashes, a factor of 4 apart; 4096 is 32 for each feature, the paper's rule for small images."""
PAIRS = 64
"""Pairs of features that one draw of hashes is measured on."""
EXACT = "closed form"
BATCH = 16
"""Pairs at a time: 65536 hashes of each take 8 MiB in float64, and a few of these exist together."""


def name_sampled(hashes: int) -> str:
    """Name of the sampled loss as a method."""
    return f"lsh N={hashes}"


def name_angle(degrees: float) -> str:
    """Name of an angle as a data set."""
    return f"{degrees:g}°"


def measure_closed_form(
    seeds: Sequence[int],
    *,
    angles: Sequence[float] = ANGLES,
    hashes: Sequence[int] = HASHES,
    feature_size: int = FEATURE_SIZE,
    pairs: int = PAIRS,
) -> list[Record]:
    r"""Measure how far the sampled LSH loss is from its mean over all hashes.

    Each seed draws its own pairs and one set of hash weights of unit standard deviation; fewer hashes are the
    first of these. Errors are root mean squares over the pairs, of value and gradient, as fractions of the
    exact ones:

    .. math:: \frac{\sqrt{\sum_b (\ell_b^N - \ell_b)^2}}{\sqrt{\sum_b \ell_b^2}}, \qquad
              \frac{\sqrt{\sum_b \lVert \nabla \ell_b^N - \nabla \ell_b \rVert^2}}
              {\sqrt{\sum_b \lVert \nabla \ell_b \rVert^2}}

    Args:
        seeds: of the draws.
        angles: degrees, within (0, 90).
        hashes: numbers of hashes.
        feature_size: D.
        pairs: of features, at each angle.

    Returns:
        Suite ``distill``, an angle as ``data``: ``loss_error_rms`` and ``gradient_error_rms`` of each number
        of hashes; ``optimal_radius`` of the closed form, and of the largest number of hashes as the mean over
        the pairs.

    Raises:
        ConfigError: a size or an angle is out of range.
    """
    if not (seeds and angles and hashes) or min(*hashes, feature_size - 1, pairs) < 1:
        raise ConfigError(
            f"the closed form is measured with seeds, angles and hashes, at least 2 features and 1 pair, not "
            f"{list(seeds)}, {list(angles)}, {list(hashes)}, {feature_size} and {pairs}"
        )
    if not all(0 < degrees < 90 for degrees in angles):
        raise ConfigError(
            f"angles must be within (0, 90) degrees, where a best norm exists, not {list(angles)}"
        )
    records = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(derive_seed(seed, "closed form"))
        weight = draw_hash_weights(max(hashes), feature_size, 1.0, generator).double()
        for degrees in angles:
            student, teacher = draw_pairs(degrees, pairs, feature_size, generator)
            best = optimal_radius(degrees)
            found = {(EXACT, "optimal_radius"): best}
            for count in hashes:
                errors = measure_errors(best * student, teacher, weight[:count])
                names = ("loss_error_rms", "gradient_error_rms")
                found |= {
                    (name_sampled(count), name): error for name, error in zip(names, errors, strict=True)
                }
            radii = find_sampled_radii(student, teacher, weight)
            found[name_sampled(max(hashes)), "optimal_radius"] = float(radii.mean())
            records += [
                Record(SUITE, name_angle(degrees), method, seed, metric, value)
                for (method, metric), value in found.items()
            ]
    return records


def draw_pairs(
    degrees: float, pairs: int, feature_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Unit vectors at an angle, in random directions.

    Args:
        degrees: the angle between the two of a pair.
        pairs: B.
        feature_size: D, at least 2.
        generator: the source of the numbers.

    Returns:
        Students and teachers, both float64 [B, D].
    """
    drawn = torch.randn(pairs, feature_size, 2, generator=generator, dtype=torch.float64)
    plane = torch.linalg.qr(drawn).Q
    teacher, aside = plane.unbind(2)
    theta = math.radians(degrees)
    return math.cos(theta) * teacher + math.sin(theta) * aside, teacher


def measure_errors(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[float, float]:
    """Relative root mean square errors of the sampled loss and of its gradient.

    Args:
        student: float64 [B, D].
        teacher: float64 [B, D].
        weight: float64 [N, D] of unit standard deviation.
    """
    bias = weight.new_zeros(len(weight))
    sums = torch.zeros(4, dtype=torch.float64)
    for first, second in zip(torch.split(student, BATCH), torch.split(teacher, BATCH), strict=True):
        leaf = first.clone().requires_grad_()
        exact = lsh_expected(leaf, second, std=1.0)
        (exact_slope,) = torch.autograd.grad(exact.sum(), leaf)
        sampled = lsh(leaf, second, weight, bias)
        (sampled_slope,) = torch.autograd.grad(sampled.sum(), leaf)
        parts = (sampled - exact, exact, sampled_slope - exact_slope, exact_slope)
        sums += torch.stack([part.detach().square().sum() for part in parts])
    loss_gap, loss, slope_gap, slope = sums.sqrt().tolist()
    return loss_gap / loss, slope_gap / slope


@torch.no_grad()
def find_sampled_radii(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """The norm at which the sampled loss of each pair is least, by bisection of its slope along the student.

    Args:
        student: unit vectors, float64 [B, D].
        teacher: float64 [B, D].
        weight: float64 [N, D] of unit standard deviation.

    Returns:
        [B], of which one that no hash holds back is infinite.
    """
    radii = []
    for first, second in zip(torch.split(student, BATCH), torch.split(teacher, BATCH), strict=True):
        along, bits = first @ weight.T, (second @ weight.T > 0).double()
        low, high = first.new_zeros(len(first)), first.new_full((len(first),), 1e4)
        # The loss is convex in the norm: where its slope still falls, the best norm lies farther out.
        for _ in range(40):
            middle = 0.5 * (low + high)
            falls = ((torch.sigmoid(middle[:, None] * along) - bits) * along).mean(1) < 0
            low, high = torch.where(falls, middle, low), torch.where(falls, high, middle)
        held = (bits != (along > 0)).any(1)
        radii.append(high.masked_fill(~held, math.inf))
    return torch.cat(radii)
