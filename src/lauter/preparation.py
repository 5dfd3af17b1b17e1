"""Before the first step: data opened, networks named, and whatever would fail later tried now.

Nothing is written before all of that went well, and nothing is trained.
"""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lauter.config import FitConfig, to_plain
from lauter.data import Dataset, available_splits, hold_out, open_dataset
from lauter.distillation.stored import Stored, is_features_file, read_features
from lauter.errors import ConfigError, DataError, LauterError, ModelError
from lauter.models import CIFAR_ZOO, Network, create_network, default_networks, load_network
from lauter.run import RunDirectory, check_directory, open_run
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime
from lauter.training.setup import Setup

Source = Dataset | str | Path


@dataclass(frozen=True)
class RunOptions:
    """What decides how a run is kept and shown, but not its result.

    Attributes:
        out: directory of the run; must be empty unless ``resume``.
        resume: continue the run in ``out``; where there is none, it is begun.
        tensorboard: also write TensorBoard logs there.
        console: where progress is shown; silent where None.
    """

    out: str | Path = "lauter-run"
    resume: bool = False
    tensorboard: bool = False
    console: Console | None = None


def open_both(data: Source, test: Source | None, config: FitConfig) -> tuple[Dataset, Dataset | None]:
    """Open data and test set; a split named test of a source opened here is taken as test set.

    Raises:
        DataError: one of them cannot be opened, their classes differ, or nothing in the test set can score.
    """
    own_test = not isinstance(data, Dataset) and test is None and "test" in available_splits(data)
    spec = data if own_test else test
    if not isinstance(data, Dataset):
        data = open_dataset(data, image_size=config.image_size or None)
    if spec is None:
        return data, None
    if not isinstance(spec, Dataset):
        return data, open_test(spec, data)
    if spec.class_names != data.class_names:
        raise DataError(
            f"the test set has the classes {', '.join(spec.class_names[:5])}..., the data "
            f"{', '.join(data.class_names[:5])}...; they must be the same in the same order"
        )
    return data, take_scorable(spec)


def open_test(
    spec: str | Path,
    data: Dataset,
    *,
    split: str | None = None,
    label_column: str | None = None,
    truth_column: str | None = None,
    **columns: str | None,
) -> Dataset:
    """Open images to score on, with the classes and the picture size of the data.

    A test set beside the data often has other columns than the data: both of them, or the truth alone (as
    CIFAR-10 beside CIFAR-10N's labels), or none because it is a folder. It is scored by its truth column
    where it has that, else by the other column that was named, else by the labels it has.

    Args:
        spec: what :func:`lauter.open_dataset` opens.
        data: the data it is a test set of.
        split: which part; the one named test where None and there is one.
        label_column: the data's column of given labels.
        truth_column: the data's column of true labels.
        columns: image_column and id_column of the data.

    Raises:
        DataError: it can be opened in none of these ways; what the first way said.
    """
    if split is None and "test" in available_splits(spec):
        split = "test"
    ways = [(label_column, truth_column), (truth_column, None), (label_column, None), (None, None)]
    refusals: list[LauterError] = []
    for label, truth in dict.fromkeys(ways):
        named = columns if label or truth else {}
        try:
            test = open_dataset(
                spec,
                split=split,
                label_column=label,
                truth_column=truth,
                class_names=data.class_names,
                min_per_class=0,
                image_size=data.source.get("image_size"),
                reduced_decoding=bool(data.source.get("reduced_decoding")),
                **named,  # type: ignore[arg-type]
            )
        except LauterError as error:
            refusals.append(error)
        else:
            return take_scorable(test)
    raise refusals[0]


def take_scorable(test: Dataset) -> Dataset:
    """The images that can be scored: with a truth all of them, else those with a label."""
    if test.true_labels is not None or bool(test.labelled.all()):
        return test
    if not test.labelled.any():
        raise DataError(f"the test set {test.name} has no label to score by")
    return test.subset(test.labelled)


def split_networks(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Network]]:
    """Names for the config, and the networks that the caller brought instead of one, by role."""
    own = {role: value for role, value in asked.items() if isinstance(value, Network)}
    return {role: own[role].name if role in own else value for role, value in asked.items()}, own


def resolve_networks(config: FitConfig, data: Dataset, own: Mapping[str, Network] | None = None) -> FitConfig:
    """Fill in picture size, teacher and student where the config leaves them open.

    Args:
        config: as asked for.
        data: decides the size for networks of the zoo.
        own: networks that the caller brought, by role; a student of these states its size itself.
    """
    stored = data.images.uniform
    of_data = int(data.source.get("image_size") or (224 if stored is None else stored.shape[-1]))
    student = config.student or default_networks(config.image_size or of_data)[1]
    size = config.image_size
    if not size and own and "student" in own:
        size = own["student"].input_spec.size
    elif not size:
        in_zoo = student in CIFAR_ZOO
        size = of_data if in_zoo else create_network(student, data.num_classes).input_spec.size
    teacher = config.teacher or default_networks(size)[0]
    return dataclasses.replace(config, student=student, teacher=teacher, image_size=size)


def teacher_weights(config: FitConfig) -> dict[str, Any]:
    """Where the teacher's backbone starts from, as arguments of :func:`lauter.create_network`."""
    if config.teacher_weights:
        return {"weights": config.teacher_weights, "load_head": False}
    return {"pretrained": config.teacher_pretrained}


