"""The audit in one function: which labels are wrong, how sure that is, what a person should look at."""

import dataclasses
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from lauter.audit_config import AuditConfig, load_audit_preset
from lauter.auditing.corrected import write_corrected
from lauter.auditing.evidence import Evidence, gather_evidence
from lauter.auditing.feature_choice import FeatureSpec, choose_features
from lauter.auditing.feature_map import project_features
from lauter.auditing.features import Features
from lauter.auditing.image_findings import ImageFindings, inspect_images
from lauter.auditing.judgement import Judgement
from lauter.auditing.judging import judge_labels
from lauter.auditing.label_table import write_label_table
from lauter.auditing.report.audit_content import AuditContent
from lauter.auditing.report.audit_page import write_audit_report
from lauter.auditing.summary import make_audit_table, summarise_judgement
from lauter.auditing.training_evidence import TrainedBeliefs, believe_by_training
from lauter.auditing.verdicts import score_labels
from lauter.config import to_plain
from lauter.data import Dataset, available_splits, open_dataset
from lauter.data.counters import derive_seed
from lauter.errors import ConfigError
from lauter.files import write_json
from lauter.models import Network, create_network, default_networks
from lauter.noisy.recipe import NoisyConfig
from lauter.preparation import Source, hash_array, hash_weights
from lauter.run import RunDirectory, open_run, undo_if_refused
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.processes import Processes
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime
from lauter.training.setup import Setup, draw_from


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What :func:`audit` found.

    Attributes:
        table: one row for each image (see :func:`lauter.auditing.summary.make_audit_table`).
        judgement: rates, cuts, review plan and advice, and the table's columns as arrays.
        class_names: K names by label.
        findings: faults, near-duplicates and leaks; None where pictures were not searched.
        evidence: what is believed of every image.
        features: what it stands on; None on the path training and with given probabilities.
        metrics: what metrics.json holds.
        directory: where everything lies; None where nothing was to be written.
    """

    table: pd.DataFrame
    judgement: Judgement
    class_names: tuple[str, ...]
    findings: ImageFindings | None
    evidence: Evidence
    features: Features | None
    metrics: dict[str, Any]
    directory: Path | None


@dataclass(frozen=True)
class AuditOptions:
    """What decides how an audit is kept and shown, but not what it finds.

    Attributes:
        out: directory of the run; must be empty unless ``resume``. None writes nothing.
        resume: continue the run in ``out``.
        corrected: also write ``corrected/``, a manifest of the images to use with their corrected labels.
        console: where progress is shown; silent where None.
        processes: this process's place among several, which share the pass of a backbone.
    """

    out: str | Path | None = None
    resume: bool = False
    corrected: bool = False
    console: Console | None = None
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        if self.corrected and self.out is None:
            raise ConfigError("corrected labels are written into the audit's directory; name one with out")


def audit(
    data: Source,
    features: FeatureSpec = None,
    *,
    probabilities: NDArray[Any] | None = None,
    test: Source | None = None,
    preset: str = "standard",
    config: AuditConfig | None = None,
    options: AuditOptions | None = None,
) -> AuditResult | None:
    """Find out which labels are wrong, how sure that is, and what a person should look at.

    No image is judged by a model that was fitted to its own label, and every image gets a verdict.

    Args:
        data: a data set, or what :func:`lauter.open_dataset` opens.
        features: what the audit stands on; ``config.features`` where None. Also an array [N, D] in the data's
            order, or a network.
        probabilities: [N, K] out-of-fold predictions of a model of your own: they take the place of what
            heads on the features say, and nothing is trained. With features beside them neighbours vote too.
        test: images of another split, to look for pictures that are in both. Where ``data`` is opened here
            and has a split named test, that is taken.
        preset: quick, standard or thorough; ignored where ``config`` is given.
        config: all settings.
        options: directory, resume, console; nothing is written by default.

    Returns:
        Table, judgement, findings. None in a process that only helped others with the features.

    Raises:
        LauterError: something about the input is wrong; the message says what and what to do.
    """
    began = time.monotonic()
    config, options = config or load_audit_preset(preset), options or AuditOptions()
    if features is not None and config.path == "training":
        raise ConfigError("the path training makes its own features; leave them out, or take path features")
    if probabilities is not None and config.path == "training":
        raise ConfigError(
            "the path training makes predictions of its own; leave probabilities out, or take path features"
        )
    if options.processes.size > 1 and config.path == "training":
        raise ConfigError(
            f"WORLD_SIZE is {options.processes.size}, but the path training is walked by one process; start "
            "it without torchrun, or take path features"
        )
    data, beside = _open(data, test, config)
    runtime = Runtime(config.runtime, processes=options.processes)
    if not options.processes.leads:
        if probabilities is None or features is not None:
            _find_features(data, features, config, runtime, options.processes, Progress())
        return None
    run = _begin(data, beside, features, probabilities, config, options)
    with (
        undo_if_refused(run) if run else nullcontext(),
        Progress(run.path if run else None, options.console) as progress,
    ):
        _introduce(data, beside, config, runtime, progress)
        seconds: dict[str, float] = {}
        found: Features | None = None
        trained: NDArray[np.float32] | None = None
        if config.path == "training":
            start = time.monotonic()
            beliefs = _train(data, config, runtime, run, progress)
            probabilities, trained = beliefs.beliefs, beliefs.features
            seconds["training"] = time.monotonic() - start
        elif probabilities is None or features is not None:
            found = _find_features(data, features, config, runtime, options.processes, progress)
            seconds["features"] = found.seconds if found else 0.0
        values = trained if found is None else found.values
        evidence = gather_evidence(
            None if found is None else found.values,
            data.labels,
            data.num_classes,
            config.evidence,
            _generator(config, "evidence"),
            probabilities=probabilities,
            report=_Meter(progress, len(data)).tell,
        )
        seconds |= evidence.seconds
        start = time.monotonic()
        judgement = judge_labels(
            evidence.beliefs, data.labels, config.resolved_judging(), _generator(config, "judging")
        )
        seconds["judging"] = time.monotonic() - start
        findings = _inspect(data, beside, values, config, progress) if config.images else None
        seconds |= dict(findings.seconds) if findings else {}
        positions = None
        if values is not None and run is not None:
            start = time.monotonic()
            positions = project_features(values, _generator(config, "map"))
            seconds["map"] = time.monotonic() - start
        table = make_audit_table(data, judgement, findings, positions)
        metrics = _collect_metrics(data, table, judgement, findings, found, seconds)
        if run is not None:
            metrics["seconds_in_all"] = time.monotonic() - began
            _write(run, data, table, judgement, findings, metrics, config, options)
    return AuditResult(
        table, judgement, data.class_names, findings, evidence, found, metrics, run.path if run else None
    )


class _Meter:
    """Tells of the parts of the evidence as progress."""

    def __init__(self, progress: Progress, count: int) -> None:
        self.progress, self.count, self.part, self.since = progress, count, "", time.monotonic()

    def tell(self, part: str, share: float) -> None:
        """A part is done to this share."""
        if part != self.part:
            self.part, self.since = part, time.monotonic()
        gone, done = time.monotonic() - self.since, round(share * self.count)
        rate = done / max(gone, 1e-9)
        self.progress.count(part, done, self.count, rate, (self.count - done) / max(rate, 1e-9))


def _open(data: Source, test: Source | None, config: AuditConfig) -> tuple[Dataset, Dataset | None]:
    if test is None and not isinstance(data, Dataset) and config.images and "test" in available_splits(data):
        test = open_dataset(data, split="test", min_per_class=0)
    if not isinstance(data, Dataset):
        data = open_dataset(data)
    if test is not None and not isinstance(test, Dataset):
        test = open_dataset(test, min_per_class=0)
    return data, test


def _generator(config: AuditConfig, name: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(config.seed, f"audit {name}"))


def _find_features(
    data: Dataset,
    spec: FeatureSpec,
    config: AuditConfig,
    runtime: Runtime,
    processes: Processes,
    progress: Progress,
) -> Features | None:
    return choose_features(
        config.features if spec is None else spec,
        data,
        runtime,
        config=config.resolved_extraction(),
        processes=processes,
        progress=progress,
    )


def _train(
    data: Dataset, config: AuditConfig, runtime: Runtime, run: RunDirectory | None, progress: Progress
) -> TrainedBeliefs:
    """Beliefs of two networks that learn half of the labels each."""
    stored = data.images.uniform
    of_data = int(data.source.get("image_size") or (224 if stored is None else stored.shape[-1]))
    size = config.image_size or of_data
    name = config.training.network or default_networks(size)[0]
    loop = Loop(runtime, Checkpoints(run.checkpoints if run else None), progress, config.seed)
    nobody = np.zeros(0, dtype=np.int64)
    setup = Setup(data.without_truth(), np.arange(len(data)), nobody, None, loop, size, config.augment)

    def build() -> Network:
        with draw_from(config.seed, "teacher"):
            return create_network(name, data.num_classes, image_size=size)

    recipe = NoisyConfig(config.training.pretrain, config.training.warmup, config.training.robust)
    progress.say(f"training    two networks {name}, {size} px: each learns one half and judges the other")
    return believe_by_training(setup, build, recipe)


def _inspect(
    data: Dataset,
    beside: Dataset | None,
    values: NDArray[Any] | None,
    config: AuditConfig,
    progress: Progress,
) -> ImageFindings:
    began = time.monotonic()

    def tell(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        progress.count("pictures", done, total, rate, (total - done) / max(rate, 1e-9))

    return inspect_images(
        data,
        splits=["train"] * len(data),
        beside={} if beside is None else {"test": beside},
        features=values,
        generator=_generator(config, "pictures"),
        progress=tell,
    )


def _begin(
    data: Dataset,
    beside: Dataset | None,
    features: FeatureSpec,
    probabilities: NDArray[Any] | None,
    config: AuditConfig,
    options: AuditOptions,
) -> RunDirectory | None:
    """The run directory with its settings; None where nothing is to be written."""
    if options.out is None:
        return None
    inputs: dict[str, str] = {}
    if isinstance(features, Network):
        inputs["network"] = hash_weights(features)
    elif isinstance(features, str | Path):
        config = dataclasses.replace(config, features=str(features))
    elif features is not None:
        inputs["features"] = hash_array(np.asarray(features))
    if probabilities is not None:
        inputs["probabilities"] = hash_array(np.asarray(probabilities))
    settings = {
        "verb": "audit",
        "data": to_plain(data.source) or {"name": data.name},
        "fingerprint": data.fingerprint(),
        "test": None if beside is None else to_plain(beside.source) or {"name": beside.name},
        **inputs,
        "audit": to_plain(config),
    }
    return open_run(options.out, settings, resume=options.resume)


def _introduce(
    data: Dataset, beside: Dataset | None, config: AuditConfig, runtime: Runtime, progress: Progress
) -> None:
    parts = [f"{len(data):,} images", f"{data.num_classes} classes"]
    if unlabelled := int((~data.labelled).sum()):
        parts.append(f"{unlabelled:,} without a label")
    if dropped := len({fault.id for fault in data.faults if fault.dropped}):
        parts.append(f"{dropped:,} files left out")
    if beside is not None:
        parts.append(f"compared with {len(beside):,} test images")
    progress.say(f"data        {data.name}: {', '.join(parts)}")
    precision = "bf16" if runtime.precision == "bf16" else "float32"
    progress.say(f"path        {config.path}, {precision} on {runtime.device}")


def _collect_metrics(
    data: Dataset,
    table: pd.DataFrame,
    judgement: Judgement,
    findings: ImageFindings | None,
    features: Features | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """What metrics.json holds; the truth, where the data has one, is read here alone."""
    metrics: dict[str, Any] = {
        "labels": {**summarise_judgement(data, judgement), **score_labels(data, table)}
    }
    if findings is not None:
        metrics["images"] = findings.summarise()
    if features is not None:
        metrics["features"] = {
            "source": features.source,
            "size": features.size,
            "images_per_second": features.images_per_second,
        }
    return {**metrics, "seconds": seconds}


def _write(
    run: RunDirectory,
    data: Dataset,
    table: pd.DataFrame,
    judgement: Judgement,
    findings: ImageFindings | None,
    metrics: dict[str, Any],
    config: AuditConfig,
    options: AuditOptions,
) -> None:
    """Everything that an audit leaves, each file whole or not at all."""
    write_label_table(table, run.labels, run.labels.with_suffix(".csv"))
    if options.corrected:
        write_corrected(run.path / "corrected", data, table)
    write_json(run.metrics, metrics)
    scores = {
        name: float(metrics["labels"][name])
        for name in ("true_noise_rate", "auroc", "average_precision", "precision", "recall", "f1")
        if metrics["labels"].get(name) is not None
    }
    content = AuditContent(
        title=f"Audit of {data.name}",
        data_name=data.name,
        class_names=data.class_names,
        table=table,
        judgement=judgement,
        picture=data.images.read,
        faults=data.faults if findings is None else findings.faults,
        config=run.read_config(),
        seconds=metrics["seconds"],
        truth=scores,
    )
    write_audit_report(run.report, content, config.pictures)
