"""The whole way in one function, and its two halves: robust training, and distillation."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from lauter.audit.verdicts import make_label_table
from lauter.config import FitConfig, load_preset, to_plain
from lauter.data import Dataset, available_splits, hold_out, open_dataset
from lauter.data.counters import derive_seed
from lauter.data.dataset import UNLABELLED, Int64s
from lauter.distill.mimic import Mimic, MimicConfig, MimicStage, fit_student_head
from lauter.errors import DataError, ModelError
from lauter.files import write_json
from lauter.models import CIFAR_ZOO, Network, create_network, default_networks, fold_head
from lauter.models.artefact import load_network, save_network
from lauter.noisy.recipe import NoisyConfig, train_robustly
from lauter.noisy.robust import RobustStage
from lauter.results import collect_metrics, write_run_report, write_student, write_table
from lauter.run import RunDirectory, open_run
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime
from lauter.training.setup import Setup
from lauter.training.supervised import SupervisedStage
from lauter.training.tracking import TrackedStage

Source = Dataset | str | Path


@dataclass(frozen=True, eq=False)
class FitResult:
    """What :func:`fit` found and made.

    Attributes:
        labels: the checked label table (see ``lauter.audit.verdicts.make_label_table``).
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


@dataclass(frozen=True)
class RunOptions:
    """What decides how a run is kept and shown, but not its result.

    Attributes:
        out: directory of the run; must be empty unless ``resume``.
        resume: continue the run in ``out``.
        tensorboard: also write TensorBoard logs there.
        console: where progress is shown; silent where None.
    """

    out: str | Path
    resume: bool = False
    tensorboard: bool = False
    console: Console | None = None


