"""The audit, measured: which labels are wrong, how sure that is, and what a person should look at.

Every judge sees the same out-of-fold beliefs and the same given labels. One folder for each (data, seed)
keeps the beliefs and one file for each judge, so that a stopped measurement goes on where it was. The truth
meets the findings in ``audit_scores.py`` and nowhere else.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lauter import __version__
from lauter.auditing.image_findings import inspect_images
from lauter.bench.audit_data import DATA, Folders
from lauter.bench.audit_evidence import EVIDENCE, AuditBenchConfig, Unit, gather
from lauter.bench.audit_rivals import (
    CLEANLAB,
    FROM_FEATURES,
    JUDGES,
    ORACLE,
    Case,
    Findings,
    judge_at_true_rate,
    make_case,
)
from lauter.bench.audit_scores import score_findings
from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.records import Record, read_parts, write_part
from lauter.config import to_plain
from lauter.data import Dataset
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.files import read_json, write_json
from lauter.noisy.rivals.confident import require_cleanlab
from lauter.run import RunDirectory
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig

SUITE = "audit"
SHARED = "evidence"
"""Method of the records that all judges of a unit share: images, classes, and the cost of the beliefs."""
PICTURES = "pictures"
"""Method of what is found in pictures rather than in labels; nothing where a set does not ask for it."""
METHODS = (*JUDGES, ORACLE, PICTURES)
FEATURE_FILES = (".safetensors", ".parquet", ".npy")


def measure_audit(
    name: str,
    seed: int,
    folders: Folders,
    work: Path,
    runtime: RuntimeConfig,
    config: AuditBenchConfig | None = None,
    methods: Sequence[str] = METHODS,
    evidence: str = "features",
    features: str = "",
    console: Console | None = None,
) -> list[Record]:
    """Measure judges of labels on one data set with one seed; what has been measured is not measured again.

    Args:
        name: one of ``DATA``.
        seed: draws images, noise, networks, folds.
        folders: where the sets lie.
        work: where features, beliefs and parts are kept.
        runtime: device and precision.
        config: where beliefs come from.
        methods: which of ``METHODS``.
        evidence: which way to beliefs, of :data:`lauter.bench.audit_evidence.EVIDENCE`.
        features: where features come from, in the place of the data set's own: a backbone's name, or a
            folder of features files called NAME-SEED; their name then stands behind that of the data.
        console: where progress is shown.

    Returns:
        Every record of this unit so far: by judge what :func:`lauter.bench.audit_scores.score_findings`
        gives, with its seconds and peak_mib; by method ``evidence`` the images, the classes and what the
        beliefs took; by method ``pictures`` what :func:`measure_pictures` gives.

    Raises:
        ConfigError: there is no such data set, judge or evidence, a folder is missing, cleanlab is asked for
            and not installed, or the work folder was measured with other settings.
    """
    config = config or AuditBenchConfig()
    check_request(name, methods, evidence, features, folders)
    title = name_unit(name, evidence, features)
    run = RunDirectory(work / SUITE / title.replace(" ", "-") / str(seed))
    parts = {method: run.path / f"{method.replace(' ', '-')}.json" for method in (SHARED, *methods)}
    missing = [method for method, part in parts.items() if not part.exists()]
    if not missing:
        return read_parts(run.path)
    if CLEANLAB.keys() & set(missing):
        require_cleanlab()
    source = DATA[name]
    data = source.open(folders, seed)
    spec: str | Path = features or source.features
    if features and Path(features).is_dir():
        spec = find_features(Path(features), name, seed)
    settings = {"evidence": evidence, "features": features or source.features, **to_plain(config)}
    _keep_settings(run, settings | {"version": __version__, "data": data.fingerprint()})
    with Progress(run.path, console) as progress:
        blind = data.without_truth()
        unit = Unit(blind, seed, spec, run, work / SUITE / "features", runtime, progress, config)
        found = gather(unit, evidence)
        case = make_case(blind.labels, found.beliefs, found.features, seed)
        for method in missing:
            progress.say(f"{title}, seed {seed}: {method}")
            if method == SHARED:
                values = {"images": float(len(data)), "classes": float(data.num_classes), **found.costs}
            elif method == PICTURES:
                splits = source.splits(folders) if source.splits is not None and title == name else {}
                values = measure_pictures(splits, runtime)
            elif method in FROM_FEATURES and case.features is None:
                values = {}  # an empty part: there is nothing to measure, today and later
            else:
                values = _measure_judge(method, case, data, runtime)
            write_part(
                parts[method],
                [Record(SUITE, title, method, seed, metric, value) for metric, value in values.items()],
            )
    return read_parts(run.path)


def measure_pictures(splits: Mapping[str, Dataset], runtime: RuntimeConfig) -> dict[str, float]:
    """What is found in pictures rather than in labels.

    Args:
        splits: pictures by split; the first is inspected, the others stand beside it.
        runtime: whose device's memory is measured.

    Returns:
        images (of all splits); of the first one faults, near_duplicates, near_duplicate_groups, conflicts of
        labels in them and leaks into other splits; seconds, images_per_second and peak_mib. Empty where there
        is no split.
    """
    if not splits:
        return {}
    (_, first), *others = splits.items()
    device = Runtime(runtime).device
    reset_peak(device)
    began = time.monotonic()
    counts = inspect_images(first, beside=dict(others)).summarise()
    seconds, count = time.monotonic() - began, sum(len(data) for data in splits.values())
    values: dict[str, float] = {"images": count, "seconds": seconds, "images_per_second": count / seconds}
    for name, found in counts.items():
        values[name] = sum(found.values()) if isinstance(found, dict) else found
    return {name: float(value) for name, value in values.items()} | {"peak_mib": read_peak(device)}


def check_request(name: str, methods: Sequence[str], evidence: str, features: str, folders: Folders) -> None:
    """Refuse what cannot be measured, before anything is opened.

    Raises:
        ConfigError: there is no such data set, judge or evidence, a folder is missing, or features are named
            for an evidence that takes none.
    """
    if name not in DATA:
        raise ConfigError(f"data must be one of {', '.join(DATA)}, not {name!r}")
    if unknown := sorted(set(methods) - set(METHODS)):
        raise ConfigError(f"methods must be among {', '.join(METHODS)}, not {unknown[0]!r}")
    if evidence not in EVIDENCE:
        raise ConfigError(f"evidence must be one of {', '.join(EVIDENCE)}, not {evidence!r}")
    if features and evidence != "features":
        raise ConfigError(f"features are for evidence features, not for {evidence!r}; leave them out")
    for folder in DATA[name].needs:
        folders.require(folder)


def name_unit(name: str, evidence: str, features: str = "") -> str:
    """What the records call a data set: its name, and behind it how it was believed, where not as usual."""
    if features:
        label = Path(features).name if Path(features).is_dir() else features
        return f"{name} {label.replace(':', '-').replace('/', '-')}"
    return name if evidence == "features" else f"{name} {evidence}"


def find_features(folder: Path, name: str, seed: int) -> Path:
    """The features file of a data set and seed in a folder.

    Raises:
        ConfigError: there is none.
    """
    for suffix in FEATURE_FILES:
        if (file := folder / f"{name}-{seed}{suffix}").is_file():
            return file
    raise ConfigError(
        f"{folder} has no features of {name} with seed {seed}; expected a file {name}-{seed} with one of the "
        f"endings {', '.join(FEATURE_FILES)}"
    )


def _keep_settings(run: RunDirectory, settings: dict[str, Any]) -> None:
    """Write the settings, or see that those of an earlier start were the same."""
    place = run.path / "settings.json"
    if not place.exists():
        write_json(place, settings)
    elif (before := read_json(place)) != settings:
        changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        raise ConfigError(
            f"{run.path} was measured with other settings ({', '.join(changed)}); choose another --work, or "
            "remove it"
        )


def _measure_judge(method: str, case: Case, data: Dataset, runtime: RuntimeConfig) -> dict[str, float]:
    truth = data.true_labels
    if truth is None:
        raise ConfigError(f"{data.name} has no true labels to score findings with")
    device = Runtime(runtime).device
    reset_peak(device)
    began = time.monotonic()
    found = _judge(method, case, truth)
    spent = {"seconds": time.monotonic() - began, "peak_mib": read_peak(device)}
    return score_findings(found, data.labels, truth, data.num_classes) | spent


def _judge(method: str, case: Case, truth: Int64s) -> Findings:
    if method == ORACLE:
        return judge_at_true_rate(case, int((truth != case.labels).sum()))
    return JUDGES[method](case)
