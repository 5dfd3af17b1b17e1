"""The whole way, measured: the result beside everything it has to be better than, seed by seed.

One folder for each (data, seed) keeps a checkpoint of every stage, so a stopped measurement goes on where it
was. Methods share what they may share by right: the self-supervised weights (they owe nothing to a label)
and, for students, the finished teacher.
"""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lauter.auditing.verdicts import make_label_table, score_labels
from lauter.bench.noisy_data import WAY_DATA, NoisyData
from lauter.bench.records import Record
from lauter.bench.scores import score_stage
from lauter.config import FitConfig, to_plain
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.errors import ConfigError
from lauter.files import read_json, write_json
from lauter.losses.classification import count_log_prior
from lauter.models import Network, count_flops
from lauter.noisy.recipe import pretrain
from lauter.noisy.robust import RobustStage
from lauter.pipeline import (
    build_network,
    make_setup,
    mimic_teacher,
    take_network,
    train_student,
    train_teacher,
)
from lauter.preparation import resolve_networks
from lauter.run import RunDirectory
from lauter.training.progress import Progress
from lauter.training.setup import Setup
from lauter.training.supervised import SupervisedStage
from lauter.training.tracking import TrackedStage

SUITE = "noisy"
METHODS = (
    "lauter",
    "ce",
    "ce-prior",
    "ce-true",
    "ce-true-prior",
    "mimic-kept",
    "mimic-kept-epochs",
    "lauter-long",
    "mimic-kept-long",
    "ce-kept",
    "ce-teacher",
    "ce-ssl-teacher",
    "ce-equal-cost",
)
"""lauter: the whole way; ce: plain cross-entropy on the given labels, same student, same images seen;
ce-prior: the same, prior-corrected; ce-true, ce-true-prior: the same two on true labels, the ceiling;
mimic-kept: lauter without the images whose label was dropped, as many images seen; mimic-kept-epochs: the
same for as many epochs instead, so fewer images; lauter-long, mimic-kept-long: both with a student that sees
LONG times as many images; ce-kept: cross-entropy on kept and corrected labels, no teacher; ce-teacher:
cross-entropy with the teacher's network; ce-ssl-teacher: the same from the self-supervised weights;
ce-equal-cost: ce for as many operations as the whole way took."""


LONG = 4
"""How many times as many images the students of the long rows see."""


def measure_way(
    name: str,
    seed: int,
    folders: tuple[Path, Path],
    work: Path,
    config: FitConfig,
    methods: Iterable[str] = METHODS,
    console: Console | None = None,
) -> list[Record]:
    """Measure one data set with one seed; what has been measured is not measured again.

    Args:
        name: one of ``WAY_DATA``.
        seed: decides data, networks, order.
        folders: of CIFAR-10 and CIFAR-100, with CIFAR-10N's labels as columns of the first.
        work: where checkpoints and each unit's records are kept.
        config: lengths and losses; one for all data sets.
        methods: which of ``METHODS``.
        console: where progress is shown.

    Returns:
        Every record of this unit so far.
    """
    data = WAY_DATA[name](*folders, seed)
    config = resolve_networks(dataclasses.replace(config, seed=seed), data.train)
    run = RunDirectory(work / name / str(seed))
    twin = work / data.noisy_twin / str(seed) / "checkpoints" / "pretrain.pt"
    if data.noisy_twin and twin.exists() and not (run.checkpoints / "pretrain.pt").exists():
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(twin, run.checkpoints / "pretrain.pt")
    write_json(run.path / "settings.json", to_plain(config))
    records: dict[str, dict[str, float]] = {}
    with Progress(run.path, console) as progress:
        setup = make_setup(data.train, data.test, config, progress, run)
        unit = _Unit(setup, data, config)
        for method in methods:
            place = run.path / f"{method}.json"
            if not place.exists():
                write_json(place, unit.measure(method))
            records |= read_json(place)
    return [
        Record(SUITE, name, method, seed, metric, value)
        for method, values in records.items()
        for metric, value in values.items()
    ]


