"""Where a teacher's outputs come from while a student trains: from the teacher, or from a bank."""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from lauter.data.batches import ImageBatches
from lauter.data.counters import derive_seed
from lauter.data.dataset import Int64s
from lauter.distillation.bank import BankTeacher
from lauter.distillation.bank_building import Choice, build_bank, choose_teacher_source
from lauter.distillation.bank_layout import plan_layout
from lauter.distillation.method import Part
from lauter.distillation.stored import Stored, StoredTeacher
from lauter.distillation.teacher import LiveTeacher, Teacher, live_parts
from lauter.errors import ConfigError
from lauter.files import read_json, write_json
from lauter.models import Network
from lauter.training.predict import predict
from lauter.training.setup import Setup

VIEW_SEED = derive_seed(0, "bank")
"""Of a bank's views and hashes where none is given, so that one bank serves students of any seed."""
TIMED_IMAGES = 256


@dataclass(frozen=True)
class SourceConfig:
    """Where the teacher's outputs come from.

    Attributes:
        kind: live (the teacher sees every picture that the student sees), bank (its outputs for some views of
            each image are computed once and kept on disk), or auto (whichever costs less here; measured once
            and written beside the checkpoints).
        views: V, how many views of each image a bank keeps; the student meets them again after V epochs.
        directory: folder of the bank, which other runs may share; empty for one in the run's own directory.
        students: how many students will learn from the bank, for auto.
        seed: draws views and hashes. None takes the run's own where the teacher is live, and one that is
            common to all runs for a bank; with the same number both meet the same views.
    """

    kind: Literal["live", "bank", "auto"] = "live"
    views: int = 16
    directory: str = ""
    students: int = 1
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("live", "bank", "auto"):
            raise ConfigError(f"the teacher's source must be live, bank or auto, not {self.kind!r}")
        if self.views < 1 or self.students < 1:
            raise ConfigError(
                f"a bank's views and students must be 1 or more, not {self.views} and {self.students}"
            )
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"the source's seed must be 0 or more, not {self.seed}")

    @property
    def bank_seed(self) -> int:
        """Of a bank's views and hashes."""
        return VIEW_SEED if self.seed is None else self.seed


def decide_source(
    config: SourceConfig,
    teacher: Network | Stored,
    setup: Setup,
    rows: Int64s,
    epochs: int,
    parts: frozenset[Part],
    hashes: int,
    name: str,
) -> Literal["live", "bank"]:
    """Live or bank: as asked for, or measured where that is ``auto``. A choice is made once for a run.

    Stored features are there already, so they count as live.

    Args:
        config: what was asked for.
        teacher: is timed on a few images.
        setup: images, loop.
        rows: images that teach.
        epochs: of a student.
        parts: what a bank would keep.
        hashes: N, where bits are kept.
        name: of the student's stage.

    Returns:
        The source; its reason is said and written to ``NAME.source.json`` beside the checkpoints.
    """
    if isinstance(teacher, Stored):
        if config.kind == "bank":
            raise ConfigError(
                f"{teacher.name}: a bank is built by a teacher that sees the views, and here are its stored "
                "features alone; leave out --distill.source.kind bank"
            )
        return "live"
    if config.kind != "auto":
        return config.kind
    choose = partial(_choose_once, config, teacher, setup, rows, epochs, parts, hashes, name)
    source: Literal["live", "bank"] = setup.loop.runtime.group.lead(choose)
    return source


def _choose_once(
    config: SourceConfig,
    teacher: Network,
    setup: Setup,
    rows: Int64s,
    epochs: int,
    parts: frozenset[Part],
    hashes: int,
    name: str,
) -> Literal["live", "bank"]:
    """What was chosen before, or else what costs less on this machine, which is said and written down."""
    folder = setup.loop.checkpoints.directory
    place = None if folder is None else folder / f"{name}.source.json"
    if place is not None and place.exists():
        source: Literal["live", "bank"] = read_json(place)["source"]
        return source
    if "maps" in parts:
        choice = Choice("live", "the method reads feature maps, which a bank does not keep")
    elif folder is None and not config.directory:
        choice = Choice("live", "there is no directory that a bank could be kept in")
    else:
        bits = hashes if "bits" in parts else 0
        layout = plan_layout(parts, teacher.feature_size, teacher.num_classes, bits)
        nearest = Path(config.directory or str(folder)).absolute()
        free = shutil.disk_usage(next(p for p in (nearest, *nearest.parents) if p.exists())).free
        seconds = time_teacher(teacher, setup, rows)
        choice = choose_teacher_source(
            seconds, epochs, config.views, config.students, len(rows), layout.row_bytes, free
        )
    setup.loop.progress.say(f"teacher     {choice.source}: {choice.reason}")
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"source": choice.source, "reason": choice.reason})
    return choice.source


def time_teacher(teacher: Network, setup: Setup, rows: Int64s) -> float:
    """Seconds that the teacher takes for an image, from a few hundred after one pass to warm up."""
    few = rows[:TIMED_IMAGES]
    runtime = setup.loop.runtime.alone()

    def ask() -> None:
        predict(teacher, setup.data.images, runtime, index=few, image_size=setup.image_size)

    ask()
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) / len(few)


def open_source(
    source: Literal["live", "bank"],
    config: SourceConfig,
    teacher: Network | Stored,
    setup: Setup,
    rows: Int64s,
    batch_size: int,
    parts: frozenset[Part],
    hashes: tuple[Tensor, Tensor] | None,
) -> tuple[Teacher, ImageBatches]:
    """The teacher of a student's stage, with the batches whose views it knows.

    Args:
        source: live or bank (see :func:`decide_source`).
        config: views and folder of a bank.
        teacher: a network, or its stored features.
        setup: images, loop.
        rows: images that teach.
        batch_size: images in a step.
        parts: what the method reads of the teacher.
        hashes: weights [N, D] and bias [N], where it reads bits.

    Raises:
        BankError: the folder holds another bank, or the disk has no room.
        ConfigError: there is no folder for a bank.
    """
    device = setup.loop.runtime.device
    if isinstance(teacher, Stored):
        batches = setup.batches("student", rows, batch_size, view_seed=config.seed)
        return StoredTeacher(teacher, device), batches
    if source == "live":
        live = LiveTeacher(teacher, device, want_maps="maps" in parts)
        setup.loop.runtime.split(teacher)
        return live, setup.batches("student", rows, batch_size, view_seed=config.seed)
    folder = setup.loop.checkpoints.directory
    if not config.directory and folder is None:
        raise ConfigError("a bank needs a folder: name one (source.directory), or run in a directory")
    bank = build_bank(
        config.directory or str(folder.parent / "bank" if folder else ""),
        teacher,
        setup.data,
        np.arange(len(setup.data)),  # held-out rows too: which ones a run holds out is a matter of its seed
        setup.loop.runtime,
        recipe=setup.view,
        view_seed=config.bank_seed,
        views=config.views,
        image_size=setup.image_size,
        parts=parts,
        hashes=hashes,
        progress=lambda done, total: setup.loop.progress.say(f"bank        {done:,} of {total:,} pictures"),
    )
    batches = setup.batches("student", rows, batch_size, view_seed=config.bank_seed, cycle=config.views)
    bank.require_batches(batches)
    return BankTeacher(bank, device), batches


def shown_parts(teacher: Network | Stored) -> frozenset[Part]:
    """What a teacher shows without further cost: features, and logits where it has them."""
    if isinstance(teacher, Stored):
        return frozenset({"features"} if teacher.logits is None else {"features", "logits"})
    return live_parts(teacher)
