"""L2, LSH and LSHL2 against loops, and the properties that LSH must have."""

import math

import pytest
import torch
from torch import Tensor

from lauter.errors import ModelError
from lauter.losses.closed_form import lsh_expected
from lauter.losses.hashing import draw_hash_weights, hash_bias, hash_bits
from lauter.losses.mimic import l2, lsh, lsh_from_bits, lshl2, mean_over_correct

B, D, N = 5, 7, 40


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def student() -> Tensor:
    return draw(B, D, seed=1).requires_grad_()


@pytest.fixture
def teacher() -> Tensor:
    return draw(B, D, seed=2)


@pytest.fixture
def weight() -> Tensor:
    return 0.7 * draw(N, D, seed=3)


@pytest.fixture
def bias() -> Tensor:
    return 0.5 * draw(N, seed=4)


@pytest.fixture
def no_bias() -> Tensor:
    return torch.zeros(N, dtype=torch.float64)


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def l2_by_loop(student: Tensor, teacher: Tensor) -> Tensor:
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    means = [sum((s - t) ** 2 for s, t in zip(f, g, strict=True)) / len(f) for f, g in rows]
    return torch.tensor(means, dtype=torch.float64)


def lsh_by_loop(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    losses = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for w, b in zip(weight.tolist(), bias.tolist(), strict=True):
            probability = 1 / (1 + math.exp(-(dot(w, s) + b)))
            total += -math.log(probability) if dot(w, t) + b > 0 else -math.log(1 - probability)
        losses.append(total / len(weight))
    return torch.tensor(losses, dtype=torch.float64)


def lsh_gradient_by_loop(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    gradients = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        gradient = [0.0] * len(s)
        for w, b in zip(weight.tolist(), bias.tolist(), strict=True):
            residual = 1 / (1 + math.exp(-(dot(w, s) + b))) - (1.0 if dot(w, t) + b > 0 else 0.0)
            gradient = [g + residual * w_d / len(weight) for g, w_d in zip(gradient, w, strict=True)]
        gradients.append(gradient)
    return torch.tensor(gradients, dtype=torch.float64)


def gradient_of(losses: Tensor, features: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(losses.sum(), features)
    return gradient


def test_l2_is_the_mean_squared_distance(student: Tensor, teacher: Tensor) -> None:
    torch.testing.assert_close(l2(student, teacher).detach(), l2_by_loop(student, teacher))


def test_lsh_equals_the_loop(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> None:
    expected = lsh_by_loop(student, teacher, weight, bias)
    torch.testing.assert_close(lsh(student, teacher, weight, bias).detach(), expected)


def test_lshl2_is_the_sum_of_both(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> None:
    expected = l2_by_loop(student, teacher) + lsh_by_loop(student, teacher, weight, bias)
    torch.testing.assert_close(lshl2(student, teacher, weight, bias).detach(), expected)
    both = gradient_of(lshl2(student, teacher, weight, bias), student)
    per_l2 = 2 * (student - teacher).detach() / D
    torch.testing.assert_close(both, per_l2 + lsh_gradient_by_loop(student, teacher, weight, bias))


def test_lsh_gradient_is_the_mean_residual_times_the_weights(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    gradient = gradient_of(lsh(student, teacher, weight, bias), student)
    torch.testing.assert_close(gradient, lsh_gradient_by_loop(student, teacher, weight, bias))


def test_gradients_agree_with_differences(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    torch.autograd.gradcheck(lambda s: l2(s, teacher), student)
    torch.autograd.gradcheck(lambda s: lsh(s, teacher, weight, bias), student)
    torch.autograd.gradcheck(lambda s: lshl2(s, teacher, weight, bias), student)


def test_gradient_is_weighted_per_example(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    sample_weights = torch.arange(B, dtype=torch.float64)
    gradient = gradient_of(sample_weights * lsh(student, teacher, weight, bias), student)
    expected = sample_weights[:, None] * lsh_gradient_by_loop(student, teacher, weight, bias)
    torch.testing.assert_close(gradient, expected)


def test_only_the_student_gets_a_gradient(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    frozen = [tensor.requires_grad_() for tensor in (teacher, weight, bias)]
    lshl2(student, teacher, weight, bias).sum().backward()
    assert [tensor.grad for tensor in frozen] == [None, None, None]
    assert float(student.grad.abs().sum()) > 0.1
    assert not lshl2(student.detach(), teacher, weight, bias).requires_grad


def test_second_derivative_is_refused_and_not_wrong(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    for losses in (lsh(student, teacher, weight, bias), lsh_expected(student, teacher, std=0.7)):
        with pytest.raises(RuntimeError, match="first derivative only"):
            torch.autograd.grad(losses.sum(), student, create_graph=True)


def test_lsh_keeps_nothing_of_hash_size_for_the_backward_pass(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lsh(student, teacher, weight, bias)
    assert sizes == [B * D]


def test_stored_bits_give_the_same_loss(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    live = lsh(student, teacher, weight, bias)
    bits = hash_bits(teacher, weight, bias)
    for stored in (bits, bits.to(torch.uint8), bits.double()):
        torch.testing.assert_close(lsh_from_bits(student, stored, weight, bias), live, rtol=0, atol=0)
    flipped = lsh_from_bits(student, ~bits, weight, bias)
    logits_mean = (student @ weight.T + bias).detach().mul(2 * bits.double() - 1).mean(1)
    torch.testing.assert_close((flipped - live).detach(), logits_mean)


def test_teacher_norm_matters_only_with_a_bias(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor, no_bias: Tensor
) -> None:
    plain = lsh(student, teacher, weight, no_bias)
    for scale in (1e-3, 0.5, 30.0):
        torch.testing.assert_close(lsh(student, scale * teacher, weight, no_bias), plain, rtol=0, atol=0)
    change = lsh(student, 30 * teacher, weight, bias) - lsh(student, teacher, weight, bias)
    assert float(change.detach().abs().max()) > 0.01


def test_scaling_the_weights_is_scaling_the_student(
    student: Tensor, teacher: Tensor, weight: Tensor, no_bias: Tensor
) -> None:
    scaled_weights = lsh(student, teacher, 2.5 * weight, no_bias)
    torch.testing.assert_close(scaled_weights, lsh(2.5 * student, teacher, weight, no_bias))


def test_a_longer_student_in_the_right_direction_pays_less(
    teacher: Tensor, weight: Tensor, no_bias: Tensor
) -> None:
    scales = torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0], dtype=torch.float64)
    hashed = torch.stack([lsh(c * teacher, teacher, weight, no_bias) for c in scales])
    assert float(hashed.diff(dim=0).max()) < 0
    distances = torch.stack([l2(c * teacher, teacher) for c in scales])
    torch.testing.assert_close(distances.argmin(0), torch.full((B,), 3))


def test_zero_student_pays_ln_2(teacher: Tensor, weight: Tensor, no_bias: Tensor) -> None:
    losses = lsh(torch.zeros_like(teacher), teacher, weight, no_bias)
    torch.testing.assert_close(losses, torch.full((B,), math.log(2), dtype=torch.float64), rtol=1e-15, atol=0)


def test_the_threshold_is_strict(student: Tensor, weight: Tensor, no_bias: Tensor) -> None:
    zero = torch.zeros(B, D, dtype=torch.float64)
    all_bits_zero = torch.nn.functional.softplus(student @ weight.T).mean(1)
    torch.testing.assert_close(lsh(student, zero, weight, no_bias), all_bits_zero)


def test_lsh_is_convex_in_the_student(teacher: Tensor, weight: Tensor, bias: Tensor) -> None:
    first, second = (3 * draw(B, D, seed=seed) for seed in (5, 6))
    ends = (lsh(f, teacher, weight, bias) for f in (first, second))
    left, right = ends
    for share in (0.1, 0.5, 0.8):
        between = lsh(share * first + (1 - share) * second, teacher, weight, bias)
        # Strictly below the chord: the loss is no straight line between points that are this far apart.
        assert float((share * left + (1 - share) * right - between).min()) > 1e-3


def test_lsh_is_invariant_to_a_joint_rotation(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    rotation = torch.linalg.qr(draw(D, D, seed=7)).Q
    turned = lsh(student @ rotation, teacher @ rotation, weight @ rotation, bias)
    torch.testing.assert_close(turned, lsh(student, teacher, weight, bias))
    lone = lsh(student @ rotation, teacher, weight, bias)
    assert float((lone - turned).detach().abs().max()) > 0.01


def test_example_order_is_kept(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = lshl2(student[order], teacher[order], weight, bias)
    torch.testing.assert_close(shuffled, lshl2(student, teacher, weight, bias)[order])


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_sampled_loss_and_gradient_tend_to_the_closed_form(kind: str) -> None:
    std, examples, size = 0.6, 64, 6
    student = draw(examples, size, seed=8).mul(2).requires_grad_()
    teacher = draw(examples, size, seed=9) + 0.8
    center = teacher.mean(0) if kind == "mean" else None
    closed = lsh_expected(student, teacher, std=std, center=center)
    closed_gradient = gradient_of(closed, student)

    errors, gradient_errors = [], []
    for num_hashes in (256, 65_536):
        weight = draw_hash_weights(num_hashes, size, std, torch.Generator().manual_seed(10)).double()
        bias = hash_bias(kind, weight, teacher)
        sampled = lsh(student, teacher, weight, bias)
        errors.append(float((sampled - closed).detach().square().mean().sqrt()))
        gap = gradient_of(sampled, student) - closed_gradient
        gradient_errors.append(float(gap.square().mean().sqrt()))
    # The error falls with the root of N: 16 times from the first to the second. A wrong limit would not fall.
    assert errors[0] / errors[1] > 6
    assert gradient_errors[0] / gradient_errors[1] > 6
    assert errors[1] < 0.01
    assert gradient_errors[1] < 0.005


def test_mean_bias_is_centring(student: Tensor, teacher: Tensor, weight: Tensor, no_bias: Tensor) -> None:
    center = teacher.mean(0)
    biased = lsh(student, teacher, weight, hash_bias("mean", weight, teacher))
    torch.testing.assert_close(biased, lsh(student - center, teacher - center, weight, no_bias))


def test_saved_hashes_give_the_same_loss_bit_for_bit(tmp_path) -> None:
    student, teacher = (draw(B, D, seed=seed, dtype=torch.float32) for seed in (1, 2))
    weight = draw_hash_weights(N, D, 0.3, torch.Generator().manual_seed(11))
    bias = hash_bias("median", weight, teacher)
    torch.save({"weight": weight, "bias": bias}, tmp_path / "hashes.pt")
    loaded = torch.load(tmp_path / "hashes.pt", weights_only=True)
    before = lshl2(student, teacher, weight, bias)
    torch.testing.assert_close(lshl2(student, teacher, **loaded), before, rtol=0, atol=0)


@pytest.mark.parametrize("norm", [0.0, 1e-6, 1e-3, 1.0, 1e2, 1e4])
def test_finite_at_every_norm(norm: float) -> None:
    student, teacher = (
        torch.nn.functional.normalize(draw(B, D, seed=seed, dtype=torch.float32)) for seed in (1, 2)
    )
    student = (norm * student).requires_grad_()
    weight, bias = draw(N, D, seed=3, dtype=torch.float32), draw(N, seed=4, dtype=torch.float32)
    losses = lshl2(student, norm * teacher, weight, bias)
    gradient = gradient_of(losses, student)
    expected = l2_by_loop(student, norm * teacher)
    logits = student.detach().double() @ weight.double().T + bias.double()
    targets = (hash_bits(norm * teacher, weight, bias)).double()
    expected += (logits.clamp(min=0) - targets * logits + torch.log1p(torch.exp(-logits.abs()))).mean(1)
    torch.testing.assert_close(losses.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_lifted(dtype: torch.dtype) -> None:
    student = draw(B, D, seed=1).to(dtype).requires_grad_()
    teacher = draw(B, D, seed=2).to(dtype)
    weight, bias = draw(N, D, seed=3).float(), draw(N, seed=4).float()
    losses = lshl2(student, teacher, weight, bias)
    assert losses.dtype == torch.float32
    lifted = student.detach().float().requires_grad_()
    expected = lshl2(lifted, teacher.float(), weight, bias)
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    gradient = gradient_of(losses, student)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, gradient_of(expected, lifted).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("norm", [1e-4, 1.0, 1e4])
def test_products_in_half_precision_stay_near_and_keep_signs(norm: float) -> None:
    student = (norm * draw(B, D, seed=1, dtype=torch.float32)).requires_grad_()
    weight, bias = draw(N, D, seed=3).float(), norm * draw(N, seed=4).float()
    bits = hash_bits(norm * draw(B, D, seed=2, dtype=torch.float32), weight, bias)
    exact = lsh_from_bits(student, bits, weight, bias)
    half = lsh_from_bits(student, bits, weight, bias, half_weight=weight.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=1e-3)
    wanted, found = gradient_of(exact, student), gradient_of(half, student)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02 * float(wanted.abs().max()))


def test_half_weights_of_another_shape_are_refused() -> None:
    student, weight, bias = torch.zeros(B, D), torch.zeros(N, D), torch.zeros(N)
    with pytest.raises(ModelError, match="half_weight must have shape"):
        lsh_from_bits(student, torch.zeros(B, N), weight, bias, half_weight=weight[1:].bfloat16())


def test_autocast_changes_no_bit() -> None:
    student = draw(B, D, seed=1, dtype=torch.float32).requires_grad_()
    teacher = draw(B, D, seed=2, dtype=torch.float32)
    weight, bias = draw(N, D, seed=3).float(), draw(N, seed=4).float()
    plain = lshl2(student, teacher, weight, bias)
    plain_gradient = gradient_of(plain, student)
    with torch.autocast("cpu", torch.bfloat16):
        cast = lshl2(student, teacher, weight, bias)
        cast_gradient = gradient_of(cast, student)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)
    torch.testing.assert_close(cast_gradient, plain_gradient, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_autocast_changes_no_bit_on_a_gpu() -> None:
    student, teacher, weight, bias = (
        draw(*shape, seed=seed, dtype=torch.float32).cuda()
        for seed, shape in enumerate([(B, D), (B, D), (N, D), (N,)])
    )
    plain = lshl2(student, teacher, weight, bias)
    with torch.autocast("cuda", torch.bfloat16):
        torch.testing.assert_close(lshl2(student, teacher, weight, bias), plain, rtol=0, atol=0)
        closed = lsh_expected(student, teacher, std=0.5)
    on_host = lsh_expected(student.cpu(), teacher.cpu(), std=0.5)
    torch.testing.assert_close(closed.cpu(), on_host, rtol=1e-5, atol=1e-6)


def test_empty_batch_gives_no_losses(weight: Tensor, bias: Tensor) -> None:
    nothing = torch.zeros(0, D, dtype=torch.float64)
    assert lshl2(nothing, nothing, weight, bias).shape == (0,)


def test_mean_over_correct_takes_the_teachers_right_answers() -> None:
    values = torch.tensor([1.0, 20.0, 3.0, 400.0], requires_grad=True)
    teacher_logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    labels = torch.tensor([0, 1, 1, -1])
    mean = mean_over_correct(values, teacher_logits, labels)
    torch.testing.assert_close(mean, torch.tensor(2.0))
    torch.testing.assert_close(gradient_of(mean, values), torch.tensor([0.5, 0.0, 0.5, 0.0]))
    lone = mean_over_correct(values[:2], teacher_logits[:2], labels[:2])
    torch.testing.assert_close(lone, torch.tensor(1.0))


def test_mean_over_correct_is_zero_where_none_is() -> None:
    values = torch.tensor([1.0, math.inf], requires_grad=True)
    mean = mean_over_correct(values, torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([1, -1]))
    torch.testing.assert_close(mean, torch.tensor(0.0))
    torch.testing.assert_close(gradient_of(mean, values), torch.zeros(2))


def test_shape_errors_name_both_shapes(
    student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor
) -> None:
    for loss in (l2, lambda s, t: lsh(s, t, weight, bias), lambda s, t: lshl2(s, t, weight, bias)):
        with pytest.raises(ModelError, match=r"\[5, 7\] and \[5, 3\].*embedding"):
            loss(student, teacher[:, :3])
        with pytest.raises(ModelError, match=r"\[7\] and \[7\]"):
            loss(student[0], teacher[0])
    with pytest.raises(ModelError, match=r"features \[5, 7\] do not fit hash weights \[40, 3\]"):
        lsh(student, teacher, weight[:, :3], bias)
    with pytest.raises(ModelError, match=r"\[40\] beside hash weights \[40, 7\], not \[3\]"):
        lsh(student, teacher, weight, bias[:3])
    with pytest.raises(ModelError, match=r"bits must have shape \[5, 40\] .*\[5, 7\], not \[40, 5\]"):
        lsh_from_bits(student, torch.zeros(N, B, dtype=torch.bool), weight, bias)
    with pytest.raises(ModelError, match="N above 0"):
        lsh(student, teacher, weight[:0], bias[:0])
    values, logits, labels = torch.zeros(B), torch.zeros(B, 3), torch.zeros(B, dtype=torch.int64)
    with pytest.raises(ModelError, match=r"labels must have shape \[5\] .*\[5, 3\], not \[4\]"):
        mean_over_correct(values, logits, labels[:4])
    with pytest.raises(ModelError, match=r"values must have shape \[5\] .*\[5, 3\], not \[\]"):
        mean_over_correct(values.mean(), logits, labels)
    with pytest.raises(ModelError, match=r"teacher_logits must be \[B, K\], not \[5\]"):
        mean_over_correct(values, logits[:, 0], labels)
