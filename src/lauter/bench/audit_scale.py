"""What an audit of arrays costs: seconds and peak memory by part, on features that are drawn."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from lauter.auditing.evidence import EvidenceConfig, gather_evidence
from lauter.auditing.judging import JudgingConfig, judge_labels
from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.records import Record
from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.errors import ConfigError
from lauter.evaluation.metrics import score_label_errors
from lauter.files import atomic_path

SUITE = "audit"
METHOD = "lauter"
SIZES = {"50k": (50_000, 512, 10), "100k": (100_000, 512, 1000), "1m": (1_000_000, 512, 1000)}
"""Images, features and classes of what is measured, by name."""
_BLOCK = 16_384
_SPREAD = 6.0  # s, how far classes are apart

_T = TypeVar("_T")


def generate_features(
    count: int,
    size: int,
    classes: int,
    noise: float,
    generator: np.random.Generator,
    path: Path,
) -> tuple[NDArray[np.float16], Int64s, Int64s]:
    r"""Draw features as a network would give them, and write them to disk.

    .. math:: x_{id} = d^{-1/2} \left(s \, u_d \, c_{y_i d} + e_{id}\right), \qquad
              u_d \propto d^{-1/2}, \quad \sum_d u_d^2 = 1

    with class centres c and differences e within a class, both standard normal: two classes are about
    :math:`\sqrt{2} s` standard deviations apart. As in features of networks the variance falls from axis to
    axis, and the first ones tell classes apart best. The order of the images is random.

    Args:
        count: N.
        size: D.
        classes: K.
        noise: share of the labels that are another class's, drawn evenly.
        generator: draws all of it.
        path: a .npy file, written whole or not at all.

    Returns:
        Features [N, D], float16 and mapped from disk; given labels [N]; true labels [N].

    Raises:
        ConfigError: a number is out of its range.
    """
    if min(count, size) < 1 or classes < 2 or not 0 <= noise < 1:
        raise ConfigError(
            f"features are drawn of 1 image, 1 feature and 2 classes or more and with noise in [0, 1), not "
            f"{count}, {size}, {classes} and {noise}"
        )
    falling = (np.arange(1, size + 1) ** -0.5).astype(np.float32)
    centres = generator.standard_normal((classes, size), dtype=np.float32)
    centres *= _SPREAD * falling / np.linalg.norm(falling)
    true = generator.integers(classes, size=count)
    flipped = generator.random(count) < noise
    given = np.where(flipped, (true + generator.integers(1, classes, count)) % classes, true)
    with atomic_path(path) as temporary:
        features = open_memmap(temporary, mode="w+", dtype=np.float16, shape=(count, size))
        for start in range(0, count, _BLOCK):
            block = generator.standard_normal((min(_BLOCK, count - start), size), dtype=np.float32)
            block += centres[true[start : start + _BLOCK]]
            features[start : start + _BLOCK] = falling * block
        features.flush()
        del features
    return np.load(path, mmap_mode="r"), given, true


def measure_audit_scale(
    name: str,
    work: Path,
    seed: int = 0,
    *,
    noise: float = 0.2,
    config: EvidenceConfig | None = None,
    report: Callable[[str, float], None] | None = None,
) -> list[Record]:
    """Audit drawn features and clock every part.

    Nothing else should run on the machine meanwhile.

    Args:
        name: one of ``SIZES``.
        work: where the features are written.
        seed: of all draws.
        noise: share of wrong labels.
        config: where beliefs come from.
        report: called as the evidence is gathered.

    Returns:
        Seconds of every part of the evidence and of the judging, and of all together; peak memory in MiB of
        evidence and judging (features mapped from disk count where they were read); recall of the neighbours;
        AUROC and average precision of the doubts.

    Raises:
        ConfigError: there is no such size.
    """
    if name not in SIZES:
        raise ConfigError(f"audit size must be one of {', '.join(SIZES)}, not {name!r}")
    count, size, classes = SIZES[name]
    generator = np.random.default_rng(derive_seed(seed, "audit scale"))
    path = work / f"features-{name}-{seed}.npy"
    features, given, true = generate_features(count, size, classes, noise, generator, path)
    evidence, seconds, peak = _clock(
        lambda: gather_evidence(features, given, classes, config, generator, report=report)
    )
    values = {f"seconds_{part}": passed for part, passed in evidence.seconds.items()}
    values |= {"seconds_evidence": seconds, "peak_mib_evidence": peak}
    judgement, judging_seconds, judging_peak = _clock(
        lambda: judge_labels(evidence.beliefs, given, JudgingConfig(), generator)
    )
    values |= {"seconds_judging": judging_seconds, "peak_mib_judging": judging_peak}
    values |= {"seconds": seconds + judging_seconds, "peak_mib": max(peak, judging_peak)}
    if evidence.neighbours is not None:
        values["neighbour_recall"] = evidence.neighbours.recall
    doubt, flagged = 1 - judgement.p_given_right, judgement.verdicts != "keep"
    scores: dict[str, Any] = score_label_errors(given != true, doubt, flagged)
    values |= {metric: float(scores[metric]) for metric in ("auroc", "average_precision", "f1")}
    data = f"{count} x {size}, {classes} classes"
    return [Record(SUITE, data, METHOD, seed, metric, value) for metric, value in values.items()]


def _clock(act: Callable[[], _T]) -> tuple[_T, float, float]:
    """What a part gives, its seconds, and its peak memory in MiB."""
    device = torch.device("cpu")
    reset_peak(device)
    began = time.monotonic()
    result = act()
    return result, time.monotonic() - began, read_peak(device)
