"""The doctor: is a teacher fit to be mimicked, and what will it cost? Asked before a long run, not after."""

import copy
import dataclasses
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lauter.data.batches import ImageBatches
from lauter.data.counters import derive_seed, draw_order
from lauter.data.dataset import Dataset, Int64s, ResidentImages
from lauter.data.views import IDENTITY, ViewRecipe
from lauter.distillation.bank_layout import Layout, plan_layout
from lauter.distillation.heads import fit_student_head
from lauter.distillation.method import Lesson
from lauter.distillation.mimic import HASHED, Mimic, MimicConfig
from lauter.distillation.stage import DistillStage
from lauter.distillation.stored import Stored, StoredTeacher
from lauter.distillation.teacher_measures import (
    bound_chance,
    describe_features,
    match_classes,
    measure_agreement,
    measure_input,
    vote_by_neighbours,
)
from lauter.distillation.teacher_report import Budget, Plan, TeacherReport
from lauter.errors import DataError, ModelError
from lauter.models import Network
from lauter.training.loop import Loop
from lauter.training.predict import predict
from lauter.training.runtime import Runtime
from lauter.training.setup import draw_from
from lauter.training.tracking import Tracker, Watch

MOST = 10_000
"""How many images of each part are looked at; on so many a teacher shows what ails it."""
TIMED_STEPS = 6
"""Steps that are taken for the clock; the first warms up."""
TIMED_LR = 1e-9
"""A step takes as long with any learning rate, and with this one it cannot diverge."""


def examine_teacher(
    teacher: Network | Stored,
    data: Dataset,
    holdout: Int64s,
    runtime: Runtime,
    config: MimicConfig,
    student: Network,
    *,
    image_size: int = 0,
    recipe: ViewRecipe = IDENTITY,
    views: int = 0,
    most: int = MOST,
    seed: int = 0,
) -> TeacherReport:
    """Examine a teacher on the data that it is to teach.

    Only given labels are looked at, and agreement with them is no accuracy: a perfect teacher agrees with
    about one minus the noise rate of them.

    Args:
        teacher: a network, moved to the runtime's device and left in the modes it was in; or its features of
            ``data``.
        data: all images.
        holdout: rows that the student will not be trained on; all others are training images.
        runtime: device and precision.
        config: of the distillation that is planned.
        student: with its plain head; a copy is timed.
        image_size: side of the pictures in pixels; 0 takes the student's.
        recipe: of the views that the student trains on.
        views: V of the bank whose size is told; 0 takes one for each epoch.
        most: images that are looked at, of the training part and of the hold-out each.
        seed: decides which images those are, and the hashes.

    Returns:
        The report. Its times are medians over a few steps, on this machine as busy as it was; std and bias
        are of the images that were looked at.

    Raises:
        DataError: stored features are not of this data, or a part of it has no labelled image.
        ModelError: teacher and student do not go together, or no features are finite.
    """
    case = _open_case(teacher, data, holdout, runtime, config, student, image_size, recipe, most, seed)
    method = Mimic(config, _prepare_lesson(case))
    given, classes = data.labels[case.tested], data.num_classes
    said = None if case.held.logits is None else case.held.logits.argmax(1).numpy()
    voters = torch.from_numpy(data.labels[case.rows])
    voted = vote_by_neighbours(case.held.features, case.seen.features, voters, classes).numpy()
    modules = [] if isinstance(teacher, Stored) else list(teacher.named_modules())
    return TeacherReport(
        name=teacher.name,
        train_images=len(case.shown),
        holdout_images=len(case.tested),
        features=describe_features(case.shown),
        neighbours=measure_agreement(voted, given, classes),
        agreement_with_given=None if said is None else measure_agreement(said, given, classes),
        chance=bound_chance(given, classes),
        class_order=None if said is None else match_classes(said, given, data.class_names),
        input=None
        if isinstance(teacher, Stored)
        else measure_input(teacher, data.images, case.tested, runtime, case.image_size),
        modules=len(modules),
        training_modules=tuple(name or "the network itself" for name, module in modules if module.training),
        plan=Plan(
            config.loss,
            method.weights["mimic"],
            method.scale * method.std,
            _count_hashes(method),
            config.bias,
        ),
        budget=_estimate(case, method, views or config.epochs),
        extra_rows=teacher.extra if isinstance(teacher, Stored) else 0,
    )


@dataclass(frozen=True, eq=False)
class _Case:
    """A teacher with what it shows of the images that are looked at, and the student that it is to teach.

    Attributes:
        student: a copy with its final head.
        train: all rows that would teach.
        rows: training rows that are looked at, where the teacher's features are finite.
        tested: hold-out rows likewise, all labelled.
        shown: features of the training rows that are looked at, the broken ones too.
        seen: what it shows of ``rows``.
        held: what it shows of ``tested``.
    """

    teacher: Network | Stored
    student: Network
    data: Dataset
    runtime: Runtime
    config: MimicConfig
    image_size: int
    recipe: ViewRecipe
    seed: int
    train: Int64s
    rows: Int64s
    tested: Int64s
    shown: Tensor
    seen: Stored
    held: Stored


