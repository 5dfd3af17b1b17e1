"""The sections of ``lauter bench speed`` that read images or train."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from lauter.bench.distill_speed import BATCH, LOSSES, Course
from lauter.bench.records import Record
from lauter.bench.speed_course import (
    SUITE,
    MakeStage,
    SpeedConfig,
    interleave,
    record_rates,
    record_ratio,
    record_stage,
    time_stage,
)
from lauter.bench.yardstick import PictureFolder, time_bare, time_yardstick, time_yardstick_data
from lauter.data import Dataset
from lauter.data.dataset import Int64s
from lauter.data.views import ViewRecipe, contrastive_view
from lauter.errors import DataError
from lauter.models import create_network
from lauter.noisy.correction import CorrectionConfig
from lauter.noisy.judge import Judge, JudgeConfig
from lauter.noisy.pretrain import PretrainConfig, make_pretrain_stage
from lauter.noisy.robust import RobustConfig, RobustStage
from lauter.training.setup import Setup, draw_from
from lauter.training.stage import Stage
from lauter.training.supervised import SupervisedConfig

LOSS = LOSSES[-1]
NOISE, HOLDOUT = 0.4, 0.1
"""Share of wrong labels and of the hold-out in an epoch with beliefs."""


def measure_data(course: Course, config: SpeedConfig, *, against: bool = False) -> list[Record]:
    """The data path alone: views of training with labels, and pairs of views of self-supervised training.

    Args:
        course: images.
        config: repeats.
        against: whether the usual data path is timed as well.

    Returns:
        Images per second, a view counting as one; with ``against`` the ratio data_over_yardstick.
    """
    view = contrastive_view("objects", course.setup.image_size)
    ways: dict[str, Callable[[], float]] = {
        "data": partial(time_data, course),
        "data, two contrastive views": partial(time_data, course, (view, view)),
    }
    if against:
        ways["data yardstick"] = _take_usual(time_yardstick_data, course)
    found = interleave(ways, config.repeats, course.setup.loop.progress)
    name = _name_data(course, f"batches of {BATCH}")
    records = record_rates(name, found)
    if against:
        records.append(record_ratio(name, "data_over_yardstick", found, "data", "data yardstick"))
    return records


def time_data(course: Course, recipes: tuple[ViewRecipe, ...] | None = None) -> float:
    """Images per second of an epoch of batches that nobody looks at; each view counts."""
    batches = course.setup.batches("data", course.setup.train, BATCH, recipes)
    device = batches.device
    began, seen = time.perf_counter(), 0
    for batch in batches.epoch(0):
        seen += len(batch) * len(batch.views)
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return seen / (time.perf_counter() - began)


def measure_student(course: Course, config: SpeedConfig, *, against: bool = False) -> list[Record]:
    """The student without a teacher, beside the bare loop and the data path alone.

    Returns:
        Rates, what :func:`record_stage` says, and the ratios loop_over_bare and data_over_student; with
        ``against`` loop_over_yardstick.
    """
    peaks: list[float] = []
    bare = partial(
        time_bare,
        runtime=course.setup.loop.runtime,
        config=SupervisedConfig().optimizer,
        batch_size=BATCH,
        steps=len(course.setup.batches("student", course.setup.train, BATCH)),
    )
    ways: dict[str, Callable[[], float]] = {
        "student": partial(time_stage, course, course.make_plain, peaks),
        "bare": lambda: bare(course.build(1)),
        "data": partial(time_data, course),
    }
    if against:
        usual = _take_usual(time_yardstick, course)
        ways["yardstick"] = lambda: usual(student=course.build(1))
    found = interleave(ways, config.repeats, course.setup.loop.progress)
    name = _name_data(course, course.pair[1])
    records = record_rates(name, found)
    records += record_stage(course, name, "student", course.make_plain, found, peaks)
    records.append(record_ratio(name, "loop_over_bare", found, "student", "bare"))
    records.append(record_ratio(name, "data_over_student", found, "data", "student"))
    if against:
        records.append(record_ratio(name, "loop_over_yardstick", found, "student", "yardstick"))
    return records


def measure_live(course: Course, config: SpeedConfig, *, against: bool = False) -> list[Record]:
    """Mimicking a teacher that runs along; the ratios live_over_plain and live_over_yardstick."""
    return _measure_mimicking(course, config, "live", against)


def measure_bank(course: Course, config: SpeedConfig, *, against: bool = False) -> list[Record]:
    """Mimicking from a bank; the ratios bank_over_plain and bank_over_yardstick."""
    return _measure_mimicking(course, config, "bank", against)


def _measure_mimicking(course: Course, config: SpeedConfig, source: str, against: bool) -> list[Record]:
    def make(setup: Setup) -> Stage:
        return course.make_mimic(setup, LOSS, source)[0]

    peaks: list[float] = []
    make(course.fresh())  # builds the bank, where there is one
    ways: dict[str, Callable[[], float]] = {
        "plain": partial(time_stage, course, course.make_plain),
        source: partial(time_stage, course, make, peaks),
    }
    if against:
        pictures, workers = _read_pictures(course), max(1, torch.get_num_threads())
        ways["yardstick"] = lambda: course.time_yardstick(pictures, LOSS, workers)
    found = interleave(ways, config.repeats, course.setup.loop.progress)
    name = _name_data(course, " -> ".join(course.pair))
    records = record_rates(name, {key: rates for key, rates in found.items() if key != "plain"})
    records += record_stage(course, name, source, make, found, peaks)
    records.append(record_ratio(name, f"{source}_over_plain", found, source, "plain"))
    if against:
        records.append(record_ratio(name, f"{source}_over_yardstick", found, source, "yardstick"))
    return records


def measure_simclr(course: Course, config: SpeedConfig, *, against: bool = False) -> list[Record]:
    """Self-supervised pretraining, two views of each image; images per second count views."""

    def make(setup: Setup) -> Stage:
        pretrain = PretrainConfig(epochs=1, monitor_every=0)
        view = contrastive_view("objects", setup.image_size)
        size = min(pretrain.batch_size, len(setup.train))
        batches = setup.batches("pretrain", setup.train, size, (view, view))
        with draw_from(0, "speed simclr"):
            network = create_network(config.robust, course.data.num_classes, image_size=setup.image_size)
            return make_pretrain_stage(network, batches, pretrain, setup)

    return _measure_alone(course, config, "simclr", make)


def measure_robust(course: Course, config: SpeedConfig, *, against: bool = False) -> list[Record]:
    """An epoch of robust training with its belief update, without and with a search for neighbours.

    Returns:
        Rates and shares of both, and the ratio belief_share: what the judge takes of an epoch, the search in
        every so many epochs as it is by default, the pass over the hold-out counted in.
    """
    rng = np.random.default_rng(0)
    data = course.data
    rows = np.arange(min(config.robust_images, len(data)))
    flipped = rng.random(len(data)) < NOISE
    noisy = data.with_labels(np.where(flipped, rng.integers(0, data.num_classes, len(data)), data.labels))
    noisy = noisy.subset(rows)
    order = rng.permutation(len(noisy))
    holdout = np.sort(order[: max(1, round(HOLDOUT * len(noisy)))])
    train = np.sort(np.setdiff1d(order, holdout))
    setup = dataclasses.replace(course.setup, data=noisy, train=train, holdout=holdout)
    own = dataclasses.replace(course, data=noisy, setup=setup)
    records: list[Record] = []
    seconds, beliefs = {}, {}
    for name, every in (("robust", 0), ("robust, neighbours searched", 1)):
        found = _measure_alone(own, config, name, partial(_make_robust, config, every))
        values = {record.metric: record.value for record in found if record.method == name}
        seconds[every] = len(train) / values["images_per_second"]
        beliefs[every] = seconds[every] * (values["share_beliefs"] + values["share_epoch_end"])
        records += found
    every = JudgeConfig().refresh_neighbours
    weights = {0: 1 - 1 / every, 1: 1 / every} if every else {0: 1.0, 1: 0.0}
    share = sum(weights[k] * beliefs[k] for k in weights) / sum(weights[k] * seconds[k] for k in weights)
    return [*records, Record(SUITE, records[0].data, "belief_share", 0, "ratio", share)]


def _make_robust(config: SpeedConfig, every: int, setup: Setup) -> RobustStage:
    """A stage of one epoch after which labels are corrected too."""
    data = setup.data
    with draw_from(0, "speed robust"):
        network = create_network(config.robust, data.num_classes, image_size=setup.image_size)
    judging = JudgeConfig(
        refresh_neighbours=every, correction=CorrectionConfig(first_epoch=0, stable_epochs=0)
    )
    robust = RobustConfig(epochs=1, judge=judging)
    seen = setup.predict(network)
    judge = Judge(
        data,
        setup.train,
        setup.holdout,
        seen.features,
        seen.logits.double().softmax(1).numpy(),
        judging,
        setup.loop.runtime.device,
        epochs=1,
    )
    batches = setup.batches("robust", setup.train, robust.batch_size)
    return RobustStage(network, judge, batches, robust, setup.track())


def _measure_alone(course: Course, config: SpeedConfig, name: str, make: MakeStage) -> list[Record]:
    """Rates and shares of one stage."""
    peaks: list[float] = []
    ways = {name: partial(time_stage, course, make, peaks)}
    found = interleave(ways, config.repeats, course.setup.loop.progress)
    data = _name_data(course, config.robust)
    return record_rates(data, found) + record_stage(course, data, name, make, found, peaks)


def _name_data(course: Course, what: str) -> str:
    """What the records' data is called: network or batches, image size, precision."""
    side, precision = course.setup.image_size, course.setup.loop.runtime.precision
    return f"{what}, {side} x {side}, {'bfloat16' if precision == 'bf16' else 'float32'}"


def _read_pictures(course: Course) -> PictureFolder:
    """The images of the timed epochs, as the usual loop has them."""
    data: Dataset = course.data
    rows: Int64s = course.setup.train
    if data.images.uniform is None:
        raise DataError(f"{data.name}: the usual loop is timed on images of one size; take CIFAR-10")
    return PictureFolder(data.images.uniform[rows], data.labels[rows])


def _take_usual(act: Callable[..., float], course: Course) -> Callable[..., float]:
    """A yardstick on the images of the timed epochs, with as many loading processes as torch has threads."""
    return partial(
        act,
        _read_pictures(course),
        batch_size=BATCH,
        workers=max(1, torch.get_num_threads()),
        device=course.setup.loop.runtime.device,
    )
