"""How time and memory grow with the number of images, from ten thousand to a million.

Images are drawn and small (8 x 8), so that a million of them can be measured on any machine: how the cost
grows is looked at, not how large it is. Every size of every part is measured in a process of its own, so that
its peak memory is its own too.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from lauter.auditing.evidence import gather_evidence
from lauter.auditing.judging import JudgingConfig, judge_labels
from lauter.bench.apart import run_apart
from lauter.bench.audit_scale import generate_features
from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.records import Record, read_parts, write_part
from lauter.data import Dataset
from lauter.data.batches import ImageBatches
from lauter.data.dataset import Int64s, ResidentImages
from lauter.data.views import supervised_view
from lauter.distillation.bank_building import build_bank
from lauter.errors import ConfigError
from lauter.models import create_network
from lauter.noisy.beliefs import Floats, find_neighbours
from lauter.noisy.correction import CorrectionConfig
from lauter.noisy.judge import Judge, JudgeConfig
from lauter.training.predict import Predictions
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import draw_from

SUITE = "speed"
SIZES = {"10k": 10_000, "20k": 20_000, "50k": 50_000, "100k": 100_000, "1m": 1_000_000}
SIDE, CLASSES, FEATURES, NOISE = 8, 10, 64, 0.2
NEIGHBOURS = 100
ALL = "all sizes"
"""What the data of an exponent is called."""
_CPU = torch.device("cpu")


def name_size(count: int) -> str:
    """What the data of a size is called."""
    return f"{count:,} images"


def measure_growth(
    parts: Iterable[str], sizes: Sequence[int], work: Path, done: Callable[[list[Record]], None]
) -> None:
    """Measure parts at all sizes, smallest first; what the work folder holds is not measured again.

    Args:
        parts: which of ``PARTS``.
        sizes: numbers of images.
        work: where the parts' records are kept.
        done: called with the records of each part and size: seconds, images per second, the peak memory in
            MiB and what it is above the memory at the start (added_mib).

    Raises:
        ConfigError: a part or a size cannot be measured.
    """
    parts = list(parts)
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(f"growth is measured of {', '.join(PARTS)}, not of {unknown[0]!r}")
    if not sizes or min(sizes) < 1000:
        raise ConfigError(f"growth is measured from 1,000 images on, not at {list(sizes)}")
    for part in parts:
        for count in sorted(sizes):
            place = work / part / str(count) / "records.json"
            if not place.exists():
                write_part(place, run_apart(measure_part, part, count, work))
            done(read_parts(place.parent))


def measure_part(part: str, count: int, work: Path) -> list[Record]:
    """Measure one part at one size, in this process.

    Args:
        part: one of ``PARTS``.
        count: images.
        work: where a bank or features may lie meanwhile.
    """
    act = PARTS[part](count, work)
    reset_peak(_CPU)
    before = read_peak(_CPU)
    began = time.perf_counter()
    further = act()
    seconds = time.perf_counter() - began - further.get("apart", 0.0)
    peak = read_peak(_CPU)
    values = {
        "seconds": seconds,
        "images_per_second": count / seconds,
        "peak_mib": peak,
        "added_mib": peak - before,
    }
    return [Record(SUITE, name_size(count), part, 0, metric, value) for metric, value in values.items()]


def fit_exponents(records: Sequence[Record]) -> list[Record]:
    r"""How steeply cost grows: the slope b of the straight line through its logarithms.

    .. math:: \log t(N) \approx a + b \log N

    by least squares over all sizes: 1 is linear, 2 is quadratic.

    Args:
        records: of :func:`measure_part`, in any order.

    Returns:
        ``exponent_seconds`` and ``exponent_added_mib`` of each part that was measured at two sizes or more
        and took more than nothing at each of them.
    """
    fitted = []
    sizes = {name_size(count): count for count in _read_sizes(records)}
    for part in dict.fromkeys(record.method for record in records):
        for metric in ("seconds", "added_mib"):
            found = {
                sizes[record.data]: record.value
                for record in records
                if (record.method, record.metric) == (part, metric) and record.data in sizes
            }
            if len(found) < 2 or min(found.values()) <= 0:
                continue
            slope = np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)[0]
            fitted.append(Record(SUITE, ALL, part, 0, f"exponent_{metric}", float(slope)))
    return fitted


def _read_sizes(records: Iterable[Record]) -> list[int]:
    names = {record.data for record in records if record.data.endswith(" images")}
    return sorted(int(name.removesuffix(" images").replace(",", "")) for name in names)


Act = Callable[[], dict[str, float]]
"""What is clocked; gives the seconds of it that are to be left out as ``apart``."""


def _read_data(count: int, work: Path) -> Act:
    """One epoch of views."""
    data = _draw_images(count)
    recipe = supervised_view("objects", SIDE)
    batches = ImageBatches(data.images, np.arange(count), 256, (recipe,), SIDE)

    def act() -> dict[str, float]:
        for _ in batches.epoch(0):
            pass
        return {}

    return act


def _build_bank(count: int, work: Path) -> Act:
    """A bank of one view, of a small network's features."""
    data = _draw_images(count)
    with draw_from(0, "growth"):
        network = create_network("resnet8", CLASSES, image_size=SIDE)
    runtime = Runtime(RuntimeConfig(device="cpu"))

    def act() -> dict[str, float]:
        build_bank(
            work / f"bank-{count}",
            network,
            data,
            np.arange(count),
            runtime,
            recipe=supervised_view("objects", SIDE),
            view_seed=0,
            views=1,
            image_size=SIDE,
            parts=frozenset({"features"}),
        )
        return {}

    return act


