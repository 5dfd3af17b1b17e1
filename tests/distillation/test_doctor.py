"""The doctor: a healthy teacher passes, and each ailment is found by its own measure."""

import copy
import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lauter.data import Dataset, ResidentImages
from lauter.data.views import ViewRecipe
from lauter.distillation import doctor
from lauter.distillation.doctor import examine_teacher
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.stored import Stored
from lauter.distillation.teacher_measures import (
    measure_input,
)
from lauter.distillation.teacher_report import TeacherReport
from lauter.errors import DataError, ModelError
from lauter.losses.hashing import std_from_features
from lauter.models import InputSpec, Network, create_network, wrap_module
from lauter.training.runtime import Runtime, RuntimeConfig

NAMES = ("red", "green", "blue")
HOLDOUT = np.arange(60, 90)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(RuntimeConfig(device="cpu", precision="32", workers=0))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """90 noisy pictures of three colours; every tenth is unlabelled, one label in the hold-out is wrong."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pixels = rng.integers(0, 200, (90, 3, 8, 8))
    pixels[np.arange(90), labels] += 55
    labels[::10] = -1
    labels[61] = (labels[61] + 1) % 3
    ids = np.array([f"{row}.png" for row in range(90)])
    return Dataset("colours", ResidentImages(pixels.astype(np.uint8)), labels, NAMES, ids)


class Means(nn.Module):
    """The mean of each channel and its negative part: features that tell the colours apart."""

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        centred = means - means.mean(1, keepdim=True)
        return torch.cat([centred.relu(), (-centred).relu()], dim=1)


def make_teacher(spec: InputSpec | None = None, order: tuple[int, ...] = (0, 1, 2)) -> Network:
    head = nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(3), -torch.eye(3)], dim=1)[list(order)])
    spec = spec or InputSpec(8, (0.45, 0.45, 0.45), (0.25, 0.25, 0.25))
    return wrap_module(Means(), 6, 3, spec, head=head).eval()


def make_student(classes: int = 3) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_network("resnet8", classes, image_size=8)


def examine(
    teacher: Network | Stored,
    data: Dataset,
    runtime: Runtime,
    student: Network | None = None,
    holdout: Any = HOLDOUT,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> TeacherReport:
    config = MimicConfig(**{"epochs": 4, "batch_size": 16, "hashes": 12, **settings})
    return examine_teacher(
        teacher, data, holdout, runtime, config, student or make_student(), **(options or {})
    )


def show(teacher: Network, data: Dataset) -> Stored:
    pixels = torch.from_numpy(data.images.uniform)
    with torch.no_grad():
        output = teacher(pixels)
    return Stored("file", output.features, output.logits)


def test_a_healthy_teacher_passes(data: Dataset, runtime: Runtime) -> None:
    teacher, student = make_teacher(), make_student()
    weights = copy.deepcopy(student.state_dict())
    random_state = torch.get_rng_state()
    report = examine(teacher, data, runtime, student)
    assert report.warnings == ()
    torch.testing.assert_close(torch.get_rng_state(), random_state, rtol=0, atol=0)
    torch.testing.assert_close(student.state_dict(), weights, rtol=0, atol=0)
    assert (report.train_images, report.holdout_images) == (60, 27)
    assert report.agreement_with_given is not None
    assert report.agreement_with_given.plain == pytest.approx(26 / 27)
    assert report.neighbours.plain == pytest.approx(26 / 27)
    assert report.class_order is not None
    assert (report.class_order.moved, report.class_order.is_off) == ((), False)
    assert report.agreement_with_given.balanced == pytest.approx(report.class_order.as_it_stands)
    assert (report.modules, report.training_modules, report.extra_rows) == (4, (), 0)
    assert report.features.size == 6
    assert report.features.zero_share == pytest.approx(0.5)
    assert report.budget.teacher_seconds > 0
    assert report.budget.student_seconds > 0
    expected = 60 * 4 * (report.budget.teacher_seconds + report.budget.student_seconds)
    assert report.budget.seconds == pytest.approx(expected)


def test_the_plan_is_that_of_the_loss(data: Dataset, runtime: Runtime) -> None:
    teacher = make_teacher()
    report = examine(teacher, data, runtime)
    plan = report.plan
    assert (plan.loss, plan.beta, plan.hashes, plan.bias) == ("lshl2", 6.0, 12, "mean")
    assert plan.std == pytest.approx(float(teacher.head.weight.detach().std()))  # type: ignore[union-attr]
    assert (report.budget.views, report.budget.feature_bytes, report.budget.bit_bytes) == (4, 2880, 960)
    assert examine(teacher, data, runtime, hashes=0).plan.hashes == 32 * 6
    fewer = {"dropped_images": False, "embedding_epochs": 2, "head": "embedded"}
    few = examine(teacher, data, runtime, options={"views": 3}, **fewer)
    assert (few.budget.images, few.budget.epochs, few.budget.views) == (54, 6, 3)
    assert few.budget.feature_bytes == 3 * 54 * 12


@pytest.mark.parametrize(
    ("loss", "hashes", "has_std"), [("l2", 0, False), ("lsh_expected", 0, True), ("lsh", 12, True)]
)
def test_only_hashing_losses_have_hashes(
    loss: str, hashes: int, has_std: bool, data: Dataset, runtime: Runtime
) -> None:
    report = examine(make_teacher(), data, runtime, loss=loss)
    assert (report.plan.hashes, report.plan.std > 0) == (hashes, has_std)
    assert (report.budget.bit_bytes > 0) == (hashes > 0)


def test_stored_features_are_examined_without_a_network(data: Dataset, runtime: Runtime) -> None:
    stored = show(make_teacher(), data)
    report = examine(stored, data, runtime)
    live = examine(make_teacher(), data, runtime)
    assert report.neighbours == live.neighbours
    assert report.agreement_with_given == live.agreement_with_given
    assert (report.input, report.modules, report.budget.teacher_seconds) == (None, 0, 0.0)
    assert report.warnings == ()
    seen = stored.features[:60]
    assert report.plan.std == pytest.approx(std_from_features(seen, center=seen.mean(0)))
    headless = examine(dataclasses.replace(stored, logits=None, extra=5), data, runtime)
    assert (headless.agreement_with_given, headless.class_order, headless.extra_rows) == (None, None, 5)


def find_warning(report: TeacherReport, words: str) -> str:
    found = [warning for warning in report.warnings if words in warning]
    assert len(found) == 1, report.warnings
    return found[0]


def test_modules_in_training_mode_are_found_and_left_as_they_are(data: Dataset, runtime: Runtime) -> None:
    teacher = make_teacher()
    teacher.head.train()
    report = examine(teacher, data, runtime)
    assert report.training_modules == ("head",)
    assert "1 of 4 modules are in training mode (head)" in find_warning(report, "training mode")
    assert [name for name, module in teacher.named_modules() if module.training] == ["head"]
    everything = find_warning(examine(teacher.train(), data, runtime), "training mode")
    assert "(the network itself, backbone, backbone.module, ...)" in everything


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), r"standard deviation 0.2"),
        ((0.45, 0.45, 0.45), (0.05, 0.05, 0.05), r"standard deviation 4."),
        ((0.45, 0.45, 2.0), (0.25, 0.25, 0.25), r"mean 0.*, 0.*, -6"),
        ((0.45 / 255, 0.45 / 255, 0.45 / 255), (0.25 / 255, 0.25 / 255, 0.25 / 255), r"mean 4\d\d"),
    ],
)
def test_a_wrong_normalisation_is_found(
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    said: str,
    data: Dataset,
    runtime: Runtime,
) -> None:
    report = examine(make_teacher(InputSpec(8, mean, std)), data, runtime)
    warning = find_warning(report, "normalised pixels")
    assert re.search(said, warning), warning


def test_another_order_of_classes_is_found(data: Dataset, runtime: Runtime) -> None:
    report = examine(make_teacher(order=(1, 0, 2)), data, runtime)
    warning = find_warning(report, "another order")
    assert "('green' for 'red', 'red' for 'green')" in warning
    assert report.class_order is not None
    assert report.class_order.at_best == examine(make_teacher(), data, runtime).class_order.as_it_stands  # type: ignore[union-attr]
    assert len(report.warnings) == 1


def test_a_classifier_of_something_else_is_found(data: Dataset, runtime: Runtime) -> None:
    teacher = make_teacher()
    with torch.no_grad():
        teacher.head.weight.copy_(torch.ones(3, 6) * torch.tensor([[-1.0], [-2.0], [-3.0]]))  # type: ignore[union-attr, operator]
    report = examine(teacher, data, runtime)
    assert "looks untrained" in find_warning(report, "the classifier agrees with 33.3%")
    assert len(report.warnings) == 1


def test_features_of_other_images_are_found(data: Dataset, runtime: Runtime) -> None:
    stored = show(make_teacher(), data)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    report = examine(Stored("shuffled", stored.features[order]), data, runtime)
    assert "guessing may reach too" in find_warning(report, "neighbours in the teacher's features")
    assert 1 / 3 < report.chance < 0.7


def test_dead_and_broken_features_are_found(data: Dataset, runtime: Runtime) -> None:
    features = show(make_teacher(), data).features
    constant = torch.cat([features[:, :2], torch.ones(90, 4)], dim=1)
    report = examine(Stored("dead", constant), data, runtime)
    assert "4 of 6 features are the same for every image" in find_warning(report, "collapsed")
    broken = features.clone()
    broken[[3, 4, 71]] = torch.nan
    report = examine(Stored("broken", broken), data, runtime)
    assert "the features of 2 images are NaN" in find_warning(report, "NaN or infinite")
    assert (report.train_images, report.holdout_images, report.features.broken) == (60, 26, 2)
    assert math.isfinite(report.plan.std)


def test_few_images_are_drawn_by_seed(
    data: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    predict = doctor.predict

    def listen(network: Network, images: Any, runtime: Runtime, **options: Any) -> Any:
        if options.get("index") is not None:
            asked.append(options["index"].tolist())
        return predict(network, images, runtime, **options)

    monkeypatch.setattr(doctor, "predict", listen)
    for seed in (0, 0, 1):
        report = examine(make_teacher(), data, runtime, options={"most": 20, "seed": seed})
        assert (report.train_images, report.holdout_images, report.budget.images) == (20, 20, 60)
    trained, held = asked[::2], asked[1::2]
    assert trained[0] == trained[1] != trained[2]
    assert all(set(rows) <= set(range(60)) and rows == sorted(rows) for rows in trained)
    assert all(set(rows) <= set(np.flatnonzero(data.labels >= 0)) & set(range(60, 90)) for rows in held)


def test_the_student_is_timed_in_its_own_views(data: Dataset, runtime: Runtime) -> None:
    report = examine(
        make_teacher(),
        data,
        runtime,
        options={"recipe": ViewRecipe(pad=1, flip=0.5), "image_size": 8},
        batch_size=100,
        ema_decay=0.9,
        correct_only=True,
        loss="l2",
    )
    assert 0 < report.budget.student_seconds < 1


def test_what_does_not_go_together_is_refused(data: Dataset, runtime: Runtime) -> None:
    stored = show(make_teacher(), data)
    with pytest.raises(DataError, match="holds features of 80 images, the data has 90"):
        examine(stored.take(np.arange(80)), data, runtime)
    with pytest.raises(ModelError, match="the teacher tells 3 classes apart, the data has 5"):
        examine(make_teacher(), data, runtime, make_student(5))
    with pytest.raises(ModelError, match="the student would tell 5 classes apart, the data has 3"):
        examine(dataclasses.replace(stored, logits=None), data, runtime, make_student(5))
    with pytest.raises(ModelError, match="bring no classifier"):
        examine(stored, data, runtime, head="teacher")
    with pytest.raises(DataError, match="colours: no image of the hold-out has a label"):
        examine(stored, data, runtime, holdout=np.array([0, 10]))
    with pytest.raises(DataError, match="no image of the training part has a label"):
        examine(stored, data, runtime, holdout=np.flatnonzero(data.labels >= 0))
    with pytest.raises(ModelError, match="are NaN or infinite; check its weights"):
        examine(Stored("nan", torch.full((90, 6), torch.nan)), data, runtime)


def test_input_statistics_are_those_of_all_normalised_pixels(data: Dataset, runtime: Runtime) -> None:
    spec = InputSpec(8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    rows = np.array([5, 80, 2])
    found = measure_input(make_teacher(spec), data.images, rows, runtime, 8)
    for channel in range(3):
        values = [
            (float(value) / 255 - spec.mean[channel]) / spec.std[channel]
            for row in rows
            for value in data.images.read(row)[channel].ravel()
        ]
        mean = sum(values) / len(values)
        assert found.mean[channel] == pytest.approx(mean, abs=1e-5)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        assert found.std[channel] == pytest.approx(math.sqrt(variance), rel=1e-4)
    with pytest.raises(DataError, match="no images to measure"):
        measure_input(make_teacher(), data.images, rows[:0], runtime, 8)
