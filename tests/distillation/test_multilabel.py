"""The multi-label stages: their terms, what the first stage may move, what an unknown label may not do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lauter.data import ResidentImages
from lauter.data.batches import Batch
from lauter.data.dataset import Dataset
from lauter.distillation.heads import fit_student_head
from lauter.distillation.mimic import Mimic, MimicConfig
from lauter.distillation.multilabel import (
    MimicWithLabels,
    PresenceStage,
    check_multilabel,
    distill_multilabel,
    presence_loss,
    train_plainly,
)
from lauter.distillation.recipe import prepare_lesson
from lauter.distillation.source import SourceConfig
from lauter.distillation.stage import DistillStage
from lauter.distillation.teacher import LiveTeacher
from lauter.errors import ConfigError
from lauter.losses.mimic import lshl2
from lauter.losses.multilabel import binary_cross_entropy
from lauter.models import EmbeddedHead, Network, create_network
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.multilabel import MultiLabelSetup
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import draw_from

CONFIG = MimicConfig(
    epochs=1,
    embedding_epochs=1,
    batch_size=12,
    beta=2.0,
    gamma=0.5,
    hashes=64,
    head="embedded",
    optimizer=OptimizerConfig(lr=0.01),
)


def make_network(seed: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_network("resnet8", 3, image_size=16)


def make_setup() -> MultiLabelSetup:
    rng = np.random.default_rng(0)
    count = 36
    pixels = ResidentImages(rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8))
    nothing = np.full(count, -1, dtype=np.int64)
    data = Dataset("noise", pixels, nothing, ("a", "b", "c"), np.array([str(row) for row in range(count)]))
    targets = rng.choice([-1, 0, 1], (count, 3), p=[0.2, 0.5, 0.3]).astype(np.int8)
    targets[2] = -1
    loop = Loop(Runtime(RuntimeConfig(device="cpu", precision="32", workers=0)), Checkpoints(None))
    rows = np.arange(count)
    return MultiLabelSetup(data, rows[:24], rows[24:], None, loop, 16, "none", targets=targets)


def make_pair() -> tuple[Network, Network]:
    student, teacher = make_network(1), make_network(2).eval()
    with draw_from(0, "head"):
        fit_student_head(student, teacher, "embedded")
    return student, teacher


def make_stage(config: MimicConfig = CONFIG) -> DistillStage:
    setup = make_setup()
    student, teacher = make_pair()
    targets = torch.from_numpy(setup.targets)
    lesson = prepare_lesson(student, teacher, setup, targets, setup.train)
    method = MimicWithLabels(Mimic(config, lesson), config.gamma)
    config = replace(config, prior_correction=False)
    batches = setup.batches("student", setup.train, 12)
    live = LiveTeacher(teacher, torch.device("cpu"))
    return DistillStage(student, live, method, targets, batches, config, setup.track())


def first_batch(stage: DistillStage | PresenceStage) -> Batch:
    stage.begin_epoch(0)
    return next(iter(stage.batches.epoch(0)))


def test_the_terms_are_those_of_the_losses() -> None:
    stage = make_stage()
    batch = first_batch(stage)
    terms = stage.loss(batch)
    assert set(terms) == {"mimic", "presence"}
    assert stage.weights == {"mimic": 2.0, "presence": 0.5}
    method, head = stage.method, stage.student.head
    assert isinstance(method, MimicWithLabels)
    assert isinstance(head, EmbeddedHead)
    wanted, _ = make_pair()[1].features(batch.images)
    embedded = head.embed(stage.student.features(batch.images)[0])
    torch.testing.assert_close(
        terms["mimic"], lshl2(embedded, wanted, method.mimic.weight, method.mimic.bias)
    )
    known = stage.targets[batch.index]
    values = binary_cross_entropy(head.classify(embedded), known)[(known >= 0).any(1)]
    torch.testing.assert_close(terms["presence"], values.mean())


def test_gamma_0_learns_without_a_label() -> None:
    stage = make_stage(replace(CONFIG, gamma=0.0))
    assert set(stage.loss(first_batch(stage))) == {"mimic"}


def test_images_of_which_nothing_is_known_do_not_dilute_the_loss() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.5], [3.0, 3.0]])
    targets = torch.tensor([[1, 0], [0, 1], [-1, -1]])
    torch.testing.assert_close(presence_loss(logits, targets), presence_loss(logits[:2], targets[:2]))
    empty = presence_loss(logits.requires_grad_(), targets * 0 - 1)
    empty.backward()
    torch.testing.assert_close(empty.detach(), torch.tensor(0.0))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(3, 2))


def test_the_first_stage_moves_the_embedding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make_setup()
    student, teacher = make_pair()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    stages: list[DistillStage] = []

    def run_first(loop: Loop, stage: DistillStage) -> None:
        stages.append(stage)
        if len(stages) == 1:
            original(loop, stage)

    original = Loop.run_stage
    monkeypatch.setattr(Loop, "run_stage", run_first)
    distill_multilabel(student, teacher, setup, setup.train, CONFIG, setup.track())
    after = student.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"head.embedding.weight", "head.embedding.bias"}  # no running statistic of a batch norm
    assert [stage.name for stage in stages] == ["distill-embedding", "distill"]
    assert isinstance(stages[0].method, Mimic)  # the mimic loss alone, no label
    assert not stages[1].embedding_only
    assert stages[1].log_prior is None


def test_held_out_targets_and_unknown_ones_change_nothing() -> None:
    weights = []
    for flip in (False, True):
        setup = make_setup()
        targets = setup.targets.copy()
        if flip:
            targets[setup.holdout] = np.where(targets[setup.holdout] >= 0, 1 - targets[setup.holdout], -1)
        setup = replace(setup, targets=targets)
        student, teacher = make_pair()
        distill_multilabel(student, teacher, setup, setup.train, CONFIG, setup.track())
        weights.append(dict(student.state_dict()))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_plain_training_has_one_term() -> None:
    setup = make_setup()
    network = make_network(3)
    before = network.get_parameter("head.weight").detach().clone()
    stage = train_plainly(network, setup, setup.train, CONFIG, setup.track())
    batch = first_batch(stage)
    terms = stage.loss(batch)
    assert set(terms) == {"presence"}
    known = stage.targets[batch.index]
    torch.testing.assert_close(terms["presence"], presence_loss(network(batch.images).logits, known))
    assert len(stage.tracker.scores) == 1
    assert not torch.equal(network.get_parameter("head.weight"), before)


def test_what_only_single_labels_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="correct_only asks whether the teacher's best class"):
        check_multilabel(replace(CONFIG, correct_only=True))
    with pytest.raises(ConfigError, match="source is 'bank', but with several labels per image"):
        check_multilabel(replace(CONFIG, source=SourceConfig(kind="bank")))
