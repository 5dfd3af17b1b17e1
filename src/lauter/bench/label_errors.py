"""Finding label errors, measured: judges of labels side by side on the same out-of-fold predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from lauter.bench.noisy_data import WAY_DATA
from lauter.bench.records import Record, read_parts, write_part
from lauter.bench.scores import add_costs
from lauter.data import Dataset, open_dataset
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.evaluation.metrics import score_label_errors
from lauter.models import Network, create_network
from lauter.noisy.beliefs import Floats
from lauter.noisy.confident import Bools, find_confident_errors, score_confidence
from lauter.noisy.filtering import assess_labels
from lauter.noisy.rivals.confident import find_errors_by_cleanlab, predict_out_of_fold, require_cleanlab
from lauter.noisy.rivals.rival import Ground
from lauter.run import RunDirectory
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Cost, Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup, draw_from
from lauter.training.supervised import SupervisedConfig

SUITE = "noisy"


@dataclass(frozen=True)
class LabelErrorConfig:
    """Where the predictions come from, the same for every data set and every judge of labels.

    Attributes:
        network: its name; one is trained for each fold, by plain cross-entropy.
        folds: into how many parts the images are split.
        training: of each network; 20 epochs, before most wrong labels are known by heart.
        image_size: side of the pictures in pixels.
        augment: how views are made (see :class:`lauter.config.FitConfig`).
    """

    network: str = "resnet20"
    folds: int = 2
    training: SupervisedConfig = field(
        default_factory=lambda: SupervisedConfig(epochs=20, optimizer=OptimizerConfig(lr=0.1, warmup=0.03))
    )
    image_size: int = 32
    augment: str = "objects"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a judge of labels says.

    Attributes:
        doubt: [N] higher means more likely wrong.
        flagged: [N] whether its automatic threshold calls the label wrong.
    """

    doubt: Floats
    flagged: Bools


def judge_by_filter(probabilities: Floats, labels: Int64s) -> Verdict:
    """This library's filter: doubt is the probability of being wrong, its threshold one half."""
    assessment = assess_labels(probabilities, labels)
    return Verdict(1 - assessment.p_right, ~assessment.kept)


def judge_by_cleanlab(probabilities: Floats, labels: Int64s) -> Verdict:
    """The library cleanlab, with its defaults: ``get_label_quality_scores`` and ``find_label_issues``."""
    require_cleanlab()
    from cleanlab.rank import get_label_quality_scores

    quality = np.asarray(get_label_quality_scores(labels, probabilities), dtype=np.float64)
    return Verdict(1 - quality, find_errors_by_cleanlab(probabilities, labels))


def judge_by_confident_learning(probabilities: Floats, labels: Int64s) -> Verdict:
    """Confident learning as written here: it stands for cleanlab where that is not installed."""
    doubt = 1 - score_confidence(probabilities, labels, "self_confidence")
    return Verdict(doubt, find_confident_errors(probabilities, labels))


def judge_by_disagreement(probabilities: Floats, labels: Int64s) -> Verdict:
    """A label is called wrong where the prediction is another; doubt is the margin that decides so."""
    return Verdict(1 - score_confidence(probabilities, labels), probabilities.argmax(1) != labels)


METHODS: dict[str, Callable[[Floats, Int64s], Verdict]] = {
    "filter": judge_by_filter,
    "cleanlab": judge_by_cleanlab,
    "confident": judge_by_confident_learning,
    "disagreement": judge_by_disagreement,
}
"""Judges of labels; each sees predictions and given labels, and nothing else."""


def open_cifar10n_aggre(cifar10: Path, cifar100: Path, seed: int) -> Dataset:
    """10,000 images of CIFAR-10 under the labels of CIFAR-10N 'aggre', the majority of three people."""
    return open_dataset(
        cifar10, split="train", label_column="label_aggre", truth_column="label", size=10_000, seed=seed
    )


DATA: dict[str, Callable[[Path, Path, int], Dataset]] = {
    "ncifar10": lambda *where: WAY_DATA["ncifar10"](*where).train,
    "cifar10n-worst": lambda *where: WAY_DATA["cifar10n-worst"](*where).train,
    "cifar10n-aggre": open_cifar10n_aggre,
}
"""Opens the noisy images, about 10,000 each, from the folders of CIFAR-10 and CIFAR-100 and a seed."""


