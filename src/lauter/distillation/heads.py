"""The student's head: its own, embedded in the teacher's space, or the teacher's."""

from typing import Protocol, cast

from torch import Tensor

from lauter.errors import ModelError
from lauter.models import EmbeddedHead, Network, copy_teacher_head


class Source(Protocol):
    """What a head must know of a teacher, be it a network or stored features.

    Attributes:
        name: for messages.
        feature_size: D, the width of its features.
        num_classes: K; 0 where it has no classifier.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def feature_size(self) -> int: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102


def fit_student_head(student: Network, teacher: Source, head: str) -> None:
    """Give the student the head that mimicking asks for, in place and on the student's device.

    Args:
        student: with its plain head.
        teacher: whose features are mimicked.
        head: own, embedded or teacher (see :class:`lauter.distillation.mimic.MimicConfig`).

    Raises:
        ModelError: teacher and student disagree in classes, or the teacher has no classifier to copy.
    """
    if teacher.num_classes not in (0, student.num_classes):
        raise ModelError(
            f"the teacher tells {teacher.num_classes} classes apart, the data has {student.num_classes}; "
            f"use a teacher of the same classes or one without a classifier"
        )
    if head == "teacher":
        if not isinstance(teacher, Network):
            raise ModelError(
                f"{teacher.name}: stored features bring no classifier that the student could take; "
                "choose head own or embedded, or a teacher that is a network"
            )
        student.head = copy_teacher_head(teacher, student.feature_size)
    elif head == "embedded" or student.feature_size != teacher.feature_size:
        student.head = EmbeddedHead(student.feature_size, teacher.feature_size, student.num_classes)
    student.head.to(cast(Tensor, student.pixel_mean).device)  # the teacher may be on another one
