"""Prior-corrected cross-entropy and the weighted mean against loops."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.classification import cross_entropy, mean_over

PRIOR = [0.6, 0.3, 0.1]


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(5, 3, generator=generator, dtype=torch.float64)).requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 2, -1, 1, 2])


@pytest.fixture
def soft() -> Tensor:
    rows = [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 0.0], [0.0, 0.9, 0.1], [1 / 3, 1 / 3, 1 / 3]]
    return torch.tensor(rows, dtype=torch.float64)


def by_loop(logits: Tensor, targets: list[list[float]], prior: list[float], smoothing: float) -> Tensor:
    losses = []
    for row, target in zip(logits.tolist(), targets, strict=True):
        weights = [math.exp(x) * p for x, p in zip(row, prior, strict=True)]
        total = 0.0
        for weight, share in zip(weights, target, strict=True):
            smooth = (1 - smoothing) * share + smoothing * sum(target) / len(row)
            total -= smooth * math.log(weight / sum(weights))
        losses.append(total)
    return torch.tensor(losses, dtype=torch.float64)


def one_hot(labels: Tensor, num_classes: int) -> list[list[float]]:
    return [[1.0 if k == label else 0.0 for k in range(num_classes)] for label in labels.tolist()]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("prior", [None, PRIOR])
def test_hard_and_soft_labels_equal_the_loop(
    logits: Tensor, labels: Tensor, soft: Tensor, prior: list[float] | None, smoothing: float
) -> None:
    log_prior = None if prior is None else torch.tensor(prior, dtype=torch.float64).log()
    weights = prior or [1.0, 1.0, 1.0]
    hard = cross_entropy(logits, labels, log_prior=log_prior, label_smoothing=smoothing)
    torch.testing.assert_close(hard.detach(), by_loop(logits, one_hot(labels, 3), weights, smoothing))
    softened = cross_entropy(logits, soft, log_prior=log_prior, label_smoothing=smoothing)
    torch.testing.assert_close(softened.detach(), by_loop(logits, soft.tolist(), weights, smoothing))


def test_uniform_prior_is_plain_cross_entropy(logits: Tensor, labels: Tensor) -> None:
    uniform = torch.full((3,), math.log(1 / 3), dtype=torch.float64)
    corrected = cross_entropy(logits, labels, log_prior=uniform)
    torch.testing.assert_close(corrected, cross_entropy(logits, labels))
    plain = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    torch.testing.assert_close(corrected, plain)


def test_flat_logits_pay_the_log_of_the_prior() -> None:
    losses = cross_entropy(torch.zeros(3, 3), torch.tensor([0, 1, 2]), log_prior=torch.tensor(PRIOR).log())
    torch.testing.assert_close(losses, -torch.tensor(PRIOR).log())


def test_unlabelled_rows_have_no_loss_and_no_gradient(logits: Tensor, labels: Tensor, soft: Tensor) -> None:
    for given in (labels, soft):
        losses = cross_entropy(logits, given, label_smoothing=0.1)
        assert losses[2].item() == 0
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        torch.testing.assert_close(gradient[2], torch.zeros(3, dtype=torch.float64))
        assert float(gradient[[0, 1, 3]].abs().sum(1).min()) > 0.01


def test_gradients_agree_with_differences(logits: Tensor, labels: Tensor, soft: Tensor) -> None:
    log_prior = torch.tensor(PRIOR, dtype=torch.float64).log()
    for given in (labels, soft):
        torch.autograd.gradcheck(
            lambda x, given=given: cross_entropy(x, given, log_prior=log_prior, label_smoothing=0.1), logits
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_logits_and_lifted(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], dtype=dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        losses = cross_entropy(logits, torch.tensor([1, 0]), label_smoothing=0.1)
        soft = cross_entropy(logits, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert losses.dtype == soft.dtype == torch.float32
    wide = 2 * float(torch.tensor(1e4, dtype=dtype))
    torch.testing.assert_close(soft.detach(), torch.tensor([wide, 0.0]))
    (gradient,) = torch.autograd.grad((losses + soft).sum(), logits)
    assert bool(gradient.isfinite().all())


def test_errors_name_what_was_expected(logits: Tensor, labels: Tensor, soft: Tensor) -> None:
    with pytest.raises(ModelError, match=r"labels must have shape \[5\] beside logits \[5, 3\], not \[4\]"):
        cross_entropy(logits, labels[:4])
    with pytest.raises(ModelError, match=r"soft targets must have shape \[5, 3\] .*not \[5, 2\]"):
        cross_entropy(logits, soft[:, :2])
    with pytest.raises(
        ModelError, match=r"log_prior must have shape \[3\] beside logits \[5, 3\], not \[2\]"
    ):
        cross_entropy(logits, labels, log_prior=torch.zeros(2))
    with pytest.raises(ModelError, match=r"logits must be \[B, K\], not \[3\]"):
        cross_entropy(logits[0], labels)
    with pytest.raises(DataError, match=r"within -1..2 for 3 classes, found -1..7"):
        cross_entropy(logits, torch.tensor([0, 7, -1, 1, 2]))
    with pytest.raises(DataError, match=r"found -2..1"):
        cross_entropy(logits, torch.tensor([0, -2, -1, 1, 0]))
    with pytest.raises(DataError, match=r"not torch.bool"):
        cross_entropy(logits, labels > 0)
    with pytest.raises(ConfigError, match=r"label_smoothing must be a share within \[0, 1\], not 1.5"):
        cross_entropy(logits, labels, label_smoothing=1.5)


def test_mean_over_is_the_weighted_mean() -> None:
    values = torch.tensor([1.0, 2.0, 6.0, math.inf], requires_grad=True)
    weights = torch.tensor([0.5, 1.0, 0.5, 0.0], requires_grad=True)
    mean = mean_over(values, weights)
    torch.testing.assert_close(mean, torch.tensor(2.75))
    mean.backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.25, 0.5, 0.25, 0.0]))
    assert weights.grad is None
    torch.testing.assert_close(mean_over(values[:3], torch.tensor([True, False, True])), torch.tensor(3.5))
    torch.testing.assert_close(mean_over(values[:3], 1e-30 * weights[:3]), torch.tensor(2.75))


@pytest.mark.parametrize("count", [0, 3])
def test_mean_over_nothing_is_zero_with_zero_gradient(count: int) -> None:
    values = torch.full((count,), 5.0, requires_grad=True)
    mean = mean_over(values, torch.zeros(count))
    torch.testing.assert_close(mean, torch.tensor(0.0))
    mean.backward()
    torch.testing.assert_close(values.grad, torch.zeros(count))


def test_mean_over_error_names_both_shapes() -> None:
    with pytest.raises(ModelError, match=r"weights must have shape \[3\] beside values \[3\], not \[2\]"):
        mean_over(torch.zeros(3), torch.zeros(2))