def measure_label_errors(
    name: str,
    seed: int,
    folders: tuple[Path, Path],
    work: Path,
    runtime: RuntimeConfig,
    config: LabelErrorConfig | None = None,
    methods: Sequence[str] = tuple(METHODS),
    console: Console | None = None,
) -> list[Record]:
    """Measure one data set with one seed; what has been measured is not measured again.

    Args:
        name: one of ``DATA``.
        seed: decides data, folds, networks, order.
        folders: of CIFAR-10 and CIFAR-100, with CIFAR-10N's labels as columns of the first.
        work: where checkpoints and parts are kept.
        runtime: device and precision.
        config: where the predictions come from.
        methods: which of ``METHODS``.
        console: where progress is shown.

    Returns:
        Every record of this data set and seed so far (see :func:`score_verdict`), with the cost of the
        predictions, which all methods share.

    Raises:
        ConfigError: there is no such data set or method, or cleanlab is asked for and not installed.
    """
    config = config or LabelErrorConfig()
    if name not in DATA:
        raise ConfigError(f"data must be one of {', '.join(DATA)}, not {name!r}")
    if unknown := sorted(set(methods) - set(METHODS)):
        raise ConfigError(f"methods must be among {', '.join(METHODS)}, not {unknown[0]!r}")
    run = RunDirectory(work / "label-errors" / name / str(seed))
    missing = [method for method in methods if not (run.path / f"{method}.json").exists()]
    if not missing:
        return read_parts(run.path)
    if "cleanlab" in missing:
        require_cleanlab()
    with Progress(run.path, console) as progress:
        data = DATA[name](*folders, seed)
        probabilities, cost = predict_labels(data, seed, run, progress, runtime, config)
        for method in missing:
            values = score_verdict(METHODS[method](probabilities, data.labels[data.labelled]), data)
            values |= {"cost_images": float(cost.images), "cost_flops": cost.flops, "seconds": cost.seconds}
            part = [Record(SUITE, name, method, seed, metric, value) for metric, value in values.items()]
            write_part(run.path / f"{method}.json", part)
    return read_parts(run.path)


def predict_labels(
    data: Dataset,
    seed: int,
    run: RunDirectory,
    progress: Progress,
    runtime: RuntimeConfig,
    config: LabelErrorConfig,
) -> tuple[Floats, Cost]:
    """Predict every labelled image by a network that did not train on it; all images train, none is held out.

    Returns:
        [M, K] probabilities for the labelled images in their order, and what they cost.
    """
    loop = Loop(Runtime(runtime), Checkpoints(run.checkpoints), progress, seed)
    nobody = np.zeros(0, dtype=np.int64)
    setup = Setup(
        data.without_truth(), np.arange(len(data)), nobody, None, loop, config.image_size, config.augment
    )

    def build(role: str) -> Network:
        with draw_from(seed, role):
            return create_network(config.network, data.num_classes, image_size=config.image_size)

    probabilities = predict_out_of_fold(Ground("predictions", setup, build, config.training), config.folds)
    return probabilities, add_costs(loop.costs.values())


def score_verdict(verdict: Verdict, data: Dataset) -> dict[str, float]:
    """Compare a verdict with the truth; an open image's label is always wrong.

    Args:
        verdict: on the labelled images, in their order.
        data: with its truth.

    Returns:
        auroc, average_precision, precision, recall, f1 (at the automatic threshold), best_f1 (over all
        thresholds) and their ratio f1_of_best; flagged, the share that is called wrong, and the
        true_noise_rate. A measure that the data do not define is left out.

    Raises:
        ConfigError: the data have no truth to compare with.
    """
    if data.true_labels is None:
        raise ConfigError(f"{data.name} has no true labels to score label errors with")
    known = data.labelled
    wrong = data.true_labels[known] != data.labels[known]
    scores = score_label_errors(wrong, verdict.doubt, verdict.flagged)
    if "best_f1" in scores:
        scores["f1_of_best"] = scores["f1"] / scores["best_f1"]
    return scores | {
        "flagged": float(verdict.flagged.mean()),
        "true_noise_rate": float(wrong.mean()),
    }