def fit(
    data: Source,
    student: str | None = None,
    teacher: str | None = None,
    *,
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
        student: name of the small network.
        teacher: name of the network that is trained robustly and mimicked.
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
    config = _override(config or load_preset(preset), asked)
    data, test = open_both(data, test, config)
    config = resolve_networks(config, data)
    create_network(config.student, data.num_classes, image_size=config.image_size)  # a wrong name ends here
    options = RunOptions(out, resume, tensorboard, console)
    run, progress = begin(options, "fit", data, test, config)
    with progress:
        setup = make_setup(data, test, config, progress, run)
        introduce(setup, data, test, f"{config.teacher} -> {config.student}")
        robust = train_teacher(setup, config)
        network = take_network(robust, config.keep)
        table = make_label_table(setup.data, robust, setup.holdout)
        write_table(table, run.labels)
        save_network(network, run.teacher, class_names=data.class_names)
        mimicking = train_student(setup, network, robust, config)
        small = fold_head(take_network(mimicking, config.keep))
        stages: dict[str, TrackedStage] = {"student": mimicking, "teacher": robust}
        if config.baseline:
            images = mimicking.batches.images_per_epoch * mimicking.epochs
            stages["baseline"] = train_baseline(setup, config, images)
        metrics = collect_metrics(data, test, setup, stages, robust, table, config.keep)
        write_student(run, small, setup, metrics, progress)
        _finish(run, data, table, metrics, started)
    return FitResult(table, small, network, data.class_names, metrics, run.path)


def train(
    data: Source,
    teacher: str | None = None,
    *,
    test: Source | None = None,
    config: FitConfig | None = None,
    options: RunOptions | None = None,
) -> TrainResult:
    """The first half: judge the labels and train one network in spite of them.

    Args:
        data: a data set, or what :func:`lauter.open_dataset` opens.
        teacher: name of the network.
        test: as for :func:`fit`.
        config: all settings; those of student and baseline are not used.
        options: directory, resume, console; ``lauter-run`` by default.
    """
    started = time.monotonic()
    config = _override(config or load_preset("standard"), {"teacher": teacher})
    data, test = open_both(data, test, config)
    config = resolve_networks(config, data)
    run, progress = begin(options or RunOptions("lauter-run"), "train", data, test, config)
    with progress:
        setup = make_setup(data, test, config, progress, run)
        introduce(setup, data, test, config.teacher)
        robust = train_teacher(setup, config)
        network = take_network(robust, config.keep)
        table = make_label_table(setup.data, robust, setup.holdout)
        write_table(table, run.labels)
        save_network(network, run.teacher, class_names=data.class_names)
        metrics = collect_metrics(data, test, setup, {"teacher": robust}, robust, table, config.keep)
        _finish(run, data, table, metrics, started)
    return TrainResult(table, network, data.class_names, metrics, run.path)


def distill(
    data: Source,
    teacher: str | Path | Network,
    student: str | None = None,
    *,
    labels: pd.DataFrame | str | Path | None = None,
    test: Source | None = None,
    config: FitConfig | None = None,
    options: RunOptions | None = None,
) -> DistillResult:
    """The second half: a student that mimics a finished teacher.

    Args:
        data: a data set, or what :func:`lauter.open_dataset` opens.
        teacher: a network, or the file that :func:`train` or :func:`fit` saved one to.
        student: name of the small network.
        labels: the checked label table of the same images, or its file: kept and corrected labels are
            learnt, all images mimic. Without one every given label is learnt.
        test: as for :func:`fit`.
        config: all settings; those of teacher and baseline are not used.
        options: directory, resume, console; ``lauter-run`` by default.

    Raises:
        LauterError: the teacher cannot be loaded or tells other classes apart, the table has other ids.
    """
    started = time.monotonic()
    config = _override(config or load_preset("standard"), {"student": student})
    network, names = (teacher, ()) if isinstance(teacher, Network) else load_network(teacher)
    data, test = open_both(data, test, config)
    if names and names != data.class_names:
        raise ModelError(
            f"the teacher tells {', '.join(names[:5])}... apart, the data has "
            f"{', '.join(data.class_names[:5])}...; they must be the same classes in the same order"
        )
    config = dataclasses.replace(resolve_networks(config, data), teacher=network.name)
    targets = data.labels if labels is None else read_targets(data, labels)
    run, progress = begin(options or RunOptions("lauter-run"), "distill", data, test, config)
    with progress:
        setup = make_setup(data, test, config, progress, run)
        introduce(setup, data, test, f"{network.name} -> {config.student}")
        rows = choose_rows(setup.train, targets, config.distill)
        mimicking = mimic_teacher(setup, network.eval(), targets, rows, config, config.distill)
        small = fold_head(take_network(mimicking, config.keep))
        metrics = collect_metrics(data, test, setup, {"student": mimicking}, None, None, config.keep)
        write_student(run, small, setup, metrics, progress)
        _finish(run, data, None, metrics, started)
    return DistillResult(small, data.class_names, metrics, run.path)


def _override(config: FitConfig, asked: dict[str, Any]) -> FitConfig:
    return dataclasses.replace(config, **{name: value for name, value in asked.items() if value is not None})


def _finish(
    run: RunDirectory, data: Dataset, table: pd.DataFrame | None, metrics: dict[str, Any], started: float
) -> None:
    metrics["cost"]["seconds_this_session"] = time.monotonic() - started
    write_json(run.metrics, metrics)
    write_run_report(run, data, table, metrics)


def begin(
    options: RunOptions, verb: str, data: Dataset, test: Dataset | None, config: FitConfig
) -> tuple[RunDirectory, Progress]:
    """Open the run directory with its settings, and the progress that writes there."""
    settings = {
        "verb": verb,
        "data": to_plain(data.source) or {"name": data.name},
        "fingerprint": data.fingerprint(),
        "test": None if test is None else to_plain(test.source) or {"name": test.name},
        "fit": to_plain(config),
    }
    run = open_run(options.out, settings, resume=options.resume)
    return run, Progress(run.path, options.console, tensorboard=options.tensorboard)


def read_targets(data: Dataset, labels: pd.DataFrame | str | Path) -> Int64s:
    """Labels to learn [N] from a checked label table: given where kept, suggested where relabelled, else -1.

    Raises:
        DataError: the table cannot be read, lacks images of the data, or names unknown classes.
    """
    if not isinstance(labels, pd.DataFrame):
        try:
            labels = pd.read_parquet(labels)
        except (OSError, ValueError) as error:
            raise DataError(f"the label table {labels} cannot be read: {error}") from error
    if missing := [name for name in ("id", "given", "verdict", "suggested") if name not in labels.columns]:
        raise DataError(f"the label table has no column {missing[0]!r}; it is not one that lauter wrote")
    rows = labels.set_index("id").reindex(data.ids)
    if absent := int(rows["verdict"].isna().sum()):
        name = str(data.ids[np.flatnonzero(rows["verdict"].isna())[0]])
        raise DataError(f"the label table lacks {absent} of the {len(data)} images, the first is {name!r}")
    number = {name: label for label, name in enumerate(data.class_names)}
    chosen = rows["given"].where(rows["verdict"] == "keep", rows["suggested"])
    chosen = chosen.where(rows["verdict"].isin(["keep", "relabel"]))
    if strange := sorted(set(chosen.dropna()) - set(number)):
        raise DataError(f"the label table has the class {strange[0]!r}, which the data has not")
    return np.array([number.get(name, UNLABELLED) for name in chosen], dtype=np.int64)


def open_both(data: Source, test: Source | None, config: FitConfig) -> tuple[Dataset, Dataset | None]:
    """Open data and test set; a split named test of a source opened here is taken as test set."""
    size = config.image_size or None
    if not isinstance(data, Dataset):
        if test is None and "test" in available_splits(data):
            test = open_dataset(data, split="test", image_size=size)
        data = open_dataset(data, image_size=size)
    if isinstance(test, str | Path):
        splits = available_splits(test)
        test = open_dataset(test, split="test" if "test" in splits else None, image_size=size)
    if test is not None and test.class_names != data.class_names:
        raise DataError(
            f"the test set has the classes {', '.join(test.class_names[:5])}..., the data "
            f"{', '.join(data.class_names[:5])}...; they must be the same in the same order"
        )
    return data, test


def resolve_networks(config: FitConfig, data: Dataset) -> FitConfig:
    """Fill in picture size, teacher and student where the config leaves them open."""
    stored = data.images.uniform
    own = int(data.source.get("image_size") or (224 if stored is None else stored.shape[-1]))
    student = config.student or default_networks(config.image_size or own)[1]
    size = config.image_size
    if not size:
        named = student in CIFAR_ZOO
        size = own if named else create_network(student, data.num_classes).input_spec.size
    teacher = config.teacher or default_networks(size)[0]
    return dataclasses.replace(config, student=student, teacher=teacher, image_size=size)


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
    """A network with weights drawn from (seed, role), whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, role))
        return create_network(name, setup.data.num_classes, image_size=setup.image_size, **options)


def train_teacher(setup: Setup, config: FitConfig) -> RobustStage:
    """Train the teacher robustly, from self-supervised weights or from given ones."""
    started = bool(config.teacher_weights or config.teacher_pretrained)
    options: dict[str, Any] = {"pretrained": config.teacher_pretrained}
    if config.teacher_weights:
        options |= {"weights": config.teacher_weights, "load_head": False}
    network = build_network(setup, config.teacher, config, "teacher", **options)
    pretrain = dataclasses.replace(config.pretrain, method="none") if started else config.pretrain
    return train_robustly(setup, network, NoisyConfig(pretrain, config.warmup, config.robust))


def choose_targets(robust: RobustStage, given: Int64s) -> Int64s:
    """Kept and corrected labels [N]; -1 where a label was dropped, is open to question, or never was."""
    targets = np.where(robust.corrected, robust.suggested, given)
    return np.where(robust.assessment.kept | robust.corrected, targets, UNLABELLED)


def train_student(setup: Setup, teacher: Network, robust: RobustStage, config: FitConfig) -> MimicStage:
    """Distil the teacher into the student: all images mimic, kept and corrected labels classify."""
    targets = choose_targets(robust, setup.data.labels)
    rows = choose_rows(setup.train, targets, config.distill)
    return mimic_teacher(setup, teacher, targets, rows, config, config.distill)


def choose_rows(train: Int64s, targets: Int64s, config: MimicConfig) -> Int64s:
    """Which training images mimic: all, or those with a label to learn."""
    return train if config.dropped_images else train[targets[train] != UNLABELLED]


def mimic_teacher(
    setup: Setup,
    teacher: Network,
    targets: Int64s,
    rows: Int64s,
    config: FitConfig,
    distill: MimicConfig,
    *,
    name: str = "distill",
) -> MimicStage:
    """Train a fresh student on the features of a teacher.

    Args:
        setup: images and rows.
        teacher: frozen.
        targets: [N] labels to classify, -1 for none.
        rows: which images mimic.
        config: names, seed.
        distill: the losses.
        name: of the stage.
    """
    student = build_network(setup, config.student, config, "student")
    fit_student_head(student, teacher, distill.head)
    features = setup.predict(teacher, rows).features
    loss = Mimic(distill, teacher, features, setup.image_size, config.seed)
    batches = setup.batches("student", rows, distill.batch_size)
    stage = MimicStage(
        student, teacher, loss, torch.from_numpy(targets), batches, distill, setup.track(), name
    )
    setup.loop.run_stage(stage)
    return stage


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


def introduce(setup: Setup, data: Dataset, test: Dataset | None, networks: str) -> None:
    """Say what is about to be done."""
    say = setup.loop.progress.say
    parts = [f"{len(data):,} images", f"{data.num_classes} classes"]
    if unlabelled := int((~data.labelled).sum()):
        parts.append(f"{unlabelled:,} without a label (they get a suggestion and teach by mimicking)")
    if dropped := sum(fault.dropped for fault in data.faults):
        parts.append(f"{dropped:,} files left out (the report says which)")
    say(f"data        {data.name}: {', '.join(parts)}")
    tested = f"{len(test):,} test images" if test else "no test set: scores are agreement with given labels"
    say(f"split       {len(setup.train):,} to train, {len(setup.holdout):,} held out, {tested}")
    runtime = setup.loop.runtime
    precision = "bf16" if runtime.precision == "bf16" else "float32"
    say(f"networks    {networks}, {setup.image_size} px, {precision} on {runtime.device}")