def _open_case(
    teacher: Network | Stored,
    data: Dataset,
    holdout: Int64s,
    runtime: Runtime,
    config: MimicConfig,
    student: Network,
    image_size: int,
    recipe: ViewRecipe,
    most: int,
    seed: int,
) -> _Case:
    """Check that all fits together, draw the images and let the teacher show them."""
    if isinstance(teacher, Stored):
        teacher.require_images(len(data))
    learner = copy.deepcopy(student)
    with draw_from(seed, "student head"):
        fit_student_head(learner, teacher, config.head)
    if learner.num_classes != data.num_classes:
        raise ModelError(
            f"the student would tell {learner.num_classes} classes apart, the data has {data.num_classes}"
        )
    size = image_size or student.input_spec.size
    train = np.setdiff1d(np.arange(len(data)), holdout)
    rows = _draw_rows(train, most, seed)
    tested = _draw_rows(holdout[data.labelled[holdout]], most, seed)
    for part, chosen in (("training part", rows), ("hold-out", tested)):
        if not data.labelled[chosen].any():
            raise DataError(f"{data.name}: no image of the {part} has a label to compare the teacher with")
    shown, held = (_show(teacher, data, chosen, runtime, size) for chosen in (rows, tested))
    seen, rows = _keep_finite(shown, rows)
    held, tested = _keep_finite(held, tested)
    if not data.labelled[rows].any() or not len(tested):
        raise ModelError(
            f"{teacher.name}: the features of all labelled images of a part are NaN or infinite; check "
            "its weights and input, or compute with --runtime.precision 32"
        )
    teaching = train if config.dropped_images else train[data.labelled[train]]
    return _Case(
        teacher=teacher,
        student=learner,
        data=data,
        runtime=runtime,
        config=config,
        image_size=size,
        recipe=recipe,
        seed=seed,
        train=teaching,
        rows=rows,
        tested=tested,
        shown=shown.features,
        seen=seen,
        held=held,
    )


def _draw_rows(rows: Int64s, most: int, seed: int) -> Int64s:
    return np.sort(rows[draw_order(derive_seed(seed, "doctor"), len(rows), 0)[:most]])


def _show(teacher: Network | Stored, data: Dataset, rows: Int64s, runtime: Runtime, size: int) -> Stored:
    if isinstance(teacher, Stored):
        return teacher.take(rows)
    seen = predict(teacher, data.images, runtime, index=rows, image_size=size)
    return Stored(teacher.name, seen.features, seen.logits if teacher.num_classes else None)


def _keep_finite(seen: Stored, rows: Int64s) -> tuple[Stored, Int64s]:
    finite = np.flatnonzero(seen.features.isfinite().all(1).numpy())
    return seen.take(finite), rows[finite]


def _prepare_lesson(case: _Case) -> Lesson:
    """What the mimic loss may know: as in a run, but of the images that are looked at alone."""
    teacher, head = case.teacher, None
    if isinstance(teacher, Network) and type(teacher.head) is nn.Linear:
        head = teacher.head
    return Lesson(
        student=case.student,
        teacher_size=teacher.feature_size,
        teacher_classes=teacher.num_classes,
        teacher_head=head,
        teacher_features=case.seen.features,
        rows=case.rows,
        targets=torch.from_numpy(case.data.labels),
        teacher_shows=frozenset({"features", "logits"} if teacher.num_classes else {"features"}),
        image_size=case.image_size,
        seed=case.seed,
    )


def _count_hashes(method: Mimic) -> int:
    return len(method.weight) if method.loss in HASHED else 0


def _estimate(case: _Case, method: Mimic, views: int) -> Budget:
    """Time a few steps, and extrapolate."""
    config, images = case.config, len(case.train)
    width, hashes = case.teacher.feature_size, _count_hashes(method)
    few = case.rows[: config.batch_size * TIMED_STEPS]
    part = case.data.subset(few)
    batches = ImageBatches(
        part.images,
        np.arange(len(part)),
        config.batch_size,
        (case.recipe,),
        case.image_size,
        seed=case.seed,
        device=case.runtime.device,
        workers=case.runtime.config.workers,
    )
    shown = StoredTeacher(case.seen.take(np.arange(len(few))), case.runtime.device)
    bits = plan_layout(frozenset({"bits"}), width, hashes=hashes).row_bytes if hashes else 0
    return Budget(
        images=images,
        epochs=config.epochs + config.embedding_epochs,
        teacher_seconds=0.0
        if isinstance(case.teacher, Stored)
        else _time_teacher(case.teacher, case, batches),
        student_seconds=_time_student(case, method, shown, part, batches),
        views=views,
        feature_bytes=views * images * Layout(width, feature_bytes=2).row_bytes,
        bit_bytes=views * images * bits,
    )


def _time_teacher(network: Network, case: _Case, batches: ImageBatches) -> float:
    """Median seconds per image to show one batch, its way to the device and back included."""
    pictures = ResidentImages(next(iter(batches.epoch(0))).images.cpu().numpy())
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        predict(network, pictures, case.runtime, image_size=case.image_size, batch_size=len(pictures))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) / len(pictures)


class _TimedStage(DistillStage):
    """The student's stage, with the moments at which its steps ended; nobody follows it."""

    moments: tuple[float, ...] = ()

    def after_step(self) -> None:
        super().after_step()
        if self.targets.device.type != "cpu":
            torch.accelerator.synchronize()
        self.moments += (time.perf_counter(),)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        return {}


def _time_student(
    case: _Case, method: Mimic, teacher: StoredTeacher, part: Dataset, batches: ImageBatches
) -> float:
    """Median seconds per image of a step, without the teacher: what it shows is looked up."""
    config = dataclasses.replace(
        case.config,
        epochs=-(-TIMED_STEPS // len(batches)),
        optimizer=dataclasses.replace(case.config.optimizer, lr=TIMED_LR),
    )
    tracker = Tracker(Watch(part, np.arange(0), None, case.runtime, case.image_size))
    labels = torch.from_numpy(part.labels)
    stage = _TimedStage(case.student, teacher, method, labels, batches, config, tracker)
    Loop(case.runtime).run_stage(stage)
    step = float(np.median(np.diff(stage.moments)))
    return step * len(batches) / len(part)
