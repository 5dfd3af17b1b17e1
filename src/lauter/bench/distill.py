"""Distillation measured: one teacher, one student, one recipe, many methods, seed by seed."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.records import Record, read_parts, write_part
from lauter.data import Dataset, open_dataset
from lauter.data.counters import derive_seed
from lauter.distillation.heads import fit_student_head
from lauter.distillation.method import Lesson, Method, Part
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.recipe import distill_into
from lauter.distillation.rivals import METHODS as RIVALS
from lauter.distillation.rivals import build_rival
from lauter.distillation.source import VIEW_SEED, SourceConfig
from lauter.models import Network, create_network
from lauter.run import RunDirectory
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from
from lauter.training.supervised import SupervisedConfig, SupervisedStage
from lauter.training.tracking import TrackedStage

SUITE = "distill"


@dataclass(frozen=True)
class Protocol:
    """One recipe for teacher, students and all methods.

    Attributes:
        data: cifar10 or cifar100; the full test set is scored, the last epoch is the number.
        size: training images, stratified; 0 takes all.
        epochs: passes over them, of teacher and student alike.
        batch_size: images in a step.
        optimizer: how the weights move; students of the mobile families take ``mobile_lr``.
        mobile_lr: learning rate of MobileNetV2 and the ShuffleNets.
        image_size: side of the pictures in pixels.
        augment: how views are made (see :class:`lauter.config.FitConfig`).
    """

    data: str
    size: int
    epochs: int
    batch_size: int = 64
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.05))
    mobile_lr: float = 0.01
    image_size: int = 32
    augment: str = "objects"


CRD_STEPS = OptimizerConfig(lr=0.05, schedule="step", milestones=(150 / 240, 180 / 240, 210 / 240))
PROTOCOLS = {
    "cifar10-10k": Protocol("cifar10", 10_000, 30),
    "cifar100-20k": Protocol("cifar100", 20_000, 30),
    "cifar100-crd": Protocol("cifar100", 0, 240, optimizer=dataclasses.replace(CRD_STEPS, nesterov=False)),
}
"""cifar100-crd is the CRD benchmark's: 240 epochs, lr times 0.1 after 150, 180 and 210. The other two are
made to be measured without an accelerator and stand beside no published number."""

MOBILE = ("MobileNetV2", "ShuffleV1", "ShuffleV2")

MIMICS: dict[str, dict[str, object]] = {
    "l2": {"loss": "l2"},
    "lsh": {"loss": "lsh"},
    "lshl2": {"loss": "lshl2"},
    "lsh_expected": {"loss": "lsh_expected"},
    "teacher_head": {"head": "teacher", "gamma": 0.0},
    "lshl2_same_views": {"source": SourceConfig("live", seed=VIEW_SEED)},
    **{f"lshl2_bank{views}": {"source": SourceConfig("bank", views)} for views in (8, 16, 32)},
}
"""Mimicking and its variants, as settings of ``MimicConfig``; teacher_head learns from no label, lshl2_bankV
from V views of each image that the teacher saw before, lshl2_same_views from a live teacher under the views
and hashes of these banks."""

METHODS = ("none", *MIMICS, *(name for name in RIVALS if name not in ("none", *MIMICS)))


@dataclass(frozen=True, eq=False)
class Bench:
    """What one seed of one pair is measured with: data, setup, the trained teacher."""

    protocol: Protocol
    data: Dataset
    test: Dataset
    setup: Setup
    pair: tuple[str, str]

    def build(self, name: str, role: str) -> Network:
        """A network with weights drawn from (seed, role)."""
        with draw_from(self.setup.loop.seed, role):
            return create_network(name, self.data.num_classes, image_size=self.setup.image_size)

    def optimizer(self, network: str) -> OptimizerConfig:
        """The protocol's, with the learning rate that suits the family."""
        lr = self.protocol.mobile_lr if network in MOBILE else self.protocol.optimizer.lr
        return dataclasses.replace(self.protocol.optimizer, lr=lr)

    def train_plain(self, name: str, role: str) -> SupervisedStage:
        """Cross-entropy alone: the teacher, or the student without a teacher."""
        network = self.build(name, role)
        config = SupervisedConfig(self.protocol.epochs, self.protocol.batch_size, self.optimizer(name))
        batches = self.setup.batches(role, self.setup.train, config.batch_size)
        stage_name = "teacher" if role == "teacher" else "none"
        stage = SupervisedStage(stage_name, network, self.data.labels, batches, config, self.setup.track())
        self.setup.loop.run_stage(stage)
        return stage

    def train_student(self, method: str, teacher: Network) -> TrackedStage:
        """The student by a method, from the same weights and in the same order of images for every one."""
        if method == "none":
            return self.train_plain(self.pair[1], "student")
        config = MimicConfig(
            epochs=self.protocol.epochs,
            batch_size=self.protocol.batch_size,
            prior_correction=False,  # the classes are balanced
            optimizer=self.optimizer(self.pair[1]),
        )
        config = dataclasses.replace(config, **MIMICS.get(method, {}))  # type: ignore[arg-type]
        student = self.build(self.pair[1], "student")
        rival = None
        if method in MIMICS:
            with draw_from(self.setup.loop.seed, "student head"):
                fit_student_head(student, teacher, config.head)
        else:
            rival = make_rival(method, self.protocol.epochs)
            with draw_from(self.setup.loop.seed, "student head"):
                prepare_rival_head(method, student, teacher)
        targets = torch.from_numpy(self.data.labels)
        return distill_into(
            student,
            teacher,
            self.setup,
            targets,
            self.setup.train,
            config,
            rival=rival,
            name=method,
        )


