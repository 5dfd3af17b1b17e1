"""The distillation recipe: from a teacher and believed labels to a trained student."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lauter.data.dataset import Int64s
from lauter.distillation.method import Lesson, Method, Part
from lauter.distillation.mimic import Mimic, MimicConfig, choose_hashes, read_parts
from lauter.distillation.source import decide_source, open_source, shown_parts
from lauter.distillation.stage import DistillStage
from lauter.distillation.stored import Stored
from lauter.errors import ModelError
from lauter.models import Network
from lauter.training.predict import eval_mode
from lauter.training.setup import Setup, draw_from

MakeMethod = Callable[[Lesson], Method]


def distill_into(
    student: Network,
    teacher: Network | Stored,
    setup: Setup,
    targets: Tensor,
    rows: Int64s,
    config: MimicConfig,
    *,
    rival: tuple[MakeMethod, frozenset[Part]] | None = None,
    name: str = "distill",
) -> DistillStage:
    """Train a student on what a teacher shows; its embedding alone first, where that is asked for.

    Args:
        student: with its final head; trained in place.
        teacher: a network, which is frozen, or its stored features of the whole data set.
        setup: images, hold-out, loop.
        targets: [N] labels to classify, -1 for none.
        rows: which images teach.
        config: lengths, optimiser, the teacher's source and, where there is no rival, the mimic loss.
        rival: builds another method than mimicking, and the parts of the teacher that it reads.
        name: of the stage.

    Returns:
        The finished stage.

    Raises:
        DataError: the stored features are those of more or fewer images.
        ModelError: teacher or student lack what the method needs.
        BankError: the bank cannot be built, or is another one.
    """
    hashes = config.hashes or choose_hashes(teacher.feature_size, setup.image_size)
    kept = read_parts(config, banked=True) if rival is None else rival[1]
    source = decide_source(config.source, teacher, setup, rows, config.epochs, kept, hashes, name)
    lesson = prepare_lesson(
        student, teacher, setup, targets, rows, kept if source == "bank" else shown_parts(teacher)
    )
    with draw_from(lesson.seed, f"method of {name}"):
        method = Mimic(config, lesson) if rival is None else rival[0](lesson)
    parts = kept if source == "bank" else method.needs
    drawn = method.hashes if isinstance(method, Mimic) and "bits" in parts else None
    shower, batches = open_source(
        source, config.source, teacher, setup, rows, config.batch_size, parts, drawn
    )
    for first in (True, False) if config.embedding_epochs else (False,):
        stage = DistillStage(
            student,
            shower,
            method,
            targets,
            batches,
            config,
            setup.track(),
            f"{name}-embedding" if first else name,
            embedding_only=first,
        )
        setup.loop.run_stage(stage)
    return stage


def prepare_lesson(
    student: Network,
    teacher: Network | Stored,
    setup: Setup,
    targets: Tensor,
    rows: Int64s,
    shown: frozenset[Part] | None = None,
) -> Lesson:
    """What a method may know: sizes, the teacher's classifier and its features of the unchanged images.

    Args:
        student: with its final head.
        teacher: a network, or its stored features of the whole data set.
        setup: images, loop.
        targets: [N] labels to classify, -1 for none.
        rows: which images teach.
        shown: parts that the teacher will show; those of a live one where None.

    Raises:
        DataError: the stored features are those of more or fewer images.
    """
    banked = shown is not None and "bits" in shown
    if isinstance(teacher, Stored):
        teacher.require_images(len(setup.data))
        everything = teacher.features
        head, features = None, teacher.take(rows).features
        maps: tuple[tuple[int, int, int], ...] = ()
    else:
        head = teacher.head if type(teacher.head) is nn.Linear else None
        everything = setup.predict(teacher, None if banked else rows).features
        features = everything[torch.from_numpy(rows)] if banked else everything
        maps = shape_of_maps(teacher, setup.image_size)
    return Lesson(
        student,
        teacher.feature_size,
        teacher.num_classes,
        head,
        features,
        rows,
        targets,
        shown_parts(teacher) if shown is None else shown,
        shape_of_maps(student, setup.image_size),
        maps,
        setup.image_size,
        setup.loop.seed,
        everything if banked else None,
    )


@torch.no_grad()
def shape_of_maps(network: Network, image_size: int) -> tuple[tuple[int, int, int], ...]:
    """(channels, height, width) of a network's maps by depth; empty where it shows none."""
    pixels = torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device)
    try:
        with eval_mode(network):
            _, maps = network.features(pixels, want_maps=True)
    except ModelError:
        return ()
    return tuple((entry.shape[1], entry.shape[2], entry.shape[3]) for entry in maps)
