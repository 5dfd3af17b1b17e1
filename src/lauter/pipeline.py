"""The whole way in one function, and its two halves: robust training, and distillation."""

import copy
import dataclasses
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from lauter.auditing.label_table import LabelTable, add_history, choose_targets, with_checked_labels
from lauter.auditing.verdicts import make_label_table
from lauter.config import FitConfig, load_preset
from lauter.data import Dataset, hold_out
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.distillation.analysis import compare_pair
from lauter.distillation.heads import fit_student_head
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.recipe import distill_into
from lauter.distillation.stage import DistillStage
from lauter.distillation.stored import Stored
from lauter.errors import ConfigError, DataError, ModelError
from lauter.files import write_json
from lauter.models import EmbeddedHead, Network, count_flops, count_parameters, create_network, fold_head
from lauter.models.artefact import save_network
from lauter.noisy.recipe import NoisyConfig, train_robustly
from lauter.noisy.robust import RobustStage
from lauter.preparation import RunOptions as RunOptions
from lauter.preparation import (
    Source,
    begin,
    check_start,
    hash_array,
    hash_weights,
    introduce,
    open_both,
    open_teacher,
    resolve_networks,
    split_networks,
    teacher_weights,
)
from lauter.results import collect_metrics, write_run_report, write_student, write_table
from lauter.run import RunDirectory, check_directory, undo_if_refused
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime
from lauter.training.setup import Setup, draw_from
from lauter.training.supervised import SupervisedStage
from lauter.training.tracking import TrackedStage


