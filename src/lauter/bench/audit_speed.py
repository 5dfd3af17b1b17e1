"""How fast an audit from features is: evidence and judgement of features that are drawn."""

import time
from pathlib import Path

import numpy as np
import torch

from lauter.auditing.evidence import gather_evidence
from lauter.auditing.judging import JudgingConfig, judge_labels
from lauter.bench.audit_scale import generate_features
from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.records import Record
from lauter.bench.speed_course import SUITE, SpeedConfig, record_rates

CLASSES, NOISE = 10, 0.2


def measure_audit_speed(work: Path, config: SpeedConfig) -> list[Record]:
    """Audit the same drawn features several times.

    Args:
        work: where they are written.
        config: how many, how large, repeats.

    Returns:
        Images per second, the share of each part (medians), and peak memory.
    """
    count, size = config.audit_images, config.audit_features
    path = work / "audit-speed.npy"
    features, given, _ = generate_features(count, size, CLASSES, NOISE, np.random.default_rng(0), path)
    rates, parts, peaks = [], [], []
    device = torch.device("cpu")
    for _ in range(config.repeats):
        reset_peak(device)
        generator = np.random.default_rng(0)
        began = time.perf_counter()
        evidence = gather_evidence(features, given, CLASSES, None, generator)
        judging = time.perf_counter()
        judge_labels(evidence.beliefs, given, JudgingConfig(), generator)
        now = time.perf_counter()
        rates.append(count / (now - began))
        spent = {**evidence.seconds, "judging": now - judging}
        parts.append({part: seconds / (now - began) for part, seconds in spent.items()})
        peaks.append(read_peak(device))
    data = f"{count:,} x {size}, {CLASSES} classes"
    values = {f"share_{part}": float(np.median([shares[part] for shares in parts])) for part in parts[0]}
    values["peak_mib"] = max(peaks)
    return [
        *record_rates(data, {"audit": rates}),
        *(Record(SUITE, data, "audit", 0, metric, value) for metric, value in values.items()),
    ]
