"""ND and plain L2: centres of classes, images without a believed label, and whose projection it is."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lauter.distillation.method import Seen
from lauter.distillation.rivals.nd import ND, NDConfig, average_by_class
from lauter.distillation.rivals.timm_l2 import L2, L2Config
from lauter.errors import ConfigError, DataError, ModelError
from lauter.losses.directions import nd
from lauter.losses.distillation import kd
from lauter.losses.mimic import l2
from lauter.models import Output

Open = Callable[..., Any]


def test_centres_are_means_over_believed_images(open_classroom: Open) -> None:
    lesson = open_classroom("own").lesson
    sums, counts = np.zeros((3, 256)), np.zeros(3)
    for feature, target in zip(
        lesson.teacher_features.double().tolist(), lesson.targets.tolist(), strict=True
    ):
        if target >= 0:
            sums[target] += feature
            counts[target] += 1
    expected = torch.from_numpy(sums / counts[:, None]).float()
    torch.testing.assert_close(ND(NDConfig(), lesson).centers, expected)


def test_centres_follow_the_rows_that_teach(open_classroom: Open) -> None:
    lesson = open_classroom("own").lesson
    rows = np.array([9, 2, 4])  # of the classes 1, 2 and 0
    few = dataclasses.replace(lesson, rows=rows, teacher_features=lesson.teacher_features[rows])
    torch.testing.assert_close(ND(NDConfig(), few).centers, lesson.teacher_features[[4, 9, 2]])


def test_nd_teaches_believed_images_and_kd_all(open_classroom: Open) -> None:
    # Of class 2 no image is believed when the centres are made.
    lesson = open_classroom("own", targets=torch.tensor([0, 1, -1, -1, 0, 1, -1, -1, 0, 1, -1, -1])).lesson
    method = ND(NDConfig(alpha=1.5, beta=0.7, temperature=2.0, warmup=2), lesson)
    assert method.weights == {"kd": 1.5, "nd": 0.7, "classification": 1.0}
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(5, 256, generator=generator) for _ in range(2))
    logits, wanted = (torch.randn(5, 3, generator=generator) for _ in range(2))
    targets = torch.tensor([1, -1, 0, 2, 1])
    terms = method(Output(logits, student), Seen(teacher, wanted), torch.arange(5), targets)
    known = torch.tensor([0, 2, 4])
    expected = nd(student[known], teacher[known], method.centers[targets[known]]).mean()
    torch.testing.assert_close(terms["nd"], expected)
    torch.testing.assert_close(terms["kd"], 0.5 * kd(logits, wanted, 2.0))
    method.begin_epoch(1)
    later = method(Output(logits, student), Seen(teacher, wanted), torch.arange(5), targets)
    torch.testing.assert_close(later["kd"], kd(logits, wanted, 2.0))
    torch.testing.assert_close(later["nd"], expected)


def test_nd_refuses_what_gives_no_centre(open_classroom: Open) -> None:
    lesson = open_classroom("own").lesson
    with pytest.raises(DataError, match="no image has a believed label"):
        ND(NDConfig(), dataclasses.replace(lesson, targets=torch.full((12,), -1)))
    with pytest.raises(DataError, match="labels must be below 3, the student's classes, found 7"):
        average_by_class(torch.zeros(2, 4), torch.tensor([0, 7]), 3)
    with pytest.raises(ModelError, match="features of the student, 64 wide, with the teacher's, 256 wide"):
        ND(NDConfig(), open_classroom("plain").lesson)
    with pytest.raises(ConfigError, match="nd: warmup must be 0 or more epochs, not -2"):
        NDConfig(warmup=-2)


def test_l2_projects_a_plain_student_beside_its_classifier(open_classroom: Open) -> None:
    lesson = open_classroom("plain").lesson
    method = L2(L2Config(), lesson)
    assert isinstance(method.projection, nn.Linear)
    torch.testing.assert_close(L2(L2Config(), lesson).projection.weight, method.projection.weight)
    student, teacher = torch.rand(4, 64), torch.rand(4, 256)
    terms = method(Output(torch.zeros(4, 3), student), Seen(teacher), torch.arange(4), torch.zeros(4))
    torch.testing.assert_close(
        terms, {"l2": l2(student @ method.projection.weight.T + method.projection.bias, teacher)}
    )


def test_l2_takes_features_that_are_in_the_teachers_space_as_they_are(open_classroom: Open) -> None:
    embedded = open_classroom("embedded").lesson
    narrow = dataclasses.replace(open_classroom("plain").lesson, teacher_size=64)
    for lesson, size in ((embedded, 256), (narrow, 64)):
        method = L2(L2Config(), lesson)
        assert not list(method.parameters())
        student, teacher = torch.rand(4, size), torch.rand(4, size)
        terms = method(Output(torch.zeros(4, 3), student), Seen(teacher), torch.arange(4), torch.zeros(4))
        torch.testing.assert_close(terms, {"l2": l2(student, teacher)})
