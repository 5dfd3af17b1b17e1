"""Several labels per image in one function: a network trained plainly, or a student that mimics a teacher."""

import copy
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lauter.artefacts import MULTI_LABEL, TrainedModel
from lauter.config import FitConfig, load_preset
from lauter.data.counters import derive_seed
from lauter.data.multilabel import (
    MultiLabelDataset,
    available_multilabel_splits,
    hold_out_images,
    open_multilabel,
)
from lauter.distillation.heads import fit_student_head
from lauter.distillation.multilabel import check_multilabel, distill_multilabel, train_plainly
from lauter.errors import ConfigError, DataError, ModelError
from lauter.evaluation.multilabel import mean_average_precision, score_multilabel
from lauter.files import write_json
from lauter.models import Network, count_flops, count_parameters, create_network, fold_head
from lauter.models.artefact import load_network
from lauter.pipeline import take_network
from lauter.preparation import RunOptions, begin, hash_weights, resolve_networks
from lauter.results import summarise_costs, write_student
from lauter.run import RunDirectory, check_directory
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.multilabel import MultiLabelSetup, MultiLabelTracker
from lauter.training.predict import predict
from lauter.training.progress import format_seconds
from lauter.training.runtime import Runtime
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import draw_from
from lauter.training.tracking import TrackedStage

Source = MultiLabelDataset | str | Path


@dataclass(frozen=True, eq=False)
class MultiLabelResult:
    """What :func:`fit_multilabel` made: the folded network, metrics, directory."""

    student: Network
    class_names: tuple[str, ...]
    metrics: dict[str, Any]
    directory: Path


def load_multilabel_preset(name: str) -> FitConfig:
    """The settings of a preset for several labels per image.

    Args:
        name: quick (20 epochs), standard (40) or thorough (60, as published).

    Raises:
        ConfigError: there is no such preset.

    Source: optimiser, thorough's length and batch size after the multi-label recipe of Wang, Ge and Wu
    (2021), arXiv 2011.01424, for students with pretrained weights; beta is within their range of 0.5 to 3.
    The five epochs for the embedding and the two shorter lengths are ours.
    """
    config = load_preset(name)
    distill = dataclasses.replace(
        config.distill,
        epochs=min(config.distill.epochs, 60),
        embedding_epochs=5,
        batch_size=32,
        beta=1.0,
        prior_correction=False,
        head="embedded",
        optimizer=OptimizerConfig(lr=0.01),
    )
    return dataclasses.replace(config, distill=distill)


