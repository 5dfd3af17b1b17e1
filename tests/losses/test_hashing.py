"""Hash weights, biases and bits: their statistics, their memory and their errors."""

import math
import statistics
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.closed_form import lsh_expected
from lauter.losses.hashing import (
    MEMORY_BUDGET,
    draw_hash_weights,
    hash_bias,
    hash_bits,
    median_chunks,
    std_from_classifier,
    std_from_features,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and still alive; remembers the most."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.made: list[weakref.ref[Tensor]] = []
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.made += [weakref.ref(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.made = [ref for ref in self.made if ref() is not None]
        storages = [tensor.untyped_storage() for ref in self.made if (tensor := ref()) is not None]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        self.peak = max(self.peak, sum(size for at, size in sizes.items() if at not in self.known))
        return result


def test_weights_are_normal_and_come_from_the_generator() -> None:
    weight = draw_hash_weights(2000, 50, 0.3, seeded(0))
    assert weight.dtype == torch.float32
    count = weight.numel()
    # Five standard errors of the mean, of the standard deviation and of the share beyond one deviation.
    assert abs(float(weight.mean())) < 5 * 0.3 / math.sqrt(count)
    assert float(weight.std()) == pytest.approx(0.3, abs=5 * 0.3 / math.sqrt(2 * count))
    assert float((weight.abs() > 0.3).float().mean()) == pytest.approx(
        0.31731, abs=5 * 0.47 / math.sqrt(count)
    )
    torch.testing.assert_close(draw_hash_weights(2000, 50, 0.3, seeded(0)), weight, rtol=0, atol=0)
    assert not torch.equal(draw_hash_weights(2000, 50, 0.3, seeded(1)), weight)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw_hash_weights(10, 10, 1.0, seeded(0))
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_bits_are_strict_signs() -> None:
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    bits = hash_bits(torch.tensor([[2.0, 0.0]]), weight, torch.tensor([-2.0, 2.5, 0.0]))
    torch.testing.assert_close(bits, torch.tensor([[False, True, False]]))


@pytest.mark.parametrize("degrees", [10.0, 60.0, 90.0, 150.0])
def test_share_of_differing_bits_is_the_angle_over_pi(degrees: float) -> None:
    theta, count = math.radians(degrees), 100_000
    features = torch.tensor([[2.0, 0.0, 0.0], [0.5 * math.cos(theta), 0.0, 0.5 * math.sin(theta)]])
    bits = hash_bits(features, draw_hash_weights(count, 3, 0.7, seeded(2)), torch.zeros(count))
    share = float((bits[0] ^ bits[1]).float().mean())
    p = degrees / 180
    assert share == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / count))


def test_autocast_and_half_features_flip_no_bit() -> None:
    features = torch.randn(200, 64, generator=seeded(3))
    weight, bias = draw_hash_weights(500, 64, 0.1, seeded(4)), 0.1 * torch.randn(500, generator=seeded(5))
    plain = hash_bits(features, weight, bias)
    rough = torch.nn.functional.linear(features.bfloat16(), weight.bfloat16(), bias.bfloat16()) > 0
    assert bool((rough != plain).any())  # so the comparison below can fail
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(hash_bits(features, weight, bias), plain)
        for kind in ("mean", "median"):
            torch.testing.assert_close(
                hash_bias(kind, weight, features[:20]), bias_by_loop(kind, weight, features[:20])
            )
    half = features.bfloat16()
    torch.testing.assert_close(hash_bits(half, weight, bias), hash_bits(half.float(), weight, bias))


def bias_by_loop(kind: str, weight: Tensor, features: Tensor) -> Tensor:
    statistic = {"zero": lambda values: 0.0, "mean": statistics.fmean, "median": statistics.median}[kind]
    rows = features.double().tolist()
    biases = []
    for w in weight.double().tolist():
        biases.append(-statistic([sum(a * b for a, b in zip(w, f, strict=True)) for f in rows]))
    return torch.tensor(biases, dtype=weight.dtype)


@pytest.mark.parametrize("count", [1, 2, 7, 30, 31])
@pytest.mark.parametrize("kind", ["zero", "mean", "median"])
def test_bias_equals_the_loop(kind: str, count: int) -> None:
    features = torch.randn(count, 5, generator=seeded(6)) + 1
    weight = draw_hash_weights(23, 5, 0.4, seeded(7))
    torch.testing.assert_close(hash_bias(kind, weight, features), bias_by_loop(kind, weight, features))


@pytest.mark.parametrize("count", [500, 501])
def test_median_bias_makes_half_of_the_bits_ones(count: int) -> None:
    features = torch.rand(count, 6, generator=seeded(8), dtype=torch.float64).square() * 3
    weight = draw_hash_weights(300, 6, 0.4, seeded(9)).double()
    ones = hash_bits(features, weight, hash_bias("median", weight, features)).sum(0)
    # Of an odd number the middle projection lies on the border, and rounding decides its bit.
    assert int(ones.min()) >= count // 2
    assert int(ones.max()) <= (count + 1) // 2
    skewed = hash_bits(features, weight, hash_bias("mean", weight, features)).sum(0)
    assert int((skewed - count // 2).abs().max()) > 5


def test_mean_of_many_rows_takes_every_row_once() -> None:
    features = torch.arange(10_001, dtype=torch.float64)[:, None]
    bias = hash_bias("mean", torch.ones(1, 1, dtype=torch.float64), features)
    torch.testing.assert_close(bias, torch.tensor([-5000.0], dtype=torch.float64))


def test_median_does_not_depend_on_the_chunks() -> None:
    features, weight = torch.randn(101, 4, generator=seeded(10)), draw_hash_weights(37, 4, 1.0, seeded(11))
    whole = hash_bias("median", weight, features)
    for budget in (808, 1000, 5000, 20_000):
        torch.testing.assert_close(hash_bias("median", weight, features, memory_budget=budget), whole)
    assert len({median_chunks(37, 101, 4, 4, budget) for budget in (808, 1000, 5000, 20_000)}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_median_keeps_to_its_memory_budget(dtype: torch.dtype) -> None:
    count, size, hashes, budget = 4000, 64, 1500, 2**20
    features = torch.rand(count, size, generator=seeded(12)).to(dtype)
    weight = draw_hash_weights(hashes, size, 0.1, seeded(13))
    everything = 4 * count * hashes
    assert everything > 20 * budget
    with LiveBytes(features, weight) as live:
        bias = hash_bias("median", weight, features, memory_budget=budget)
    result = 4 * hashes + 4 * hashes  # the medians and their negation
    assert budget / 4 < live.peak <= budget + result
    whole = (features.float() @ weight.T).double().quantile(0.5, dim=0).float()
    torch.testing.assert_close(bias, -whole)


@pytest.mark.parametrize(
    ("hashes", "count", "size"),
    [(65_536, 50_000, 2048), (65_536, 1_281_167, 2048), (2048, 50_000, 64), (64, 10, 4096), (10_000, 1, 1)],
)
def test_chunks_fit_the_budget_at_full_scale(hashes: int, count: int, size: int) -> None:
    assert MEMORY_BUDGET < 256 * 2**20
    chunk, rows = median_chunks(hashes, count, size, 4, MEMORY_BUDGET)
    assert 1 <= chunk <= hashes
    assert 1 <= rows <= count
    assert 4 * (chunk * count + rows * (size + chunk)) <= MEMORY_BUDGET


def test_bias_errors_name_the_way_out() -> None:
    weight, features = torch.ones(3, 4), torch.ones(5, 4)
    with pytest.raises(ConfigError, match="'zero', 'mean' or 'median', not 'mode'"):
        hash_bias("mode", weight, features)
    with pytest.raises(ModelError, match=r"features \[5, 2\] do not fit hash weights \[3, 4\]"):
        hash_bias("mean", weight, features[:, :2])
    with pytest.raises(ConfigError, match=r"memory_budget of 39 bytes .* at least 40"):
        hash_bias("median", weight, features, memory_budget=39)
    for kind in ("mean", "median"):
        with pytest.raises(DataError, match=rf"{kind} bias needs training features, not \[0, 4\]"):
            hash_bias(kind, weight, features[:0])
        with pytest.raises(DataError, match=f"{kind} bias is not finite"):
            hash_bias(kind, weight, features.index_fill(0, torch.tensor([2]), math.nan))


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 3, 1.0), "num_hashes"), ((3, 0, 1.0), "feature_size"), ((3, 3, 0.0), "std")]
)
def test_weights_need_positive_sizes_and_std(arguments: tuple[int, int, float], name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be positive"):
        draw_hash_weights(*arguments, generator=seeded(0))


def test_std_from_classifier_is_that_of_its_weights() -> None:
    weight = 0.2 * torch.randn(10, 30, generator=seeded(14)) + 0.1
    expected = np.std(weight.double().numpy(), ddof=1)
    assert std_from_classifier(weight.requires_grad_()) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(
        ConfigError, match=r"classifier weights \[2, 3\] must be positive .*std_from_features"
    ):
        std_from_classifier(torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r"classifier weights \[1, 1\]"):
        std_from_classifier(torch.ones(1, 1))


@pytest.mark.parametrize("degrees", [10.0, 30.0, 60.0])
def test_std_from_features_puts_the_best_norm_at_the_teachers(degrees: float) -> None:
    norms = torch.tensor([1.0, 4.0, 900.0])
    center = torch.tensor([3.0, -7.0])
    features = norms[:, None] * torch.tensor([[1.0, 0.0]])
    std = std_from_features(features, angle_degrees=degrees)
    assert std_from_features(features + center, angle_degrees=degrees, center=center) == pytest.approx(std)
    theta = math.radians(degrees)
    lengths = torch.linspace(3.0, 5.0, 2001, dtype=torch.float64)
    turned = torch.tensor([[math.cos(theta), math.sin(theta)]], dtype=torch.float64)
    students = lengths[:, None] * turned
    teachers = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand_as(students)
    best = lengths[lsh_expected(students, teachers, std=std).argmin()]
    assert float(best) == pytest.approx(4.0, abs=0.005)


def test_std_from_features_golden() -> None:
    # r* = 3.036 at 30 degrees over a median norm of 5.
    assert std_from_features(torch.tensor([[3.0, 4.0]])) == pytest.approx(3.036 / 5, abs=1e-4)


def test_std_from_features_errors() -> None:
    features = torch.ones(4, 3)
    for degrees in (0.0, 90.0, math.nan):
        with pytest.raises(ConfigError, match=r"angle_degrees must be within \(0, 90\), not"):
            std_from_features(features, angle_degrees=degrees)
    with pytest.raises(DataError, match=r"\[M, D\] with M above 0, not \[0, 3\]"):
        std_from_features(features[:0])
    for value in (0.0, math.nan):
        with pytest.raises(DataError, match="median feature norm is"):
            std_from_features(value * features)
    with pytest.raises(ModelError, match=r"center must have shape \[3\] beside features \[4, 3\], not \[2\]"):
        std_from_features(features, center=torch.zeros(2))
