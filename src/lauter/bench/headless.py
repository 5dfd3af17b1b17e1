"""A teacher without a classifier: self-supervised features, mimicked by a small student without any label."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lauter.bench.records import Record, read_parts, write_part
from lauter.data import Dataset, open_dataset
from lauter.data.counters import derive_seed
from lauter.distillation.heads import fit_student_head
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.recipe import distill_into
from lauter.distillation.teacher_measures import vote_by_neighbours
from lauter.models import Network, NoHead, create_network
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import pretrain
from lauter.run import RunDirectory
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.predict import predict
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup, draw_from

SUITE = "distill"
DATA = "cifar10-10k headless"
SIZE = 10_000
METHODS = ("simclr teacher", "simclr student", "lshl2", "lsh", "l2")
"""simclr teacher, simclr student: both networks, self-supervised on the same images for as many epochs; the
others: the student's network, trained to mimic that teacher's features, without a label."""


@dataclass(frozen=True)
class HeadlessConfig:
    """Lengths and networks.

    Attributes:
        teacher: its name.
        student: its name.
        pretrain: of the self-supervised networks.
        mimic: of the students; its loss is each method's.
    """

    teacher: str = "resnet20"
    student: str = "resnet8"
    pretrain: PretrainConfig = field(default_factory=lambda: PretrainConfig(monitor_every=0))
    mimic: MimicConfig = field(default_factory=lambda: MimicConfig(epochs=30, batch_size=64, gamma=0.0))


def measure_headless(
    folder: Path | str,
    work: Path,
    seed: int,
    runtime: RuntimeConfig,
    config: HeadlessConfig | None = None,
    methods: Iterable[str] = METHODS,
    console: Console | None = None,
) -> list[Record]:
    """Measure one seed; what has been measured is not measured again.

    Args:
        folder: CIFAR-10.
        work: where checkpoints and parts are kept.
        seed: draws images, networks, order, views.
        runtime: device and precision.
        config: lengths and networks.
        methods: which of ``METHODS``.
        console: where progress is shown.

    Returns:
        Accuracy by 20 nearest neighbours and of a linear probe, both fitted to the training images' labels
        and scored on the whole test set; labels are used for nothing else.
    """
    config = config or HeadlessConfig()
    run = RunDirectory(work / "headless" / str(seed))
    with Progress(run.path, console) as progress:
        train = open_dataset(
            folder, split="train", label_column="label", size=SIZE, seed=derive_seed(seed, "subset")
        )
        test = open_dataset(folder, split="test", label_column="label")
        loop = Loop(Runtime(runtime), Checkpoints(run.checkpoints), progress, seed)
        rows = np.arange(len(train))
        side = 32 if train.images.uniform is None else train.images.uniform.shape[-1]
        setup = Setup(train, rows, rows[:512], None, loop, side, "objects")
        for method in methods:
            part = run.path / f"{method.replace(' ', '-')}.json"
            if not part.exists():
                network, seconds = train_method(method, setup, run, config)
                scores = score_features(network, train, test, setup)
                write_part(
                    part,
                    [
                        Record(SUITE, DATA, method, seed, metric, value)
                        for metric, value in {**scores, "seconds": seconds}.items()
                    ],
                )
    return read_parts(run.path)


def train_method(
    method: str, setup: Setup, run: RunDirectory, config: HeadlessConfig
) -> tuple[Network, float]:
    """The network of a method and the seconds of its own training; those that mimic share the teacher."""
    if method.startswith("simclr"):
        return train_alone(method.removeprefix("simclr "), setup, run, config)
    teacher, _ = train_alone("teacher", setup, run, config)
    teacher.head, teacher.num_classes = NoHead(), 0
    with draw_from(setup.loop.seed, "student"):
        student = create_network(config.student, setup.data.num_classes, image_size=setup.image_size)
        fit_student_head(student, teacher, "own")
    mimic = replace(config.mimic, loss=method)  # type: ignore[arg-type]
    nothing = torch.full((len(setup.data),), -1)
    name = f"mimic-{method}"
    distill_into(student, teacher.eval(), setup, nothing, setup.train, mimic, name=name)
    return student, setup.loop.costs[name].seconds


def train_alone(role: str, setup: Setup, run: RunDirectory, config: HeadlessConfig) -> tuple[Network, float]:
    """A network pretrained by itself, and the seconds of that."""
    loop = replace(setup.loop, checkpoints=Checkpoints(run.path / role), costs={})
    alone = replace(setup, loop=loop)
    name = config.teacher if role == "teacher" else config.student
    with draw_from(setup.loop.seed, role):  # the projector too is drawn from here
        network = create_network(name, setup.data.num_classes, image_size=setup.image_size)
        pretrain(alone, network, config.pretrain)
    return network, loop.costs["pretrain"].seconds


def score_features(network: Network, train: Dataset, test: Dataset, setup: Setup) -> dict[str, float]:
    """Accuracy of neighbours and of a linear probe on a network's features of the unchanged images."""
    seen: list[Tensor] = [
        predict(network, part.images, setup.loop.runtime, image_size=setup.image_size).features
        for part in (train, test)
    ]
    labels = torch.from_numpy(train.labels)
    voted = vote_by_neighbours(seen[1], seen[0], labels, train.num_classes).numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(seen[0].numpy(), train.labels)
    probed = probe.predict(seen[1].numpy())
    return {
        "accuracy_neighbours": float((voted == test.labels).mean()),
        "accuracy_probe": float((probed == test.labels).mean()),
    }
