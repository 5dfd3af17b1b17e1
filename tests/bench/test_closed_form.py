"""The measurement of the closed form against its own formulas, written out again."""

import math

import pytest
import torch

from lauter.bench.closed_form import (
    draw_pairs,
    find_sampled_radii,
    measure_closed_form,
    measure_errors,
    name_angle,
    name_sampled,
)
from lauter.bench.records import Record
from lauter.errors import ConfigError

SMALL = {"angles": (20, 45), "hashes": (64, 256, 1024, 4096), "feature_size": 8, "pairs": 24}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return measure_closed_form(range(3), **SMALL)


def mean_of(records: list[Record], degrees: float, method: str, metric: str) -> float:
    values = [
        record.value
        for record in records
        if (record.data, record.method, record.metric) == (name_angle(degrees), method, metric)
    ]
    assert len(values) == 3
    return sum(values) / 3


def test_every_record_has_its_place_and_draws_are_of_the_seed_alone(records: list[Record]) -> None:
    assert {record.suite for record in records} == {"distill"}
    assert len({record.key for record in records}) == len(records) == 3 * 2 * (1 + 4 * 2 + 1)
    again = measure_closed_form([2], **SMALL)
    assert again == [record for record in records if record.seed == 2]
    assert {r.value for r in again}.isdisjoint(
        r.value for r in records if r.seed == 1 and r.method != "closed form"
    )


@pytest.mark.parametrize("degrees", SMALL["angles"])
@pytest.mark.parametrize("metric", ["loss_error_rms", "gradient_error_rms"])
def test_errors_fall_with_the_root_of_the_number(records: list[Record], degrees: float, metric: str) -> None:
    first, *_, last = (mean_of(records, degrees, name_sampled(n), metric) for n in SMALL["hashes"])
    slope = math.log(last / first) / math.log(4096 / 64)
    assert slope == pytest.approx(-0.5, abs=0.12)


def test_the_best_norm_of_the_sample_is_that_of_the_closed_form(records: list[Record]) -> None:
    for degrees in SMALL["angles"]:
        exact = mean_of(records, degrees, "closed form", "optimal_radius")
        sampled = mean_of(records, degrees, name_sampled(4096), "optimal_radius")
        assert sampled == pytest.approx(exact, rel=0.06)


def test_pairs_stand_at_the_angle() -> None:
    student, teacher = draw_pairs(33.0, 40, 7, torch.Generator().manual_seed(0))
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        lengths = [math.sqrt(sum(x * x for x in v)) for v in (s, t)]
        assert lengths == pytest.approx([1, 1])
        dot = sum(a * b for a, b in zip(s, t, strict=True))
        assert math.degrees(math.acos(dot)) == pytest.approx(33)
    assert float(teacher.std()) == pytest.approx(7**-0.5, rel=0.15)


def test_errors_equal_plain_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = draw_pairs(50.0, 20, 3, generator)  # more than one batch
    student = 1.7 * student
    weight = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    nodes = [-8 + 16 * (k + 0.5) / 4000 for k in range(4000)]  # the midpoint rule, exact to 1e-9 here
    density = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * 16 / 4000 for z in nodes]
    value = sum(p * math.log(2 * math.cosh(1.7 * z / 2)) for p, z in zip(density, nodes, strict=True))
    slope = sum(p * z / 2 * math.tanh(1.7 * z / 2) for p, z in zip(density, nodes, strict=True))
    sums = [0.0] * 4
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        exact = value - 1.7 * math.cos(math.radians(50)) / math.sqrt(2 * math.pi)
        pull = [slope * a / 1.7 - b / math.sqrt(2 * math.pi) for a, b in zip(s, t, strict=True)]
        loss, gradient = 0.0, [0.0] * 3
        for w in weight.tolist():
            z = sum(a * b for a, b in zip(w, s, strict=True))
            h = float(sum(a * b for a, b in zip(w, t, strict=True)) > 0)
            p = 1 / (1 + math.exp(-z))
            loss -= (h * math.log(p) + (1 - h) * math.log(1 - p)) / 11
            gradient = [g + (p - h) * a / 11 for g, a in zip(gradient, w, strict=True)]
        sums[0] += (loss - exact) ** 2
        sums[1] += exact**2
        sums[2] += sum((a - b) ** 2 for a, b in zip(gradient, pull, strict=True))
        sums[3] += sum(b * b for b in pull)
    expected = torch.tensor([math.sqrt(sums[0] / sums[1]), math.sqrt(sums[2] / sums[3])])
    torch.testing.assert_close(torch.tensor(measure_errors(student, teacher, weight)), expected)


def test_the_sampled_norm_is_the_least_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(2)
    student, teacher = draw_pairs(40.0, 5, 6, generator)
    weight = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    bits = (teacher @ weight.T > 0).double()

    def loss_at(radii: torch.Tensor) -> torch.Tensor:
        logits = radii[:, None] * (student @ weight.T)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, bits, reduction="none").mean(1)

    best = find_sampled_radii(student, teacher, weight)
    for factor in (0.97, 1.03):
        assert float((loss_at(factor * best) - loss_at(best)).min()) > 0


def test_a_student_in_its_teachers_direction_has_no_best_norm() -> None:
    _, teacher = draw_pairs(40.0, 3, 6, torch.Generator().manual_seed(3))
    weight = torch.randn(50, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    radii = find_sampled_radii(teacher, teacher, weight)
    torch.testing.assert_close(radii, torch.full((3,), math.inf, dtype=torch.float64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hashes": ()}, "at least 2 features and 1 pair"),
        ({"feature_size": 1}, r"\[64, 256, 1024, 4096\], 1 and 24"),
        ({"pairs": 0}, "8 and 0"),
        ({"angles": (30, 90)}, r"within \(0, 90\) degrees, where a best norm exists, not \[30, 90\]"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_closed_form([0], **{**SMALL, **changes})  # type: ignore[arg-type]
