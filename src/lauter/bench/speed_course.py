"""What the sections of ``lauter bench speed`` share: images, networks, clock, and the records they make."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from lauter.bench.distill_speed import BATCH, Course
from lauter.bench.matrix_peak import measure_matrix_peak
from lauter.bench.memory import read_peak, reset_peak
from lauter.bench.ranges import share_time
from lauter.bench.records import Record
from lauter.data import open_dataset
from lauter.errors import ConfigError
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import Setup
from lauter.training.stage import Stage

SUITE = "speed"
MakeStage = Callable[[Setup], Stage]
"""Builds a stage of one epoch, ready to run in a fresh setup."""


@dataclass(frozen=True)
class SpeedConfig:
    """Sizes and repeats.

    Attributes:
        repeats: of every way; medians over them count.
        steps: of 64 images in a timed epoch of teacher and student.
        pair: names of teacher and student.
        robust: name of the network of the sections simclr and robust.
        robust_images: images of an epoch with beliefs.
        audit_images: drawn features that are audited.
        audit_features: size of each.
        calls: of an exported network in a repeat.
    """

    repeats: int = 5
    steps: int = 40
    pair: tuple[str, str] = ("resnet32x4", "resnet8x4")
    robust: str = "resnet20"
    robust_images: int = 10_000
    audit_images: int = 20_000
    audit_features: int = 512
    calls: int = 50

    def __post_init__(self) -> None:
        for name in ("repeats", "steps", "robust_images", "audit_images", "audit_features", "calls"):
            if getattr(self, name) < 1:
                raise ConfigError(f"bench speed's {name} must be 1 or more, not {getattr(self, name)}")


@contextmanager
def open_course(
    folder: Path, work: Path, runtime: RuntimeConfig, config: SpeedConfig, console: Console | None = None
) -> Iterator[Course]:
    """Images, networks and a quiet loop.

    Args:
        folder: CIFAR-10, or any images of one size.
        work: where banks and traces are kept.
        runtime: device and precision.
        config: sizes.
        console: where progress is shown.
    """
    size = max(config.steps * BATCH, config.robust_images)
    data = open_dataset(folder, split="train", label_column="label", size=size)
    with Progress(None, console) as progress:
        loop = Loop(Runtime(runtime), Checkpoints(None), progress, 0)
        rows = np.arange(min(config.steps * BATCH, len(data)))
        side = 32 if data.images.uniform is None else data.images.uniform.shape[-1]
        setup = Setup(data, rows, rows[:BATCH], None, loop, side, "objects")
        yield Course(data, setup, config.pair, work)


def time_stage(course: Course, make: MakeStage, peaks: list[float] | None = None) -> float:
    """Images per second of a stage; its time includes what follows its epoch.

    Args:
        course: what it is trained on.
        make: builds it.
        peaks: takes in the peak memory of the process in MiB meanwhile.
    """
    setup = course.fresh()
    stage = make(setup)
    device = setup.loop.runtime.device
    reset_peak(device)
    setup.loop.run_stage(stage)
    if peaks is not None:
        peaks.append(read_peak(device))
    cost = setup.loop.costs[stage.name]
    return cost.images / cost.seconds


def interleave(
    ways: Mapping[str, Callable[[], float]], repeats: int, progress: Progress
) -> dict[str, list[float]]:
    """Images per second of every way in every repeat, the ways in turn, after one round to warm up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            rate = run()
            if repeat:
                found[name].append(rate)
            progress.say(f"{repeat or 'warm-up'}/{repeats} {name}: {rate:,.0f} images/s")
    return found


def record_rates(data: str, found: Mapping[str, list[float]]) -> list[Record]:
    """Median, smallest and largest images per second of every way."""
    return [
        Record(SUITE, data, name, 0, metric, value)
        for name, values in found.items()
        for metric, value in (
            ("images_per_second", float(np.median(values))),
            ("images_per_second_low", min(values)),
            ("images_per_second_high", max(values)),
        )
    ]


def record_ratio(data: str, name: str, found: Mapping[str, list[float]], over: str, under: str) -> Record:
    """One way's rate over another's: the median over the repeats of their quotients."""
    pairs = zip(found[over], found[under], strict=True)
    return Record(SUITE, data, name, 0, "ratio", float(np.median([above / below for above, below in pairs])))


def record_stage(
    course: Course,
    data: str,
    name: str,
    make: MakeStage,
    found: Mapping[str, list[float]],
    peaks: list[float],
) -> list[Record]:
    """What else there is to say of a trained stage.

    Args:
        course: what it is trained on.
        data: of the records.
        name: of the way.
        make: builds the stage.
        found: images per second by way.
        peaks: memory in MiB of its runs.

    Returns:
        Operations per second, their share of the machine's matrix product in the same precision, peak memory,
        and the share of its time that each part of the stage takes: medians over as many further runs. A
        trace of one more run lies in the course's folder.
    """
    rounds = []
    for _ in found[name]:
        setup = course.fresh()
        rounds.append(share_time(setup.loop, make(setup)))
    setup = course.fresh()
    stage = make(setup)
    share_time(setup.loop, stage, course.folder / "traces" / f"{name.replace(' ', '-')}.json")
    runtime = setup.loop.runtime
    flops = stage.flops_per_image * float(np.median(found[name]))
    values = {
        "flops_per_second": flops,
        "of_peak": flops / measure_matrix_peak(runtime.precision, runtime.device),
        "peak_mib": max(peaks),
        "threads": float(torch.get_num_threads()),
    }
    for part in rounds[0]:
        values[f"share_{part}"] = float(np.median([shares[part] for shares in rounds]))
    return [Record(SUITE, data, name, 0, metric, value) for metric, value in values.items()]
