"""Contrastive losses against double loops."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ConfigError, ModelError
from lauter.losses.contrastive import info_nce_queue, nt_xent


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


@pytest.fixture
def queue() -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def cosine(first: list[float], second: list[float]) -> float:
    inner = sum(a * b for a, b in zip(first, second, strict=True))
    return inner / math.hypot(*first) / math.hypot(*second)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_equals_the_double_loop(views: tuple[Tensor, Tensor], temperature: float) -> None:
    first, second = (view.tolist() for view in views)
    everything, batch = first + second, len(first)

    def one_sided(i: int, j: int) -> float:
        others = sum(
            math.exp(cosine(everything[i], everything[k]) / temperature) for k in range(2 * batch) if k != i
        )
        return -math.log(math.exp(cosine(everything[i], everything[j]) / temperature) / others)

    expected = [(one_sided(b, b + batch) + one_sided(b + batch, b)) / 2 for b in range(batch)]
    torch.testing.assert_close(
        nt_xent(*views, temperature).detach(), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_info_nce_equals_the_loop(views: tuple[Tensor, Tensor], queue: Tensor, temperature: float) -> None:
    expected = []
    for q, k in zip(views[0].tolist(), views[1].tolist(), strict=True):
        own = math.exp(cosine(q, k) / temperature)
        others = sum(math.exp(cosine(q, n) / temperature) for n in queue.tolist())
        expected.append(-math.log(own / (own + others)))
    losses = info_nce_queue(*views, queue, temperature).detach()
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_nt_xent_is_symmetric_and_free_of_norms_and_order(views: tuple[Tensor, Tensor]) -> None:
    first, second = views
    losses = nt_xent(first, second, 0.2)
    torch.testing.assert_close(nt_xent(second, first, 0.2), losses)
    torch.testing.assert_close(nt_xent(5 * first, 0.01 * second, 0.2), losses)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(nt_xent(first[order], second[order], 0.2), losses[order])
    assert float((nt_xent(first[order], second, 0.2) - losses).detach().abs().max()) > 0.01


def test_one_image_alone_has_no_loss(views: tuple[Tensor, Tensor]) -> None:
    losses = nt_xent(views[0][:1], views[1][:1])
    torch.testing.assert_close(losses, torch.zeros(1, dtype=torch.float64))


def test_empty_queue_has_no_loss(views: tuple[Tensor, Tensor], queue: Tensor) -> None:
    losses = info_nce_queue(*views, queue[:0])
    torch.testing.assert_close(losses, torch.zeros(4, dtype=torch.float64))


def test_gradients_agree_with_differences(views: tuple[Tensor, Tensor], queue: Tensor) -> None:
    torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), views)
    torch.autograd.gradcheck(lambda q: info_nce_queue(q, views[1], queue, 0.3), views[0])


def test_only_the_query_gets_a_gradient(views: tuple[Tensor, Tensor], queue: Tensor) -> None:
    queue.requires_grad_()
    info_nce_queue(*views, queue).sum().backward()
    assert views[1].grad is None
    assert queue.grad is None
    assert float(views[0].grad.abs().sum()) > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", [0.0, 1e-6, 1.0, 1e4])
def test_finite_at_every_norm_and_lifted(norm: float, dtype: torch.dtype) -> None:
    first = (norm * torch.eye(3)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        simclr = nt_xent(first, first.detach(), 0.01)
        moco = info_nce_queue(first, first.detach(), -first.detach(), 0.01)
    assert simclr.dtype == moco.dtype == torch.float32
    vanished = float(first.detach().abs().max()) == 0
    same = math.log(5) if vanished else 0.0
    torch.testing.assert_close(simclr.detach(), torch.full((3,), same))
    torch.testing.assert_close(moco.detach(), torch.full((3,), math.log(4) if vanished else 0.0))
    (gradient,) = torch.autograd.grad((simclr + moco).sum(), first)
    assert bool(gradient.isfinite().all())


def test_a_zero_projection_among_others_gets_no_gradient() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    second, queue = torch.tensor([[0.6, 0.8], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]])
    for losses in (nt_xent(first, second), info_nce_queue(first, second, queue)):
        (gradient,) = torch.autograd.grad(losses.sum(), first)
        torch.testing.assert_close(gradient[0], torch.zeros(2))
        assert float(gradient[1].abs().sum()) > 0.01


def test_autocast_does_not_touch_the_similarities() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second, queue = (torch.randn(6, 32, generator=generator) for _ in range(3))
    plain = nt_xent(first, second, 0.1), info_nce_queue(first, second, queue, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = nt_xent(first, second, 0.1), info_nce_queue(first, second, queue, 0.1)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_errors_name_both_shapes(views: tuple[Tensor, Tensor], queue: Tensor) -> None:
    first, second = views
    with pytest.raises(ModelError, match=r"two views .*\[4, 3\] and \[3, 3\]"):
        nt_xent(first, second[:3])
    with pytest.raises(ModelError, match=r"query and key .*\[4, 3\] and \[4, 2\]"):
        info_nce_queue(first, second[:, :2], queue)
    with pytest.raises(ModelError, match=r"queue must be \[Q, d\] beside a query \[4, 3\], not \[6, 2\]"):
        info_nce_queue(first, second, queue[:, :2])
    for call in (lambda t: nt_xent(first, second, t), lambda t: info_nce_queue(first, second, queue, t)):
        with pytest.raises(ConfigError, match="temperature must be positive and finite, not 0"):
            call(0.0)


@pytest.fixture
def own() -> Tensor:
    """Which of 6 keys are of which of 4 images; the last image owns them all."""
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 0] = mask[1, 5] = True
    mask[3] = True
    return mask


def test_an_image_is_not_told_from_its_own_keys(
    views: tuple[Tensor, Tensor], queue: Tensor, own: Tensor
) -> None:
    expected = []
    for row, (q, k) in enumerate(zip(views[0].tolist(), views[1].tolist(), strict=True)):
        right = math.exp(cosine(q, k) / 0.2)
        wrong = sum(math.exp(cosine(q, n) / 0.2) for m, n in enumerate(queue.tolist()) if not own[row, m])
        expected.append(-math.log(right / (right + wrong)))
    losses = info_nce_queue(*views, queue, own=own).detach()
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(losses[3], torch.zeros((), dtype=torch.float64))
    nobody = torch.zeros_like(own)
    torch.testing.assert_close(info_nce_queue(*views, queue, own=nobody), info_nce_queue(*views, queue))


def test_own_keys_get_no_gradient_and_leave_the_others_right(
    views: tuple[Tensor, Tensor], queue: Tensor, own: Tensor
) -> None:
    torch.autograd.gradcheck(lambda q: info_nce_queue(q, views[1], queue, 0.3, own=own), views[0])
    (gradient,) = torch.autograd.grad(info_nce_queue(*views, queue, own=own).sum(), views[0])
    torch.testing.assert_close(gradient[3], torch.zeros(3, dtype=torch.float64))
    huge = (1e4 * torch.eye(4, 3)).requires_grad_()
    losses = info_nce_queue(huge, -huge.detach(), huge.detach()[:3].repeat(2, 1), 0.01, own=own)
    assert bool(losses.isfinite().all())
    assert bool(torch.autograd.grad(losses.sum(), huge)[0].isfinite().all())


def test_a_mask_that_does_not_fit_is_refused(
    views: tuple[Tensor, Tensor], queue: Tensor, own: Tensor
) -> None:
    with pytest.raises(ModelError, match=r"own must have shape \[4, 6\] beside a query \[4, 3\] and a queue"):
        info_nce_queue(*views, queue, own=own[:, :5])
    with pytest.raises(ModelError, match=r"own must be a mask of bool, not torch\.int64"):
        info_nce_queue(*views, queue, own=own.long())
