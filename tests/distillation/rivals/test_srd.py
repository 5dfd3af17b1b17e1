"""SRD: features and what the teacher's frozen classifier says of them."""

import numpy as np
import pytest
import torch
from torch import nn

from lauter.distillation.method import Lesson, Seen
from lauter.distillation.rivals.srd import SRD, SRDConfig
from lauter.errors import ConfigError, ModelError
from lauter.models import Output, create_network

INDEX, TARGETS = torch.arange(4), torch.tensor([0, 1, 2, -1])


def make_lesson(classifier: nn.Linear | None) -> Lesson:
    student = create_network("resnet8", 3, image_size=16)
    return Lesson(student, 5, 3, classifier, torch.zeros(4, 5), np.arange(4), TARGETS)


def make_classifier() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def draw_features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.rand(4, 5, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def answer(features: torch.Tensor) -> Output:
    return Output(torch.zeros(len(features), 3), features)


def test_terms_equal_the_loops_through_the_whole_classifier() -> None:
    classifier = make_classifier()
    student, teacher = draw_features()
    terms = SRD(SRDConfig(), make_lesson(classifier))(answer(student), Seen(teacher), INDEX, TARGETS)
    weight, bias = classifier.weight.double().tolist(), classifier.bias.double().tolist()

    def classify(row: list[float]) -> list[float]:
        return [
            b + sum(w * x for w, x in zip(ws, row, strict=True)) for ws, b in zip(weight, bias, strict=True)
        ]

    def gap(first: list[float], second: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(first, second, strict=True)) / len(first)

    rows = list(zip(student.double().tolist(), teacher.double().tolist(), strict=True))
    assert list(terms) == ["features", "regression"]
    torch.testing.assert_close(terms["features"].detach(), torch.tensor([gap(s, t) for s, t in rows]))
    expected = torch.tensor([gap(classify(s), classify(t)) for s, t in rows])
    torch.testing.assert_close(terms["regression"].detach(), expected)


def test_the_regression_sees_only_what_the_classifier_sees() -> None:
    classifier = make_classifier()
    teacher = draw_features()[1]
    method = SRD(SRDConfig(), make_lesson(classifier))
    unseen = torch.linalg.svd(classifier.weight.detach()).Vh[
        3:
    ]  # the classifier maps these two directions to 0
    moved = method(answer(teacher + 3 * unseen[0]), Seen(teacher), INDEX, TARGETS)
    torch.testing.assert_close(moved["regression"], torch.zeros(4), rtol=0, atol=1e-10)
    torch.testing.assert_close(moved["features"], torch.full((4,), 9 / 5))


def test_the_classifier_is_a_frozen_copy_that_is_saved() -> None:
    classifier = make_classifier()
    student, teacher = draw_features()
    method = SRD(SRDConfig(), make_lesson(classifier))
    before = method(answer(student), Seen(teacher), INDEX, TARGETS)["regression"]
    weight = classifier.weight.detach().clone()
    with torch.no_grad():
        classifier.weight.mul_(9)
    after = method(answer(student), Seen(teacher), INDEX, TARGETS)["regression"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close(dict(method.state_dict()), {"classifier": weight}, rtol=0, atol=0)
    assert not list(method.parameters())
    teacher.requires_grad_()
    after.sum().backward()
    assert classifier.weight.grad is None
    assert teacher.grad is None
    assert float(student.grad.abs().min()) > 0


def test_autocast_does_not_touch_the_classifier() -> None:
    method = SRD(SRDConfig(), make_lesson(make_classifier()))
    student, teacher = draw_features()
    plain = method(answer(student), Seen(teacher), INDEX, TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        cast = method(answer(student), Seen(teacher), INDEX, TARGETS)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_needs_head_and_weights() -> None:
    method = SRD(SRDConfig(alpha=2), make_lesson(make_classifier()))
    assert method.needs == {"features"}
    assert method.head == "embedded"
    assert method.weights == {"features": 2, "regression": 1.0, "classification": 1.0}


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ModelError, match="SRD needs a teacher with one linear classifier"):
        SRD(SRDConfig(), make_lesson(None))
    method = SRD(SRDConfig(), make_lesson(make_classifier()))
    with pytest.raises(ModelError, match="SRD needs the teacher's features"):
        method(answer(draw_features()[0]), Seen(), INDEX, TARGETS)
    with pytest.raises(ModelError, match=r"\[4, 4\] and \[4, 5\]; where their widths differ, an embedding"):
        method(answer(torch.zeros(4, 4)), Seen(torch.zeros(4, 5)), INDEX, TARGETS)


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"beta": float("nan")}, {"gamma": -1.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"srd: (alpha|beta|gamma) must be a finite weight of 0 or more, not"
    ):
        SRDConfig(**bad)
