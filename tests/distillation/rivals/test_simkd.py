"""SimKD: the teacher's classifier and nothing but alignment with it."""

import numpy as np
import pytest
import torch
from torch import nn

from lauter.distillation.method import Lesson, Seen
from lauter.distillation.rivals.simkd import SimKD, SimKDConfig
from lauter.errors import ConfigError, ModelError
from lauter.models import EmbeddedHead, Network, Output, copy_teacher_head, create_network, fold_head

INDEX, TARGETS = torch.arange(4), torch.full((4,), -1)


def make_teacher() -> Network:
    torch.manual_seed(1)
    return create_network("resnet8x4", 3, image_size=16).eval()


def make_lesson(teacher: Network, head: nn.Module | None = None) -> Lesson:
    torch.manual_seed(2)
    student = create_network("resnet8", 3, image_size=16)
    student.head = copy_teacher_head(teacher, 64) if head is None else head
    classifier = teacher.head if isinstance(teacher.head, nn.Linear) else None
    return Lesson(student, 256, teacher.num_classes, classifier, torch.zeros(4, 256), np.arange(4), TARGETS)


def test_the_term_equals_the_loop() -> None:
    method = SimKD(SimKDConfig(), make_lesson(make_teacher()))
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(4, 256, generator=generator) for _ in range(2))
    terms = method(Output(torch.zeros(4, 3), student), Seen(teacher), INDEX, TARGETS)
    expected = [
        sum((x - y) ** 2 for x, y in zip(s, t, strict=True)) / 256
        for s, t in zip(student.double().tolist(), teacher.double().tolist(), strict=True)
    ]
    assert list(terms) == ["alignment"]
    torch.testing.assert_close(terms["alignment"], torch.tensor(expected))


def test_aligned_features_are_classified_as_the_teacher_does() -> None:
    teacher = make_teacher()
    lesson = make_lesson(teacher)
    method = SimKD(SimKDConfig(), lesson)
    head = lesson.student.head
    assert isinstance(head, EmbeddedHead)
    said = teacher(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))
    terms = method(Output(torch.zeros(4, 3), said.features), Seen(said.features), INDEX, TARGETS)
    torch.testing.assert_close(terms["alignment"].detach(), torch.zeros(4))
    torch.testing.assert_close(head.classify(said.features), said.logits)


def test_the_encoder_and_the_projector_learn_and_fold_without_a_label() -> None:
    teacher = make_teacher()
    lesson = make_lesson(teacher)
    method, student = SimKD(SimKDConfig(), lesson), lesson.student
    head = student.head
    assert isinstance(head, EmbeddedHead)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=1.0)
    losses = []
    for _ in range(8):
        features, _ = student.features(images)
        output = Output(torch.zeros(4, 3), head.embed(features))
        loss = method(output, Seen(teacher.features(images)[0].detach()), INDEX, TARGETS)["alignment"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(head.classifier.weight, teacher.head.weight, rtol=0, atol=0)
    folded = fold_head(student.eval())
    assert type(folded.head) is nn.Linear
    torch.testing.assert_close(folded(images).logits, student(images).logits)


def test_needs_head_and_weights() -> None:
    method = SimKD(SimKDConfig(beta=3), make_lesson(make_teacher()))
    assert method.needs == {"features"}
    assert method.head == "teacher"
    assert method.weights == {"alignment": 3, "classification": 0.0}
    assert not method.state_dict()


def test_the_student_must_hold_the_teachers_classifier_frozen() -> None:
    teacher = make_teacher()
    trained, other = copy_teacher_head(teacher, 64), copy_teacher_head(teacher, 64)
    trained.classifier.requires_grad_(True)
    with torch.no_grad():
        other.classifier.bias.add_(1)  # type: ignore[operator, union-attr]
    for head in (nn.Linear(64, 3), EmbeddedHead(64, 256, 3), EmbeddedHead(64, 256, 0), trained, other):
        with pytest.raises(ModelError, match="student's head does not hold it frozen; take head teacher"):
            SimKD(SimKDConfig(), make_lesson(teacher, head))


def test_what_is_missing_is_named() -> None:
    headless = create_network("resnet8x4", 0, image_size=16)
    with pytest.raises(ModelError, match="SimKD needs a teacher with one linear classifier"):
        SimKD(SimKDConfig(), make_lesson(headless, EmbeddedHead(64, 256, 3)))
    method = SimKD(SimKDConfig(), make_lesson(make_teacher()))
    with pytest.raises(ModelError, match="SimKD needs the teacher's features"):
        method(Output(torch.zeros(4, 3), torch.zeros(4, 256)), Seen(), INDEX, TARGETS)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_settings_out_of_range_are_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="simkd: beta must be positive and finite, not"):
        SimKDConfig(beta=beta)
