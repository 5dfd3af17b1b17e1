"""FitNet: which map is the hint, what the regressor does with its sides, what is trained."""

import numpy as np
import pytest
import torch
from torch import nn

from lauter.distillation.method import Lesson, Seen
from lauter.distillation.rivals.fitnet import FitNet, FitNetConfig, make_regressor
from lauter.errors import ConfigError, ModelError
from lauter.models import Output, create_network

Shape = tuple[int, int, int]


def make_lesson(student: tuple[Shape, ...], teacher: tuple[Shape, ...], seed: int = 0) -> Lesson:
    network = create_network("resnet8", 3, image_size=16)
    rows, targets = np.arange(4), torch.tensor([0, 1, 2, -1])
    return Lesson(
        network,
        64,
        3,
        None,
        torch.zeros(4, 64),
        rows,
        targets,
        student_maps=student,
        teacher_maps=teacher,
        seed=seed,
    )


def answer(maps: tuple[torch.Tensor, ...]) -> Output:
    return Output(torch.zeros(len(maps[0]), 3), torch.zeros(len(maps[0]), 64), maps)


def draw_maps(shapes: tuple[Shape, ...], seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)


STUDENT = ((2, 8, 8), (3, 4, 4), (5, 2, 2))
TEACHER = ((4, 8, 8), (6, 4, 4), (7, 2, 2))
INDEX, TARGETS = torch.arange(3), torch.tensor([0, 1, -1])


@pytest.mark.parametrize(("depth", "expected"), [(-1, 1), (0, 0), (2, 2)])
def test_the_hint_is_the_mean_square_after_convolution_normalisation_and_relu(
    depth: int, expected: int
) -> None:
    method = FitNet(FitNetConfig(depth=depth), make_lesson(STUDENT, TEACHER)).eval()
    convolution, norm, _ = method.regressor
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2.0)
    maps, wanted = draw_maps(STUDENT, 0), draw_maps(TEACHER, 1)
    losses = method(answer(maps), Seen(maps=wanted), INDEX, TARGETS)["hint"]
    weight, bias = convolution.weight.double()[:, :, 0, 0].tolist(), convolution.bias.tolist()
    reference = []
    for s, t in zip(maps[expected].double().tolist(), wanted[expected].double().tolist(), strict=True):
        total, count = 0.0, 0
        for c in range(len(t)):
            for y in range(len(t[0])):
                for x in range(len(t[0][0])):
                    value = bias[c] + sum(weight[c][i] * s[i][y][x] for i in range(len(s)))
                    mean, variance = float(norm.running_mean[c]), float(norm.running_var[c])
                    value = max(0.0, (value - mean) / (variance + norm.eps) ** 0.5)
                    total, count = total + (value - t[c][y][x]) ** 2, count + 1
        reference.append(total / count)
    torch.testing.assert_close(losses.detach(), torch.tensor(reference), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "kernel", "side"),
    [
        ((3, 4, 4), (6, 4, 4), nn.Conv2d, (1, 1), (4, 4)),
        ((3, 8, 8), (6, 4, 4), nn.Conv2d, (3, 3), (4, 4)),
        ((3, 7, 8), (6, 4, 4), nn.Conv2d, (4, 5), (4, 4)),
        ((3, 16, 16), (6, 4, 4), nn.Conv2d, (13, 13), (4, 4)),
        ((3, 4, 4), (6, 8, 8), nn.ConvTranspose2d, (4, 4), (8, 8)),
        ((3, 1, 1), (6, 2, 2), nn.ConvTranspose2d, (4, 4), (2, 2)),
        ((3, 4, 4), (6, 16, 16), nn.Conv2d, (1, 1), (4, 4)),
        ((3, 4, 4), (6, 6, 3), nn.Conv2d, (1, 1), (4, 4)),
    ],
)
def test_sides_are_brought_together(
    student: Shape, teacher: Shape, kind: type[nn.Module], kernel: tuple[int, int], side: tuple[int, int]
) -> None:
    regressor = make_regressor(student, teacher)
    assert type(regressor[0]) is kind
    assert regressor[0].kernel_size == kernel
    assert regressor(torch.zeros(2, *student)).shape == (2, teacher[0], *side)
    method = FitNet(FitNetConfig(), make_lesson((student,), (teacher,)))
    terms = method(answer(draw_maps((student,), 0)), Seen(maps=draw_maps((teacher,), 1)), INDEX, TARGETS)
    assert terms["hint"].shape == (3,)
    assert bool(terms["hint"].isfinite().all())


