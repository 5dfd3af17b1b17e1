"""A student, a teacher of another width, and what they show of a few images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lauter.distillation.heads import fit_student_head
from lauter.distillation.method import Lesson, Method, Part, Seen
from lauter.distillation.recipe import shape_of_maps
from lauter.distillation.teacher import live_parts
from lauter.models import EmbeddedHead, Network, Output, create_network

IMAGES, SIDE, CLASSES = 12, 16, 3
TARGETS = torch.tensor([0, 1, 2, -1, 0, 1, 2, -1, 0, 1, -1, 2])


@dataclass(frozen=True)
class Classroom:
    """Both networks, the images and what a method may know of them."""

    student: Network
    teacher: Network
    pixels: Tensor
    lesson: Lesson

    def answer(self, method: Method) -> Output:
        """What the student says, as the stage hands it to a method."""
        features, maps = self.student.features(self.pixels, want_maps="maps" in method.needs)
        head = self.student.head
        if isinstance(head, EmbeddedHead):
            embedded = head.embed(features)
            return Output(head.classify(embedded).float(), embedded.float(), maps)
        return Output(head(features).float(), features, maps)

    @torch.no_grad()
    def show(self, needs: frozenset[Part]) -> Seen:
        """What the teacher shows, and nothing that is not asked for."""
        logits, features, maps = self.teacher(self.pixels, want_maps="maps" in needs)
        return Seen(features if "features" in needs else None, logits if "logits" in needs else None, maps)


@pytest.fixture
def open_classroom() -> Callable[..., Classroom]:
    """Build a classroom: ``open_classroom(head, seed=0, targets=TARGETS)``."""

    def build(head: str = "plain", seed: int = 0, targets: Tensor = TARGETS) -> Classroom:
        torch.manual_seed(0)
        student = create_network("resnet8", CLASSES, image_size=SIDE)
        teacher = create_network("resnet8x4", CLASSES, image_size=SIDE).eval().requires_grad_(False)
        if head != "plain":
            fit_student_head(student, teacher, head)
        pixels = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), dtype=torch.uint8)
        with torch.no_grad():
            features = teacher.features(pixels)[0]
        assert isinstance(teacher.head, nn.Linear)
        lesson = Lesson(
            student,
            teacher.feature_size,
            teacher.num_classes,
            teacher.head,
            features,
            np.arange(IMAGES),
            targets,
            live_parts(teacher) | {"maps"},
            shape_of_maps(student, SIDE),
            shape_of_maps(teacher, SIDE),
            SIDE,
            seed,
        )
        return Classroom(student, teacher, pixels, lesson)

    return build
