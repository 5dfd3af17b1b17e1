r"""The LSH loss with infinitely many hashes, in closed form.

With W's entries Normal(0, std^2), no bias, :math:`r = \mathrm{std}\,\lVert s \rVert` and :math:`\theta` the
angle between the student's feature s and the teacher's t, the expected LSH loss is

.. math:: \mathbb{E}\,\ell = G(r) - \frac{r \cos\theta}{\sqrt{2\pi}}, \qquad
          G(r) = \mathbb{E} \log(2 \cosh(r Z / 2)), \quad Z \sim \mathrm{Normal}(0, 1).

It is computed as :math:`H(r) + r (1 - \cos\theta) / \sqrt{2\pi}` with :math:`H(r) = G(r) - r / \sqrt{2\pi}`:
both terms are non-negative, so nothing cancels at large norms and small angles, which is where a good student
lives.

The derivation is ours; the sampled loss is that of Wang, Ge and Wu (2021), arXiv 2011.01424.
"""

import math
from functools import cache

import torch
from torch import Tensor

from lauter.errors import ConfigError
from lauter.losses.geometry import cosine_gap, split_features
from lauter.losses.gradient import attach_gradient, wants_gradient
from lauter.losses.inputs import lift, no_autocast, require_pair, require_positive, require_shape

SEAM = 1.0
"""The r at which the quadrature changes from Gauss-Hermite (below) to Gauss-Laguerre (from here on)."""
INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


def _gauss(diagonal: Tensor, off_diagonal: Tensor) -> tuple[list[float], list[float]]:
    """Nodes and weights (of sum 1) of a Gauss rule from its Jacobi matrix, after Golub and Welsch (1969)."""
    nodes, vectors = torch.linalg.eigh(
        torch.diag(diagonal) + torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1)
    )
    return nodes.tolist(), vectors[0].square().tolist()