def fit_multilabel(
    data: Source,
    student: str | Network | None = None,
    teacher: str | Path | Network | None = None,
    *,
    test: Source | None = None,
    config: FitConfig | None = None,
    student_weights: str | Path | None = None,
    student_pretrained: bool = False,
    options: RunOptions | None = None,
) -> MultiLabelResult:
    """Train a network that tells which of several classes are in an image.

    With a teacher, the student's embedding learns to mimic its features first, then everything learns to
    mimic and to tell the classes. Without one, the network learns from the labels alone; it can be the
    teacher of the next call.

    Args:
        data: a multi-label data set, or what :func:`lauter.data.multilabel.open_multilabel` opens.
        student: name of the network that is trained, or a network of your own, a copy of which is trained.
        teacher: a network; a file that one was saved to; or the directory of a run, whose teacher is taken,
            or else what it trained.
        test: images to score on; they decide nothing. Where ``data`` is opened here and has a split named
            test, that is taken. Without any, scores are on the hold-out, by its given labels.
        config: settings, of which those of teacher, pretraining, warm-up, robust training, baseline and
            ``distill.prior_correction`` are not used; ``load_multilabel_preset("standard")`` where None.
        student_weights: a local file that the student's backbone starts from.
        student_pretrained: whether it starts from the weights that timm or torchvision offer.
        options: directory, resume, console; ``lauter-run`` by default.

    Returns:
        The network with its head folded, its metrics, and where they lie.

    Raises:
        LauterError: something about the input is wrong; the message says what and what to do.
    """
    started = time.monotonic()
    options = options or RunOptions()
    check_directory(options.out, resume=options.resume)
    config = config or load_multilabel_preset("standard")
    check_multilabel(config.distill)
    own = {"student": student} if isinstance(student, Network) else {}
    if own and (student_weights or student_pretrained):
        raise ConfigError("student_weights and student_pretrained are for a student named by its name")
    name = student.name if isinstance(student, Network) else student
    config = dataclasses.replace(config, student=name or config.student)
    guide, guide_names = _load_teacher(teacher)
    data, test = _open_both(data, test, config)
    if guide_names not in ((), data.class_names):
        raise ModelError(
            f"the teacher tells {', '.join(guide_names[:5])}... apart, the data has "
            f"{', '.join(data.class_names[:5])}...; they must be the same classes in the same order"
        )
    bare = data.without_targets()
    config = resolve_networks(config, bare, own)
    config = dataclasses.replace(config, teacher="none" if guide is None else guide.name)
    weights = {"weights": student_weights, "load_head": False} if student_weights else {}
    network = _build_student(config, own.get("student"), data, pretrained=student_pretrained, **weights)
    if guide is not None:
        with draw_from(config.seed, "student head"):
            fit_student_head(network, guide, config.distill.head)
    train, holdout = hold_out_images(data.targets, config.holdout, config.seed)
    runtime = Runtime(config.runtime)

    inputs = {"targets": data.fingerprint(), "student_start": hash_weights(network)}
    if guide is not None:
        inputs["teacher_hash"] = hash_weights(guide)
    tested = None if test is None else test.without_targets()
    run, progress = begin(options, "fit_multilabel", bare, tested, config, **inputs)
    with progress:
        loop = Loop(runtime, Checkpoints(run.checkpoints), progress, config.seed)
        pixels = None if test is None else test.images
        size, augment = config.image_size, config.augment
        setup = MultiLabelSetup(bare, train, holdout, pixels, loop, size, augment, targets=data.targets)
        _introduce(setup, data, test, config)
        rows = train if guide is not None and config.distill.dropped_images else train[data.labelled[train]]
        tracker = setup.track()
        stage: TrackedStage = (
            train_plainly(network, setup, rows, config.distill, tracker)
            if guide is None
            else distill_multilabel(network, guide, setup, rows, config.distill, tracker)
        )
        small = fold_head(take_network(stage, config.keep))
        metrics = {
            "student": {
                **score_tracker(tracker, test, data.class_names, config.seed),
                "kept": config.keep,
                "network": small.name,
                "parameters": count_parameters(small),
                "flops": count_flops(small),
            },
            "cost": summarise_costs(setup),
        }
        if run.leads:
            write_student(run, small, setup, metrics, progress, extra=MULTI_LABEL)
            metrics["cost"]["seconds_this_session"] = time.monotonic() - started
            write_json(run.metrics, metrics)
        runtime.group.wait()
    return MultiLabelResult(small, data.class_names, metrics, run.path)