@pytest.mark.parametrize(("count", "middle"), [(1, 0), (3, 1), (4, 1), (5, 2)])
def test_the_middle_map(count: int, middle: int) -> None:
    assert FitNet(FitNetConfig(), make_lesson(STUDENT[:1] * count, TEACHER[:1] * count)).depth == middle


def test_real_networks_learn_the_hint_and_the_teacher_is_spared() -> None:
    torch.manual_seed(0)
    student, teacher = (
        create_network("resnet8", 3, image_size=16),
        create_network("resnet8x4", 3, image_size=16),
    )
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        wanted = teacher.eval()(images, want_maps=True).maps
    shapes = [
        tuple(tuple(m.shape[1:]) for m in network(images, want_maps=True).maps)
        for network in (student, teacher)
    ]
    method = FitNet(FitNetConfig(), make_lesson(*shapes))
    optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], lr=1.0)
    losses = []
    for _ in range(8):
        loss = method(student(images, want_maps=True), Seen(maps=wanted), INDEX, TARGETS)["hint"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in method.parameters())
    assert student.head.weight.grad is None  # the hint is no business of what lies behind the middle


def test_the_regressor_is_drawn_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first = FitNet(FitNetConfig(), make_lesson(STUDENT, TEACHER)).regressor[0].weight
    torch.rand(5)
    second = FitNet(FitNetConfig(), make_lesson(STUDENT, TEACHER)).regressor[0].weight
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    other = FitNet(FitNetConfig(), make_lesson(STUDENT, TEACHER, seed=1)).regressor[0].weight
    assert float((first - other).detach().abs().max()) > 0.01
    torch.random.set_rng_state(before)
    state = torch.random.get_rng_state()
    lesson = make_lesson(STUDENT, TEACHER)
    torch.random.set_rng_state(state)
    FitNet(FitNetConfig(), lesson)
    torch.testing.assert_close(torch.random.get_rng_state(), state, rtol=0, atol=0)


def test_needs_and_weights() -> None:
    method = FitNet(FitNetConfig(), make_lesson(STUDENT, TEACHER))
    assert method.needs == {"maps"}
    assert method.weights == {"hint": 100.0, "classification": 1.0}
    assert FitNet(FitNetConfig(beta=2, gamma=0), make_lesson(STUDENT, TEACHER)).weights["hint"] == 2


def test_what_is_missing_is_named() -> None:
    with pytest.raises(
        ModelError, match="FitNet compares feature maps, and the student shows 3 of them, the teacher 2"
    ):
        FitNet(FitNetConfig(), make_lesson(STUDENT, TEACHER[:2]))
    with pytest.raises(ModelError, match="FitNet compares feature maps, and the student shows 0"):
        FitNet(FitNetConfig(), make_lesson((), ()))
    with pytest.raises(ConfigError, match="depth is 3, and the networks show 3 maps; take 0 to 2"):
        FitNet(FitNetConfig(depth=3), make_lesson(STUDENT, TEACHER))
    method = FitNet(FitNetConfig(), make_lesson(STUDENT, TEACHER))
    with pytest.raises(ModelError, match="FitNet needs the teacher's maps"):
        method(answer(draw_maps(STUDENT, 0)), Seen(), INDEX, TARGETS)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beta": -1.0}, "fitnet: beta must be a finite weight of 0 or more, not -1"),
        ({"beta": float("nan")}, "fitnet: beta must be"),
        ({"gamma": float("inf")}, "fitnet: gamma must be"),
        ({"depth": -2}, "depth must be the number of a map, or -1"),
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitNetConfig(**bad)  # type: ignore[arg-type]