def _hermite_rule(count: int) -> tuple[list[float], list[float]]:
    """Gauss-Hermite rule for E f(Z) of an even f: the positive half of the nodes, its weights doubled."""
    steps = torch.arange(1, count, dtype=torch.float64)
    nodes, weights = _gauss(torch.zeros(count, dtype=torch.float64), steps.sqrt())
    return nodes[count // 2 :], [2 * weight for weight in weights[count // 2 :]]


def _laguerre_rule(count: int) -> tuple[list[float], list[float]]:
    """Gauss-Laguerre rule for the integral of f(u) log1p(exp(-u)) over u > 0: the log is in the weights."""
    steps = torch.arange(count, dtype=torch.float64)
    nodes, weights = _gauss(2 * steps + 1, steps[1:])
    factors = [math.exp(u) * math.log1p(math.exp(-u)) for u in nodes]
    return nodes, [weight * factor for weight, factor in zip(weights, factors, strict=True)]


_HERMITE = _hermite_rule(64)
_LAGUERRE = _laguerre_rule(32)


def _make_rules(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both rules as tensors: nodes and weights of Gauss-Hermite, then of Gauss-Laguerre."""
    with torch.inference_mode(False):
        hermite, laguerre = (torch.tensor(rule, dtype=dtype, device=device) for rule in (_HERMITE, _LAGUERRE))
    return hermite[0], hermite[1], laguerre[0], laguerre[1]


_cached_rules = cache(_make_rules)
"""Copying the rules to a GPU at every step would make it wait."""


def expected_excess(radius: Tensor) -> tuple[Tensor, Tensor]:
    r"""Expected LSH loss of a student in the teacher's very direction, and its derivative.

    .. math:: H(r) = \mathbb{E} \log(2 \cosh(r Z / 2)) - \frac{r}{\sqrt{2\pi}}
              = \frac{2}{r} \int_0^\infty \varphi(u / r) \log(1 + e^{-u})\, du

    It falls from ln 2 at r = 0 towards 0. The kink of log cosh at 0 spoils Gauss-Hermite quadrature at large
    r, so the second form is integrated by a 32-node Gauss-Laguerre rule from r = 1 on, the first by a 64-node
    Gauss-Hermite rule below. They meet within 1e-8, in value and in slope.

    Args:
        radius: [B] r = std * norm, non-negative, float32 or float64.

    Returns:
        H(r) [B] and H'(r) [B], without gradient.
    """
    # A compiled graph holds the rules as constants and must not see the cache.
    rules = _make_rules if torch.compiler.is_compiling() else _cached_rules
    hermite_nodes, hermite_weights, laguerre_nodes, laguerre_weights = rules(radius.device, radius.dtype)
    radius = radius.detach()

    low = radius.clamp(max=SEAM)
    half = 0.5 * low[:, None] * hermite_nodes
    low_value = (hermite_weights * (half + torch.log1p(torch.exp(-2 * half)))).sum(1) - low * INV_SQRT_2PI
    low_slope = (hermite_weights * 0.5 * hermite_nodes * torch.tanh(half)).sum(1) - INV_SQRT_2PI

    high = radius.clamp(min=SEAM)
    square = (laguerre_nodes / high[:, None]).square()
    density = laguerre_weights * INV_SQRT_2PI * torch.exp(-0.5 * square)
    high_value = 2 / high * density.sum(1)
    high_slope = 2 / high.square() * (density * (square - 1)).sum(1)

    above = radius >= SEAM
    return torch.where(above, high_value, low_value), torch.where(above, high_slope, low_slope)


def lsh_expected(student: Tensor, teacher: Tensor, *, std: float, center: Tensor | None = None) -> Tensor:
    r"""LSH loss with infinitely many hashes: no W, no seed, no sampling noise, O(B D).

    .. math:: \ell_b = G(r) - \frac{r \cos\theta}{\sqrt{2\pi}}, \quad
              \nabla_s \ell_b = \mathrm{std} \Big[ G'(r) \frac{s}{\lVert s \rVert}
              - \frac{1}{\sqrt{2\pi}} \frac{t}{\lVert t \rVert} \Big], \quad r = \mathrm{std}\,\lVert s \rVert

    The teacher's magnitude drops out. The loss always pulls the student's direction in, and is least at the
    norm ``optimal_radius(theta) / std``. A zero student has the loss ln 2 and the gradient that its limit
    has; a zero teacher, whose sampled bits are all 0, leaves G(r). With ``center`` it is the limit of the LSH
    loss with the 'mean' bias, since then hashing f is hashing f - center without bias.

    Args:
        student: [B, D] features, gradient flows; first order only.
        teacher: [B, D] features, detached here.
        std: standard deviation of the entries of the hash weights that are not drawn; positive.
        center: [D], the mean of the teacher's training features, detached here; None for hashes without bias.

    Returns:
        [B], positive, in nats, float32 at least whatever the autocast; finite with a finite gradient for
        norms from 0 to 1e4 and beyond.

    Raises:
        ModelError: the shapes differ; the message names both.
        ConfigError: ``std`` is not positive.

    Example:
        >>> lsh_expected(torch.zeros(1, 2), torch.ones(1, 2), std=1.0)
        tensor([0.6931])

    Source: ours, as the limit of the LSH loss of Wang, Ge and Wu (2021), arXiv 2011.01424.
    """
    require_pair(student, teacher, "student and teacher features")
    require_positive(std, "std", "take std_from_classifier or std_from_features")
    if center is not None:
        require_shape(center, (student.shape[1],), "center", f"features {list(student.shape)}")
    with no_autocast(student):
        student, teacher = lift(student, teacher.detach())
        with torch.no_grad():
            shift = 0 if center is None else center.to(student.dtype)
            norm, student_unit = split_features(student - shift)
            teacher_unit = split_features(teacher - shift)[1]
            radius = std * norm
            excess, slope = expected_excess(radius)
            value = excess + radius * INV_SQRT_2PI * cosine_gap(student_unit, teacher_unit)
        if not wants_gradient(student):
            return value
        with torch.no_grad():
            pull = slope[:, None] * student_unit + INV_SQRT_2PI * (student_unit - teacher_unit)
        return attach_gradient(student, value, std * pull)


def optimal_radius(theta: float) -> float:
    r"""The r = std * norm at which the expected LSH loss is least for a student at an angle to its teacher.

    The root of :math:`G'(r) = \cos\theta / \sqrt{2\pi}`: about 20.71 at 5 degrees, 3.036 at 30, 0.951 at 60.
    At small angles it is near :math:`\pi / (\sqrt{3}\,\theta)`, with theta in radians; from 90 degrees on it
    is 0.

    Args:
        theta: the angle in degrees, within (0, 180].

    Returns:
        r, without unit, to about twelve digits of the quadrature.

    Raises:
        ConfigError: the angle is out of range; at 0 degrees the loss falls for ever and no best norm exists.

    Example:
        >>> round(optimal_radius(30.0), 3)
        3.036

    Source: ours.
    """
    if not 0 < theta <= 180:
        raise ConfigError(
            f"theta must be an angle in degrees within (0, 180], not {theta}; at 0 degrees there is no "
            "best norm, name the angle that a trained student typically keeps to its teacher (30, say)"
        )
    if theta >= 90:
        return 0.0
    target = -2 * math.sin(math.radians(theta) / 2) ** 2 * INV_SQRT_2PI
    low, high = 0.0, 2 * math.pi / (math.sqrt(3) * math.radians(theta))
    while (middle := 0.5 * (low + high)) not in (low, high):
        slope = expected_excess(torch.tensor([middle], dtype=torch.float64))[1].item()
        low, high = (middle, high) if slope < target else (low, middle)
    return middle