@dataclass(frozen=True, eq=False)
class FitResult:
    """What :func:`fit` found and made.

    Attributes:
        labels: the checked label table (see ``lauter.auditing.verdicts.make_label_table``).
        student: the small network, head folded, in eval mode.
        teacher: the network it mimicked.
        class_names: K names by label.
        metrics: what metrics.json holds.
        directory: where everything lies.
    """

    labels: pd.DataFrame
    student: Network
    teacher: Network
    class_names: tuple[str, ...]
    metrics: dict[str, Any]
    directory: Path


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What :func:`train` found and made: labels, the robust network, metrics, directory."""

    labels: pd.DataFrame
    network: Network
    class_names: tuple[str, ...]
    metrics: dict[str, Any]
    directory: Path


@dataclass(frozen=True, eq=False)
class DistillResult:
    """What :func:`distill` made: the folded student, metrics, directory."""

    student: Network
    class_names: tuple[str, ...]
    metrics: dict[str, Any]
    directory: Path


def fit(
    data: Source,
    student: str | Network | None = None,
    teacher: str | Network | None = None,
    *,
    labels: LabelTable | None = None,
    drop: bool = False,
    test: Source | None = None,
    preset: str = "standard",
    config: FitConfig | None = None,
    out: str | Path = "lauter-run",
    seed: int | None = None,
    baseline: bool | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> FitResult:
    """From images with doubtful labels to a small trained model and a checked label table.

    Args:
        data: a data set, or what :func:`lauter.open_dataset` opens.
        student: name of the small network; or a network of your own (see :func:`lauter.wrap_module`), a copy
            of which is trained.
        teacher: name of the network that is trained robustly and mimicked, or a network of your own.
        labels: a checked label table of the same images, or its file, whose labels take the given ones' place
            (see :func:`lauter.with_checked_labels`).
        drop: whether images that the table drops are left out, in place of teaching by mimicking.
        test: images with labels to score on; they decide nothing. Where ``data`` is opened here and has a
            split named test, that is taken. Without any, the hold-out's given labels are all there is, and
            the score is called agreement_with_given.
        preset: quick, standard or thorough; ignored where ``config`` is given.
        config: all settings; the arguments beside it override their namesakes.
        out: directory of the run; must be empty unless ``resume``.
        seed: of everything drawn.
        baseline: whether plain cross-entropy is trained beside.
        resume: continue the run in ``out``.
        tensorboard: also write TensorBoard logs there.
        console: where progress is shown; silent where None.

    Returns:
        The label table, both networks, the metrics, and where they lie.

    Raises:
        LauterError: something about the input is wrong; the message says what and what to do.
    """
    started = time.monotonic()
    asked = {"student": student, "teacher": teacher, "seed": seed, "baseline": baseline}
    options = RunOptions(out, resume, tensorboard, console)
    check_directory(out, resume=resume)
    names, own = split_networks(asked)
    config = _override(config or load_preset(preset), names)
    data, test = open_both(data, test, config)
    data = _take_labels(data, labels, drop)
    config = resolve_networks(config, data, own)
    check_start(data, config, own=own)
    brought = {f"{role}_hash": hash_weights(network) for role, network in own.items()}
    run, progress = begin(options, "fit", data, test, config, **brought)
    with undo_if_refused(run), progress:
        setup = dataclasses.replace(make_setup(data, test, config, progress, run), own=own)
        introduce(setup, data, test, f"{config.teacher} -> {config.student}")
        robust = train_teacher(setup, config)
        network = take_network(robust, config.keep)
        table = add_history(make_label_table(setup.data, robust.judge, setup.holdout), data)
        if run.leads:
            write_table(table, run.labels)
            save_network(network, run.teacher, class_names=data.class_names)
        mimicking = train_student(setup, network, robust, config)
        small = finish_student(run, setup, mimicking, network, config.keep)
        stages: dict[str, TrackedStage] = {"student": mimicking, "teacher": robust}
        if config.baseline:
            images = mimicking.batches.images_per_epoch * mimicking.epochs
            stages["baseline"] = train_baseline(setup, config, images)
        metrics = collect_metrics(data, test, setup, stages, robust, table, config.keep)
        if run.leads:
            write_student(run, small, setup, metrics, progress)
            _finish(run, data, table, metrics, started)
        setup.loop.runtime.group.wait()
    return FitResult(table, small, network, data.class_names, metrics, run.path)


def train(
    data: Source,
    teacher: str | None = None,
    *,
    labels: LabelTable | None = None,
    drop: bool = False,
    test: Source | None = None,
    config: FitConfig | None = None,
    options: RunOptions | None = None,
) -> TrainResult:
    """The first half: judge the labels and train one network in spite of them.

    Args:
        data: a data set, or what :func:`lauter.open_dataset` opens.
        teacher: name of the network.
        labels: as for :func:`fit`.
        drop: as for :func:`fit`.
        test: as for :func:`fit`.
        config: all settings; those of student and baseline are not used.
        options: directory, resume, console; ``lauter-run`` by default.

    Raises:
        LauterError: something about the input is wrong; the message says what and what to do.
    """
    started = time.monotonic()
    options = options or RunOptions()
    check_directory(options.out, resume=options.resume)
    config = _override(config or load_preset("standard"), {"teacher": teacher})
    data, test = open_both(data, test, config)
    data = _take_labels(data, labels, drop)
    config = resolve_networks(config, data)
    check_start(data, config, student=False)
    run, progress = begin(options, "train", data, test, config)
    with undo_if_refused(run), progress:
        setup = make_setup(data, test, config, progress, run)
        introduce(setup, data, test, config.teacher)
        robust = train_teacher(setup, config)
        network = take_network(robust, config.keep)
        table = add_history(make_label_table(setup.data, robust.judge, setup.holdout), data)
        if run.leads:
            write_table(table, run.labels)
            save_network(network, run.teacher, class_names=data.class_names)
        metrics = collect_metrics(data, test, setup, {"teacher": robust}, robust, table, config.keep)
        if run.leads:
            _finish(run, data, table, metrics, started)
        setup.loop.runtime.group.wait()
    return TrainResult(table, network, data.class_names, metrics, run.path)


def distill(
    data: Source,
    teacher: str | Path | Network | Stored,
    student: str | None = None,
    *,
    labels: LabelTable | None = None,
    test: Source | None = None,
    config: FitConfig | None = None,
    options: RunOptions | None = None,
    row_order: bool = False,
) -> DistillResult:
    """The second half: a student that mimics a finished teacher.

    Args:
        data: a data set, or what :func:`lauter.open_dataset` opens.
        teacher: a network, or the file that :func:`train` or :func:`fit` saved one to, or their directory; or
            features of the same images without any network, or a file of them (.npy, .safetensors, .parquet;
            see :func:`lauter.distillation.stored.read_features`); or the name of a network whose weights
            ``config.teacher_weights`` or ``config.teacher_pretrained`` give, taken without its classifier.
        student: name of the small network.
        labels: the checked label table of the same images, or its file: kept and corrected labels are
            learnt, all images mimic. Without one every given label is learnt.
        test: as for :func:`fit`.
        config: all settings; those of training a teacher and of the baseline are not used.
        options: directory, resume, console; ``lauter-run`` by default.
        row_order: whether the rows of a features file without ids are the data's rows, in its order.

    Raises:
        LauterError: the teacher cannot be loaded or tells other classes apart, the table has other ids.
    """
    started = time.monotonic()
    options = options or RunOptions()
    check_directory(options.out, resume=options.resume)
    config = _override(config or load_preset("standard"), {"student": student})
    data, test = open_both(data, test, config)
    network, names = (
        (teacher, ())
        if isinstance(teacher, Network | Stored)
        else open_teacher(teacher, config, data, row_order=row_order)
    )
    if names and names != data.class_names:
        raise ModelError(
            f"the teacher tells {', '.join(names[:5])}... apart, the data has "
            f"{', '.join(data.class_names[:5])}...; they must be the same classes in the same order"
        )
    config = dataclasses.replace(resolve_networks(config, data), teacher=network.name)
    targets = data.labels if labels is None else choose_targets(data, labels)
    check_start(data, config, teacher=False)
    hashed = hash_array(network.features.numpy()) if isinstance(network, Stored) else hash_weights(network)
    inputs = {"teacher": hashed, "targets": hash_array(targets)}
    run, progress = begin(options, "distill", data, test, config, **inputs)
    with undo_if_refused(run), progress:
        setup = make_setup(data, test, config, progress, run)
        introduce(setup, data, test, f"{network.name} -> {config.student}")
        rows = choose_rows(setup.train, targets, config.distill)
        mimicking = mimic_teacher(setup, network, targets, rows, config, config.distill)
        small = finish_student(run, setup, mimicking, network, config.keep)
        metrics = collect_metrics(data, test, setup, {"student": mimicking}, None, None, config.keep)
        if run.leads:
            write_student(run, small, setup, metrics, progress)
            _finish(run, data, None, metrics, started)
        setup.loop.runtime.group.wait()
    return DistillResult(small, data.class_names, metrics, run.path)


def _take_labels(data: Dataset, labels: LabelTable | None, drop: bool) -> Dataset:
    """The data under checked labels, where there is a table of them."""
    if labels is not None:
        return with_checked_labels(data, labels, drop=drop)
    if drop:
        raise ConfigError("drop leaves out what a label table drops, and there is none; pass labels too")
    return data


def _override(config: FitConfig, asked: dict[str, Any]) -> FitConfig:
    return dataclasses.replace(config, **{name: value for name, value in asked.items() if value is not None})


def _finish(
    run: RunDirectory, data: Dataset, table: pd.DataFrame | None, metrics: dict[str, Any], started: float
) -> None:
    metrics["cost"]["seconds_this_session"] = time.monotonic() - started
    write_json(run.metrics, metrics)
    write_run_report(run, data, table, metrics)


def make_setup(
    data: Dataset, test: Dataset | None, config: FitConfig, progress: Progress, run: RunDirectory | None
) -> Setup:
    """Split off the hold-out and set up the loop; the truth stays behind here."""
    train, holdout = hold_out(data, config.holdout, config.seed)
    loop = Loop(
        runtime=Runtime(config.runtime),
        checkpoints=Checkpoints(None if run is None else run.checkpoints),
        progress=progress,
        seed=config.seed,
    )
    return Setup(
        data.without_truth(),
        train,
        holdout,
        None if test is None else test.images,
        loop,
        config.image_size,
        config.augment,
    )


def build_network(setup: Setup, name: str, config: FitConfig, role: str, **options: Any) -> Network:
    """A network with weights drawn from (seed, role), or a copy of the one that the caller brought."""
    if role in setup.own:
        return copy.deepcopy(setup.own[role])
    with draw_from(config.seed, role), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said once, when the names were checked
        return create_network(name, setup.data.num_classes, image_size=setup.image_size, **options)


def train_teacher(setup: Setup, config: FitConfig) -> RobustStage:
    """Train the teacher robustly, from self-supervised weights or from given ones."""
    network = build_network(setup, config.teacher, config, "teacher", **teacher_weights(config))
    started = bool(config.teacher_weights or config.teacher_pretrained)
    pretrain = dataclasses.replace(config.pretrain, method="none") if started else config.pretrain
    with draw_from(config.seed, "robust"):  # a stage's own modules, such as a projector
        return train_robustly(setup, network, NoisyConfig(pretrain, config.warmup, config.robust))


def train_student(setup: Setup, teacher: Network, robust: RobustStage, config: FitConfig) -> DistillStage:
    """Distil the teacher into the student: all images mimic, kept and corrected labels classify."""
    targets = robust.judge.choose_targets()
    rows = choose_rows(setup.train, targets, config.distill)
    return mimic_teacher(setup, teacher, targets, rows, config, config.distill)


def choose_rows(train: Int64s, targets: Int64s, config: MimicConfig) -> Int64s:
    """Which training images mimic: all, or those with a label to learn."""
    return train if config.dropped_images else train[targets[train] != UNLABELLED]


def mimic_teacher(
    setup: Setup,
    teacher: Network | Stored,
    targets: Int64s,
    rows: Int64s,
    config: FitConfig,
    distill: MimicConfig,
    *,
    name: str = "distill",
) -> DistillStage:
    """Train a fresh student on the features of a teacher.

    Args:
        setup: images and rows.
        teacher: a network, which is frozen, or its stored features.
        targets: [N] labels to classify, -1 for none.
        rows: which images mimic.
        config: names, seed.
        distill: the losses.
        name: of the stage.
    """
    student = build_network(setup, config.student, config, "student")
    with draw_from(config.seed, "student head"):
        fit_student_head(student, teacher, distill.head)
    return distill_into(student, teacher, setup, torch.from_numpy(targets), rows, distill, name=name)


def finish_student(
    run: RunDirectory, setup: Setup, stage: DistillStage, teacher: Network | Stored, keep: str
) -> Network:
    """The kept student with its head folded; its features are compared with the teacher's before that.

    The comparison, on the hold-out, is written to comparison.json for the report.
    """
    student = take_network(stage, keep)
    try:
        found = compare_pair(setup, student, teacher, stage.method, setup.holdout)
    except DataError as error:
        setup.loop.progress.say(f"comparison  not written: {error}")
    else:
        if found is not None and run.leads:
            write_json(run.comparison, found.to_plain())
    folded = fold_head(student)
    if isinstance(student.head, EmbeddedHead):
        setup.loop.progress.say(describe_folding(student, folded))
    return folded


def describe_folding(student: Network, folded: Network) -> str:
    """One line on what folding left, after checking that it is a plain network's cost.

    Raises:
        ModelError: the folded network is not as small as backbone and one linear layer.
    """
    classifier = folded.feature_size * folded.num_classes
    plain = sum(entry.numel() for entry in folded.backbone.parameters()) + classifier + folded.num_classes
    found, flops = count_parameters(folded), count_flops(folded)
    if found != plain or flops > count_flops(student):
        raise ModelError(
            f"the folded {folded.name} has {found:,} parameters and a plain one {plain:,}; "
            "its head is more than one linear layer with a bias"
        )
    return (
        f"student     {found:,} parameters, {flops / 1e6:,.1f} MFLOPs an image, as a plain {folded.name}; "
        f"while it trained {count_parameters(student):,} and {count_flops(student) / 1e6:,.1f}"
    )


def train_baseline(
    setup: Setup, config: FitConfig, images: int, *, name: str = "baseline", network: str = ""
) -> SupervisedStage:
    """Plain cross-entropy on the given labels, over about ``images`` images, as many as the student saw."""
    rows = setup.labelled_train
    epochs = max(1, round(images / len(rows)))
    supervised = dataclasses.replace(config.supervised, epochs=epochs)
    model = build_network(setup, network or config.student, config, "student")
    batches = setup.batches("student", rows, supervised.batch_size)
    stage = SupervisedStage(name, model, setup.data.labels, batches, supervised, setup.track())
    setup.loop.run_stage(stage)
    return stage


def take_network(stage: TrackedStage, keep: str) -> Network:
    """The stage's network with the weights of the kept epoch, in eval mode and frozen."""
    network = stage.evaluated
    if keep == "selected":
        network.load_state_dict(stage.tracker.selected)
    network.eval().requires_grad_(False)
    return network