def make_rival(name: str, epochs: int) -> tuple[Callable[[Lesson], Method], frozenset[Part]]:
    """How a rival is built, with its default settings, and what it reads of the teacher.

    A warm-up in epochs keeps the share of the training that its authors gave it, 20 of 240.
    """
    config_class, method_class = RIVALS[name]
    config = config_class()
    if hasattr(config, "warmup"):
        config = dataclasses.replace(config, warmup=round(epochs * 20 / 240))
    return lambda lesson: build_rival(name, lesson, config), method_class.needs


def prepare_rival_head(name: str, student: Network, teacher: Network) -> None:
    """Give the student the head that a rival needs, in place; most keep the plain one."""
    head = RIVALS[name][1].head
    if head != "plain":
        fit_student_head(student, teacher, head)


def measure_pair(
    protocol_name: str,
    pair: tuple[str, str],
    seed: int,
    folder: Path,
    work: Path,
    runtime: RuntimeConfig,
    methods: Iterable[str] = METHODS,
    console: Console | None = None,
) -> list[Record]:
    """Measure methods on one pair with one seed; what has been measured is not measured again.

    Seconds and images per second are those of the training alone: the test set that is predicted after every
    epoch is in them for every method alike, the building of a bank is not.

    Args:
        protocol_name: one of ``PROTOCOLS``.
        pair: names of teacher and student; the teacher is trained first, once for all methods.
        seed: draws the subset, the networks, the order, the views.
        folder: the data set of the protocol.
        work: where checkpoints and parts are kept.
        runtime: device and precision.
        methods: which of ``METHODS``.
        console: where progress is shown.

    Returns:
        Every record of this pair and seed so far.
    """
    protocol = PROTOCOLS[protocol_name]
    name = f"{protocol_name} {pair[0]} -> {pair[1]}"
    run = RunDirectory(work / f"{protocol_name}-{pair[0]}-{pair[1]}" / str(seed))
    teachers = Checkpoints(work / f"{protocol_name}-{pair[0]}" / str(seed))
    with Progress(run.path, console) as progress:
        data, test = open_protocol(protocol, folder, seed)
        loop = Loop(Runtime(runtime), Checkpoints(run.checkpoints), progress, seed)
        train = np.arange(len(data))
        # The last epoch is the number, so nothing is held out; these rows only feed the progress line.
        setup = Setup(data, train, train[:512], test.images, loop, protocol.image_size, protocol.augment)
        bench = Bench(protocol, data, test, setup, pair)
        teacher_setup = dataclasses.replace(setup, loop=dataclasses.replace(loop, checkpoints=teachers))
        teaching = dataclasses.replace(bench, setup=teacher_setup)
        for method in ("teacher", *methods):
            part = run.path / f"{method}.json"
            if part.exists():
                continue
            reset_peak(loop.runtime.device)
            if method == "teacher":
                stage: TrackedStage = teaching.train_plain(pair[0], "teacher")
                cost = teacher_setup.loop.costs["teacher"]
            else:
                teacher = teaching.train_plain(pair[0], "teacher").evaluated.eval()
                stage = bench.train_student(method, teacher)
                cost = loop.costs[stage.name]
            values = score(stage, test) | {
                "seconds": cost.seconds,
                "images_per_second": cost.images / max(cost.seconds, 1e-9),
                "peak_mib": read_peak(loop.runtime.device),
            }
            write_part(part, [Record(SUITE, name, method, seed, metric, v) for metric, v in values.items()])
    return read_parts(run.path)


def open_protocol(protocol: Protocol, folder: Path, seed: int) -> tuple[Dataset, Dataset]:
    """Training images and the full test set, with their true labels."""
    column = "label"
    train = open_dataset(
        folder,
        split="train",
        label_column=column,
        size=protocol.size or None,
        seed=derive_seed(seed, "subset"),
    )
    return train, open_dataset(folder, split="test", label_column=column)


def score(stage: TrackedStage, test: Dataset) -> dict[str, float]:
    """Accuracy at the last epoch, and at the epoch that the test set would choose (an oracle)."""
    accuracies = [
        float((predicted.numpy().astype(np.int64) == test.labels).mean())
        for predicted in stage.tracker.test_predictions
    ]
    return {"accuracy_last": accuracies[-1], "accuracy_best": max(accuracies)}