class _Unit:
    """The methods on one data set with one seed; teacher and student are trained once."""

    def __init__(self, setup: Setup, data: NoisyData, config: FitConfig) -> None:
        self.setup, self.data, self.config = setup, data, config
        self._robust: RobustStage | None = None

    def measure(self, method: str) -> dict[str, dict[str, float]]:
        """Train what a method needs and score it: {method: {metric: value}}."""
        config, setup = self.config, self.setup
        given, truth = setup.data.labels, self.data.train.true_labels
        if method == "lauter":
            return self._measure_way()
        if method in ("ce", "ce-prior"):
            stage = self._supervise(method, config.student, given, prior=method == "ce-prior")
            return self._score(method, stage)
        if method in ("ce-true", "ce-true-prior"):
            if truth is None:
                raise ConfigError(f"{self.data.train.name} has no truth for the ceiling")
            stage = self._supervise(method, config.student, truth, prior=method == "ce-true-prior")
            return self._score(method, stage)
        if method == "ce-kept":
            targets = self.robust.judge.choose_targets()
            return self._score(method, self._supervise(method, config.student, targets))
        if method in ("mimic-kept", "mimic-kept-long"):
            times = LONG if method.endswith("long") else 1
            # As many images seen as the student that mimics on all of them.
            epochs = times * config.distill.epochs * len(setup.train) / len(self.kept_rows)
            return self._score(method, self._mimic(method, self.kept_rows, round(epochs)))
        if method == "mimic-kept-epochs":
            return self._score(method, self._mimic(method, self.kept_rows, config.distill.epochs))
        if method == "lauter-long":
            return self._score(method, self._mimic(method, setup.train, LONG * config.distill.epochs))
        if method == "ce-teacher":
            stage = self._supervise(method, config.teacher, given, epochs=config.robust.epochs)
            return self._score(method, stage)
        if method == "ce-ssl-teacher":
            network = build_network(setup, config.teacher, config, "teacher")
            pretrain(setup, network, config.pretrain)
            stage = self._supervise(method, network, given, epochs=config.robust.epochs)
            return self._score(method, stage)
        if method == "ce-equal-cost":
            student = build_network(setup, config.student, config, "student")
            per_epoch = 3 * count_flops(student) * len(setup.labelled_train)
            epochs = max(1, round(self._total_flops() / per_epoch))
            return self._score(method, self._supervise(method, student, given, epochs=epochs))
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {method!r}")

    @property
    def robust(self) -> RobustStage:
        """The finished robust stage: trained, or loaded from its checkpoint."""
        if self._robust is None:
            self._robust = train_teacher(self.setup, self.config)
        return self._robust

    def _measure_way(self) -> dict[str, dict[str, float]]:
        robust = self.robust
        teacher = take_network(robust, self.config.keep)
        mimic = train_student(self.setup, teacher, robust, self.config)
        table = make_label_table(self.setup.data, robust.judge, self.setup.holdout)
        found = {
            f"label_{name}": value
            for name, value in score_labels(self.data.train, table).items()
            if isinstance(value, float)
        }
        found["label_noise_estimated"] = robust.judge.assessment.noise_rate
        found["label_kept"] = float(robust.judge.assessment.kept[self.setup.data.labelled].mean())
        costs = self.setup.loop.costs
        stages = ["pretrain", "warmup", "robust", "inference", "distill"]
        total = {
            "seconds_total": sum(costs[name].seconds for name in stages if name in costs),
            "flops_total": sum(costs[name].flops for name in stages if name in costs),
            "images_total": float(sum(costs[name].images for name in stages if name in costs)),
        }
        return {
            **{name: {**values, **found, **total} for name, values in self._score("lauter", mimic).items()},
            **self._score("lauter-teacher", robust),
        }

    @property
    def kept_rows(self) -> Int64s:
        """Training rows whose label was kept or corrected."""
        targets = self.robust.judge.choose_targets()
        return np.asarray(self.setup.train[targets[self.setup.train] != UNLABELLED])

    def _mimic(self, name: str, rows: Int64s, epochs: int) -> TrackedStage:
        config = self.config
        targets = self.robust.judge.choose_targets()
        distill = dataclasses.replace(config.distill, epochs=max(1, epochs))
        teacher = take_network(self.robust, config.keep)
        return mimic_teacher(self.setup, teacher, targets, rows, config, distill, name=name)

    def _supervise(
        self, name: str, network: str | Network, labels: Int64s, *, epochs: int = 0, prior: bool = False
    ) -> SupervisedStage:
        """Cross-entropy on some labels, over as many images as the student sees (or ``epochs`` of all)."""
        setup, config = self.setup, self.config
        if isinstance(network, str):
            role = "student" if network == config.student else "teacher"
            network = build_network(setup, network, config, role)
        rows = setup.train[labels[setup.train] != UNLABELLED]
        passes = epochs or max(1, round(config.distill.epochs * len(setup.train) / len(rows)))
        supervised = dataclasses.replace(config.supervised, epochs=passes)
        batches = setup.batches("student", rows, supervised.batch_size)
        log_prior = count_log_prior(torch.from_numpy(labels[rows]), network.num_classes) if prior else None
        stage = SupervisedStage(name, network, labels, batches, supervised, setup.track(), log_prior)
        setup.loop.run_stage(stage)
        return stage

    def _total_flops(self) -> float:
        self.robust  # noqa: B018  # its stages' costs are counted when it is trained or loaded
        teacher = take_network(self.robust, self.config.keep)
        train_student(self.setup, teacher, self.robust, self.config)
        stages = ("pretrain", "warmup", "robust", "inference", "distill")
        return sum(self.setup.loop.costs[name].flops for name in stages if name in self.setup.loop.costs)

    def _score(self, method: str, stage: TrackedStage) -> dict[str, dict[str, float]]:
        cost = self.setup.loop.costs[stage.name]
        return {method: score_stage(stage, cost, self.data.train, self.data.test, self.config.seed)}


def read_work(work: Path) -> list[Record]:
    """Every record below a work folder."""
    records = []
    for place in sorted(work.glob("*/*/*.json")):
        if place.name == "settings.json":
            continue
        content: dict[str, Any] = read_json(place)
        name, seed = place.parent.parent.name, int(place.parent.name)
        records += [
            Record(SUITE, name, method, seed, metric, value)
            for method, values in content.items()
            for metric, value in values.items()
        ]
    return records