def _renew_beliefs(count: int, work: Path) -> Act:
    """The judge's update after an epoch, corrections included; neighbours are those of the start."""
    data = _draw_images(count)
    features, probabilities = _draw_outputs(data.labels)
    order = np.random.default_rng(1).permutation(count)
    holdout, train = order[: count // 10], order[count // 10 :]
    config = JudgeConfig(refresh_neighbours=0, correction=CorrectionConfig(first_epoch=0, stable_epochs=0))
    judge = Judge(data, train, holdout, features, probabilities, config, _CPU, epochs=2)
    seen = Predictions(torch.from_numpy(probabilities[holdout]).log().float(), features[holdout])

    def act() -> dict[str, float]:
        judge.close_epoch(0, seen)
        return {}

    return act


def _search_neighbours(count: int, work: Path) -> Act:
    """The judge's search for neighbours, exact up to 200,000 images and in cells beyond."""
    features, _ = _draw_outputs(_draw_images(count).labels)

    def act() -> dict[str, float]:
        find_neighbours(features.numpy(), NEIGHBOURS)
        return {}

    return act


def _audit(count: int, work: Path) -> Act:
    """Evidence and judgement of an audit; the search for neighbours is left out."""
    rng = np.random.default_rng(0)
    path = work / f"features-{count}.npy"
    features, given, _ = generate_features(count, FEATURES, CLASSES, NOISE, rng, path)

    def act() -> dict[str, float]:
        evidence = gather_evidence(features, given, CLASSES, None, rng)
        judge_labels(evidence.beliefs, given, JudgingConfig(), rng)
        return {"apart": evidence.seconds["neighbours"]}

    return act


PARTS: dict[str, Callable[[int, Path], Act]] = {
    "data": _read_data,
    "bank": _build_bank,
    "beliefs": _renew_beliefs,
    "neighbours": _search_neighbours,
    "audit": _audit,
}
"""What is measured: each prepares itself and gives what is clocked."""


def _draw_images(count: int) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    names = tuple(map(str, range(CLASSES)))
    return Dataset("drawn", ResidentImages(pixels), labels, names, np.arange(count).astype(np.str_))


def _draw_outputs(labels: Int64s) -> tuple[torch.Tensor, Floats]:
    """Features [N, D] and probabilities [N, K] as of a network that knows most classes."""
    rng = np.random.default_rng(2)
    true = np.where(rng.random(len(labels)) < NOISE, rng.integers(0, CLASSES, len(labels)), labels)
    centres = rng.standard_normal((CLASSES, FEATURES), dtype=np.float32)
    features = centres[true] + rng.standard_normal((len(labels), FEATURES), dtype=np.float32)
    logits = rng.standard_normal((len(labels), CLASSES))
    logits[np.arange(len(labels)), true] += 3
    probabilities = np.exp(logits)
    return torch.from_numpy(features), probabilities / probabilities.sum(1, keepdims=True)
