"""Robust losses, label distributions and mixup against loops written from the formulas."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.classification import cross_entropy
from lauter.losses.robust import (
    early_learning,
    entropy,
    generalised_cross_entropy,
    label_compatibility,
    label_divergence,
    mix,
    move_targets,
    penalise_prior,
    symmetric_cross_entropy,
)

LABELS = [0, 2, -1, 1, 2, 3]


@pytest.fixture
def logits() -> Tensor:
    return draw(0).requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor(LABELS)


@pytest.fixture
def targets() -> Tensor:
    return 0.7 * draw(1).softmax(1)


def draw(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(6, 4, generator=generator, dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def rows_of(logits: Tensor) -> list[list[float]]:
    return [softmax(row) for row in logits.tolist()]


def double(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_generalised_cross_entropy_is_the_formula(
    logits: Tensor, labels: Tensor, q: float, threshold: float
) -> None:
    expected = []
    for probs, label in zip(rows_of(logits), LABELS, strict=True):
        believed = max(probs[label], threshold)
        expected.append(0.0 if label < 0 else (1 - believed**q) / q)
    found = generalised_cross_entropy(logits, labels, q=q, threshold=threshold)
    torch.testing.assert_close(found.detach(), double(expected))


def test_generalised_cross_entropy_lies_between_cross_entropy_and_absolute_error(
    logits: Tensor, labels: Tensor
) -> None:
    plain = cross_entropy(logits, labels)
    torch.testing.assert_close(generalised_cross_entropy(logits, labels, q=0.0), plain, rtol=0, atol=0)
    torch.testing.assert_close(generalised_cross_entropy(logits, labels, q=1e-7), plain, rtol=1e-5, atol=1e-6)
    absolute = []
    for probs, label in zip(rows_of(logits), LABELS, strict=True):
        total = sum(abs(prob - (1 if k == label else 0)) for k, prob in enumerate(probs))
        absolute.append(0.0 if label < 0 else total / 2)
    found = generalised_cross_entropy(logits, labels, q=1.0)
    torch.testing.assert_close(found.detach(), double(absolute))


def test_generalised_cross_entropy_weighs_gradients_by_belief(logits: Tensor, labels: Tensor) -> None:
    (plain,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    (robust,) = torch.autograd.grad(generalised_cross_entropy(logits, labels, q=0.7).sum(), logits)
    belief = [probs[label] ** 0.7 for probs, label in zip(rows_of(logits), LABELS, strict=True)]
    torch.testing.assert_close(robust, plain * double(belief)[:, None])


def test_labels_below_the_threshold_do_not_teach(logits: Tensor, labels: Tensor) -> None:
    losses = generalised_cross_entropy(logits, labels, threshold=0.3)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    counts = [label >= 0 and probs[label] > 0.3 for probs, label in zip(rows_of(logits), LABELS, strict=True)]
    assert {True, False} == set(counts)
    assert (gradient.abs().sum(1) > 1e-3).tolist() == counts
    torch.testing.assert_close(gradient[~torch.tensor(counts)].abs().sum(), torch.tensor(0.0).double())


@pytest.mark.parametrize(("alpha", "beta", "log_zero"), [(0.1, 1.0, -4.0), (6.0, 0.1, -9.2), (0.0, 1.0, 0.0)])
def test_symmetric_cross_entropy_is_the_formula(
    logits: Tensor, labels: Tensor, alpha: float, beta: float, log_zero: float
) -> None:
    expected = []
    for probs, label in zip(rows_of(logits), LABELS, strict=True):
        forward = backward = 0.0
        for k, prob in enumerate(probs):
            forward -= math.log(prob) if k == label else 0.0
            backward -= prob * (0.0 if k == label else log_zero)
        expected.append(0.0 if label < 0 else alpha * forward + beta * backward)
    found = symmetric_cross_entropy(logits, labels, alpha=alpha, beta=beta, log_zero=log_zero)
    torch.testing.assert_close(found.detach(), double(expected))


def test_symmetric_cross_entropy_without_its_reverse_part_is_cross_entropy(
    logits: Tensor, labels: Tensor
) -> None:
    plain = cross_entropy(logits, labels)
    torch.testing.assert_close(symmetric_cross_entropy(logits, labels, alpha=1.0, beta=0.0), plain)
    # What the reverse part costs does not depend on beta and A, only on their product.
    one = symmetric_cross_entropy(logits, labels, alpha=0.0, beta=2.0, log_zero=-3.0)
    other = symmetric_cross_entropy(logits, labels, alpha=0.0, beta=1.0, log_zero=-6.0)
    torch.testing.assert_close(other, one)


def test_early_learning_is_the_formula(logits: Tensor, targets: Tensor) -> None:
    expected = []
    for probs, aims in zip(rows_of(logits), targets.tolist(), strict=True):
        product = sum(aim * min(max(prob, 1e-4), 1 - 1e-4) for prob, aim in zip(probs, aims, strict=True))
        expected.append(math.log(1 - product))
    torch.testing.assert_close(early_learning(logits, targets).detach(), double(expected))
    torch.testing.assert_close(early_learning(logits, torch.zeros(6, 4)).detach(), torch.zeros(6).double())


def test_early_learning_pulls_to_the_target_and_spares_it(logits: Tensor, targets: Tensor) -> None:
    aims = targets.requires_grad_()
    losses = early_learning(logits, aims)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    for row, (probs, aim) in enumerate(zip(rows_of(logits), targets.tolist(), strict=True)):
        product = sum(p * t for p, t in zip(probs, aim, strict=True))
        for k in range(4):
            expected = probs[k] / (1 - product) * (product - aim[k])
            assert float(gradient[row, k]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert torch.autograd.grad(early_learning(logits, aims).sum(), aims, allow_unused=True) == (None,)


def test_early_learning_has_a_floor() -> None:
    sure = torch.tensor([[1e4, -1e4]], requires_grad=True)
    value = early_learning(sure, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(value.detach(), torch.tensor([math.log(1e-4)]), rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), sure)
    torch.testing.assert_close(gradient, torch.zeros(1, 2))


def test_targets_average_what_was_said() -> None:
    history = [rows_of(draw(seed)) for seed in range(3)]
    targets = torch.zeros(6, 4, dtype=torch.float64)
    for probs in history:
        targets = move_targets(targets, torch.tensor(probs, dtype=torch.float64), momentum=0.6)
    for row in range(6):
        for k in range(4):
            expected = sum(0.4 * 0.6 ** (2 - step) * history[step][row][k] for step in range(3))
            assert float(targets[row, k]) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(targets.sum(1), torch.full((6,), 1 - 0.6**3, dtype=torch.float64))
    said = torch.tensor([[0.25, 0.75]], requires_grad=True)
    forgetful = move_targets(torch.tensor([[0.5, 0.5]]), said, momentum=0.0)
    assert not forgetful.requires_grad
    torch.testing.assert_close(forgetful, said.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("prior", [None, [0.4, 0.3, 0.3, 0.0]])
def test_prior_penalty_is_the_divergence_of_the_mean(logits: Tensor, prior: list[float] | None) -> None:
    probs = rows_of(logits)
    expected = 0.0
    for k, share in enumerate(prior or [0.25] * 4):
        mean = sum(row[k] for row in probs) / len(probs)
        expected += share * math.log(share / mean) if share else 0.0
    given = None if prior is None else torch.tensor(prior)
    found = penalise_prior(logits, given)
    torch.testing.assert_close(found.item(), expected, rtol=1e-6, atol=1e-7)


def test_prior_penalty_is_zero_where_the_mean_is_the_prior() -> None:
    balanced = 1e4 * torch.eye(4).repeat(3, 1)
    torch.testing.assert_close(penalise_prior(balanced), torch.tensor(0.0), rtol=0, atol=1e-6)
    skewed = 1e4 * torch.eye(4)[[0, 0, 0, 1]]
    prior = torch.tensor([0.75, 0.25, 0.0, 0.0])
    torch.testing.assert_close(penalise_prior(skewed, prior), torch.tensor(0.0), rtol=0, atol=1e-6)
    assert float(penalise_prior(skewed)) > 1


def test_entropy_is_the_formula(logits: Tensor) -> None:
    expected = [-sum(p * math.log(p) for p in probs) for probs in rows_of(logits)]
    torch.testing.assert_close(entropy(logits).detach(), double(expected))
    torch.testing.assert_close(entropy(torch.zeros(1, 4)), torch.tensor([math.log(4)]))
    torch.testing.assert_close(entropy(1e4 * torch.eye(4)), torch.zeros(4))


def test_label_divergence_is_the_formula(logits: Tensor) -> None:
    label_logits = draw(3).requires_grad_()
    expected = []
    for probs, labels in zip(rows_of(logits), rows_of(label_logits), strict=True):
        expected.append(sum(p * math.log(p / d) for p, d in zip(probs, labels, strict=True)))
    found = label_divergence(logits, label_logits)
    torch.testing.assert_close(found.detach(), double(expected))
    torch.testing.assert_close(label_divergence(logits, logits + 3).detach(), torch.zeros(6).double())
    (gradient,) = torch.autograd.grad(found.sum(), label_logits)
    torch.testing.assert_close(gradient, (label_logits.softmax(1) - logits.softmax(1)).detach())


def test_label_compatibility_is_the_formula_and_that_of_the_code(logits: Tensor, labels: Tensor) -> None:
    once, twice = [], []
    for probs, label in zip(rows_of(logits), LABELS, strict=True):
        once.append(0.0 if label < 0 else -math.log(probs[label]))
        twice.append(0.0 if label < 0 else -math.log(softmax(probs)[label]))
    torch.testing.assert_close(label_compatibility(logits, labels).detach(), double(once))
    torch.testing.assert_close(label_compatibility(logits, labels, squashed=True).detach(), double(twice))


@pytest.mark.parametrize(("squashed", "rest"), [(False, [0.5, 0.5]), (True, [0.1, 0.9])])
def test_the_squashed_compatibility_lets_a_label_be_corrected(squashed: bool, rest: list[float]) -> None:
    """A network that is certain of class 1 against a given label of class 0, with 10 classes."""
    prediction = 20 * torch.nn.functional.one_hot(torch.tensor([1]), 10).double()
    rows = (10 * torch.nn.functional.one_hot(torch.tensor([0]), 10).double()).requires_grad_()
    for _ in range(2000):
        held = label_compatibility(rows, torch.tensor([0]), squashed=squashed)
        loss = label_divergence(prediction, rows) / 10 + 0.1 * held
        (gradient,) = torch.autograd.grad(loss.sum(), rows)
        rows = (rows - 5 * gradient).detach().requires_grad_()
    torch.testing.assert_close(rows.softmax(1)[0, :2].detach(), double(rest), rtol=0, atol=0.02)


def test_mix_is_the_formula_for_pixels_and_targets() -> None:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (3, 2, 2, 2), generator=generator, dtype=torch.uint8)
    partners, share = [2, 0, 1], 0.3
    mixed = mix(pixels, torch.tensor(partners), share)
    assert mixed.dtype == torch.float32
    for row, partner in enumerate(partners):
        ours, theirs = pixels[row].flatten().tolist(), pixels[partner].flatten().tolist()
        expected = [share * one + (1 - share) * other for one, other in zip(ours, theirs, strict=True)]
        torch.testing.assert_close(mixed[row].flatten(), torch.tensor(expected))
    targets = mix(torch.eye(3), torch.tensor(partners), share)
    torch.testing.assert_close(targets, torch.tensor([[0.3, 0.0, 0.7], [0.7, 0.3, 0.0], [0.0, 0.7, 0.3]]))


def test_mix_with_the_whole_share_or_with_oneself_changes_nothing() -> None:
    values = draw(5)
    partners = torch.tensor([1, 2, 3, 4, 5, 0])
    torch.testing.assert_close(mix(values, partners, 1.0), values, rtol=0, atol=0)
    torch.testing.assert_close(mix(values, partners, 0.0), values[partners], rtol=0, atol=0)
    torch.testing.assert_close(mix(values, torch.arange(6), 0.4), values)


def test_soft_targets_of_a_mix_cost_what_both_labels_do(logits: Tensor) -> None:
    labels, partners = torch.tensor([0, 2, 1, 1, 2, 3]), torch.tensor([5, 4, 3, 2, 1, 0])
    given = torch.nn.functional.one_hot(labels, 4).double()
    expected = 0.2 * cross_entropy(logits, labels) + 0.8 * cross_entropy(logits, labels[partners])
    torch.testing.assert_close(cross_entropy(logits, mix(given, partners, 0.2)), expected)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "generalised": generalised_cross_entropy,
    "truncated": lambda x, y: generalised_cross_entropy(x, y, threshold=0.3),
    "symmetric": symmetric_cross_entropy,
    "early": lambda x, _: early_learning(x, draw(1).softmax(1).to(x.dtype)),
    "prior": lambda x, _: penalise_prior(x),
    "entropy": lambda x, _: entropy(x),
    "divergence": lambda x, _: label_divergence(x, x.flip(1) / 3),
    "compatibility": label_compatibility,
    "squashed": lambda x, y: label_compatibility(x, y, squashed=True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_differences(name: str, logits: Tensor, labels: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, labels), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_finite_at_large_logits_and_lifted(name: str, dtype: torch.dtype, labels: Tensor) -> None:
    signs = torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 1.0, 0.0]]).repeat(3, 1)
    large = (1e4 * signs).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        losses = LOSSES[name](large, labels)
    assert losses.dtype == torch.float32
    assert losses.shape in ((), (6,))
    assert bool(losses.isfinite().all())
    (gradient,) = torch.autograd.grad(losses.sum(), large)
    assert gradient.dtype == dtype
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", ["generalised", "truncated", "symmetric", "compatibility", "squashed"])
def test_unlabelled_rows_have_no_loss_and_no_gradient(name: str, logits: Tensor, labels: Tensor) -> None:
    losses = LOSSES[name](logits, labels)
    torch.testing.assert_close(losses[2].detach(), torch.tensor(0.0, dtype=torch.float64), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(gradient[2], torch.zeros(4, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["generalised", "symmetric", "compatibility"])
def test_labels_that_do_not_fit_are_named(name: str, logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(DataError, match=r"one integer label for each image, not torch.float64; soft targets"):
        LOSSES[name](logits, draw(1).softmax(1))
    with pytest.raises(DataError, match=r"within -1..3 for 4 classes, found -1..7"):
        LOSSES[name](logits, labels.clamp(max=2) + 5 * (labels == 2).long())
    with pytest.raises(ModelError, match=r"labels must have shape \[6\] beside logits \[6, 4\], not \[5\]"):
        LOSSES[name](logits, labels[:5])


@pytest.mark.parametrize("name", LOSSES)
def test_logits_that_are_no_matrix_are_named(name: str, logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(ModelError, match=r"logits must be \[B, K\], not \[2, 3, 4\]"):
        LOSSES[name](logits.reshape(2, 3, 4), labels)


def test_shapes_that_do_not_fit_are_named(logits: Tensor) -> None:
    with pytest.raises(ModelError, match=r"targets must have shape \[6, 4\] beside logits .*, not \[6, 3\]"):
        early_learning(logits, torch.zeros(6, 3))
    with pytest.raises(ModelError, match=r"probs must have shape \[6, 4\] beside targets .*, not \[5, 4\]"):
        move_targets(torch.zeros(6, 4), torch.zeros(5, 4))
    with pytest.raises(ModelError, match=r"prior must have shape \[4\] beside logits \[6, 4\], not \[3\]"):
        penalise_prior(logits, torch.ones(3) / 3)
    with pytest.raises(ModelError, match=r"B of 1 or more, not 0"):
        penalise_prior(logits[:0])
    with pytest.raises(ModelError, match=r"label_logits must have shape \[6, 4\] .*, not \[6, 5\]"):
        label_divergence(logits, torch.zeros(6, 5))
    with pytest.raises(ModelError, match=r"partners must have shape \[6\] beside values \[6, 4\], not \[3\]"):
        mix(logits, torch.arange(3), 0.5)
    with pytest.raises(ModelError, match=r"two axes or more, not \[6\]; classes are mixed as soft targets"):
        mix(torch.arange(6), torch.arange(6), 0.5)


def test_settings_out_of_range_are_named(logits: Tensor, labels: Tensor) -> None:
    for q, threshold in ((-0.1, 0.0), (1.5, 0.0), (0.7, 1.0), (math.nan, 0.0)):
        with pytest.raises(ConfigError, match=rf"threshold within \[0, 1\), not {q} and {threshold}"):
            generalised_cross_entropy(logits, labels, q=q, threshold=threshold)
    for alpha, beta, log_zero in ((-1.0, 1.0, -4.0), (0.1, math.inf, -4.0), (0.1, 1.0, 4.0)):
        with pytest.raises(ConfigError, match=rf"not {alpha}, {beta} and {log_zero}; 0.1, 1 and -4"):
            symmetric_cross_entropy(logits, labels, alpha=alpha, beta=beta, log_zero=log_zero)
    for momentum in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigError, match=rf"momentum must be in \[0, 1\), not {momentum}"):
            move_targets(torch.zeros(1, 2), torch.zeros(1, 2), momentum=momentum)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=rf"share of a mix must be within \[0, 1\], not {share}"):
            mix(logits, torch.arange(6), share)
    for prior in ([0.5, 0.6, 0.0, 0.0], [1.5, -0.5, 0.0, 0.0], [math.nan] * 4):
        with pytest.raises(DataError, match=r"class shares of 0 or more of sum 1, not \["):
            penalise_prior(logits, torch.tensor(prior))