def open_teacher(
    teacher: str | Path, config: FitConfig, data: Dataset, *, row_order: bool = False
) -> tuple[Network | Stored, tuple[str, ...]]:
    """Open a finished teacher, and the names of its classes where its file states them.

    Args:
        teacher: a network's file, a run's directory, a features file; or the name of a network, whose weights
            ``teacher_weights`` or ``teacher_pretrained`` give. By name it is taken without its classifier and
            sees pictures at its own size.
        config: names the weights.
        data: its ids join stored features.
        row_order: whether the rows of a features file without ids are the data's rows, in its order.

    Raises:
        ConfigError: there is no such file, and no weights for a network of that name.
        DataError: the features do not fit the data.
        ModelError: the weights cannot be read or had.
    """
    path = Path(teacher).expanduser()
    if is_features_file(path):
        return read_features(path, data.ids, row_order=row_order), ()
    if path.is_dir() or path.exists() or path.suffix in (".safetensors", ".pt", ".pth"):
        network, names = load_network(RunDirectory(path).teacher if path.is_dir() else path)
        return network.eval(), names
    if not config.teacher_weights and not config.teacher_pretrained:
        raise ConfigError(
            f"the teacher {str(teacher)!r} is no file, and as a network's name it brings no weights; add "
            "--teacher-weights FILE or --teacher-pretrained"
        )
    return create_network(str(teacher), 0, **teacher_weights(config)).eval(), ()


def check_start(
    data: Dataset,
    config: FitConfig,
    *,
    teacher: bool = True,
    student: bool = True,
    own: Mapping[str, Network] | None = None,
) -> None:
    """Try what would otherwise fail after hours, or after files were written.

    Args:
        data: what is trained on.
        config: with names and size filled in.
        teacher: whether the config's teacher is built.
        student: whether its student is.
        own: networks that the caller brought, by role.

    Raises:
        LauterError: the device is not there, an embedding is to be trained that the head lacks, nothing is
            held out, a network's name is unknown, or weights are missing or do not fit.
    """
    Runtime(config.runtime)
    if student and config.distill.embedding_epochs and config.distill.head == "own":
        raise ConfigError(
            f"embedding_epochs {config.distill.embedding_epochs} needs an embedding, which head own has only "
            "where the feature sizes differ; take head embedded or teacher"
        )
    if student and not config.distill.gamma and config.distill.head != "teacher":
        raise ConfigError(
            f"gamma 0 learns from no label, so the classifier of head {config.distill.head} would never be "
            "trained; take head teacher, which brings a trained one"
        )
    hold_out(data, config.holdout, config.seed)
    own = own or {}
    for role, network in own.items():
        if network.num_classes != data.num_classes:
            raise ModelError(
                f"the {role} tells {network.num_classes} classes apart, the data has {data.num_classes}"
            )
    with torch.random.fork_rng():
        if student and "student" not in own:
            create_network(config.student, data.num_classes, image_size=config.image_size)
        if teacher and "teacher" not in own:
            options = teacher_weights(config)
            create_network(config.teacher, data.num_classes, image_size=config.image_size, **options)


def hash_array(values: np.typing.NDArray[Any]) -> str:
    """A short hash of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def hash_weights(network: Network) -> str:
    """A short hash of a network's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def begin(
    options: RunOptions, verb: str, data: Dataset, test: Dataset | None, config: FitConfig, **inputs: str
) -> tuple[RunDirectory, Progress]:
    """Open the run directory with its settings, and the progress that writes there.

    Args:
        options: where, and whether to continue what is there.
        verb: fit, train or distill.
        data: what is trained on.
        test: what is scored on.
        config: with names and size filled in.
        inputs: hashes of whatever else decides the result; a resumed run must have the same.
    """
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "TensorBoard was asked for but is not installed: pip install 'lauter[loggers]', or leave it out"
        )
    settings = {
        "verb": verb,
        "data": to_plain(data.source) or {"name": data.name},
        "fingerprint": data.fingerprint(),
        "test": None if test is None else to_plain(test.source) or {"name": test.name},
        **inputs,
        "fit": to_plain(config),
    }
    continued = check_directory(options.out, resume=options.resume)
    run = open_run(options.out, settings, resume=options.resume)
    progress = Progress(run.path, options.console, tensorboard=options.tensorboard)
    if options.resume:
        progress.say(f"resume      {run.path}" + ("" if continued else " holds no run yet: begun anew"))
    return run, progress


def introduce(setup: Setup, data: Dataset, test: Dataset | None, networks: str) -> None:
    """Say what is about to be done."""
    say = setup.loop.progress.say
    parts = [f"{len(data):,} images", f"{data.num_classes} classes"]
    if unlabelled := int((~data.labelled).sum()):
        parts.append(f"{unlabelled:,} without a label (they get a suggestion and teach by mimicking)")
    if dropped := len({fault.id for fault in data.faults if fault.dropped}):
        parts.append(f"{dropped:,} files left out (the report says which)")
    if changed := len({fault.id for fault in data.faults if not fault.dropped}):
        parts.append(f"{changed:,} turned or converted")
    say(f"data        {data.name}: {', '.join(parts)}")
    if checked := data.source.get("checked_labels"):
        counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in checked["counts"].items() if count]
        say(f"labels      from {checked['file'] or 'a checked table'}: {', '.join(counts)}")
    tested = "no test set: scores are agreement with given labels"
    if test is not None:
        column = test.source.get("truth_column") or test.source.get("label_column")
        tested = f"{len(test):,} test images" + (f", scored by column {column!r}" if column else "")
    say(f"split       {len(setup.train):,} to train, {len(setup.holdout):,} held out, {tested}")
    runtime = setup.loop.runtime
    precision = "bf16" if runtime.precision == "bf16" else "float32"
    say(f"networks    {networks}, {setup.image_size} px, {precision} on {runtime.device}")
