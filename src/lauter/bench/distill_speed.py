"""How fast distillation is: plain training, a live teacher, a bank, and the usual loop, interleaved."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from lauter.bench.records import Record
from lauter.bench.yardstick import PictureFolder, time_yardstick
from lauter.data import Dataset, open_dataset
from lauter.distillation.heads import fit_student_head
from lauter.distillation.method import Seen
from lauter.distillation.mimic import Mimic, MimicConfig, read_parts
from lauter.distillation.recipe import prepare_lesson
from lauter.distillation.source import SourceConfig, open_source
from lauter.distillation.stage import DistillStage
from lauter.distillation.teacher import live_parts
from lauter.errors import DataError
from lauter.losses import mimic
from lauter.models import EmbeddedHead, Network, Output, create_network
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup, draw_from
from lauter.training.supervised import SupervisedConfig, SupervisedStage

SUITE = "distill"
BATCH = 64
IMAGES = 40 * BATCH
VIEWS, EPOCHS = 16, 240
"""Of the bank, and of the training whose rate is given with the time to build the bank in it."""
LOSSES = ("lsh", "lshl2")


@dataclass(frozen=True, eq=False)
class Course:
    """What is timed on: images, networks, a folder for the bank."""

    data: Dataset
    setup: Setup
    pair: tuple[str, str]
    folder: Path

    def build(self, role: int) -> Network:
        """Teacher (0) or student (1), with weights drawn by role."""
        with draw_from(0, f"speed {role}"):
            return create_network(self.pair[role], self.data.num_classes)

    def fresh(self) -> Setup:
        """The setup with a loop that has run nothing."""
        loop = dataclasses.replace(self.setup.loop, costs={}, checkpoints=Checkpoints(None))
        return dataclasses.replace(self.setup, loop=loop)

    def make_plain(self, setup: Setup) -> SupervisedStage:
        """The student without a teacher, ready to be trained."""
        batches = setup.batches("student", setup.train, BATCH)
        config = SupervisedConfig(1, BATCH)
        return SupervisedStage("plain", self.build(1), self.data.labels, batches, config, setup.track())

    def time_plain(self) -> float:
        """Images per second of the student without a teacher."""
        setup = self.fresh()
        setup.loop.run_stage(self.make_plain(setup))
        return rate(setup, "plain")

    def make_mimic(self, setup: Setup, loss: str, source: str) -> tuple[DistillStage, float]:
        """The student of a live teacher or a bank, and the seconds that building or checking that took."""
        settings = SourceConfig("bank", VIEWS, str(self.folder / f"bank-{loss}"))
        config = MimicConfig(loss=loss, epochs=1, batch_size=BATCH, source=settings)  # type: ignore[arg-type]
        teacher, student = self.build(0).eval(), self.build(1)
        fit_student_head(student, teacher, config.head)
        parts = read_parts(config, banked=source == "bank")
        shown = parts if source == "bank" else live_parts(teacher)
        targets = torch.from_numpy(self.data.labels)
        method = Mimic(config, prepare_lesson(student, teacher, setup, targets, setup.train, shown))
        hashes = method.hashes if source == "bank" else None
        began = time.perf_counter()
        shower, batches = open_source(
            "bank" if source == "bank" else "live",
            settings,
            teacher,
            setup,
            setup.train,
            BATCH,
            parts,
            hashes,
        )
        built = time.perf_counter() - began
        return DistillStage(student, shower, method, targets, batches, config, setup.track(), loss), built

    def time_mimic(self, loss: str, source: str) -> tuple[float, float]:
        """Images per second of mimicking, and the seconds that the bank took to build or to check."""
        setup = self.fresh()
        stage, built = self.make_mimic(setup, loss, source)
        setup.loop.run_stage(stage)
        return rate(setup, loss), built

    def time_yardstick(self, pictures: PictureFolder, loss: str, workers: int) -> float:
        """Images per second of the usual loop with the same loss."""
        teacher, student = self.build(0), self.build(1)
        method = self._draw(teacher, student, loss)
        embed: nn.Module = nn.Identity()
        if student.feature_size != teacher.feature_size:
            embed = nn.Linear(student.feature_size, teacher.feature_size)
        function = mimic.lsh if loss == "lsh" else mimic.lshl2

        def compare(features: Tensor, wanted: Tensor) -> Tensor:
            return function(features, wanted, method.weight, method.bias)

        return time_yardstick(
            pictures,
            student,
            teacher,
            compare,
            embed,
            batch_size=BATCH,
            workers=workers,
            device=self.setup.loop.runtime.device,
        )

    def time_term(self, loss: str) -> float:
        """Seconds that the term itself takes in a step, forward and backward."""
        teacher, student = self.build(0), self.build(1)
        method = self._draw(teacher, student, loss)
        device = method.weight.device
        features = torch.rand(BATCH, teacher.feature_size, device=device, requires_grad=True)
        wanted = torch.rand(BATCH, teacher.feature_size, device=device)
        shown = Seen(wanted, bits=mimic.hash_bits(wanted, method.weight, method.bias))
        index = torch.arange(BATCH, device=device)
        answer = Output(torch.zeros(BATCH, self.data.num_classes, device=device), features)
        seconds = []
        for _ in range(30):
            began = time.perf_counter()
            with self.setup.loop.runtime.autocast():
                value = method(answer, shown, index, index)["mimic"]
            torch.autograd.grad(value.mean(), features)
            if device.type != "cpu":
                torch.accelerator.synchronize()
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    def _draw(self, teacher: Network, student: Network, loss: str) -> Mimic:
        fit_student_head(student, teacher, "own")
        config = MimicConfig(loss=loss)  # type: ignore[arg-type]
        targets = torch.from_numpy(self.data.labels)
        method = Mimic(config, prepare_lesson(student, teacher, self.setup, targets, self.setup.train))
        if isinstance(student.head, EmbeddedHead):
            student.head = nn.Linear(student.feature_size, self.data.num_classes)
        return method.to(self.setup.loop.runtime.device)


def rate(setup: Setup, name: str) -> float:
    """Images per second of a stage; its time includes the prediction of one hold-out batch at its end."""
    cost = setup.loop.costs[name]
    return cost.images / cost.seconds


def measure_speed(
    folder: Path | str,
    runtime: RuntimeConfig,
    pair: tuple[str, str] = ("resnet32x4", "resnet8x4"),
    repeats: int = 5,
    console: Console | None = None,
) -> list[Record]:
    """Medians of interleaved repeats; every repeat times each way once, one after the other.

    Args:
        folder: CIFAR-10 or CIFAR-100.
        runtime: device and precision of this library's ways; the yardstick is float32 as usual.
        pair: names of teacher and student.
        repeats: how many.
        console: where progress is shown.

    Returns:
        images_per_second by way (plain, live, bank, yardstick) and loss, its smallest and largest, the bank's
        rate with the time to build it, the share of the loss term in a step, and the ratios asked of it.

    Raises:
        DataError: the images are not all of one size.
    """
    data = open_dataset(folder, split="train", label_column="label", size=IMAGES)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary, Progress(None, console) as progress:
        loop = Loop(Runtime(runtime), Checkpoints(None), progress, 0)
        rows = np.arange(len(data))
        setup = Setup(data, rows, rows[:BATCH], None, loop, 32, "objects")
        course = Course(data, setup, pair, Path(temporary))
        pixels = data.images.uniform
        if pixels is None:
            raise DataError(
                f"{data.name}: speed is measured on images of one size; take CIFAR-10 or CIFAR-100"
            )
        pictures = PictureFolder(pixels, data.labels)
        building = {loss: course.time_mimic(loss, "bank")[1] for loss in LOSSES}
        workers = max(1, torch.get_num_threads())
        ways: dict[str, Callable[[], float]] = {"plain": course.time_plain}
        for loss in LOSSES:
            ways[f"live {loss}"] = lambda loss=loss: course.time_mimic(loss, "live")[0]  # type: ignore[misc]
            ways[f"bank {loss}"] = lambda loss=loss: course.time_mimic(loss, "bank")[0]  # type: ignore[misc]
            ways[f"yardstick {loss}"] = lambda loss=loss: course.time_yardstick(  # type: ignore[misc]
                pictures, loss, workers
            )
        for repeat in range(repeats):
            for name, run in ways.items():
                found.setdefault(name, []).append(run())
                progress.say(f"{repeat + 1}/{repeats} {name}: {found[name][-1]:,.0f} images/s")
        terms = {loss: course.time_term(loss) for loss in LOSSES}
    return summarise(f"{pair[0]} -> {pair[1]}", found, building, terms)


def summarise(
    data: str, found: dict[str, list[float]], building: dict[str, float], terms: dict[str, float]
) -> list[Record]:
    """Records of medians, ranges and ratios."""
    middle = {name: float(np.median(values)) for name, values in found.items()}
    records = [
        Record(SUITE, data, name, 0, metric, value)
        for name, values in found.items()
        for metric, value in (
            ("images_per_second", middle[name]),
            ("images_per_second_low", min(values)),
            ("images_per_second_high", max(values)),
            ("of_plain", middle[name] / middle["plain"]),
        )
    ]
    for loss in LOSSES:
        bank, live = middle[f"bank {loss}"], middle[f"live {loss}"]
        # A run of EPOCHS epochs takes IMAGES images each, and the bank is built once for it.
        seconds = EPOCHS * IMAGES / bank + building[loss]
        yardstick = middle[f"yardstick {loss}"]
        ratios = {
            "build_seconds": building[loss],
            "images_per_second_built": EPOCHS * IMAGES / seconds,
            "of_yardstick": bank / yardstick,
            "term_share": terms[loss] * middle["plain"] / BATCH,
        }
        records.append(Record(SUITE, data, f"live {loss}", 0, "of_yardstick", live / yardstick))
        records += [Record(SUITE, data, f"bank {loss}", 0, metric, value) for metric, value in ratios.items()]
    return records