def score_tracker(
    tracker: MultiLabelTracker, test: MultiLabelDataset | None, class_names: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """Scores of a stage's stored predictions, after training.

    Returns:
        ``selected`` and ``last`` with the mean average precision, its interval and the average precision of
        every class; ``selected_epoch``; ``scored_on``: test or hold-out; on a test set also ``oracle_gap``,
        the mean of the test-best epoch minus that of the selected one, which is never the result.
    """
    generator = np.random.default_rng(derive_seed(seed, "bootstrap"))
    targets, stored = (
        (tracker.given, tracker.holdout_logits) if test is None else (test.targets, tracker.test_logits)
    )
    epochs = [logits.float().numpy() for logits in stored]
    chosen, last = tracker.selected_epoch, len(epochs) - 1
    selected = score_multilabel(epochs[chosen], targets, generator)
    final = selected if chosen == last else score_multilabel(epochs[last], targets, generator)
    scores: dict[str, Any] = {
        "selected": selected.to_dict(class_names),
        "last": final.to_dict(class_names),
        "selected_epoch": chosen,
        "scored_on": "hold-out" if test is None else "test",
    }
    if test is not None:
        best = max(mean_average_precision(logits, targets) for logits in epochs)
        scores["oracle_gap"] = best - selected.mean_average_precision.value
    return scores


def evaluate_multilabel(
    model: TrainedModel, data: MultiLabelDataset, *, seed: int = 0, runtime: Runtime | None = None
) -> dict[str, Any]:
    """Score a saved model on images with several labels.

    Args:
        model: what :func:`lauter.load` opened.
        data: images with the model's classes.
        seed: of the bootstrap.
        runtime: device and precision.

    Returns:
        ``mean_average_precision`` {"value", "low", "high"} and ``average_precision`` by class name.

    Raises:
        DataError: the model is one for single labels, the classes differ, or there is nothing to find.
    """
    if not model.multi_label:
        raise DataError("the model gives every image one class; score it with lauter.evaluate")
    _check_classes(model.class_names, data, "the model")
    size = model.network.input_spec.size
    seen = predict(model.network, data.images, runtime or Runtime(), image_size=size)
    scores = score_multilabel(seen.logits.numpy(), data.targets, np.random.default_rng(seed))
    return scores.to_dict(data.class_names)


def summarise_multilabel(metrics: dict[str, Any]) -> str:
    """The result in a few lines for a terminal."""
    entry = metrics["student"]
    value = entry[entry["kept"]]["mean_average_precision"]
    by = "the test set" if entry["scored_on"] == "test" else "the hold-out, by its given labels"
    return (
        f"student     mean average precision {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}] "
        f"on {by}  {entry['network']}, {entry['parameters']:,} parameters\n"
        f"time        {format_seconds(metrics['cost']['seconds'])}"
    )


def _load_teacher(teacher: str | Path | Network | None) -> tuple[Network | None, tuple[str, ...]]:
    """The teacher with its class names; of a directory, the run's teacher or else what it trained."""
    if teacher is None or isinstance(teacher, Network):
        return teacher, ()
    path = Path(teacher)
    if path.is_dir():
        run = RunDirectory(path)
        path = run.teacher if run.teacher.exists() else run.student
    return load_network(path)


def _open_both(
    data: Source, test: Source | None, config: FitConfig
) -> tuple[MultiLabelDataset, MultiLabelDataset | None]:
    """Open data and test set; a split named test of a source opened here is taken as test set."""
    size = config.image_size or None
    spec, split = test, None
    if not isinstance(data, MultiLabelDataset):
        if test is None and "test" in available_multilabel_splits(data):
            spec, split = data, "test"
        data = open_multilabel(data, image_size=size)
    if spec is None or isinstance(spec, MultiLabelDataset):
        opened = spec
    else:
        if split is None and "test" in available_multilabel_splits(spec):
            split = "test"
        opened = open_multilabel(spec, split=split, image_size=size, class_names=data.class_names)
    if opened is not None:
        _check_classes(data.class_names, opened, "the data")
        if not (opened.targets == 1).any():
            raise DataError(f"the test set {opened.name} has no label to score by")
    return data, opened


def _check_classes(names: tuple[str, ...], data: MultiLabelDataset, who: str) -> None:
    if names != data.class_names:
        raise DataError(
            f"{who} has the classes {', '.join(names[:5])}..., {data.name} {', '.join(data.class_names[:5])}"
            "...; they must be the same in the same order: open it with class_names="
        )


def _build_student(
    config: FitConfig, own: Network | None, data: MultiLabelDataset, **options: Any
) -> Network:
    """A copy of the caller's network, or one with weights drawn from the seed or from a file."""
    if own is None:
        with draw_from(config.seed, "student"):
            return create_network(config.student, data.num_classes, image_size=config.image_size, **options)
    if own.num_classes != data.num_classes:
        raise ModelError(
            f"the student tells {own.num_classes} classes apart, the data has {data.num_classes}"
        )
    return copy.deepcopy(own)


def _introduce(
    setup: MultiLabelSetup, data: MultiLabelDataset, test: MultiLabelDataset | None, config: FitConfig
) -> None:
    """Say what is about to be done."""
    say = setup.loop.progress.say
    labels = int((data.targets == 1).sum())
    parts = [
        f"{len(data):,} images",
        f"{data.num_classes} classes",
        f"{labels / len(data):.2f} labels an image",
    ]
    if unknown := int((data.targets < 0).sum()):
        parts.append(f"{unknown:,} unknown ones (neither learnt nor scored)")
    if dropped := len({fault.id for fault in data.faults if fault.dropped}):
        parts.append(f"{dropped:,} files left out")
    say(f"data        {data.name}: {', '.join(parts)}")
    tested = "no test set: scores are on the hold-out" if test is None else f"{len(test):,} test images"
    say(f"split       {len(setup.train):,} to train, {len(setup.holdout):,} held out, {tested}")
    runtime = setup.loop.runtime
    precision = "bf16" if runtime.precision == "bf16" else "float32"
    way = f"{config.teacher} -> {config.student}" if config.teacher != "none" else config.student
    say(f"networks    {way}, {setup.image_size} px, {precision} on {runtime.device}")
