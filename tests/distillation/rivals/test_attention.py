"""Attention transfer: every depth counts once, and nothing is trained beside the student."""

import math

import numpy as np
import pytest
import torch

from lauter.distillation.method import Lesson, Seen
from lauter.distillation.rivals.attention import AttentionTransfer, AttentionTransferConfig
from lauter.errors import ConfigError, ModelError
from lauter.models import Output, create_network

Shape = tuple[int, int, int]
STUDENT: tuple[Shape, ...] = ((2, 4, 4), (3, 2, 2))
TEACHER: tuple[Shape, ...] = ((4, 4, 4), (6, 2, 2))
INDEX, TARGETS = torch.arange(3), torch.tensor([0, 1, -1])


def make_lesson(student: tuple[Shape, ...] = STUDENT, teacher: tuple[Shape, ...] = TEACHER) -> Lesson:
    network = create_network("resnet8", 3, image_size=16)
    rows, targets = np.arange(4), torch.tensor([0, 1, 2, -1])
    return Lesson(
        network, 64, 3, None, torch.zeros(4, 64), rows, targets, student_maps=student, teacher_maps=teacher
    )


def draw_maps(shapes: tuple[Shape, ...], seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(3, *shape, generator=generator) for shape in shapes)


def answer(maps: tuple[torch.Tensor, ...]) -> Output:
    return Output(torch.zeros(len(maps[0]), 3), torch.zeros(len(maps[0]), 64), maps)


def look(maps: list[list[list[float]]]) -> list[float]:
    side = range(len(maps[0]))
    energy = [sum(plane[y][x] ** 2 for plane in maps) for y in side for x in side]
    return [value / math.hypot(*energy) for value in energy]


def test_the_term_is_the_sum_over_depths() -> None:
    maps, wanted = draw_maps(STUDENT, 0), draw_maps(TEACHER, 1)
    terms = AttentionTransfer(AttentionTransferConfig(), make_lesson())(
        answer(maps), Seen(maps=wanted), INDEX, TARGETS
    )
    expected = []
    for b in range(3):
        total = 0.0
        for s, t in zip(maps, wanted, strict=True):
            first, second = look(s[b].double().tolist()), look(t[b].double().tolist())
            total += sum((x - y) ** 2 for x, y in zip(first, second, strict=True)) / len(first)
        expected.append(total)
    assert list(terms) == ["attention"]
    torch.testing.assert_close(terms["attention"], torch.tensor(expected))


def test_real_networks_learn_where_to_look() -> None:
    torch.manual_seed(0)
    student, teacher = (
        create_network("resnet8", 3, image_size=16),
        create_network("resnet8x4", 3, image_size=16),
    )
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        wanted = teacher.eval()(images, want_maps=True).maps
    method = AttentionTransfer(AttentionTransferConfig(), make_lesson())
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        loss = method(student(images, want_maps=True), Seen(maps=wanted), INDEX, TARGETS)["attention"].mean()
        optimizer.zero_grad()
        (1000 * loss).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_needs_weights_and_nothing_of_its_own() -> None:
    method = AttentionTransfer(AttentionTransferConfig(), make_lesson())
    assert method.needs == {"maps"}
    assert method.weights == {"attention": 1000.0, "classification": 1.0}
    assert not method.state_dict()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(
        ModelError, match="attention transfer compares feature maps, and the student shows 2 of them"
    ):
        AttentionTransfer(AttentionTransferConfig(), make_lesson(teacher=TEACHER[:1]))
    method = AttentionTransfer(AttentionTransferConfig(), make_lesson())
    with pytest.raises(ModelError, match="attention transfer needs the teacher's maps"):
        method(answer(draw_maps(STUDENT, 0)), Seen(), INDEX, TARGETS)


@pytest.mark.parametrize("bad", [{"beta": -1.0}, {"gamma": -0.5}, {"gamma": float("nan")}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"attention: (beta|gamma) must be a finite weight of 0 or more, not"
    ):
        AttentionTransferConfig(**bad)
